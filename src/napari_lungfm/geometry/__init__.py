"""Voxels and where they lie in the patient.

Arrays are ``(z, y, x)``; positions are millimetres in DICOM's patient system LPS (x to the
patient's left, y to the back, z to the head), as in SimpleITK. NIfTI's RAS is converted at the
border only.
"""

from napari_lungfm.geometry.grid import VolumeGeometry
from napari_lungfm.geometry.matching import lattice_offset, match_geometry
from napari_lungfm.geometry.orientation import axis_codes, reorient, to_axial
from napari_lungfm.geometry.volumes import (
    LUNG_LABELS,
    LabelMap,
    Structure,
    Volume,
    bounding_region,
)

__all__ = [
    "LUNG_LABELS",
    "LabelMap",
    "Structure",
    "Volume",
    "VolumeGeometry",
    "axis_codes",
    "bounding_region",
    "lattice_offset",
    "match_geometry",
    "reorient",
    "to_axial",
]
