"""Propagation: an object is carried through the slices, which show as they are found."""

from napari_lungfm.gui.annotation.autosave import Meanwhile
from napari_lungfm.gui.annotation.bench_view import counted
from napari_lungfm.gui.annotation.facts import Walking
from napari_lungfm.gui.annotation.jobs import JobContext
from napari_lungfm.gui.annotation.notices import explain
from napari_lungfm.gui.annotation.work import Patch, Report, WalkFailedError
from napari_lungfm.gui.annotation.workbench import Workbench
from napari_lungfm.inference.session import AnnotationSession, SessionState
from napari_lungfm.inference.session.events import Direction


class Walks:
    """One propagation at a time.

    What it finds is saved every few seconds, so that a crash loses no more than that.

    Parameters
    ----------
    bench
        What is worked on.
    """

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self.now: Walking | None = None

    def forget(self) -> None:
        """Show none any more."""
        if self.now is not None:
            self._tell(None)

    def begin(self, direction: Direction, until: int | None) -> None:
        """Carry the active object through the slices."""
        bench = self._bench
        label, obj = bench.active, bench.active_object
        if obj is None or not obj.prompts:
            bench.say("warning", "There is nothing to propagate yet: draw a box first (B).")
            return
        if self.now is not None:
            return
        self._tell(Walking(label))
        engine = bench.engine
        save = None if bench.log is None else Meanwhile(engine.keep)

        def work(context: JobContext) -> Report:
            return engine.walk(label, direction, until, context, self._on_slice, save)

        def done(report: Report) -> None:
            self._on_walked(report, direction, until)

        bench.submit(work, done, self._on_failed)

    def take_back(self) -> None:
        """End the propagation that is going on, and undo it; nothing else is undone."""
        bench, engine = self._bench, self._bench.engine
        bench.cancel()

        def act(session: AnnotationSession) -> object:
            # Cancelled before its first slice, it was no action.
            return session.undo() if len(session.entries) > engine.walk_began else None

        def done(report: Report) -> None:
            bench.acted(report, "undo")
            again = " Redo brings back what it had found." if report.can_redo else ""
            bench.say("done", f"The propagation was stopped and taken back.{again}")

        label = self.now.label if self.now is not None else bench.active
        bench.submit(lambda _: engine.act(act, label), done)

    def _tell(self, walking: Walking | None) -> None:
        self.now = walking
        self._bench.walking.emit(walking)

    def _on_slice(self, z: int, patch: Patch | None, state: SessionState) -> None:
        if self.now is None:
            return
        self._bench.shows(state)
        if patch is not None:
            self._bench.draw(patch)
        self._tell(Walking(self.now.label, z, self.now.done + 1))

    def _on_walked(self, report: Report, direction: Direction, until: int | None) -> None:
        bench, done = self._bench, self.now.done if self.now else 0
        self._tell(None)
        bench.acted(report, "propagate")
        obj = bench.objects.get(report.label or 0)
        extent = obj.extent if obj else None
        if obj is None or extent is None:
            return
        size = obj.voxels * bench.voxel_volume_ml()
        text = f"'{obj.name}': slices {extent[0]} to {extent[1]}, {size:.1f} mL"
        edge = self._edge_reached(extent, direction, until)
        if edge:
            stop = f"it reaches the {edge} slice of the image: check the end, or mark it (S)."
            bench.say("warning", f"{text}; {stop}")
        else:
            bench.say("done", f"{text} ({done} slices in {report.seconds:.1f} s).")

    def _edge_reached(
        self, extent: tuple[int, int], direction: Direction, until: int | None
    ) -> str:
        """Say at which end of the image, not wished for, a propagation has ended."""
        here = self._bench.annotation
        last = here.volume.shape[0] - 1 if here is not None else -1
        edges = (("first", 0, extent[0], "up"), ("last", last, extent[1], "down"))
        return " and the ".join(
            word
            for word, edge, end, away in edges
            if end == edge and direction != away and until != edge
        )

    def _on_failed(self, error: BaseException) -> None:
        bench, done = self._bench, self.now.done if self.now else 0
        self._tell(None)
        if not isinstance(error, WalkFailedError):
            bench.failed(error)
            return
        bench.acted(error.report, "propagate")
        notice = explain(error.cause)
        kept = f" {counted(done, 'slice')} that it had found stayed." if done else ""
        bench.say(notice.level, f"The propagation ended early. {notice.text}{kept}")
