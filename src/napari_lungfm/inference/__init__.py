"""Driving promptable models: propagation through slices and assembly of masks."""

from napari_lungfm.inference.propagation import propagate_object, require_axial
from napari_lungfm.inference.segmentation import segment_object, segment_objects

__all__ = ["propagate_object", "require_axial", "segment_object", "segment_objects"]
