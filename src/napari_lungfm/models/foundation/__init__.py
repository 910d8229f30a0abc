"""Promptable foundation models on the stock packages, one adapter per family.

Nothing heavy is imported here: `sam_image` (MedSAM, LiteMedSAM, SAM, MedicoSAM) and `sam2_video`
(MedSAM 2, SAM 2.1 and models of the same build) import torch, and their model packages when one
is built.
"""
