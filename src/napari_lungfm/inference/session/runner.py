"""Run a tracker through an object's history, and keep the states used last."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from napari_lungfm._core.exceptions import PromptError
from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.inference.session.errors import InterruptedActionError
from napari_lungfm.inference.session.events import Propagate
from napari_lungfm.inference.session.history import (
    PromptStep,
    Step,
    WalkStep,
    settled_slices,
    steps_of,
    walk_ranges,
)
from napari_lungfm.inference.session.kept import KeptStates
from napari_lungfm.models.automatic.protocol import CancelCallback
from napari_lungfm.models.crops import SliceCrop
from napari_lungfm.models.prompts import by_slice, in_order
from napari_lungfm.models.protocols import ObjectTracker


@dataclass(frozen=True, eq=False)
class Tracked:
    """Where a tracker stands after a history.

    Parameters
    ----------
    state
        The tracker's own state.
    masks
        What is on the prompted slices.
    """

    state: Any
    masks: Mapping[int, SliceCrop | None] = field(default_factory=dict)


class HistoryRunner:
    """Computes what a history leads to.

    Parameters
    ----------
    tracker
        The model on the volume.
    geometry
        The grid of the volume.
    kept_states
        How many states are kept; others are made again when they are needed.
    kept_bytes
        How much memory they may hold together; the latest one is kept in any case.
    """

    def __init__(
        self,
        tracker: ObjectTracker[Any],
        geometry: VolumeGeometry,
        kept_states: int,
        kept_bytes: int,
    ) -> None:
        self._tracker, self._geometry = tracker, geometry
        self.states: KeptStates[Tracked] = KeptStates(kept_states, kept_bytes)
        #: Set from another thread to interrupt what runs, at the next slice.
        self.interrupt = threading.Event()
        #: Asked after each slice whether to interrupt; for what takes several actions.
        self._cancelled: CancelCallback = _never

    def run(self, history: Step) -> Tracked:
        """Return where the tracker stands after a history, from the nearest kept state on.

        Raises
        ------
        PromptError
            If the model cannot use the prompts.
        InterruptedActionError
            If it is interrupted between two slices.
        """
        missing: list[Step] = []
        step: Step | None = history
        while step is not None and step.key not in self.states:
            missing.append(step)
            step = step.parent
        tracked = None if step is None else self.states.get(step.key)
        for step in reversed(missing):
            tracked = self._after(step, tracked)
            self.keep(step, tracked)
        if tracked is None:
            msg = "an empty history leads nowhere"
            raise ValueError(msg)
        return tracked

    @contextmanager
    def cancelled_by(self, cancelled: CancelCallback | None) -> Iterator[None]:
        """Ask somebody else as well, while the block runs, whether to interrupt."""
        self._cancelled = cancelled or _never
        try:
            yield
        finally:
            self._cancelled = _never

    def check_interrupt(self) -> None:
        """End the action that is going on, if somebody wants that.

        Raises
        ------
        InterruptedActionError
            If `interrupt` is set, or who was named to `cancelled_by` says yes.
        """
        if self.interrupt.is_set() or self._cancelled():
            msg = "the action was interrupted; nothing has changed"
            raise InterruptedActionError(msg)

    def keep(self, history: Step, tracked: Tracked) -> None:
        """Remember where the tracker stands after a history."""
        self.states.keep(history.key, tracked)

    def walk(
        self, history: Step, order: Propagate, tracked: Tracked
    ) -> Iterator[tuple[Tracked, int, SliceCrop | None]]:
        """Walk on from the end of a history, one slice after the other."""
        slices, part = walk_ranges(history.prompts, order, self._geometry)
        with_prompts = by_slice(history.prompts.values())
        settled = settled_slices(history.prompts)
        # Where negative clicks are alone, the walk has to say anew what is there.
        masks = {z: crop for z, crop in tracked.masks.items() if z in settled}
        for state, z, prediction in self._tracker.walk(tracked.state, slices, part):
            crop = SliceCrop.of(prediction.mask)
            if z in with_prompts:
                masks = {**masks, z: crop}
            yield Tracked(state, masks), z, crop

    def _after(self, step: Step, tracked: Tracked | None) -> Tracked:
        if isinstance(step, WalkStep):
            return self._walked(step, tracked)
        try:
            return self._prompted(step, tracked)
        except PromptError:
            if tracked is None:
                raise
        # A model that zooms in has chosen a crop that the new prompts do not fit into: begin
        # anew with all that is known now of the object's place.
        begun = Tracked(self._tracker.start(in_order(step.prompts.values())))
        for each in steps_of(step):
            if isinstance(each, WalkStep):
                begun = self._walked(each, begun)
            else:
                begun = self._prompted(each, begun)
        return begun

    def _prompted(self, step: PromptStep, tracked: Tracked | None) -> Tracked:
        ordered = in_order(step.prompts.values())
        if tracked is None:
            tracked = Tracked(self._tracker.start(ordered))
        groups, masks, state = by_slice(ordered), dict(tracked.masks), tracked.state
        for number, z in enumerate(step.slices):
            if number:  # between two slices, as everywhere: what was asked once is answered
                self.check_interrupt()
            state, prediction = self._tracker.prompt(state, z, groups[z])
            masks[z] = SliceCrop.of(prediction.mask)
        return Tracked(state, masks)

    def _walked(self, step: WalkStep, tracked: Tracked | None) -> Tracked:
        if tracked is None:
            msg = "a history cannot begin with a walk"
            raise ValueError(msg)
        stream = self.walk(step.parent, step.order, tracked)
        for done, (latest, _, _) in enumerate(stream, start=1):
            tracked = latest
            if done == step.order.steps:
                break
            self.check_interrupt()
        return tracked


def _never() -> bool:
    return False
