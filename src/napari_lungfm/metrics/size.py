"""How large a mask is, and how far it runs beyond another one."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import ConvexHull

from napari_lungfm._core.exceptions import GeometryError
from napari_lungfm._core.types import MaskArray, SliceMask, Vector3, VoxelArray
from napari_lungfm.geometry import bounding_region
from napari_lungfm.metrics._checks import check_mask, check_pair

Points = npt.NDArray[np.float64]

#: Two voxels of a slice belong to one cross-section when they touch, if only at a corner.
_IN_PLANE = np.array([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))], dtype=np.bool_)


@dataclass(frozen=True)
class BeyondEnds:
    """What a prediction adds beyond the first and last slice of the reference.

    Parameters
    ----------
    low
        Number of predicted slices below the first slice of the reference; NaN where the
        reference is empty and has no ends.
    high
        The same above its last slice.
    volume_ml
        Predicted volume on those slices in mL.
    """

    low: float
    high: float
    volume_ml: float


@dataclass(frozen=True)
class Diameters:
    """The two diameters of a lesion on an axial slice.

    Parameters
    ----------
    z
        The slice.
    long_mm
        Longest diameter in mm (RECIST 1.1).
    short_mm
        Longest diameter at right angles to it in mm; the product of both is WHO's measure.
    long_ends, short_ends
        Ends of both lines, ``((y, x), (y, x))`` in voxel indices, voxel centres at whole numbers.
    """

    z: int
    long_mm: float
    short_mm: float
    long_ends: tuple[tuple[float, float], tuple[float, float]]
    short_ends: tuple[tuple[float, float], tuple[float, float]]


def volume_ml(mask: MaskArray, spacing: Vector3) -> float:
    """Return the volume of a mask ``(z, y, x)`` with ``spacing`` ``(z, y, x)`` mm, in mL."""
    check_mask(mask)
    return int(np.count_nonzero(mask)) * float(np.prod(spacing)) / 1000.0


def volume_difference_ml(prediction: MaskArray, reference: MaskArray, spacing: Vector3) -> float:
    """Return volume of the prediction minus volume of the reference in mL."""
    check_pair(prediction, reference)
    return volume_ml(prediction, spacing) - volume_ml(reference, spacing)


def slices_beyond_ends(prediction: MaskArray, reference: MaskArray, spacing: Vector3) -> BeyondEnds:
    """Count the slices that a prediction adds beyond the ends of the reference.

    Only slices that hold predicted voxels count; gaps do not.

    Parameters
    ----------
    prediction, reference
        Boolean masks ``(z, y, x)`` of one shape.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.

    Raises
    ------
    DataError
        If a mask is not boolean.
    GeometryError
        If the shapes differ or are not 3D.
    """
    check_pair(prediction, reference, ndim=3)
    true = np.flatnonzero(reference.any(axis=(1, 2)))
    if true.size == 0:
        return BeyondEnds(float("nan"), float("nan"), float("nan"))
    predicted = np.count_nonzero(prediction, axis=(1, 2))
    below, above = predicted[: true[0]], predicted[true[-1] + 1 :]
    voxels = int(below.sum() + above.sum())
    return BeyondEnds(
        low=int(np.count_nonzero(below)),
        high=int(np.count_nonzero(above)),
        volume_ml=voxels * float(np.prod(spacing)) / 1000.0,
    )


def mean_hu(voxels: VoxelArray, mask: MaskArray) -> float:
    """Return the mean intensity inside a mask of the same shape; NaN for an empty mask.

    Raises
    ------
    GeometryError
        If the shapes differ.
    """
    check_mask(mask)
    if voxels.shape != mask.shape:
        msg = f"the image has shape {voxels.shape}, the mask {mask.shape} (z, y, x)"
        raise GeometryError(msg)
    inside = voxels[mask]
    return float(inside.mean(dtype=np.float64)) if inside.size else float("nan")


def axial_diameters(mask: MaskArray, spacing: Vector3) -> Diameters | None:
    """Measure the longest axial diameter and the longest one perpendicular to it.

    The longest diameter is looked for on every slice (RECIST 1.1, Eisenhauer et al. 2009,
    doi:10.1016/j.ejca.2008.10.026), the perpendicular one on the same slice (WHO handbook,
    Miller et al. 1981). A line may leave and re-enter a concave cross-section, but never joins
    two separate ones, as a caliper would not. The outline runs halfway between the centres of a
    voxel inside and its neighbour outside: a row of *n* voxels is *n* voxels long.

    Parameters
    ----------
    mask
        Boolean mask ``(z, y, x)`` with axial slices along the first axis.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.

    Returns
    -------
    Diameters or None
        ``None`` for an empty mask; of several equally long diameters, the one on the lowest
        slice.

    Raises
    ------
    DataError
        If the mask is not boolean.
    GeometryError
        If it is not 3D.
    """
    check_mask(mask, ndim=3)
    region = bounding_region(mask)
    if region is None:
        return None
    sections, _ = ndimage.label(mask[region], structure=_IN_PLANE)
    longest: tuple[float, int, Points, int, int] | None = None
    for number, place in enumerate(ndimage.find_objects(sections), start=1):
        corner = [s.start + p.start for s, p in zip(region, place, strict=True)]
        hull = _outline(sections[place][0] == number, corner[1:], spacing)
        length, i, j = _farthest_pair(hull)
        if longest is None or length > longest[0] + 1e-9:
            longest = (length, corner[0], hull, i, j)
    if longest is None:
        return None
    length, z, hull, i, j = longest
    chord = _longest_chord(hull, i, j)
    scale = np.asarray(spacing[1:])
    return Diameters(
        z,
        length,
        float(np.linalg.norm(chord[1] - chord[0])),
        _ends(hull[[i, j]] / scale),
        _ends(chord / scale),
    )


def _outline(section: SliceMask, corner: list[int], spacing: Vector3) -> Points:
    """Corners ``(n, 2)`` of the convex hull in mm, in order along the outline."""
    centres = np.argwhere(section) + np.asarray(corner, dtype=np.float64)
    halves = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])
    points = (centres[:, None] + halves).reshape(-1, 2) * np.asarray(spacing[1:])
    corners: Points = points[ConvexHull(points).vertices]
    return corners


def _farthest_pair(hull: Points) -> tuple[float, int, int]:
    apart = np.linalg.norm(hull[:, None] - hull[None], axis=-1)
    i, j = (int(k) for k in np.unravel_index(np.argmax(apart), apart.shape))
    return float(apart[i, j]), i, j


def _longest_chord(hull: Points, i: int, j: int) -> Points:
    """Return the ends ``(2, 2)`` of the longest chord at right angles to the diameter i to j.

    The corners i and j split the outline into two arcs. Between corners, the distance from one
    arc to the other changes linearly along the diameter, so the longest chord touches a corner.
    """
    unit = (hull[j] - hull[i]) / np.linalg.norm(hull[j] - hull[i])
    normal = np.array([-unit[1], unit[0]])
    along, across = hull @ unit, hull @ normal
    order = np.roll(np.arange(len(hull)), -i)
    middle = int(np.flatnonzero(order == j)[0])
    arcs = (order[: middle + 1], np.append(order[middle:], i)[::-1])
    sides = [np.interp(along, along[arc], across[arc]) for arc in arcs]
    best = int(np.argmax(np.abs(sides[0] - sides[1])))
    ends: Points = np.array([along[best] * unit + side[best] * normal for side in sides])
    return ends


def _ends(points: Points) -> tuple[tuple[float, float], tuple[float, float]]:
    (y0, x0), (y1, x1) = points.tolist()
    return ((y0, x0), (y1, x1))
