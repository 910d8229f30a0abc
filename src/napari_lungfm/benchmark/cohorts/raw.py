"""A patient before they are prepared: files, and what reading them gives."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.exceptions import DataError
from napari_lungfm._core.types import LabelArray, MaskArray
from napari_lungfm.datasets.cases import Part
from napari_lungfm.datasets.file_cohort import FileCase, FileCaseSource
from napari_lungfm.geometry import LabelMap, Structure, Volume
from napari_lungfm.metrics import count_overlap

#: Names of the parts of a reference that are lungs.
LUNGS = (Structure.LEFT_LUNG, Structure.RIGHT_LUNG)


@dataclass(frozen=True, eq=False)
class Reading:
    """What the files of a patient hold.

    Parameters
    ----------
    volume
        The CT in HU, with axial slices along the first axis.
    tumour
        Mask ``(z, y, x)`` on its grid.
    lungs
        Lungs that came with the data, values 1 and 2, or ``None``.
    source
        What the tumour was read from.
    facts
        Plain values for the quality report: contour volumes, agreements.
    notes
        What was assumed or put right, one line each.
    both_lungs
        Mask of both, where the data do not tell left from right; only compared with.
    """

    volume: Volume
    tumour: MaskArray
    lungs: LabelArray | None
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    both_lungs: MaskArray | None = None


class RawCase(Protocol):
    """One patient of a cohort that is to be prepared."""

    @property
    def name(self) -> str:
        """Name of the patient."""
        ...

    @property
    def excluded(self) -> str | None:
        """Why the patient is not even looked at, or ``None``."""
        ...

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What is known of the patient, for tables of subgroups."""
        ...

    @property
    def part(self) -> Part | None:
        """The part of the cohort that the patient is put into; ``None`` where a rule decides."""
        ...

    def fingerprint(self) -> str:
        """Return a text that changes when the patient would be read differently."""
        ...

    def read(self) -> Reading:
        """Read the CT and what is delineated on it."""
        ...


@dataclass(frozen=True)
class FileRawCase:
    """A patient whose reference can be read as `FileCase` says.

    Parameters
    ----------
    case
        Files and what their labels are.
    root
        What its paths count from.
    source
        What the tumour is read from, in words.
    part, excluded
        See `RawCase`.
    """

    case: FileCase
    root: Path
    source: str
    part: Part | None = None
    excluded: str | None = None

    @property
    def name(self) -> str:
        """Name of the patient."""
        return self.case.name

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What is known of the patient."""
        return self.case.attributes

    def fingerprint(self) -> str:
        """Hash of the specification and of the names, sizes and times of the files."""
        if self.excluded is not None:
            return self.case.model_dump_json()
        return FileCaseSource(self.case, self.root).fingerprint()

    def read(self) -> Reading:
        """Read image and reference and match them by geometry."""
        case = FileCaseSource(self.case, self.root).load()
        lungs = _own_lungs(case.reference)
        tumour = case.reference.mask(int(Structure.TUMOUR))
        notes = tuple(str(note) for note in case.volume.metadata.get("notes", ()))
        return Reading(case.volume, tumour, lungs, self.source, {}, notes)


def hash_files(paths: Sequence[Path], *more: str) -> str:
    """Hash names, sizes and times of files, and whatever else decides what comes of them."""
    mark = hashlib.blake2b("\x1f".join(more).encode(), digest_size=16)
    for path in sorted(paths):
        status = path.stat()
        mark.update(f"{path.name}\x1f{status.st_size}\x1f{status.st_mtime_ns}\x1e".encode())
    return mark.hexdigest()


def dice(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Return the Dice of two masks of one shape; NaN where both are empty."""
    return float(count_overlap(one, other).dice)


def check_tumour(tumour: MaskArray, source: str) -> None:
    """Refuse a patient without a tumour.

    Raises
    ------
    DataError
        If the mask is empty.
    """
    if not tumour.any():
        msg = f"the mask of the tumour is empty ({source})"
        raise DataError(msg)


def _own_lungs(reference: LabelMap) -> LabelArray | None:
    lungs = np.zeros(reference.shape, dtype=np.uint8)
    for structure in LUNGS:
        lungs[reference.array == int(structure)] = int(structure)
    return lungs if lungs.any() else None
