"""Which tracked slices the memory attention of SAM 2 sees.

The stock code looks its memories up by slice number: position *t* is the *t*-th slice before the
current one in walking direction. A bank answers with such a table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, get_args

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.seeding import generator
from napari_lungfm.models.foundation.options import BankName
from napari_lungfm.models.foundation.sam2_state import SliceEntry, Walk

#: Returns the image embedding of the slice at hand; called only by banks that use it.
Embedding: TypeAlias = Callable[[], torch.Tensor]


class MemoryBank(Protocol):
    """The memories of one walk."""

    def add(self, z: int, entry: SliceEntry, embedding: Embedding) -> None:
        """Remember a slice that was just tracked."""
        ...

    def recall(self, z: int, embedding: Embedding) -> Mapping[int, SliceEntry]:
        """Return what the stock code finds under which slice number when it tracks ``z``."""
        ...


def make_bank(name: BankName, walk: Walk, positions: int) -> MemoryBank:
    """Return an empty bank for a walk.

    Parameters
    ----------
    name
        ``"recent"`` or ``"self-sorting"``.
    walk
        The walk it is for.
    positions
        How many tracked slices the memory attention sees at once.
    """
    if name == "recent":
        return RecentBank()
    return SelfSortingBank(walk, positions)


def check_bank(name: str) -> None:
    """Refuse unknown banks.

    Raises
    ------
    UsageError
        If there is no memory bank of this name.
    """
    if name not in get_args(BankName):
        msg = f"there is no memory bank '{name}'; choose from {', '.join(get_args(BankName))}"
        raise UsageError(msg)


class RecentBank:
    """The stock rule: the slices tracked last, by their distance."""

    def __init__(self) -> None:
        self._entries: dict[int, SliceEntry] = {}

    def add(self, z: int, entry: SliceEntry, embedding: Embedding) -> None:
        """Remember a slice."""
        self._entries[z] = entry

    def recall(self, z: int, embedding: Embedding) -> Mapping[int, SliceEntry]:
        """Return all slices of the walk under their own numbers; the stock code picks."""
        return self._entries


@dataclass(frozen=True, eq=False)
class _Kept:
    z: int
    entry: SliceEntry
    memory: torch.Tensor  # flat, of length 1
    embedding: torch.Tensor  # flat, of length 1


class SelfSortingBank:
    """The self-sorting bank of Medical SAM 2 (Zhu et al., 2024), carried over to slices.

    Its authors' 3D code has no such bank; their 2D code keeps one over the images of a data set.
    Here the slices of a walk take the place of the images; prompted slices stay conditioning
    memories, outside the bank, and object pointers come from the slices tracked last, as in the
    stock code.

    - **Writing.** Up to `CAPACITY` entries are kept. For a new one, *a* is the entry least
      similar to it and *b* the entry most similar to *a* (cosine of the memory features). The
      new one replaces *b* if it is less similar to *a* than *b* is, and its expected overlap
      is above that of *b* less `IOU_SLACK`: the bank becomes more diverse, of good quality.
    - **Reading.** Entries are drawn with replacement, with the softmax of the similarity of
      image embeddings as probabilities. The drawn ones take the stock code's positions by
      their distance in slices, the nearest first. The draw is seeded by anchor, direction and
      slice, so that a replay draws alike.

    Parameters
    ----------
    walk
        The walk it is for.
    positions
        How many entries are drawn, at most; never more than slices were tracked.
    """

    CAPACITY = 16
    IOU_SLACK = 0.1

    def __init__(self, walk: Walk, positions: int) -> None:
        self._walk, self._positions = walk, positions
        self._bank: list[_Kept] = []
        self._recent: dict[int, SliceEntry] = {}

    @property
    def slices(self) -> tuple[int, ...]:
        """The slices in the bank."""
        return tuple(kept.z for kept in self._bank)

    def add(self, z: int, entry: SliceEntry, embedding: Embedding) -> None:
        """Remember a slice, if the rule lets it in."""
        self._recent[z] = entry
        if entry.memory is None:
            return
        new = _Kept(z, entry, _unit(entry.memory), _unit(embedding()))
        if len(self._bank) < self.CAPACITY:
            self._bank.append(new)
            return
        memories = torch.stack([kept.memory for kept in self._bank])
        to_new = memories @ new.memory
        a = int(to_new.argmin())
        to_a = memories @ memories[a]
        to_a[a] = -torch.inf
        b = int(to_a.argmax())
        if to_new[a] < to_a[b] and entry.iou > self._bank[b].entry.iou - self.IOU_SLACK:
            self._bank[b] = new

    def recall(self, z: int, embedding: Embedding) -> Mapping[int, SliceEntry]:
        """Return drawn memories at the stock positions, with the pointers of recent slices."""
        if not self._bank:
            return self._recent
        similarity = torch.stack([kept.embedding for kept in self._bank]) @ _unit(embedding())
        weights = F.softmax(similarity.double(), dim=0).cpu().numpy()
        random = generator("self-sorting", self._walk.anchor, int(self._walk.reverse), z)
        step = 1 if self._walk.reverse else -1
        places = [z + step * i for i in range(1, self._positions + 1)]
        places = [place for place in places if place in self._recent]
        drawn = random.choice(len(self._bank), size=len(places), p=weights / weights.sum())
        nearest_first = sorted(drawn, key=lambda i: (abs(self._bank[i].z - z), i))
        seen = dict(self._recent)
        for place, i in zip(places, np.asarray(nearest_first), strict=True):
            seen[place] = replace(self._recent[place], memory=self._bank[i].entry.memory)
        return seen


def _unit(tensor: torch.Tensor) -> torch.Tensor:
    return F.normalize(tensor.detach().float().cpu().flatten(), dim=0)
