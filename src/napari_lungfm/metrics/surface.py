"""Distances between the surfaces of two masks, each piece of surface weighted by its area.

The definitions are those of DeepMind's surface-distance (Nikolov et al. 2021, "Clinically
Applicable Segmentation of Head and Neck Anatomy for Radiotherapy", doi:10.2196/26151), whose
table of surface areas is used here: a surface element sits at each corner of the voxel grid
whose eight voxels are neither all inside nor all outside, and has the area that marching cubes
gives this neighbourhood. What lies beyond the border of the volume counts as outside. Its own
functions are not called: version 0.1 uses names that numpy 2 has dropped and scipy will drop.

Rules for empty masks: both empty, everything is NaN; one empty, NSD is 0 and the distances are
undefined (NaN), to be counted and not averaged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from surface_distance import lookup_tables

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import MaskArray, Vector3
from napari_lungfm.geometry import bounding_region
from napari_lungfm.metrics._checks import check_mask, check_pair

Float1D = npt.NDArray[np.float64]

#: Tolerances of the protocol in mm.
TOLERANCES_MM = (1.0, 2.0)


@dataclass(frozen=True, eq=False)
class Surface:
    """Surface elements of one mask.

    Parameters
    ----------
    corners
        Where they are: int64 ``(n, 3)``, ``(z, y, x)`` of the voxel corner, corner ``(0, 0, 0)``
        being the outermost one of voxel ``(0, 0, 0)``.
    areas_mm2
        Their areas ``(n,)`` in mm².
    """

    corners: npt.NDArray[np.int64]
    areas_mm2: Float1D


@dataclass(frozen=True)
class SurfaceScores:
    """How far two surfaces lie apart; see `surface_scores`.

    Parameters
    ----------
    hd95_mm
        95th percentile Hausdorff distance in mm: the larger one of both directions.
    mean_distance_mm
        Mean distance over both surfaces together, in mm.
    nsd
        Tolerance in mm → normalised surface Dice, 0 to 1.
    """

    hd95_mm: float
    mean_distance_mm: float
    nsd: Mapping[float, float]


def surface_scores(
    prediction: MaskArray,
    reference: MaskArray,
    spacing: Vector3,
    tolerances_mm: Sequence[float] = TOLERANCES_MM,
) -> SurfaceScores:
    """Compare the surfaces of two masks.

    Parameters
    ----------
    prediction, reference
        Boolean masks ``(z, y, x)`` of one shape.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.
    tolerances_mm
        Distances up to which a piece of surface counts as found.

    Raises
    ------
    DataError
        If a mask is not boolean.
    GeometryError
        If the shapes differ or are not 3D.
    UsageError
        If a tolerance is negative.
    """
    check_pair(prediction, reference, ndim=3)
    if any(not t >= 0 for t in tolerances_mm):
        msg = f"surface tolerances must be zero or more mm, not {tuple(tolerances_mm)}"
        raise UsageError(msg)
    found, true = find_surface(prediction, spacing), find_surface(reference, spacing)
    if not len(found.corners) or not len(true.corners):
        empty = float("nan") if len(found.corners) == len(true.corners) else 0.0
        nsd = {float(t): empty for t in tolerances_mm}
        return SurfaceScores(float("nan"), float("nan"), nsd)
    to_true = _distances(found, true, spacing)
    to_found = _distances(true, found, spacing)
    distances = np.concatenate([to_true, to_found])
    areas = np.concatenate([found.areas_mm2, true.areas_mm2])
    total = areas.sum()
    return SurfaceScores(
        hd95_mm=max(
            weighted_percentile(to_true, found.areas_mm2, 95.0),
            weighted_percentile(to_found, true.areas_mm2, 95.0),
        ),
        mean_distance_mm=float((distances * areas).sum() / total),
        nsd={float(t): float(areas[distances <= t].sum() / total) for t in tolerances_mm},
    )


def find_surface(mask: MaskArray, spacing: Vector3) -> Surface:
    """Return the surface elements of a mask, none for an empty one.

    Parameters
    ----------
    mask
        Boolean mask ``(z, y, x)``.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.
    """
    check_mask(mask, ndim=3)
    region = bounding_region(mask)
    if region is None:
        return Surface(np.empty((0, 3), np.int64), np.empty(0))
    padded = np.pad(mask[region], 1).view(np.uint8)
    codes = np.zeros([n - 1 for n in padded.shape], np.uint8)
    kernel = lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
    for z, y, x in product(range(2), repeat=3):
        part = padded[z : z + codes.shape[0], y : y + codes.shape[1], x : x + codes.shape[2]]
        codes += part * np.uint8(kernel[z, y, x])
    corners = np.argwhere((codes != 0) & (codes != 255))
    areas = _area_of_code(tuple(float(s) for s in spacing))[codes[tuple(corners.T)]]
    return Surface(corners + np.array([s.start for s in region]), areas)


def weighted_percentile(values: Float1D, weights: Float1D, percent: float) -> float:
    """Return the smallest value up to which lies at least ``percent`` of the whole weight."""
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    # The small margin keeps a share that is the percentage but for rounding from missing it.
    place = int(np.searchsorted(share / share[-1], percent / 100.0 - 1e-9))
    return float(values[order][min(place, len(values) - 1)])


def _distances(start: Surface, end: Surface, spacing: Vector3) -> Float1D:
    """Distance in mm from every element of ``start`` to the nearest one of ``end``."""
    lowest = np.minimum(start.corners.min(axis=0), end.corners.min(axis=0))
    highest = np.maximum(start.corners.max(axis=0), end.corners.max(axis=0))
    away = np.ones(highest - lowest + 1, dtype=np.bool_)
    away[tuple((end.corners - lowest).T)] = False
    # Only where the nearest element is: the map of distances would take five times the memory.
    nearest = ndimage.distance_transform_edt(
        away, sampling=spacing, return_distances=False, return_indices=True
    )
    here = start.corners - lowest
    steps = (here - nearest[:, here[:, 0], here[:, 1], here[:, 2]].T) * np.asarray(spacing)
    distances: Float1D = np.sqrt((steps * steps).sum(axis=1))
    return distances


@lru_cache(maxsize=32)
def _area_of_code(spacing: tuple[float, ...]) -> Float1D:
    """Area in mm² of the surface at a corner, by the code of its eight voxels ``(256,)``."""
    table: Float1D = np.asarray(
        lookup_tables.create_table_neighbour_code_to_surface_area(list(spacing)), np.float64
    )
    table.setflags(write=False)
    return table
