"""Permute and flip axes without touching a voxel value."""

from dataclasses import replace
from typing import TypeVar

import numpy as np

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import Index3
from napari_lungfm.geometry.grid import VolumeGeometry
from napari_lungfm.geometry.volumes import LabelMap, Volume

Image = TypeVar("Image", Volume, LabelMap)

#: Array axes of the axial grid that models see: slices towards the head, rows towards the back,
#: columns towards the patient's left, which is how CT scanners store them.
AXIAL_CODES = "SPL"

_POSITIVE, _NEGATIVE = "LPS", "RAI"  # along +x, +y, +z and −x, −y, −z of LPS


def axis_codes(geometry: VolumeGeometry) -> str:
    """Return where each array axis ``(z, y, x)`` points, for example ``"SPL"``.

    Each axis gets the letter of the patient direction that it is closest to, no direction twice.
    """
    permutation, signs = _nearest_axes(geometry)
    return "".join(
        (_POSITIVE if sign > 0 else _NEGATIVE)[world]
        for world, sign in zip(permutation, signs, strict=True)
    )


def reorient(image: Image, codes: str) -> Image:
    """Return a view of an image with its array axes pointing as ``codes`` says.

    Only whole axes are swapped and flipped, so no voxel changes, every voxel keeps its place in
    the patient, and ``reorient(result, axis_codes(image.geometry))`` gives the original back.

    Parameters
    ----------
    image
        A `Volume` or `LabelMap`; may be oblique.
    codes
        One letter per array axis ``(z, y, x)``: L or R, P or A, S or I; see `axis_codes`.

    Raises
    ------
    UsageError
        If the letters do not name each patient axis once.
    """
    target = _parse_codes(codes)
    permutation, signs = _nearest_axes(image.geometry)
    order = [permutation.index(world) for world, _ in target]
    flips = [signs[axis] != sign for axis, (_, sign) in zip(order, target, strict=True)]
    array = image.array.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    return replace(image, array=array, geometry=_permuted(image.geometry, order, flips))


def to_axial(image: Image) -> Image:
    """Return the image with axes `AXIAL_CODES`, so that ``array[i]`` is an axial slice."""
    return reorient(image, AXIAL_CODES)


def _nearest_axes(geometry: VolumeGeometry) -> tuple[list[int], list[int]]:
    """World axis (0 x, 1 y, 2 z) and sign for each array axis, the clearest match first."""
    cosines = np.asarray(geometry.direction)[:, ::-1]  # columns in array order z, y, x
    left = np.abs(cosines)
    permutation, signs = [0, 0, 0], [1, 1, 1]
    for _ in range(3):
        world, axis = (int(i) for i in np.unravel_index(np.argmax(left), left.shape))
        permutation[axis] = world
        signs[axis] = 1 if cosines[world, axis] >= 0 else -1
        left[world, :] = -1.0
        left[:, axis] = -1.0
    return permutation, signs


def _parse_codes(codes: str) -> list[tuple[int, int]]:
    parsed: list[tuple[int, int]] = []
    for letter in codes.upper():
        if letter in _POSITIVE:
            parsed.append((_POSITIVE.index(letter), 1))
        elif letter in _NEGATIVE:
            parsed.append((_NEGATIVE.index(letter), -1))
    if len(codes) != 3 or sorted(world for world, _ in parsed) != [0, 1, 2]:
        msg = f"'{codes}' does not name each patient axis once; use for example '{AXIAL_CODES}'"
        raise UsageError(msg)
    return parsed


def _permuted(geometry: VolumeGeometry, order: list[int], flips: list[bool]) -> VolumeGeometry:
    affine = geometry.affine
    corner = np.zeros(3)
    matrix = np.eye(4)
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        matrix[:3, new] = affine[:3, old] * (-1.0 if flip else 1.0)
        corner[old] = geometry.shape[old] - 1 if flip else 0.0
    matrix[:3, 3] = geometry.index_to_world(corner)
    shape: Index3 = (
        geometry.shape[order[0]],
        geometry.shape[order[1]],
        geometry.shape[order[2]],
    )
    return VolumeGeometry.from_affine(shape, matrix)
