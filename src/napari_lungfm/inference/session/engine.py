"""Do actions in the right order: check, let the model work, write the log, change the state."""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

from napari_lungfm.geometry import Volume
from napari_lungfm.inference.propagation import require_axial
from napari_lungfm.inference.session.caching import CacheBudget, open_volume
from napari_lungfm.inference.session.errors import SessionError
from napari_lungfm.inference.session.events import (
    AddPrompts,
    Change,
    ChangeT,
    Event,
    Prompting,
    Propagate,
    Redo,
    Undo,
    event_to_dict,
    plain,
)
from napari_lungfm.inference.session.history import (
    has_place,
    last_prompting,
    settled_slices,
    start_of_walk,
)
from napari_lungfm.inference.session.log import Entry, EventLog, stamped
from napari_lungfm.inference.session.results import fingerprint
from napari_lungfm.inference.session.runner import HistoryRunner, Tracked
from napari_lungfm.inference.session.state import SessionState
from napari_lungfm.inference.session.timeline import Record, Timeline
from napari_lungfm.inference.session.transitions import (
    Findings,
    added_by,
    after,
    check,
    history_after,
    object_of,
    prompts_after,
)
from napari_lungfm.inference.trackers import as_tracker
from napari_lungfm.models.prompts import by_slice
from napari_lungfm.models.protocols import PromptableModel
from napari_lungfm.preprocessing.windowing import check_no_nan


