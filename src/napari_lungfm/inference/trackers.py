"""Every kind of promptable model as one kind of tracker, for the session.

A session drives `ObjectTracker`s: immutable states, step by step. `as_tracker` makes one of
whatever a model opens a volume with. All of them agree on what prompts mean:

- A slice whose prompts say that the object is there is segmented at once, and kept as it is when
  the object is carried on. On a slice that an earlier walk has reached, clicks correct what was
  found there; where that walk had found nothing, they are told what it found nearest.
- **Negative clicks alone** correct what a walk has found. Before one came by they wait for it.
  A walk yields the slices that they have corrected; those that say where the object is, it need
  not.
- **An empty outline** is a hole between prompted slices and an end beyond them.
- A slice drawn by hand is what the hand made it, whatever the model says.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.inference.propagation import SliceWalk, announce, edited, hand_edit
from napari_lungfm.models.crops import SliceCrop, whole_mask
from napari_lungfm.models.prompts import Box, Prompt, is_conditioning, says_absent
from napari_lungfm.models.protocols import (
    ObjectTracker,
    Prior,
    SlicePrediction,
    SlicePredictor,
    VolumePredictor,
)

#: Prompts by slice, stops left out.
Groups: TypeAlias = Mapping[int, tuple[Prompt, ...]]


def as_tracker(
    predictor: SlicePredictor | VolumePredictor | ObjectTracker[Any], geometry: VolumeGeometry
) -> ObjectTracker[Any]:
    """Return a tracker that drives a predictor.

    Parameters
    ----------
    predictor
        What a model opened the volume with. If it can do several things, stepping with a memory
        is preferred.
    geometry
        The grid of the volume.

    Returns
    -------
    ObjectTracker
        Giving it all prompts and walking through all slices gives the masks of
        `propagate_object`.
    """
    shape = geometry.shape[1:]
    if isinstance(predictor, ObjectTracker):
        return MemoryTracker(predictor, shape)
    if isinstance(predictor, VolumePredictor):
        return VolumeTracker(predictor, shape)
    return SliceTracker(predictor, shape)


@dataclass(frozen=True, eq=False)
class Known:
    """What a `SlicePredictor` said of one slice, in little memory."""

    crop: SliceCrop | None
    score: float | None
    memory: object

    @classmethod
    def of(cls, prediction: SlicePrediction) -> "Known":
        """Keep a prediction without its logits."""
        return cls(SliceCrop.of(prediction.mask), prediction.score, prediction.memory)

    def prediction(self, shape: tuple[int, int]) -> SlicePrediction:
        """Return it as a prediction."""
        return SlicePrediction(whole_mask(self.crop, shape), self.score, memory=self.memory)


@dataclass(frozen=True, eq=False)
class SliceState:
    """What is known of one object that a `SlicePredictor` segments.

    Parameters
    ----------
    groups
        Its prompts by slice.
    anchors
        The slices that prompts have settled.
    tracked
        The slices that walks have reached.
    under
        What walks had found on slices before they were prompted: what the prompts correct.
    """

    groups: Groups = field(default_factory=dict)
    anchors: Mapping[int, Known] = field(default_factory=dict)
    tracked: Mapping[int, Known] = field(default_factory=dict)
    under: Mapping[int, Known] = field(default_factory=dict)


class SliceTracker:
    """Makes an `ObjectTracker` of a `SlicePredictor`; see `propagation` for the way it walks.

    Parameters
    ----------
    predictor
        The model on the volume.
    shape
        Rows and columns of a slice.
    """

    def __init__(self, predictor: SlicePredictor, shape: tuple[int, int]) -> None:
        self._predictor, self._shape = predictor, shape

    def start(self, prompts: Sequence[Prompt] = ()) -> SliceState:
        """Return the state of a new object."""
        announce(self._predictor, prompts)
        return SliceState()

    def prompt(
        self, state: SliceState, z: int, prompts: Sequence[Prompt]
    ) -> tuple[SliceState, SlicePrediction]:
        """Segment, or correct, slice ``z`` from all prompts on it."""
        state = replace(state, groups={**state.groups, z: tuple(prompts)})
        base = state.under.get(z, state.tracked.get(z))
        nothing = SlicePrediction(np.zeros(self._shape, dtype=bool))
        if any(says_absent(prompt) for prompt in prompts):
            return replace(state, tracked=_less(state.tracked, z)), nothing
        conditioning = any(is_conditioning(prompt) for prompt in prompts)
        if not conditioning and base is None:
            return state, nothing
        prior = self._expected(state, z, base, prompts)
        prediction = edited(self._predictor.predict_slice(z, prompts, prior), prompts)
        anchors = _less(state.anchors, z)
        if conditioning or prediction.mask.any():
            anchors[z] = Known.of(prediction)
        under = state.under if base is None else {**state.under, z: base}
        tracked = _less(state.tracked, z)
        return replace(state, anchors=anchors, tracked=tracked, under=under), prediction

    def _expected(
        self, state: SliceState, z: int, base: Known | None, prompts: Sequence[Prompt]
    ) -> Prior | None:
        """Return what walks tell of a slice before its prompts are looked at.

        That is what they had found on it, which prompts correct. Clicks where they had found
        nothing say that the object goes on there: it is expected as on the nearest slice.
        """
        if hand_edit(prompts) is not None:
            return None
        areas = {i: known.crop.area for i, known in state.anchors.items() if known.crop}
        if base is not None and base.crop is not None:
            return Prior(z, base.crop.mask(self._shape), base.memory, prompted_areas=areas)
        if not state.tracked or any(isinstance(prompt, Box) for prompt in prompts):
            return None
        found = {i: known for i, known in {**state.tracked, **state.anchors}.items() if i != z}
        near = min((i for i, known in found.items() if known.crop), key=lambda i: abs(i - z))
        return Prior(
            near,
            whole_mask(found[near].crop, self._shape),
            found[near].memory,
            prompted_areas=areas,
        )

    def forget(self, state: SliceState, z: int) -> SliceState:
        """Take back all prompts of a slice."""
        return SliceState(
            _less(state.groups, z), _less(state.anchors, z), state.tracked, _less(state.under, z)
        )

    def walk(
        self, state: SliceState, slices: range, part: range | None = None
    ) -> Iterator[tuple[SliceState, int, SlicePrediction]]:
        """Carry the object through the slices; see `ObjectTracker.walk`."""
        part = slices if part is None else part
        anchors = {z: known for z, known in state.anchors.items() if z in slices}
        tracked = {z: known for z, known in state.tracked.items() if z in slices}
        state = replace(state, tracked=tracked)
        known = {z: anchor.prediction(self._shape) for z, anchor in anchors.items()}
        present = [z for z, anchor in anchors.items() if anchor.crop is not None]
        for z in sorted(known):
            if z in part and not any(is_conditioning(p) for p in state.groups.get(z, ())):
                yield state, z, known[z]  # still as negative clicks have corrected it
        for z, prediction in SliceWalk(self._predictor, state.groups, known).carry(slices, part):
            tracked = _less(state.tracked, z)
            if prediction.mask.any():
                tracked[z] = Known.of(prediction)
            elif z < min(present):  # the object has ended: nothing of it is left behind
                tracked = {i: item for i, item in tracked.items() if i > z}
            elif z > max(present):
                tracked = {i: item for i, item in tracked.items() if i < z}
            state = replace(state, tracked=tracked)
            yield state, z, prediction


@dataclass(frozen=True, eq=False)
class VolumeState:
    """What is known of one object that a `VolumePredictor` segments: prompts, masks by slice."""

    groups: Groups = field(default_factory=dict)
    masks: Mapping[int, SliceCrop | None] = field(default_factory=dict)


class VolumeTracker:
    """Makes an `ObjectTracker` of a `VolumePredictor` that has no steps (prompt-only baselines).

    Parameters
    ----------
    predictor
        The model on the volume.
    shape
        Rows and columns of a slice.
    """

    def __init__(self, predictor: VolumePredictor, shape: tuple[int, int]) -> None:
        self._predictor, self._shape = predictor, shape

    def start(self, prompts: Sequence[Prompt] = ()) -> VolumeState:
        """Return the state of a new object."""
        return VolumeState()

    def prompt(
        self, state: VolumeState, z: int, prompts: Sequence[Prompt]
    ) -> tuple[VolumeState, SlicePrediction]:
        """Segment slice ``z`` from all prompts on it; negative clicks alone change nothing."""
        prediction = SlicePrediction(whole_mask(state.masks.get(z), self._shape))
        if any(says_absent(prompt) for prompt in prompts):
            prediction = SlicePrediction(np.zeros(self._shape, dtype=bool))
        elif any(is_conditioning(prompt) for prompt in prompts):
            found = dict(self._predictor.propagate(prompts, range(z, z + 1), fill=False))
            prediction = edited(found.get(z, prediction), prompts)
        groups = {**state.groups, z: tuple(prompts)}
        return VolumeState(groups, _with(state.masks, z, prediction)), prediction

    def forget(self, state: VolumeState, z: int) -> VolumeState:
        """Take back all prompts of a slice."""
        return VolumeState(_less(state.groups, z), state.masks)

    def walk(
        self, state: VolumeState, slices: range, part: range | None = None
    ) -> Iterator[tuple[VolumeState, int, SlicePrediction]]:
        """Carry the object through the slices; see `ObjectTracker.walk`."""
        part = slices if part is None else part
        prompts = [p for _, group in sorted(state.groups.items()) for p in group]
        absent = {p.z for p in prompts if says_absent(p)}
        state = replace(state, masks={z: m for z, m in state.masks.items() if z in slices})
        for z, prediction in self._predictor.propagate(prompts, slices, fill=True):
            if z in absent or z not in part:
                continue
            found = edited(prediction, state.groups.get(z, ()))
            state = replace(state, masks=_with(state.masks, z, found))
            yield state, z, found


@dataclass(frozen=True, eq=False)
class MemoryState:
    """What is known of one object by a model with a memory.

    Parameters
    ----------
    inner
        The model's own state.
    groups
        All prompts by slice.
    told
        The slices whose prompts the model knows.
    found
        The slices on which its last walks found the object.
    corrected
        What is on the slices that have negative clicks alone and have been corrected by them.
    """

    inner: Any
    groups: Groups = field(default_factory=dict)
    told: frozenset[int] = frozenset()
    found: frozenset[int] = frozenset()
    corrected: Mapping[int, SliceCrop | None] = field(default_factory=dict)


class MemoryTracker:
    """Drives a native `ObjectTracker`, adding what only the whole set of prompts can tell.

    Holes are told to the model when a walk comes, for only then is it known whether they lie
    between prompted slices. Negative clicks on slices where nothing was found yet wait: the
    object is carried through first, corrected there, and carried through again.

    Parameters
    ----------
    tracker
        The model on the volume.
    shape
        Rows and columns of a slice.
    """

    def __init__(self, tracker: ObjectTracker[Any], shape: tuple[int, int]) -> None:
        self._tracker, self._shape = tracker, shape

    def start(self, prompts: Sequence[Prompt] = ()) -> MemoryState:
        """Return the state of a new object."""
        return MemoryState(self._tracker.start(prompts))

    def prompt(
        self, state: MemoryState, z: int, prompts: Sequence[Prompt]
    ) -> tuple[MemoryState, SlicePrediction]:
        """Segment, or correct, slice ``z`` from all prompts on it.

        Raises
        ------
        PromptError
            If the model cannot use them, such as beside what it has zoomed in on.
        """
        state = replace(state, groups={**state.groups, z: tuple(prompts)})
        absent = any(says_absent(prompt) for prompt in prompts)
        usable = z in state.told | state.found or any(is_conditioning(p) for p in prompts)
        if not absent and not usable:
            # They wait for a walk. Whether the model can use them is found out now: a walk that
            # has begun cannot start with a larger crop any more.
            self._tracker.prompt(state.inner, z, prompts)
        if absent or not usable:
            return state, SlicePrediction(np.zeros(self._shape, dtype=bool))
        return self._tell(state, z)

    def forget(self, state: MemoryState, z: int) -> MemoryState:
        """Take back all prompts of a slice."""
        groups = _less(state.groups, z)
        return replace(self._untell(state, z), groups=groups)

    def walk(
        self, state: MemoryState, slices: range, part: range | None = None
    ) -> Iterator[tuple[MemoryState, int, SlicePrediction]]:
        """Carry the object through the slices; see `ObjectTracker.walk`."""
        state = self._prepared(state, slices)
        for z, crop in sorted(state.corrected.items()):
            yield state, z, SlicePrediction(whole_mask(crop, self._shape))
        for latest, z, prediction in self._walk_once(state, slices, part):
            state = latest
            yield state, z, prediction
        doubts = [z for z in self._waiting(state) if z in state.found and z in slices]
        for z in doubts:
            state, prediction = self._tell(state, z)
            yield state, z, prediction
        if doubts:
            yield from self._walk_once(state, slices, part)

    def _prepared(self, state: MemoryState, slices: range) -> MemoryState:
        """Tell the model of holes; take back what lies where the object cannot be."""
        for z in sorted(state.told):
            if z not in slices:
                state = self._untell(state, z)
        for z, group in sorted(state.groups.items()):
            if z in slices and any(says_absent(prompt) for prompt in group):
                state, _ = self._tell(self._untell(state, z), z)
        return replace(state, found=frozenset(z for z in state.found if z in slices))

    def _walk_once(
        self, state: MemoryState, slices: range, part: range | None
    ) -> Iterator[tuple[MemoryState, int, SlicePrediction]]:
        for inner, z, prediction in self._tracker.walk(state.inner, slices, part):
            found = state.found | {z} if prediction.mask.any() else state.found - {z}
            state = replace(state, inner=inner, found=found)
            yield state, z, prediction

    def _waiting(self, state: MemoryState) -> list[int]:
        return [
            z
            for z, group in sorted(state.groups.items())
            if z not in state.told and not any(says_absent(prompt) for prompt in group)
        ]

    def _tell(self, state: MemoryState, z: int) -> tuple[MemoryState, SlicePrediction]:
        group = state.groups[z]
        inner, prediction = self._tracker.prompt(state.inner, z, group)
        prediction = edited(prediction, group)
        corrected = _less(state.corrected, z)
        if not any(is_conditioning(p) or says_absent(p) for p in group):
            corrected[z] = SliceCrop.of(prediction.mask)
        told = state.told | {z}
        return replace(state, inner=inner, told=told, corrected=corrected), prediction

    def _untell(self, state: MemoryState, z: int) -> MemoryState:
        if z not in state.told:
            return state
        inner = self._tracker.forget(state.inner, z)
        corrected = _less(state.corrected, z)
        return replace(state, inner=inner, told=state.told - {z}, corrected=corrected)


def _less(items: Mapping[int, Any], z: int) -> dict[int, Any]:
    return {i: item for i, item in items.items() if i != z}


def _with(
    masks: Mapping[int, SliceCrop | None], z: int, prediction: SlicePrediction
) -> dict[int, SliceCrop | None]:
    return {**masks, z: SliceCrop.of(prediction.mask)}
