"""Sizes of a shape given as fractions or distances on a grid."""

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist
from skimage.measure import find_contours

from napari_lungfm.datasets.phantoms.fields import Array


def longest_diameter(values: Array, level: float, spacing_yx: tuple[float, float]) -> float:
    """Longest straight line in mm between two points of the outline on any one axial slice.

    This is what RECIST 1.1 (Eisenhauer et al., Eur J Cancer 2009) measures.

    Parameters
    ----------
    values
        ``(z, y, x)``; inside where larger than ``level``. Outlines lie between voxel centres.
    level
        Value of the outline.
    spacing_yx
        Pixel spacing ``(y, x)`` in mm.
    """
    sizes = [_slice_diameter(s, level, spacing_yx) for s in values if s.max() > level]
    return max(sizes, default=0.0)


def _slice_diameter(values: Array, level: float, spacing_yx: tuple[float, float]) -> float:
    padded = np.pad(values, 1, constant_values=min(float(values.min()), level - 1e-3))
    points = np.vstack(find_contours(padded.astype(np.float64), level))
    points = np.unique(points * np.array(spacing_yx), axis=0)
    return float(pdist(_hull(points)).max()) if len(points) > 1 else 0.0


def _hull(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if len(points) < 4:
        return points
    try:
        hull: npt.NDArray[np.float64] = points[ConvexHull(points).vertices]
    except QhullError:  # all on one line
        return points
    return hull
