"""The workbench: an image, its layers and its session; opened, restored and closed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_lungfm._core.exceptions import LungFMError, OutputError
from napari_lungfm.geometry import Volume
from napari_lungfm.gui.annotation.autosave import Autosave
from napari_lungfm.gui.annotation.bench_view import BenchView, Shown
from napari_lungfm.gui.annotation.ended import EndedMasks
from napari_lungfm.gui.annotation.facts import Annotation, Interaction, Repeating
from napari_lungfm.gui.annotation.gl_context import make_current
from napari_lungfm.gui.annotation.images import assumption_about, volume_of
from napari_lungfm.gui.annotation.jobs import Deliver, JobContext, JobQueue
from napari_lungfm.gui.annotation.layers import AnnotationLayers, is_ours
from napari_lungfm.gui.annotation.notices import explain
from napari_lungfm.gui.annotation.remarks import in_one_line
from napari_lungfm.gui.annotation.reopening import Reopening
from napari_lungfm.gui.annotation.session_files import SavedSession, SessionFiles
from napari_lungfm.gui.annotation.view import SliceView
from napari_lungfm.gui.annotation.work import ModelWish, NoSessionError, Patch, Report
from napari_lungfm.inference.session import AnnotationSession, SessionState


class Workbench(BenchView):
    """What is open, and how answers of the engine get to the screen.

    All methods are for the GUI's thread and return at once; what takes time is done by the
    engine on its own thread, and comes back through ``deliver``.

    Parameters
    ----------
    viewer
        The viewer.
    deliver
        Runs a callable soon on the GUI's thread, from any thread.
    files
        Where sessions are kept; ``None`` keeps none.
    """

    def __init__(
        self, viewer: ViewerModel, deliver: Deliver, *, files: SessionFiles | None = None
    ) -> None:
        super().__init__()
        self.viewer, self.defer, self._files = viewer, deliver, files
        self._queue = JobQueue(deliver, lambda _: self.changed.emit())
        self._autosave = Autosave(self.engine, self.submit, self.note_renewed, self.failed)
        self._closed = False
        self._reopening = Reopening(self)
        self._ended = EndedMasks(viewer)
        self.image: Image | None = None
        self.wish = ModelWish("classical")
        viewer.layers.events.removing.connect(self._before_removal)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        viewer.layers.selection.events.active.connect(self._on_active_layer)

    @property
    def busy(self) -> bool:
        """Whether the engine works or has work waiting."""
        return self._queue.pending > 0

    @property
    def under_way(self) -> bool:
        """Whether something is being done that another image would break off."""
        here = self.annotation
        return self.repetition is not None or (here is not None and here.layers.in_hand)

    @property
    def repetition(self) -> Repeating | None:
        """How far a session is that is done again."""
        return self._reopening.now

    # ------------------------------------------------------------------ beginning and ending
    def set_image(self, image: Image | None) -> None:
        """Choose the image; an annotation of another one is closed."""
        if image is self.image:
            return
        self.image = image
        if self.annotation is not None and self.annotation.image is not image:
            self.end()
        self._remark_on_image()
        self.look_for_sessions(image)
        self.changed.emit()

    def look_for_sessions(self, image: Image | None) -> None:
        """Tell of sessions of an image before anybody works on it, after a crash say."""
        files = self._files
        # Other arrays than numpy's may take long to read; they are looked at when work begins.
        if image is None or files is None or not isinstance(image.data, np.ndarray):
            return
        try:
            volume = volume_of(image)
        except LungFMError:  # said when it is to be worked on
            return

        def done(found: list[SavedSession]) -> None:
            if found and self.image is image and self.annotation is None:
                self.restorable.emit(found)

        self.submit(lambda _: files.of_volume(volume), done)

    def set_model(self, wish: ModelWish) -> None:
        """Choose the model. Prompts that were given already are repeated with it."""
        if wish == self.wish:
            return
        self.wish = wish
        here = self.annotation
        if here is not None and here.wish != wish:
            self._reopening.change_model(here, wish)
        self.changed.emit()

    def begin(self) -> Annotation | None:
        """Open a session on the image, unless one is open; ``None`` where there is no image."""
        if self.annotation is not None:
            return self.annotation
        here = self.lay_out(self.wish)
        if here is None:
            return None
        here.log = log = self.new_log(here.image, here.volume)
        volume, wish, engine = here.volume, here.wish, self.engine
        self.say("hint", f"Getting '{wish.name}' ready …")
        self.submit(lambda _: engine.open(volume, wish, log), self._on_opened, self._on_not_opened)
        return here

    def lay_out(self, wish: ModelWish) -> Annotation | None:
        """Put the layers to work with onto the image; a session is still to be opened.

        ``None``, and a word on what to do, where there is no image that can be worked on.
        """
        if self.image is None or self.image not in self.viewer.layers:
            self.say(
                "error",
                "There is no image yet: open a CT (Open in Annotate, or File → Open Sample → "
                "LungFM).",
            )
            return None
        try:
            volume = volume_of(self.image)
        except LungFMError as error:
            self.noticed.emit(explain(error))
            return None
        layers = AnnotationLayers(self.viewer, self.image, self.defer)
        view = SliceView(self.viewer, self.image)
        here = Annotation(self.image, volume, layers, view, wish, None)
        self.annotation = here
        self.forget()
        self.connect(layers)
        self._recolour()
        self.opened.emit()
        return here

    def new_log(self, image: Image, volume: Volume) -> Path | None:
        """Return where a new session is to be kept, ``None`` for nowhere."""
        if self._files is None:
            return None
        return self._files.new_log(image.name, volume.metadata.get("source"))

    def discard_if_empty(self, log: Path | None) -> None:
        """Remove the files of a session in which nothing was done."""
        if self._files is not None:
            self._files.discard_if_empty(log)

    def end(self) -> None:
        """Close the session; what was done is kept in its file, the masks stay on screen."""
        here, self.annotation = self.annotation, None
        if here is None:
            return
        self._queue.renew()
        self._interrupt()
        layers = self.viewer.layers
        # napari removes several layers one by one, and those that it still has to must be there.
        here.layers.close(later=here.image not in layers or here.layers.masks not in layers)
        self.discard_if_empty(here.log)
        self._ended.note(here.image, here.layers.masks, here.log)
        self.forget()
        self.opened.emit()
        self.changed.emit()

    def keeps(self, layer: Layer) -> bool:
        """Tell whether a layer is ours to take away: what it shows is kept, or can be had again."""
        return is_ours(layer) or self._ended.keeps(layer)

    def take_ended_away(self, here: Annotation) -> None:
        """Remove the masks of sessions of the same image that have ended."""
        self._ended.take_away(here.image)
        here.layers.masks.name = "masks"

    def close(self) -> None:
        """End everything; nothing of the controller is called any more."""
        if self._closed:
            return
        self._closed = True
        self._interrupt()
        self._queue.close()
        self.end()
        self.viewer.layers.events.removing.disconnect(self._before_removal)
        self.viewer.layers.events.removed.disconnect(self._on_layer_removed)
        self.viewer.layers.selection.events.active.disconnect(self._on_active_layer)

    def forget(self) -> None:
        """Begin with nothing shown."""
        self._shown, self._active, self._began = Shown(), 0, time.monotonic()
        self._colours.clear()
        self._autosave.forget()
        self._reopening.forget()
        self._remark_on_image()

    def _remark_on_image(self) -> None:
        self.tell_remark(in_one_line([assumption_about(self.image)]))

    def connect(self, layers: AnnotationLayers) -> None:
        """Listen to new layers."""
        for layer in layers.all:
            layer.events.mode.connect(self._on_mode)
        layers.masks.events.selected_label.connect(self._on_selected_label)

    def waiting_slices(self) -> frozenset[int]:
        """Return the slices that the engine's answers must not touch yet."""
        return frozenset()

    def hint(self) -> str:
        """Return what to do next."""
        return ""

    def say_after(self, kind: str, report: Report, remark: str = "") -> None:
        """Say what follows from an action."""

    def _on_opened(self, report: Report) -> None:
        here = self.annotation
        if here is None:
            return
        here.ready = True
        self.take_in(report)
        self.take_ended_away(here)
        self.say("hint", f"'{here.wish.name}' is ready. {self.hint()}")
        session = self.engine.session
        if self._files and session is not None and here.log is not None:
            mark = session.entries[0]["image"].get("hash", "")
            source = here.volume.metadata.get("source")
            found = self._files.of_image(mark, source, other_than=here.log)
            if found and not self.objects:
                self.restorable.emit(found)
        self.tell_remark(report.remark)

    def _on_not_opened(self, error: BaseException) -> None:
        log = self.log
        self.end()
        if isinstance(error, OutputError) and self._files is not None:
            if log is not None and self._files.give_up(log):
                self.begin()
                return
            self._files = None
            self.say("warning", f"{error}. Press B again to go on without saving the session.")
            return
        self.noticed.emit(explain(error))

    def restore(self, saved: SavedSession) -> None:
        """Go on with a session of this image that was saved."""
        self._reopening.restore(saved)

    def cancel(self) -> None:
        """Stop what the engine does, after the slice that it is at."""
        self._queue.cancel()
        self._interrupt()

    def _interrupt(self) -> None:
        session = self.engine.session
        if session is not None:
            session.interrupt()

    # ------------------------------------------------------------------ answers
    def act(
        self,
        action: Callable[[AnnotationSession], object],
        label: int,
        kind: str,
        remark: str = "",
    ) -> None:
        """Have the engine do one action.

        Parameters
        ----------
        action
            Calls a method of the session and returns what it returns.
        label
            The object that it is about.
        kind
            See `Interaction`; ``"object"`` for what needs no model.
        remark
            How it was understood, to be said before what follows from it.
        """
        engine = self.engine

        def done(report: Report) -> None:
            self.acted(report, kind, remark)

        self.submit(lambda _: engine.act(action, label), done)

    def submit(
        self,
        work: Callable[[JobContext], Any],
        done: Callable[[Any], None],
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Have the engine's thread do something; see `JobQueue.submit`.

        What a `Report` has changed is drawn before ``done`` hears of it.
        """

        def telling(context: JobContext) -> Any:
            found = work(context)
            for patch in found.patches if isinstance(found, Report) else ():
                context.report(self.draw, patch)
            return found

        self._queue.submit(telling, done, failed or self.failed)

    def acted(self, report: Report, kind: str, remark: str = "") -> None:
        """Show what an action has led to, and keep it."""
        self.take_in(report)
        obj = self.objects.get(report.label or self.active)
        if obj is not None and kind != "object":
            at = time.monotonic() - self._began
            self.interacted.emit(Interaction(obj.label, kind, report.seconds, len(obj.prompts), at))
        self.say_after(kind, report, remark)
        self.note_renewed(report.renewed)
        if self.annotation is not None:
            self._autosave.soon(self.annotation.log, busy=self.busy)

    def note_renewed(self, log: Path | None) -> None:
        """Go on with a log that had to be written anew, and say so; ``None`` is passed over."""
        here = self.annotation
        if log is None or here is None:
            return
        if log == here.log:
            text = f"The file of the session was gone. It was written anew, with all you did: {log}"
        else:
            text = (
                "Another program has changed the file of this session. Nothing is lost: the work "
                "goes on in a new file beside it."
            )
        here.log = log
        self.defer(lambda: self.say("warning", text))  # after what the action itself says

    def failed(self, error: BaseException) -> None:
        """Say what went wrong; nothing has changed."""
        if isinstance(error, NoSessionError):
            return
        here = self.annotation
        if here is not None:
            here.layers.restore_prompts()
        self.noticed.emit(explain(error))
        self.changed.emit()

    def shows(self, state: SessionState) -> None:
        """Note what is on screen while a propagation is under way."""
        self._shown.state = state

    def take_in(self, report: Report) -> None:
        """Show what an action has led to."""
        here = self.annotation
        if here is None:
            return
        self._shown = Shown(report.state, report.can_undo, report.can_redo)
        if self._active not in self.objects and self.objects:
            opened = [i for i, each in self.objects.items() if each.locked is None]
            self._active = (opened or list(self.objects))[-1]
            here.layers.masks.selected_label = self._active
        self._recolour()
        here.layers.show(self.state, {i: self.colour_of(i) for i in self.objects})
        self.changed.emit()

    def draw(self, patch: Patch) -> None:
        """Write a part of the label map, but not over strokes that wait for the engine."""
        here = self.annotation
        if here is None:
            return
        before = here.layers.data[patch.region].copy()
        labels = patch.labels
        planes = range(patch.region[0].start, patch.region[0].stop)
        waiting = [z for z in self.waiting_slices() if z in planes]
        if waiting:
            labels = labels.copy()
            for z in waiting:
                labels[z - planes.start] = before[z - planes.start]
        here.layers.write(patch.region, labels, here.view)
        self.labels_changed.emit(patch.region, before, labels)

    def _recolour(self) -> None:
        here = self.annotation
        if here is None:
            return
        colours = {label: self.colour_of(label) for label in (self.objects or (3,))}
        here.layers.colour(colours)

    # ------------------------------------------------------------------ what the viewer tells
    def _before_removal(self, _: Any = None) -> None:
        make_current(self.viewer)

    def _on_layer_removed(self, event: Any) -> None:
        here = self.annotation
        if isinstance(event.value, Image) and not self._closed:
            gone = event.value
            self.defer(lambda: self._ended.take_away(gone))
        if event.value is self.image:
            self.image = None
            self._remark_on_image()
        if here is None or self._closed:
            self.changed.emit()
            return
        if event.value is here.image or event.value is here.layers.masks:
            self._on_work_removed(here, masks=event.value is here.layers.masks)
        elif event.value in (here.layers.boxes, here.layers.clicks):
            prompts = event.value  # napari is still at its own work
            self.defer(lambda: self._bring_back(here, prompts))

    def _on_work_removed(self, here: Annotation, *, masks: bool) -> None:
        """Say how to go on without image or mask layer."""
        kept, done = here.log is not None, bool(self.objects)
        self.end()
        if not masks:
            then = "open it again and press Restore" if kept and done else "open a CT"
            self.say("warning", f"The image was removed: {then} to go on.")
            return
        then = "Press B to begin anew."
        if kept and done:
            then = "What you did is kept: press Restore to go on with it, or B to begin anew."
        self.say("warning", f"The mask layer was removed. {then}")
        self.look_for_sessions(self.image)

    def _bring_back(self, here: Annotation, gone: Layer) -> None:
        """Put a layer of prompts back: they are taken back by other means."""
        layer = here.layers.bring_back(gone) if self.annotation is here else None
        if layer is None:
            return
        layer.events.mode.connect(self._on_mode)
        self.say(
            "warning",
            f"The layer '{gone.name}' is needed and was put back, with its prompts: take single "
            "ones back with Remove prompt, or hide the layer.",
        )
        self.changed.emit()

    def _on_active_layer(self, _: Any = None) -> None:
        self.changed.emit()

    def _on_mode(self, _: Any = None) -> None:
        self.changed.emit()

    def _on_selected_label(self, _: Any = None) -> None:
        here = self.annotation
        if here is None:
            return
        label = int(here.layers.masks.selected_label)
        if label in self.objects and label != self._active:
            self.choose(label)
