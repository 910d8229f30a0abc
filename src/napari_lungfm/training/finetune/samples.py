"""What a promptable model is fine-tuned on: short runs of slices with one structure marked.

A clip is drawn by the seed, the epoch and its number alone, so that a resumed fit sees the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_lungfm._core.seeding import generator
from napari_lungfm._core.types import MaskArray, Vector3
from napari_lungfm.geometry import Structure
from napari_lungfm.training.automatic.cohort_check import CohortError
from napari_lungfm.training.finetune.cases import StoredCase
from napari_lungfm.training.finetune.recipe import Turn


@dataclass(frozen=True, eq=False)
class FineTuneClip:
    """Consecutive slices of a case with one structure, before any augmentation.

    Parameters
    ----------
    image
        HU, int16 ``(t, y, x)``, on the case's own grid.
    mask
        The structure, boolean ``(t, y, x)``; on at least one slice.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.
    case
        Name of the case.
    slices
        Which axial slices of the case they are, in order.
    structure
        Title of the structure, such as ``"tumour"``.
    """

    image: npt.NDArray[np.int16]
    mask: MaskArray
    spacing: Vector3
    case: str
    slices: range
    structure: str


class ClipSource(torch.utils.data.Dataset[Any]):
    """Numbered clips of every epoch; the same seed and numbers give the same clip on every run.

    Parameters
    ----------
    cases
        The cases to draw from.
    structures
        Titles of the structures; of those that a case or slice has, each is drawn as often.
    length
        Slices of a clip.
    seed
        Seed of the draws.
    per_epoch
        Clips in an epoch; by default as many as there are cases, or slices.
    turn
        ``"cases"``: every case comes up once before any comes up twice, with clips around
        random slices. ``"slices"``: the same with every slice that has a structure.
    least_pixels
        Slices where a structure has fewer pixels count as being without it.
    prepare
        Makes of a clip what is to be learnt from, by a generator of the clip's own; without it
        items are clips.

    Attributes
    ----------
    left_out
        Cases without a slice that counts.

    Raises
    ------
    CohortError
        If a case has fewer slices than a clip, which the message names, or all are left out.
    """

    def __init__(
        self,
        cases: Sequence[StoredCase],
        structures: Sequence[str],
        length: int,
        seed: int,
        per_epoch: int | None = None,
        *,
        turn: Turn = "cases",
        least_pixels: int = 1,
        prepare: Callable[[FineTuneClip, np.random.Generator], Any] | None = None,
    ) -> None:
        self._prepare = prepare
        self._length, self._seed = length, seed
        refuse_short(cases, length)
        found = [(case, _slices_of(case, structures, least_pixels)) for case in cases]
        self._cases = [case for case, marked in found if marked]
        self._marked = [marked for _, marked in found if marked]
        self.left_out = tuple(case.name for case, marked in found if not marked)
        if not self._cases:
            msg = f"no case has a slice with {least_pixels} pixels of {' or '.join(structures)}"
            raise CohortError(f"{msg}; take a smaller least_pixels or other cases")
        self._items: list[tuple[int, int | None]] = [(n, None) for n in range(len(self._cases))]
        if turn == "slices":
            self._items = [
                (n, z)
                for n, marked in enumerate(self._marked)
                for z in sorted({z for slices in marked.values() for z in slices})
            ]
        self._per_epoch = len(self._items) if per_epoch is None else per_epoch

    def __len__(self) -> int:
        return self._per_epoch

    def reach(self) -> set[tuple[str, int]]:
        """Return case and number of every slice that may come up."""
        found: set[tuple[str, int]] = set()
        for case, marked in zip(self._cases, self._marked, strict=True):
            for z in {z for slices in marked.values() for z in slices}:
                low = max(0, z - self._length + 1)
                high = min(z, case.depth - self._length) + self._length
                found |= {(case.name, near) for near in range(low, high)}
        return found

    def __getitem__(self, item: tuple[int, int]) -> Any:
        """Return the clip of an epoch and a number in it, prepared."""
        epoch, place = item
        number = epoch * self._per_epoch + place
        turn, place = divmod(number, len(self._items))
        order = generator("order of clips", self._seed, turn).permutation(len(self._items))
        chosen, z = self._items[int(order[place])]
        rng = generator("clip", self._seed, number)
        marked = self._marked[chosen]
        fitting = [name for name, slices in marked.items() if z is None or z in slices]
        structure = fitting[int(rng.integers(len(fitting)))]
        if z is None:
            z = marked[structure][int(rng.integers(len(marked[structure])))]
        clip = cut_clip(self._cases[chosen], structure, self._around(chosen, z, rng))
        return clip if self._prepare is None else self._prepare(clip, rng)

    def _around(self, chosen: int, z: int, rng: np.random.Generator) -> range:
        """Slices of a clip that holds slice ``z`` anywhere."""
        low = max(0, z - self._length + 1)
        high = min(z, self._cases[chosen].depth - self._length)
        start = int(rng.integers(low, high + 1))
        return range(start, start + self._length)


def refuse_short(cases: Sequence[StoredCase], length: int) -> None:
    """Refuse cases that have fewer slices than a clip.

    Raises
    ------
    CohortError
        If there is one; the message names them all.
    """
    short = [f"'{case.name}' has {case.depth} slices" for case in cases if case.depth < length]
    if short:
        msg = f"case {', '.join(short)}, a clip needs {length}"
        raise CohortError(f"{msg}; leave such cases out or take shorter clips")


class FixedClips(torch.utils.data.Dataset[Any]):
    """The same clips in every epoch, spread over the slices of every structure.

    Parameters
    ----------
    cases, structures, length, seed, least_pixels
        See `ClipSource`. Structures that a case lacks are left out.
    count
        Clips of every case and structure, or fewer where it is on fewer slices.
    prepare
        See `ClipSource`; every clip comes up once with each of them.
    """

    def __init__(
        self,
        cases: Sequence[StoredCase],
        structures: Sequence[str],
        length: int,
        seed: int,
        count: int,
        *,
        least_pixels: int = 1,
        prepare: Sequence[Callable[[FineTuneClip, np.random.Generator], Any]] = (),
    ) -> None:
        self._seed, self._prepare = seed, tuple(prepare)
        self._clips: list[tuple[StoredCase, str, range]] = []
        for case in cases:
            for name, slices in _slices_of(case, structures, least_pixels).items():
                # In the middle of equal parts: neither end is preferred.
                parts = min(count, len(slices))
                places = [int((n + 0.5) * len(slices) / parts) for n in range(parts)]
                for z in (slices[place] for place in places):
                    start = max(0, min(z - length // 2, case.depth - length))
                    self._clips.append((case, name, range(start, start + length)))

    def __len__(self) -> int:
        return len(self._clips) * max(1, len(self._prepare))

    def reach(self) -> set[tuple[str, int]]:
        """Return case and number of every slice that comes up."""
        return {(case.name, z) for case, _, slices in self._clips for z in slices}

    def __getitem__(self, item: tuple[int, int]) -> Any:
        """Return the clip of a number, whatever the epoch, prepared."""
        place, way = divmod(item[1], max(1, len(self._prepare)))
        case, name, slices = self._clips[place]
        clip = cut_clip(case, name, slices)
        rng = generator("validation clip", self._seed, case.name, name, slices.start)
        return self._prepare[way](clip, rng) if self._prepare else clip


def cut_clip(case: StoredCase, structure: str, slices: range) -> FineTuneClip:
    """Read a clip.

    Parameters
    ----------
    case
        The case.
    structure
        Title of the structure.
    slices
        Consecutive slices of the case.
    """
    part = slice(slices.start, slices.stop)
    return FineTuneClip(
        image=np.array(case.voxels[part]),
        mask=case.labels[part] == int(Structure.from_title(structure)),
        spacing=case.spacing,
        case=case.name,
        slices=slices,
        structure=structure,
    )


def as_list(clips: list[Any]) -> list[Any]:
    """Return a batch as it is: clips of several cases differ in size."""
    return clips


def _slices_of(
    case: StoredCase, structures: Sequence[str], least_pixels: int
) -> dict[str, tuple[int, ...]]:
    """Structure → the slices that have it, for structures that the case has."""
    found = {
        name: tuple(z for z, pixels in enumerate(case.areas[name]) if pixels >= least_pixels)
        for name in structures
    }
    return {name: slices for name, slices in found.items() if slices}
