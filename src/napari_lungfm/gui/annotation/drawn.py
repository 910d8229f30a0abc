"""From what is drawn in a layer to prompts, and back: voxels and the edges between them."""

import numpy as np
import numpy.typing as npt

from napari_lungfm.models.prompts import Box, Click


def corners_of(box: Box) -> npt.NDArray[np.float64]:
    """Return the corners ``(4, 3)`` of a box along the outer edges of its voxels."""
    y0, x0, y1, x1 = box.y0 - 0.5, box.x0 - 0.5, box.y1 - 0.5, box.x1 - 0.5
    return np.array([(box.z, y0, x0), (box.z, y0, x1), (box.z, y1, x1), (box.z, y1, x0)])


def box_of(corners: npt.NDArray[np.float64], shape: tuple[int, int, int]) -> Box | None:
    """Return the box with every voxel whose centre lies within drawn corners ``(4, 3)``.

    What lies outside the slice is cut off. ``None`` if fewer than 2 × 2 voxels remain: a click
    that was meant for something else.
    """
    low, high = corners.min(axis=0), corners.max(axis=0)
    # Rounding keeps a corner that was computed from an index from falling on either side of it.
    y0, x0 = (max(int(v), 0) for v in np.ceil(np.round(low[1:], 4)))
    y1, x1 = (int(v) + 1 for v in np.floor(np.round(high[1:], 4)))
    y1, x1 = min(y1, shape[1]), min(x1, shape[2])
    if y1 - y0 < 2 or x1 - x0 < 2:
        return None
    return Box(int(np.floor(low[0] + 0.5)), y0, x0, y1, x1)


def lies_outside(corners: npt.NDArray[np.float64], shape: tuple[int, int, int]) -> bool:
    """Tell whether nothing between drawn corners ``(4, 3)`` lies on the image."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    return bool((high < -0.5).any() or (low > np.array(shape) - 0.5).any())


def click_of(
    place: npt.NDArray[np.float64], shape: tuple[int, int, int], *, positive: bool
) -> Click | None:
    """Return the click on the voxel that is nearest to a place; ``None`` outside the image."""
    z, y, x = (int(v) for v in np.floor(place + 0.5))
    inside = all(0 <= i < n for i, n in zip((z, y, x), shape, strict=True))
    return Click(z, y, x, positive) if inside else None
