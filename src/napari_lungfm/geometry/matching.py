"""Bring a label map onto the grid of an image, by place in the patient, never by array shape."""

import numpy as np

from napari_lungfm._core.exceptions import GeometryError
from napari_lungfm._core.types import Index3
from napari_lungfm.geometry.grid import GRID_TOLERANCE, VolumeGeometry
from napari_lungfm.geometry.orientation import axis_codes, reorient
from napari_lungfm.geometry.volumes import LabelMap


def match_geometry(
    label_map: LabelMap, geometry: VolumeGeometry, *, tolerance: float = GRID_TOLERANCE
) -> LabelMap:
    """Return the label map on another grid over the same lattice of voxels.

    Axes are swapped and flipped, missing voxels filled with background and voxels outside cut
    off, as needed; labels are never interpolated. A mask that covers only a part of the image,
    or its slices in reverse order, is thus matched exactly.

    Parameters
    ----------
    label_map
        The labels to bring over.
    geometry
        The grid of the image.
    tolerance
        How far voxel centres of the two lattices may lie apart, as a fraction of the smallest
        voxel side.

    Raises
    ------
    GeometryError
        If the two lattices differ (other spacing, other angle, shifted by a part of a voxel), or
        if labelled voxels would fall outside the image.
    """
    if label_map.geometry.is_close(geometry, tolerance):
        return LabelMap(label_map.array, geometry, label_map.labels)
    turned = reorient(label_map, axis_codes(geometry))
    offset = lattice_offset(turned.geometry, geometry, tolerance=tolerance)
    if offset is None:
        raise GeometryError(_mismatch(turned.geometry, geometry))
    source, target = [], []
    for shift, n_source, n_target in zip(offset, turned.shape, geometry.shape, strict=True):
        start, stop = max(0, shift), min(n_target, shift + n_source)
        target.append(slice(start, max(start, stop)))
        source.append(slice(start - shift, max(start, stop) - shift))
    array = np.zeros(geometry.shape, dtype=label_map.array.dtype)
    array[tuple(target)] = turned.array[tuple(source)]
    lost = np.count_nonzero(turned.array) - np.count_nonzero(array)
    if lost:
        msg = (
            f"{lost} labelled voxels of the mask lie outside the image; "
            "is it the mask of another series?"
        )
        raise GeometryError(msg)
    return LabelMap(array, geometry, label_map.labels)


def lattice_offset(
    source: VolumeGeometry, target: VolumeGeometry, *, tolerance: float = GRID_TOLERANCE
) -> Index3 | None:
    """Return the index in ``target`` of the first voxel of ``source``; it may lie outside.

    ``None`` where the voxels of the two grids do not coincide or their axes point elsewhere.
    """
    z, y, x = (int(v) for v in np.rint(target.world_to_index(source.origin)))
    expected = target.window((z, y, x), source.shape)
    return (z, y, x) if source.is_close(expected, tolerance) else None


def _mismatch(source: VolumeGeometry, target: VolumeGeometry) -> str:
    exact = target.world_to_index(source.origin)
    shift = np.round(exact - np.rint(exact), 3).tolist()
    return (
        "the mask is not on the voxel grid of the image: "
        f"{_describe(source)} against {_describe(target)}, shifted by {shift} of a voxel "
        "(z, y, x); resample it first, or give the mask of this image"
    )


def _describe(geometry: VolumeGeometry) -> str:
    spacing = " x ".join(f"{s:.4g}" for s in geometry.spacing)
    shape = " x ".join(str(n) for n in geometry.shape)
    return f"{shape} voxels of {spacing} mm (z, y, x)"
