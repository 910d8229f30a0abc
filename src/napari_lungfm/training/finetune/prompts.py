"""Prompts of a simulated user on a marked slice."""

import numpy as np
from scipy import ndimage

from napari_lungfm._core.types import SliceMask
from napari_lungfm.models.prompts import Box, Click


def random_click(mask: SliceMask, z: int, rng: np.random.Generator) -> Click:
    """Return a positive click anywhere inside.

    Parameters
    ----------
    mask
        The structure ``(y, x)``, on at least one pixel.
    z
        Number of the slice.
    rng
        Draws the place.
    """
    inside = np.argwhere(mask)
    y, x = inside[int(rng.integers(len(inside)))]
    return Click(z, int(y), int(x), positive=True)


def middle_click(mask: SliceMask, z: int) -> Click:
    """Return a positive click where the structure is thickest.

    Parameters
    ----------
    mask
        The structure ``(y, x)``, on at least one pixel.
    z
        Number of the slice.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(np.argmax(depth)), mask.shape)
    return Click(z, int(y), int(x), positive=True)


def tight_box(mask: SliceMask, z: int) -> Box:
    """Return the tight box of a structure on a slice."""
    return Box.around(mask, z)
