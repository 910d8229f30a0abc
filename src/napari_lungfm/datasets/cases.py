"""Cases and cohorts: which patients there are, loaded one at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm.geometry import LabelMap, Structure, Volume

#: The part of a cohort that a case belongs to.
Part: TypeAlias = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class Case:
    """One patient: the CT and its reference.

    Parameters
    ----------
    name
        Identifies the case within its cohort.
    volume
        The CT in HU, on its own grid.
    reference
        The reference label map on the same grid; values as in `Structure`.
    attributes
        What is known of the case, for tables of subgroups: plain values such as
        ``tumour_kind`` or ``tumour_diameter_mm``.

    Raises
    ------
    DataError
        If the voxels are not finite, or the reference has values that are no `Structure`.
    GeometryError
        If image and reference are not on one grid.
    """

    name: str
    volume: Volume
    reference: LabelMap
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        difference = self.volume.geometry.difference(self.reference.geometry)
        if difference is not None:
            msg = f"case '{self.name}': image and reference are not on one grid: {difference}"
            raise DataError(msg)
        array = self.volume.array
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            msg = f"case '{self.name}': {bad} voxels of the image are NaN or infinite"
            raise DataError(msg)
        unknown = set(self.reference.present()) - {int(s) for s in Structure}
        if unknown:
            msg = (
                f"case '{self.name}': the reference has the values {sorted(unknown)}; "
                "known are 1 left lung, 2 right lung, 3 tumour"
            )
            raise DataError(msg)

    @property
    def structures(self) -> tuple[Structure, ...]:
        """The structures that the reference contains."""
        return tuple(Structure(value) for value in self.reference.present())


class CaseSource(Protocol):
    """Where one case comes from; loading happens when it is asked for."""

    @property
    def name(self) -> str:
        """Name of the case within its cohort."""
        ...

    def fingerprint(self) -> str:
        """Return a text that changes when the case would load differently; reads no voxels."""
        ...

    def inputs(self) -> tuple[Path, ...]:
        """Return the files and folders that the case is read from."""
        ...

    def load(self) -> Case:
        """Read or make the case."""
        ...


@dataclass(frozen=True)
class Cohort:
    """Named cases and their split.

    Parameters
    ----------
    name
        Name in configs and tables.
    title
        One line for reports: what the cases are and their licence.
    train, test
        The cases of either part; test cases are scored, training cases never.
    measure_radius
        Returns the mean volume-equivalent radius (mm) of the tumours of the training part, for
        the prompt-only baseline of clicks; ``None`` where there is no training part. It may have
        to read the training part.

    Raises
    ------
    UsageError
        If two cases have one name or a case is in both parts.
    """

    name: str
    title: str
    test: tuple[CaseSource, ...]
    train: tuple[CaseSource, ...] = ()
    measure_radius: Callable[[], float | None] = lambda: None

    def __post_init__(self) -> None:
        names = [source.name for source in (*self.train, *self.test)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"cohort '{self.name}' lists these cases more than once: {', '.join(twice)}"
            raise UsageError(msg)
