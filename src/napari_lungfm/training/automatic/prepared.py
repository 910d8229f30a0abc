"""Training cases as networks see them, kept on disk so that they are prepared once.

Images are stored as 16-bit fractions of the window and labels as bytes, both mapped into memory:
a slice is read when it is drawn, and cohorts need not fit into memory.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.files import make_folder, slug, write_json
from napari_lungfm.datasets.cases import CaseSource, Cohort
from napari_lungfm.geometry import LabelMap, Structure
from napari_lungfm.models.automatic.protocol import AutomaticModel
from napari_lungfm.models.automatic.slice_network import InputSpec
from napari_lungfm.models.automatic.trained import hash_image
from napari_lungfm.preprocessing import paper_preprocessing
from napari_lungfm.training.automatic.cohort_check import (
    CohortError,
    for_each_case,
    labels_as_classes,
    load_for_training,
)
from napari_lungfm.training.automatic.kept import case_mark, read_kept, write_kept

#: Images are stored as fractions of this.
_FULL = 65535
_SCHEMA = 1
#: Arrays that are kept of a case.
PARTS = ("image", "classes")


@dataclass(frozen=True)
class PreparedCase:
    """One prepared case on disk.

    Parameters
    ----------
    name
        Name of the case.
    stem
        Path of its files without their endings.
    image, reference
        Hashes of its CT and of its reference, on their own grid.
    """

    name: str
    stem: Path
    image: str
    reference: str

    @cached_property
    def images(self) -> npt.NDArray[np.uint16]:
        """Image ``(z, y, x)``, fractions of `_FULL`; mapped from the file."""
        array: npt.NDArray[np.uint16] = np.load(f"{self.stem}-image.npy", mmap_mode="r")
        return array

    @cached_property
    def classes(self) -> npt.NDArray[np.uint8]:
        """Classes ``(z, y, x)``; mapped from the file."""
        array: npt.NDArray[np.uint8] = np.load(f"{self.stem}-classes.npy", mmap_mode="r")
        return array

    @cached_property
    def slices_of(self) -> tuple[tuple[int, ...], ...]:
        """For every class the slices that have it."""
        with Path(f"{self.stem}.json").open(encoding="utf-8") as stream:
            return tuple(tuple(slices) for slices in json.load(stream)["slices"])


def scaled(stored: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Return what a network sees of stored grey values: float32, 0 to 1."""
    return stored.astype(np.float32) / np.float32(_FULL)


def prepare_cohort(
    cohort: Cohort,
    folder: Path,
    *,
    inputs: InputSpec,
    structures: Sequence[Structure],
    lungs: AutomaticModel | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[PreparedCase, ...]:
    """Check and prepare all training cases; those that were prepared before are left as they are.

    Parameters
    ----------
    cohort
        The cases.
    folder
        Where to keep them.
    inputs
        How to resample them.
    structures
        The classes.
    lungs
        See `load_for_training`.
    progress
        Called with the cases done and all of them.

    Raises
    ------
    CohortError
        If cases cannot be used; the message names them.
    OutputError
        If the folder cannot be written.
    """
    make_folder(folder)
    prepared: list[PreparedCase] = []

    def work(source: CaseSource) -> None:
        mark = case_mark(_SCHEMA, source, structures, lungs, str(inputs.spacing))
        stem = folder / f"{slug(source.name)}-{mark}"
        known = read_kept(stem, PARTS)
        if known is None:
            known = _prepare(source, stem, inputs, structures, lungs)
        prepared.append(PreparedCase(source.name, stem, known["image"], known["reference"]))

    for_each_case(cohort, work, progress)
    return tuple(prepared)


def _prepare(
    source: CaseSource,
    stem: Path,
    inputs: InputSpec,
    structures: Sequence[Structure],
    lungs: AutomaticModel | None,
) -> dict[str, Any]:
    case = load_for_training(source, structures, lungs)
    z, y, x = inputs.spacing
    prepared = paper_preprocessing(case.volume, (z, y, x))
    labels = prepared.from_source(case.reference)
    classes = labels_as_classes(labels, structures)
    slices = [np.flatnonzero((classes == c).any(axis=(1, 2))) for c in range(len(structures) + 1)]
    lost = [s.title for s, found in zip(structures, slices[1:], strict=True) if not found.size]
    if lost:
        spacing = " x ".join(f"{mm:g}" for mm in inputs.spacing)
        msg = (
            f"case '{case.name}': {' and '.join(lost)} vanished when it was resampled to "
            f"{spacing} mm (z, y, x); take a finer spacing or leave the case out"
        )
        raise CohortError(msg)
    stored = np.rint(prepared.volume.array * _FULL).astype(np.uint16)
    for part, array in (("image", stored), ("classes", classes)):
        write_kept(stem, part, array)
    known = {
        "image": hash_image(case.volume),
        "reference": hash_labels(case.reference),
        "slices": [found.tolist() for found in slices],
    }
    write_json(f"{stem}.json", known)  # last: it says that the case is complete
    return known


def hash_labels(labels: LabelMap) -> str:
    """Return a hash of the values of a reference."""
    array = np.ascontiguousarray(labels.array, dtype=np.uint8)
    return hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()
