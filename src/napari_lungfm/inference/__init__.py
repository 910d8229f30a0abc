"""Driving promptable models: the annotation session, propagation, assembly of masks."""

from napari_lungfm.inference.propagation import propagate_object, require_axial
from napari_lungfm.inference.segmentation import annotate, segment_object, segment_objects
from napari_lungfm.inference.session import AnnotationSession, CacheBudget

__all__ = [
    "AnnotationSession",
    "CacheBudget",
    "annotate",
    "propagate_object",
    "require_axial",
    "segment_object",
    "segment_objects",
]
