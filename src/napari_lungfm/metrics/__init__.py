"""Overlap, surface and size measures of masks.

Masks are boolean ``(z, y, x)`` arrays on one grid. A score that does not exist is NaN, never 0
or 1; see `overlap` and `surface` for the rules on empty masks.
"""

from napari_lungfm.metrics._checks import check_mask, check_pair
from napari_lungfm.metrics.overlap import (
    Counts,
    SliceCounts,
    count_overlap,
    count_overlap_per_slice,
)
from napari_lungfm.metrics.size import (
    BeyondEnds,
    Diameters,
    axial_diameters,
    mean_hu,
    slices_beyond_ends,
    volume_difference_ml,
    volume_ml,
)
from napari_lungfm.metrics.surface import (
    TOLERANCES_MM,
    Surface,
    SurfaceScores,
    find_surface,
    surface_scores,
    weighted_percentile,
)

__all__ = [
    "TOLERANCES_MM",
    "BeyondEnds",
    "Counts",
    "Diameters",
    "SliceCounts",
    "Surface",
    "SurfaceScores",
    "axial_diameters",
    "check_mask",
    "check_pair",
    "count_overlap",
    "count_overlap_per_slice",
    "find_surface",
    "mean_hu",
    "slices_beyond_ends",
    "surface_scores",
    "volume_difference_ml",
    "volume_ml",
    "weighted_percentile",
]
