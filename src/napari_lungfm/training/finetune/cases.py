"""Cases to fine-tune on, kept on disk as they are and mapped into memory when clips are drawn.

Images stay int16 HU on their own grid, turned to axial slices: windows, sizes and crops are a
matter of the model that is fine-tuned, not of the case.
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
from napari_lungfm._core.types import Vector3
from napari_lungfm.datasets.cases import Case, CaseSource, Cohort
from napari_lungfm.geometry import Structure, to_axial
from napari_lungfm.models.automatic.protocol import AutomaticModel
from napari_lungfm.models.automatic.trained import hash_image
from napari_lungfm.training.automatic.cohort_check import for_each_case, load_for_training
from napari_lungfm.training.automatic.kept import case_mark, read_kept, write_kept

_SCHEMA = 1
#: Arrays that are kept of a case.
PARTS = ("image", "labels")


@dataclass(frozen=True)
class StoredCase:
    """One case on disk, as axial slices on its own grid.

    Parameters
    ----------
    name
        Name of the case.
    stem
        Path of its files without their endings.
    image, reference
        Hashes of its CT and of its reference.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.
    """

    name: str
    stem: Path
    image: str
    reference: str
    spacing: Vector3

    @cached_property
    def voxels(self) -> npt.NDArray[np.int16]:
        """HU ``(z, y, x)``; mapped from the file."""
        array: npt.NDArray[np.int16] = np.load(f"{self.stem}-image.npy", mmap_mode="r")
        return array

    @cached_property
    def labels(self) -> npt.NDArray[np.uint8]:
        """Values of `Structure` ``(z, y, x)``; mapped from the file."""
        array: npt.NDArray[np.uint8] = np.load(f"{self.stem}-labels.npy", mmap_mode="r")
        return array

    @cached_property
    def areas(self) -> dict[str, tuple[int, ...]]:
        """Structure → its pixels on every slice."""
        with Path(f"{self.stem}.json").open(encoding="utf-8") as stream:
            return {name: tuple(pixels) for name, pixels in json.load(stream)["areas"].items()}

    @property
    def depth(self) -> int:
        """Number of slices."""
        return int(self.voxels.shape[0])


def store_cohort(
    cohort: Cohort,
    folder: Path,
    *,
    structures: Sequence[Structure],
    lungs: AutomaticModel | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[StoredCase, ...]:
    """Check and store all training cases; those that were stored before are left as they are.

    Parameters
    ----------
    cohort
        The cases; only its training part is read.
    folder
        Where to keep them.
    structures
        What every case must have.
    lungs
        Completes references without lungs; see `load_for_training`.
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
    stored: list[StoredCase] = []

    def work(source: CaseSource) -> None:
        mark = case_mark(_SCHEMA, source, structures, lungs)
        stem = folder / f"{slug(source.name)}-{mark}"
        known = read_kept(stem, PARTS)
        if known is None:
            known = _store(load_for_training(source, structures, lungs), stem)
        z, y, x = known["spacing"]
        stored.append(StoredCase(source.name, stem, known["image"], known["reference"], (z, y, x)))

    for_each_case(cohort, work, progress)
    return tuple(stored)


def _store(case: Case, stem: Path) -> dict[str, Any]:
    volume, reference = to_axial(case.volume), to_axial(case.reference)
    limits = np.iinfo(np.int16)
    voxels = np.clip(np.rint(volume.array), limits.min, limits.max).astype(np.int16)
    labels = np.ascontiguousarray(reference.array, dtype=np.uint8)
    for part, array in (("image", voxels), ("labels", labels)):
        write_kept(stem, part, np.ascontiguousarray(array))
    areas = {
        structure.title: (labels == int(structure)).sum(axis=(1, 2)).tolist()
        for structure in Structure
    }
    known = {
        "image": hash_image(case.volume),
        "reference": hashlib.blake2b(labels.tobytes(), digest_size=16).hexdigest(),
        "spacing": [float(mm) for mm in volume.spacing],
        "areas": areas,
    }
    write_json(f"{stem}.json", known)  # last: it says that the case is complete
    return known
