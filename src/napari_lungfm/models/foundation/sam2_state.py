"""What a SAM 2 tracker knows of one object: an immutable value.

The publishers' predictor changes its state in place. Here every step returns a new state that
shares all slices it did not touch, so that undo is keeping the old one, and objects cannot
influence each other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch

from napari_lungfm.models.foundation.zoom import Crop


@dataclass(frozen=True)
class Walk:
    """One way from a prompted slice, in one propagation.

    Parameters
    ----------
    anchor
        The prompted slice it starts from.
    reverse
        It goes to lower slice numbers.
    run
        Number of the propagation.
    """

    anchor: int
    reverse: bool
    run: int


@dataclass(frozen=True, eq=False)
class SliceEntry:
    """What the model said of one slice; nobody changes it.

    Parameters
    ----------
    logits
        Mask logits ``(1, 1, S/4, S/4)``, float32, positive inside.
    pointer
        Object pointer ``(1, C)``.
    object_score
        Logit ``(1, 1)`` that the object is on the slice.
    iou
        Overlap that the model expects its mask to have.
    memory
        Memory features ``(1, M, S/16, S/16)``, bfloat16; ``None`` until they are needed.
    walk
        The walk that reached the slice; ``None`` for prompted slices that no walk has passed.
    """

    logits: torch.Tensor
    pointer: torch.Tensor
    object_score: torch.Tensor
    iou: float
    memory: torch.Tensor | None = None
    walk: Walk | None = None

    @property
    def found(self) -> bool:
        """The object is on the slice."""
        return bool((self.logits > 0).any())

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        tensors = (self.logits, self.pointer, self.object_score, self.memory)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


@dataclass(frozen=True, eq=False)
class TrackState:
    """All that is known of one object.

    Parameters
    ----------
    crop
        What the model sees of every slice.
    conditioning
        Prompted slices, their memories made.
    pending
        Prompted slices since the last propagation; not seen by other slices yet.
    tracked
        Slices reached by propagation.
    run
        Number of propagations so far.
    """

    crop: Crop
    conditioning: Mapping[int, SliceEntry] = field(default_factory=dict)
    pending: Mapping[int, SliceEntry] = field(default_factory=dict)
    tracked: Mapping[int, SliceEntry] = field(default_factory=dict)
    run: int = 0

    def latest(self, z: int) -> SliceEntry | None:
        """Return what is known of a slice, the newest first."""
        for entries in (self.pending, self.conditioning, self.tracked):
            if z in entries:
                return entries[z]
        return None

    @property
    def prompted(self) -> tuple[int, ...]:
        """The prompted slices in ascending order."""
        return tuple(sorted({*self.conditioning, *self.pending}))

    def fellows(self, walk: Walk) -> dict[int, SliceEntry]:
        """Return the tracked slices of one walk."""
        return {z: entry for z, entry in self.tracked.items() if entry.walk == walk}

    def with_pending(self, z: int, entry: SliceEntry) -> "TrackState":
        """Return the state with a slice prompted (again)."""
        return replace(self, pending={**self.pending, z: entry})

    def with_tracked(self, z: int, entry: SliceEntry) -> "TrackState":
        """Return the state with a slice reached."""
        return replace(self, tracked={**self.tracked, z: entry})

    def without_prompts(self, z: int) -> "TrackState":
        """Return the state with all prompts of a slice taken back.

        What they led to on other slices stays until the next propagation.
        """
        return replace(
            self, conditioning=_less(self.conditioning, {z}), pending=_less(self.pending, {z})
        )

    def without_tracked(self, slices: Iterable[int]) -> "TrackState":
        """Return the state with tracked slices forgotten."""
        return replace(self, tracked=_less(self.tracked, set(slices)))

    def settled(self, remembered: Mapping[int, SliceEntry]) -> "TrackState":
        """Return the state with the pending slices conditioning, their memories made."""
        return replace(
            self,
            conditioning={**self.conditioning, **remembered},
            pending={},
            tracked=_less(self.tracked, set(remembered)),
        )

    def begun(self, slices: range) -> "TrackState":
        """Return the state at the beginning of a propagation through ``slices``.

        Prompted slices become the anchors of their own walks; from now on a prompt on them is a
        correction. What was tracked outside the range is forgotten.
        """
        run = self.run + 1
        anchors = {
            z: replace(entry, walk=Walk(z, reverse=False, run=run))
            for z, entry in sorted(self.conditioning.items())
        }
        tracked = {z: entry for z, entry in self.tracked.items() if z in slices}
        return replace(self, conditioning=anchors, tracked=tracked, run=run)


def _less(entries: Mapping[int, SliceEntry], slices: set[int]) -> dict[int, SliceEntry]:
    return {z: entry for z, entry in entries.items() if z not in slices}
