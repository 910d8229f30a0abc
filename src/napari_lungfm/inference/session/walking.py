"""One propagation as it happens: a stream of slices that can be cancelled between two of them."""

from collections.abc import Generator
from dataclasses import replace

from napari_lungfm.inference.session.engine import SessionEngine
from napari_lungfm.inference.session.events import Propagate
from napari_lungfm.inference.session.history import start_of_walk
from napari_lungfm.inference.session.results import SliceUpdate
from napari_lungfm.inference.session.runner import Tracked
from napari_lungfm.inference.session.state import SessionState, changed_in_slice
from napari_lungfm.inference.session.transitions import object_of, with_slice
from napari_lungfm.models.crops import SliceCrop


class LiveWalk:
    """A propagation under way.

    While it runs, the session shows the slices that were found; only when it ends, is cancelled
    or fails on the way does it become an action of the log. What it has found so far is the
    engine's ``under_way``, so that a session that is saved meanwhile has it.

    Parameters
    ----------
    engine
        The session.
    order
        What to do.
    """

    def __init__(self, engine: SessionEngine, order: Propagate) -> None:
        self._engine, self._order = engine, order
        self._found: list[tuple[int, SliceCrop | None]] = []
        self._tracked: Tracked | None = None

    def stream(self) -> Generator[SliceUpdate, None, None]:
        """Yield the slices; see `AnnotationSession.propagate`."""
        engine = self._engine
        with engine.acting():
            self._order = engine.admitted(self._order)
            before = engine.state
            try:
                finished = yield from self._slices()
            except BaseException:  # closed, or the model failed: what was found counts
                self._end(before, finished=False)
                raise
            shown = engine.state
            self._end(before, finished=finished)
            yield from self._cleared(shown)

    def _slices(self) -> Generator[SliceUpdate, None, bool]:
        """Show each slice as it comes; return whether the walk came to its end."""
        engine, label = self._engine, self._order.label
        history = object_of(engine.state, label).history
        if history is None:
            return True
        history = start_of_walk(history, self._order)
        self._tracked = engine.runner.run(history)
        engine.under_way = (self._order, self._found)
        for tracked, z, crop in engine.runner.walk(history, self._order, self._tracked):
            self._tracked = tracked
            self._found.append((z, crop))
            old = object_of(engine.state, label)
            objects = {**engine.state.objects, label: with_slice(old, z, crop)}
            engine.state = replace(engine.state, objects=objects)
            if crop is not None or z in old.masks:
                yield self._update(z, old.masks.get(z), crop)
            if engine.runner.interrupt.is_set():
                return False
        return True

    def _end(self, before: SessionState, *, finished: bool) -> None:
        self._engine.state, self._engine.under_way = before, None
        if not finished and not self._found:
            return
        steps = None if finished else len(self._found)
        order = replace(self._order, steps=steps)
        self._engine.commit(order, tuple(self._found), self._tracked)

    def _cleared(self, shown: SessionState) -> Generator[SliceUpdate, None, None]:
        """Tell of slices on which nothing is any more, for the walk did not get there."""
        label = self._order.label
        now = object_of(self._engine.state, label).masks
        for z, crop in sorted(shown.objects[label].masks.items()):
            if z not in now:
                yield self._update(z, crop, None)

    def _update(self, z: int, before: SliceCrop | None, crop: SliceCrop | None) -> SliceUpdate:
        shape = self._engine.geometry.shape[1:]
        return SliceUpdate(z, crop, changed_in_slice(z, before, crop), shape)
