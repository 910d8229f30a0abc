"""Prompts in patient millimetres, turned into voxel prompts."""

from collections.abc import Sequence

import numpy as np

from napari_lungfm._core.exceptions import PromptError
from napari_lungfm._core.types import Vector3
from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.models.prompts import Box, Click, Stop


def box_from_world(geometry: VolumeGeometry, corner: Vector3, opposite: Vector3) -> Box:
    """Return the box between two corners, with every voxel whose centre lies between them.

    Parameters
    ----------
    geometry
        Grid of the image; rows and columns may be swapped or flipped in it.
    corner, opposite
        LPS ``(x, y, z)`` in mm; both on one slice, to half a slice spacing.

    Raises
    ------
    PromptError
        If the corners lie on different slices or no voxel centre lies between them.
    """
    low, high = np.sort(geometry.world_to_index([corner, opposite]), axis=0)
    z = _slice_of(float(low[0] + high[0]) / 2)
    if high[0] - low[0] > 1.0:
        msg = (
            f"the corners {_mm(corner)} and {_mm(opposite)} mm lie on the slices {low[0]:.1f} and "
            f"{high[0]:.1f} of the image; a box needs both on one slice"
        )
        raise PromptError(msg)
    # Rounding keeps a corner that was computed from an index from falling on either side of it.
    first = np.ceil(np.round(low[1:], 6)).astype(int)
    last = np.floor(np.round(high[1:], 6)).astype(int)
    if (last < first).any():
        msg = f"no voxel centre lies in the box from {_mm(corner)} to {_mm(opposite)} mm"
        raise PromptError(msg)
    return Box(z, int(first[0]), int(first[1]), int(last[0]) + 1, int(last[1]) + 1)


def click_from_world(geometry: VolumeGeometry, point: Vector3, *, positive: bool = True) -> Click:
    """Return a click on the voxel that is nearest to an LPS point ``(x, y, z)`` in mm."""
    z, y, x = (int(i) for i in np.floor(geometry.world_to_index(point) + 0.5))
    return Click(z, y, x, positive)


def stop_from_world(geometry: VolumeGeometry, z_mm: float) -> Stop:
    """Return a stop on the slice that is nearest to an LPS height in mm.

    Raises
    ------
    PromptError
        If the slices are oblique, so that a height alone names none.
    """
    axis = np.asarray(geometry.direction)[:, 2]
    if abs(axis[2]) < 1.0 - 1e-4:
        msg = "the slices are oblique: give the stop as a slice index, without --mm"
        raise PromptError(msg)
    x, y, _ = geometry.origin
    return Stop(_slice_of(float(geometry.world_to_index((x, y, z_mm))[0])))


def _slice_of(index: float) -> int:
    return int(np.floor(index + 0.5))


def _mm(point: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:.1f}" for v in point) + ")"
