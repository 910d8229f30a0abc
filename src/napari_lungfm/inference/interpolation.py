"""Shapes between two slices."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_lungfm._core.types import SliceMask


def interpolated_mask(lower: SliceMask, upper: SliceMask, weight: float) -> SliceMask:
    """Shape-based interpolation of a mask between two slices.

    The signed distances to the two outlines are mixed linearly and cut at zero (Raya & Udupa,
    IEEE Trans. Med. Imaging 9, 1990, 32-42).

    Parameters
    ----------
    lower, upper
        Non-empty boolean masks ``(y, x)`` of one shape.
    weight
        Weight of ``upper``, 0 to 1.

    Returns
    -------
    ndarray
        Boolean ``(y, x)``; empty where the two lie too far apart to have a shape between them.
    """
    both = lower | upper
    rows, columns = np.flatnonzero(both.any(axis=1)), np.flatnonzero(both.any(axis=0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    distance = (1.0 - weight) * _signed_distance(lower[window])
    distance += weight * _signed_distance(upper[window])
    mask = np.zeros_like(lower)
    mask[window] = distance > 0
    return mask


def _signed_distance(mask: SliceMask) -> npt.NDArray[np.float64]:
    """Distance in pixels to the outline, positive inside; the frame counts as outside."""
    padded = np.pad(mask, 1)
    inside = ndimage.distance_transform_edt(padded)
    outside = ndimage.distance_transform_edt(~padded)
    signed: npt.NDArray[np.float64] = (inside - outside)[1:-1, 1:-1]
    return signed
