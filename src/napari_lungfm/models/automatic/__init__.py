"""Automatic models: a volume in, a label map on the same grid out, no prompts.

`protocol` says what such a model is. `lungmask_model` and `classical_lungs` find the lungs,
`slice_network` applies U-Net and DeepLabV3, `trained` reads and writes the folders that training
leaves, `postprocessing` has what may be done to a result afterwards.
"""
