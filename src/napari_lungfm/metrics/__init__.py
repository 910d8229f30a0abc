"""Overlap, surface and size measures of masks."""
