"""`Volume` and `LabelMap`: voxels with their geometry."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.exceptions import DataError, GeometryError, UsageError
from napari_lungfm._core.types import LabelArray, MaskArray, Region, VoxelArray
from napari_lungfm.geometry.grid import VolumeGeometry


class Structure(IntEnum):
    """The structures of the benchmark and their label values in every `LabelMap` of a case."""

    LEFT_LUNG = 1
    RIGHT_LUNG = 2
    TUMOUR = 3

    @property
    def title(self) -> str:
        """Name as it stands in files and tables, for example ``"left lung"``."""
        return self.name.lower().replace("_", " ")

    @classmethod
    def from_title(cls, title: str) -> "Structure":
        """Inverse of `title`; the American spelling and underscores are understood.

        Raises
        ------
        UsageError
            If there is no such structure.
        """
        wanted = (
            title.strip().lower().replace("_", " ").replace("-", " ").replace("tumor", "tumour")
        )
        for member in cls:
            if member.title == wanted:
                return member
        names = ", ".join(f"'{member.title}'" for member in cls)
        msg = f"there is no structure '{title}'; choose from {names}"
        raise UsageError(msg)


#: Label value → name of the structures that a case can have.
LUNG_LABELS: Mapping[int, str] = MappingProxyType({int(s): s.title for s in Structure})


@dataclass(frozen=True, eq=False)
class Volume:
    """An image: voxels and their grid.

    Parameters
    ----------
    array
        Voxels ``(z, y, x)``; CT is int16 in HU.
    geometry
        The grid, of the same shape.
    metadata
        Where it came from and what was put right, in plain values; not part of the image.

    Raises
    ------
    GeometryError
        If the array does not have the shape of the grid.
    """

    array: VoxelArray
    geometry: VolumeGeometry
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_shape(self.array, self.geometry, "image")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels ``(z, y, x)``."""
        return self.geometry.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel spacing ``(z, y, x)`` in mm."""
        return self.geometry.spacing

    def crop(self, region: Region) -> Self:
        """Return the part ``array[region]`` (a view) with its geometry."""
        return replace(self, array=self.array[region], geometry=self.geometry.crop(region))


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Integer labels on a grid, with names; 0 is background.

    Parameters
    ----------
    array
        Labels ``(z, y, x)``, an integer dtype.
    geometry
        The grid, of the same shape.
    labels
        Label value → name. Values that occur in the array need not be named, and named ones
        need not occur.

    Raises
    ------
    GeometryError
        If the array does not have the shape of the grid.
    DataError
        If the array is not of an integer dtype.
    """

    array: LabelArray
    geometry: VolumeGeometry
    labels: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_shape(self.array, self.geometry, "label map")
        if not np.issubdtype(self.array.dtype, np.integer):
            msg = f"labels must be integers, not {self.array.dtype}"
            raise DataError(msg)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels ``(z, y, x)``."""
        return self.geometry.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel spacing ``(z, y, x)`` in mm."""
        return self.geometry.spacing

    @classmethod
    def from_mask(
        cls,
        mask: npt.NDArray[Any],
        geometry: VolumeGeometry,
        *,
        label: int = int(Structure.TUMOUR),
        name: str | None = None,
    ) -> Self:
        """Make a uint8 label map with one label from a mask ``(z, y, x)`` (non-zero = inside)."""
        title = name if name is not None else LUNG_LABELS.get(label, f"label {label}")
        array = (np.asarray(mask) != 0).astype(np.uint8) * np.uint8(label)
        return cls(array, geometry, {label: title})

    def mask(self, label: int | str) -> MaskArray:
        """Return the boolean mask ``(z, y, x)`` of a label, given by value or by name.

        Raises
        ------
        UsageError
            If a name is not among `labels`.
        """
        inside: MaskArray = self.array == self.value_of(label)
        return inside

    def value_of(self, label: int | str) -> int:
        """Return the value of a label that is given by value or by name."""
        if not isinstance(label, str):
            return int(label)
        for value, name in self.labels.items():
            if name == label:
                return value
        present = ", ".join(f"'{name}'" for name in self.labels.values()) or "none"
        msg = f"there is no label '{label}' in this label map; named are: {present}"
        raise UsageError(msg)

    def present(self) -> tuple[int, ...]:
        """Return the label values that occur, background left out, in ascending order."""
        return tuple(int(v) for v in np.unique(self.array) if v != 0)

    def crop(self, region: Region) -> Self:
        """Return the part ``array[region]`` (a view) with its geometry."""
        return replace(self, array=self.array[region], geometry=self.geometry.crop(region))


def bounding_region(mask: MaskArray, margin: int = 0) -> Region | None:
    """Return the smallest region ``(z, y, x)`` that holds every true voxel, or ``None`` if none.

    Parameters
    ----------
    mask
        Boolean mask ``(z, y, x)``.
    margin
        Voxels to add on every side, cut off at the border.
    """
    bounds: list[slice] = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        if inside.size == 0:
            return None
        start = max(0, int(inside[0]) - margin)
        stop = min(mask.shape[axis], int(inside[-1]) + 1 + margin)
        bounds.append(slice(start, stop))
    return (bounds[0], bounds[1], bounds[2])


def _check_shape(array: npt.NDArray[Any], geometry: VolumeGeometry, what: str) -> None:
    if array.shape != geometry.shape:
        msg = f"the {what} has shape {array.shape}, its grid {geometry.shape} (z, y, x)"
        raise GeometryError(msg)
