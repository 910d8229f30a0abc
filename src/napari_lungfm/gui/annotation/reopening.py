"""Another session in the place of the present one: restored, or repeated by another model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm.gui.annotation.bench_view import counted
from napari_lungfm.gui.annotation.errors import SessionModelError
from napari_lungfm.gui.annotation.facts import Annotation, Repeating
from napari_lungfm.gui.annotation.jobs import JobContext
from napari_lungfm.gui.annotation.notices import explain
from napari_lungfm.gui.annotation.session_files import SavedSession
from napari_lungfm.gui.annotation.work import ModelWish, Report
from napari_lungfm.inference.session import InterruptedActionError
from napari_lungfm.plugin.layer_geometry import LayerData
from napari_lungfm.plugin.reader import read_layers

if TYPE_CHECKING:
    from napari_lungfm.gui.annotation.workbench import Workbench

#: Opens a session: gets the file of its log, and what tells of progress and asks for an end.
_Load = Callable[[Path | None, dict[str, Any]], Report]


class Reopening:
    """Restores sessions and changes models; what was open stays if that fails.

    Parameters
    ----------
    bench
        What is worked on.
    """

    def __init__(self, bench: "Workbench") -> None:
        self._bench = bench
        self.now: Repeating | None = None

    def forget(self) -> None:
        """Show none any more."""
        if self.now is not None:
            self._tell(None)

    def restore(self, saved: SavedSession) -> None:
        """Go on with a session of this image that was saved, with the model that it was made with.

        Where that model cannot be used, its masks are shown as a layer.
        """
        bench = self._bench
        before, fresh = bench.wish, bench.annotation is None
        wish = ModelWish(saved.model, before.device, tuple(saved.options.items()))
        here = bench.lay_out(wish) if bench.annotation is None else bench.annotation
        if here is None:
            return
        engine, source, volume = bench.engine, saved.best, here.volume

        def load(log: Path | None, told: dict[str, Any]) -> Report:
            if fresh:
                engine.session = None  # that of an image before
            try:
                engine.model(wish)
            except LungFMError as error:
                msg = f"the session needs its model '{wish.name}': {error}"
                raise SessionModelError(msg) from error
            return engine.load(source, volume, wish, log, **told)

        def failed(error: BaseException) -> None:
            if fresh and bench.annotation is here:
                bench.end()
            if isinstance(error, InterruptedActionError):
                bench.say("warning", "Cancelled: nothing was restored.")
            else:
                self._show_masks(saved, here.image, error)
            bench.look_for_sessions(here.image)

        bench.say("hint", f"Restoring the session, with '{wish.name}' …")
        self._reopen(here, wish, before, load, self._restored, failed)

    def _restored(self) -> None:
        bench = self._bench
        text = f"Restored: {counted(len(bench.objects), 'object')}."
        last = bench.session.entries[-1] if bench.session is not None else {}
        obj = bench.objects.get(last.get("object", 0))
        if last.get("cancelled_after") and obj is not None:
            done = counted(int(last["cancelled_after"]), "slice")
            bench.say(
                "warning",
                f"{text} The last propagation of '{obj.name}' was not finished: {done} of it are "
                "here. Propagate again (G).",
            )
        else:
            bench.say("done", text)

    def _show_masks(self, saved: SavedSession, image: Image, error: BaseException) -> None:
        """Show the masks of a session that cannot be gone on with, and say why."""
        bench, notice, path = self._bench, explain(error), saved.masks

        def failed(_: BaseException) -> None:
            bench.noticed.emit(notice)

        def done(found: list[LayerData]) -> None:
            ((data, options, kind),) = found
            name = f"{image.name} (saved masks)"
            if image in bench.viewer.layers and name not in bench.viewer.layers:
                bench.viewer.add_layer(Layer.create(data, {**options, "name": name}, kind))
            then = " Then press Restore again." if isinstance(error, SessionModelError) else ""
            bench.say(notice.level, f"{notice.text}{then} Its masks are in the layer '{name}'.")

        if path is None:
            failed(error)
        else:
            bench.submit(lambda _: read_layers(path), done, failed)

    def change_model(self, here: Annotation, wish: ModelWish) -> None:
        """Repeat all that was done with another model."""
        bench, engine, volume = self._bench, self._bench.engine, here.volume

        def load(log: Path | None, told: dict[str, Any]) -> Report:
            if engine.session is None:
                return engine.open(volume, wish, log)
            return engine.load(engine.recording(), volume, wish, log, other_model=True, **told)

        def done() -> None:
            repeated = any(each.prompts for each in bench.objects.values())
            what = "Your prompts were repeated with" if repeated else "Ready:"
            bench.say("done", f"{what} '{wish.name}'.")

        def failed(error: BaseException) -> None:
            bench.failed(error)
            if isinstance(error, InterruptedActionError):
                bench.say("warning", f"Cancelled: '{here.wish.name}' and its masks stay.")

        bench.say("hint", f"Getting '{wish.name}' ready …")
        self._reopen(here, wish, here.wish, load, done, failed)

    def _reopen(
        self,
        here: Annotation,
        wish: ModelWish,
        before: ModelWish,
        load: _Load,
        then: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Put another session in the place of the present one; ``before`` is wished for if not."""
        bench = self._bench
        log = bench.new_log(here.image, here.volume)

        def work(context: JobContext) -> Report:
            told = {
                "progress": lambda done, total: context.report(self._on_repeated, done, total),
                "cancelled": lambda: context.cancelled,
            }
            return load(log, told)

        def done(report: Report) -> None:
            self._tell(None)
            bench.discard_if_empty(here.log)
            here.log, here.wish, here.ready = log, wish, True
            bench.wish = wish
            bench.take_in(report)
            bench.take_ended_away(here)
            then()
            bench.tell_remark(report.remark)

        def not_done(error: BaseException) -> None:
            self._tell(None)
            bench.wish = before
            failed(error)

        self._tell(Repeating())
        bench.submit(work, done, not_done)

    def _on_repeated(self, done: int, total: int) -> None:
        if self.now is not None:
            self._tell(Repeating(done, total))

    def _tell(self, repeating: Repeating | None) -> None:
        self.now = repeating
        self._bench.repeating.emit(repeating)
