"""Crop and pad without touching a voxel value, and undo it exactly."""

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.exceptions import GeometryError, UsageError
from napari_lungfm._core.types import Index3, Region
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry, lattice_offset

Image = TypeVar("Image", Volume, LabelMap)


def crop_or_pad(image: Image, shape: Index3, *, fill: float = 0) -> Image:
    """Cut or extend an image to a shape around its centre.

    Every voxel keeps its place in the patient; ``place_on(result, image.geometry)`` brings what
    was not cut off back to where it was.

    Parameters
    ----------
    image
        A volume or label map.
    shape
        The wanted number of voxels ``(z, y, x)``. An odd voxel is added or cut at the far end.
    fill
        Value of added voxels.

    Raises
    ------
    UsageError
        If a size is below 1.
    """
    if len(shape) != 3 or min(shape) < 1:
        msg = f"cannot crop or pad to the shape {tuple(shape)}: it needs three positive sizes"
        raise UsageError(msg)
    starts = [_centred_start(old, new) for old, new in zip(image.shape, shape, strict=True)]
    target = image.geometry.window((starts[0], starts[1], starts[2]), shape)
    return place_on(image, target, fill=fill)


def place_on(image: Image, geometry: VolumeGeometry, *, fill: float = 0) -> Image:
    """Put an image on another grid over the same lattice of voxels with the same axes.

    The inverse of cropping and padding: voxels outside ``geometry`` are cut off, missing ones
    filled. (`geometry.match_geometry` refuses to cut off labels; use it on labels from elsewhere.)

    Parameters
    ----------
    image
        A volume or label map.
    geometry
        The wanted grid.
    fill
        Value of the voxels that ``image`` does not cover.

    Raises
    ------
    GeometryError
        If the voxels of the two grids do not coincide.
    """
    offset = lattice_offset(image.geometry, geometry)
    if offset is None:
        msg = (
            "the two grids do not share their voxels: "
            f"{image.geometry.to_dict()} and {geometry.to_dict()}; resample instead"
        )
        raise GeometryError(msg)
    source, target = _overlap(offset, image.shape, geometry.shape)
    array: npt.NDArray[Any] = np.full(geometry.shape, fill, dtype=image.array.dtype)
    array[target] = image.array[source]
    return replace(image, array=array, geometry=geometry)


def _centred_start(old: int, new: int) -> int:
    difference = old - new
    # Truncated towards zero, so that cropping what was padded starts at the old first voxel.
    return difference // 2 if difference >= 0 else -(-difference // 2)


def _overlap(offset: Index3, source: Index3, target: Index3) -> tuple[Region, Region]:
    inside, onto = [], []
    for shift, n_source, n_target in zip(offset, source, target, strict=True):
        start = max(0, shift)
        stop = max(start, min(n_target, shift + n_source))
        onto.append(slice(start, stop))
        inside.append(slice(start - shift, stop - shift))
    return (inside[0], inside[1], inside[2]), (onto[0], onto[1], onto[2])
