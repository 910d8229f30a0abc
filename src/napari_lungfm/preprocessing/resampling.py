"""Bring images and label maps onto other grids by place in the patient."""

from itertools import product
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import SimpleITK

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import Region, Vector3
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry, bounding_region
from napari_lungfm.io import to_sitk
from napari_lungfm.preprocessing.windowing import check_no_nan

#: How values between voxel centres are found.
Interpolation: TypeAlias = Literal["nearest", "linear", "bspline"]

#: HU of air, which lies around the patient.
AIR_HU = -1000.0

_INTERPOLATORS: dict[str, int] = {
    "nearest": SimpleITK.sitkNearestNeighbor,
    "linear": SimpleITK.sitkLinear,
    "bspline": SimpleITK.sitkBSpline,
}


def resample_volume(
    volume: Volume,
    target: VolumeGeometry | Vector3,
    *,
    interpolation: Interpolation = "linear",
    fill: float | None = None,
) -> Volume:
    """Return an image on another grid, or with another spacing.

    Values are taken at the new voxel centres, without smoothing first, as SimpleITK, TorchIO and
    MONAI do by default.

    Parameters
    ----------
    volume
        The image.
    target
        The new grid; or a spacing ``(z, y, x)`` in mm, for a grid that covers the same box.
    interpolation
        ``"linear"``, ``"bspline"`` (cubic; may leave the range of the values) or ``"nearest"``.
    fill
        Value outside of the image; air (−1000 HU) when not given, or the smallest value of the
        image where that is higher.

    Returns
    -------
    Volume
        float32; the dtype of the image with ``"nearest"``.

    Raises
    ------
    DataError
        If a voxel is NaN.
    UsageError
        If there is no such interpolation.
    GeometryError
        If the spacing is not positive.
    """
    if interpolation not in _INTERPOLATORS:
        msg = f"there is no interpolation '{interpolation}'; choose from {list(_INTERPOLATORS)}"
        raise UsageError(msg)
    check_no_nan(volume.array)
    geometry = target if isinstance(target, VolumeGeometry) else resampled_grid(volume, target)
    outside = max(AIR_HU, float(volume.array.min())) if fill is None else float(fill)
    array = _resample(
        volume,
        geometry,
        interpolator=_INTERPOLATORS[interpolation],
        fill=outside,
        pixel_type=SimpleITK.sitkUnknown if interpolation == "nearest" else SimpleITK.sitkFloat32,
    )
    return Volume(array, geometry, volume.metadata)


def resample_labels(label_map: LabelMap, target: VolumeGeometry) -> LabelMap:
    """Return labels on another grid, each voxel with the label that has most of it.

    The mask of each label is interpolated linearly and the largest share wins, the background's
    included; a tie with the background goes to the label, so that a thin structure is not lost.
    From a grid to 3 × 1 × 1 mm and back this loses less than taking the nearest voxel: balls of
    5 / 10 / 20 mm keep a Dice of 0.889 / 0.954 / 0.975 from 1.25 × 0.7 × 0.7 mm, against 0.854 /
    0.930 / 0.965, and never noticeably less from other spacings.

    Parameters
    ----------
    label_map
        The labels.
    target
        The new grid.

    Returns
    -------
    LabelMap
        Same dtype and names; background outside of the old grid.
    """
    result = np.zeros(target.shape, dtype=label_map.array.dtype)
    region = bounding_region(label_map.array != 0, margin=1)
    if region is None:
        return LabelMap(result, target, label_map.labels)
    part = label_map.crop(region)
    place = _covered(part.geometry, target)
    if place is not None:
        result[place] = _largest_share(part, target.crop(place))
    return LabelMap(result, target, label_map.labels)


def resampled_grid(volume: Volume | LabelMap, spacing: Vector3) -> VolumeGeometry:
    """Return the grid of an image with another spacing; its own grid where that is the same."""
    geometry = volume.geometry
    resampled = geometry.resampled(spacing)
    return geometry if geometry.is_close(resampled) else resampled


def _resample(
    volume: Volume, target: VolumeGeometry, *, interpolator: int, fill: float, pixel_type: int
) -> npt.NDArray[Any]:
    moved = SimpleITK.Resample(
        to_sitk(volume),
        [int(n) for n in target.shape[::-1]],
        SimpleITK.Transform(3, SimpleITK.sitkIdentity),
        interpolator,
        target.origin,
        target.spacing[::-1],
        np.ravel(target.direction).tolist(),
        fill,
        pixel_type,
    )
    return np.asarray(SimpleITK.GetArrayFromImage(moved))


def _largest_share(label_map: LabelMap, target: VolumeGeometry) -> npt.NDArray[Any]:
    best = np.zeros(target.shape, dtype=np.float32)
    background = np.ones(target.shape, dtype=np.float32)
    result = np.zeros(target.shape, dtype=label_map.array.dtype)
    for value in label_map.present():
        share = _resample(
            Volume(label_map.mask(value), label_map.geometry),
            target,
            interpolator=SimpleITK.sitkLinear,
            fill=0.0,
            pixel_type=SimpleITK.sitkFloat32,
        )
        background -= share
        wins = share > best
        result[wins] = value
        best[wins] = share[wins]
    result[best < background] = 0
    return result


def _covered(source: VolumeGeometry, target: VolumeGeometry) -> Region | None:
    """Return the region of ``target`` that the voxels of ``source`` can reach, if any."""
    ends = np.array(list(product(*[(-0.5, n - 0.5) for n in source.shape])))
    reached = target.world_to_index(source.index_to_world(ends))
    low = np.maximum(np.floor(reached.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(reached.max(axis=0)) + 1, target.shape).astype(int)
    if (high <= low).any():
        return None
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (z, y, x)