class SessionEngine:
    """The moving part of a session; `AnnotationSession` is its face.

    Parameters
    ----------
    volume
        The image.
    model
        The model.
    cache, kept_states, kept_bytes, kept_snapshots
        See `AnnotationSession`.
    """

    def __init__(
        self,
        volume: Volume,
        model: PromptableModel,
        *,
        cache: CacheBudget | None,
        kept_states: int,
        kept_bytes: int,
        kept_snapshots: int,
    ) -> None:
        require_axial(volume.geometry)
        check_no_nan(volume.array)
        self.volume, self.model = volume, model
        self.geometry = volume.geometry
        predictor, self.features = open_volume(model, volume, cache)
        if self.features is not None:  # its files go when nobody has the session any more
            weakref.finalize(self, self.features.close)
        tracker = as_tracker(predictor, volume.geometry)
        self.runner = HistoryRunner(tracker, volume.geometry, kept_states, kept_bytes)
        self.timeline = Timeline(volume.geometry, kept_snapshots)
        self.state = SessionState()
        self.log = EventLog()
        #: The propagation that is going on, and what it has found so far; no line of the log yet.
        self.under_way: tuple[Propagate, Findings] | None = None
        #: What every line of the log says of the model, asked for each: a GPU may be left.
        self.signature: Callable[[], Mapping[str, Any]] = dict
        self._busy = threading.Lock()

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Hold the session for one action.

        Raises
        ------
        SessionError
            If another one is going on.
        """
        if not self._busy.acquire(blocking=False):
            msg = "another action of this session is going on; finish or close it first"
            raise SessionError(msg)
        try:
            self.runner.interrupt.clear()
            yield
        finally:
            self._busy.release()

    def close(self) -> None:
        """Free features and states; what is asked of the model from here on begins anew."""
        self.runner.states.clear()
        if self.features is not None:
            self.features.close()

    def admitted(self, event: ChangeT) -> ChangeT:
        """Return an action in plain values, if it makes sense now and the log can take it.

        Nothing is computed yet: what could not be written afterwards is refused before.

        Raises
        ------
        PromptError, UsageError
            If the action is not allowed or a value makes no sense.
        OutputError
            If somebody else has changed the file of the log.
        """
        event = plain(event)
        check(self.state, event, self.geometry)
        self.log.rehearse(event_to_dict(event))
        return event

    def do(self, event: Change, findings: Findings | None = None) -> Findings:
        """Do an action; whatever fails leaves everything as it was.

        Parameters
        ----------
        event
            The action.
        findings
            What the model said when it was done before; ``None`` asks the model.

        Returns
        -------
        sequence of (int, SliceCrop or None)
            What the model said.

        Raises
        ------
        PromptError, UsageError, InterruptedActionError, OutputError
            If the action is not allowed, was interrupted, or the log cannot be written.
        """
        with self.acting():
            event = self.admitted(event)
            tracked = None
            if findings is None:
                findings, tracked = self._ask(event)
            self.commit(event, findings, tracked)
        return findings

    def commit(self, event: Change, findings: Findings, tracked: Tracked | None = None) -> None:
        """Write an action to the log, and then let it count.

        Parameters
        ----------
        event
            The action.
        findings
            What the model said.
        tracked
            Where the tracker stands after a walk.
        """
        state = after(self.state, event, findings, self.geometry)
        self._write(event, findings)
        self.timeline.add(event, findings, state)
        self.state = state
        if tracked is not None:
            history = object_of(state, event.label).history
            if history is not None:
                self.runner.keep(history, tracked)

    def undo(self) -> None:
        """Step back by one action."""
        self._step(Undo(), self.timeline.before, self.timeline.undo)

    def redo(self) -> None:
        """Step forward by one action."""
        self._step(Redo(), self.timeline.beyond, self.timeline.redo)

    def _step(
        self, event: Event, look: Callable[[], SessionState], step: Callable[[], None]
    ) -> None:
        with self.acting():
            state = look()
            self._write(event, ())
            step()
            self.state = state

    def recorded(self) -> tuple[list[Entry], list[Record]]:
        """Return all lines and records, as they would be if what is under way were cancelled now.

        So a file that is saved during a propagation has the slices that were found until then.
        """
        entries, records = list(self.log.entries), list(self.timeline.records)
        if self.under_way is not None and self.under_way[1]:
            order, findings = self.under_way
            order = replace(order, steps=len(findings))
            entries.append(stamped(len(entries), self._facts(order, findings)))
            # Who opens the file goes by the lines: what came before this record is said there.
            records.append(Record(order, tuple(findings), None))
        return entries, records

    def _facts(self, event: Event, findings: Findings) -> dict[str, Any]:
        facts = {**event_to_dict(event), **self.signature()}
        if isinstance(event, Prompting | Propagate):
            facts["result"] = fingerprint(findings)
        return facts

    def _write(self, event: Event, findings: Findings) -> None:
        self.log.append(self._facts(event, findings))

    # ------------------------------------------------------------------ the model
    def _ask(self, event: Change) -> tuple[Findings, Tracked | None]:
        if isinstance(event, Propagate):
            return self._walk(event)
        if isinstance(event, Prompting):
            return self._segment(event), None
        return (), None

    def _segment(self, event: Prompting) -> Findings:
        """Segment the prompted slices that an action changes."""
        obj = object_of(self.state, event.label)
        prompts = prompts_after(obj, event)
        # What walks bring after the last prompts has to wait for a propagation.
        history = last_prompting(history_after(obj, event))
        new = by_slice(prompts[number] for number in added_by(obj, event))
        if history is None or not has_place(prompts) or (isinstance(event, AddPrompts) and not new):
            return ()
        masks = self.runner.run(history).masks
        settled = settled_slices(prompts)
        return tuple(
            (z, crop)
            for z, crop in sorted(masks.items())
            # Lone negative clicks may still wait for a walk; what is shown there stays.
            if z in new or ((z in settled or crop is not None) and crop != obj.masks.get(z))
        )

    def _walk(self, event: Propagate) -> tuple[Findings, Tracked | None]:
        """Repeat a walk with the slices that it had."""
        history = object_of(self.state, event.label).history
        if history is None:
            return (), None
        history = start_of_walk(history, event)
        tracked, found = self.runner.run(history), []
        for latest, z, crop in islice(self.runner.walk(history, event, tracked), event.steps):
            self.runner.check_interrupt()
            tracked = latest
            found.append((z, crop))
        return tuple(found), tracked
