"""Closing a case: its layers go, and what it held in memory; its session stays on disk."""

from collections.abc import Collection
from pathlib import Path
from typing import Any
from weakref import WeakSet

from napari.layers import Image, Labels, Layer, Shapes

from napari_lungfm.gui.annotation.cases import bring_to_top, same_case, was_opened
from napari_lungfm.gui.annotation.controller import Controller
from napari_lungfm.gui.annotation.ended import KEPT
from napari_lungfm.gui.annotation.layers import MADE
from napari_lungfm.gui.annotation.notices import explain
from napari_lungfm.gui.annotation.work import NoSessionError


class Closing:
    """Closes the case that is chosen.

    Parameters
    ----------
    controller
        What is annotated.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._edited: WeakSet[Layer] = WeakSet()
        layers = controller.viewer.layers
        layers.events.inserted.connect(self._on_inserted)
        for layer in layers:
            self._watch(layer)

    @property
    def possible(self) -> bool:
        """Whether there is a case to close."""
        return self._controller.image is not None

    @property
    def would_lose(self) -> bool:
        """Whether masks would be lost: those of a session that is kept nowhere.

        What was drawn and has no mask yet, because the model is still at work, counts as well.
        """
        controller = self._controller
        here = controller.annotation
        if here is None or here.log is not None:
            return False
        drawn = any(each.masks for each in controller.objects.values())
        prompts = (here.layers.boxes, here.layers.clicks)
        return drawn or any(len(layer.data) for layer in prompts) or bool(here.layers.data.any())

    @property
    def at_risk(self) -> list[Layer]:
        """Layers of the case that a user has made, computed or edited: they are in no session.

        What was opened and left as it was can be opened again, and diameters be measured again.
        """
        image = self._controller.image
        return [] if image is None else [each for each in self._case(image) if self._is_own(each)]

    @property
    def question(self) -> str:
        """What to ask before the case is closed; empty where nothing would be lost."""
        lost = [f"'{each.name}'" for each in self.at_risk]
        if self.would_lose:
            lost.insert(0, "the masks of this session, for saving sessions is switched off")
        if not lost:
            return ""
        text = ", ".join(lost)
        return (
            f"Closing the case removes what is in no file of ours: {text}.\n\n"
            "To keep it, answer No and save it first (Save masks, or File → Save Selected Layers)."
            "\n\nClose the case and lose it?"
        )

    def close(self) -> None:
        """Save the session a last time, and take the case away; a propagation is cancelled.

        So are the layers `at_risk` that there are now; those that come while the model is still
        at work stay.
        """
        controller, lost = self._controller, self.at_risk
        image, here = controller.image, controller.annotation
        if image is None:
            return
        # napari's canvas can break down when an image below others is taken out, not when it is
        # on top; what is moved has to be drawn once, so that the rest comes later.
        bring_to_top(controller.viewer, image)
        restoring = controller.repetition is not None
        if here is None or here.log is None or (restoring and not here.ready):
            controller.defer(lambda: self._take_away(image, lost))
            return
        engine = controller.engine

        def save() -> None:  # what was drawn just now is told of before this
            controller.submit(lambda _: engine.save(), saved, failed)

        def saved(renewed: Path | None) -> None:
            here.log = renewed or here.log
            self._take_away(image, lost)

        def failed(error: BaseException) -> None:
            if isinstance(error, NoSessionError):
                self._take_away(image, lost)
                return
            notice = explain(error)
            controller.say(notice.level, f"'{image.name}' was not closed. {notice.text}")

        if not here.ready:  # what was drawn meanwhile is done first
            controller.say("hint", f"'{image.name}' is closed as soon as the model is ready …")
        else:
            controller.cancel()
        controller.defer(save)

    def _take_away(self, image: Image, lost: Collection[Layer]) -> None:
        controller, layers = self._controller, self._controller.viewer.layers
        if image not in layers:
            return
        kept = controller.annotation is not None and bool(controller.objects)
        log = controller.log
        kept = kept and log is not None and log.is_file()
        # Of the masks nobody is asked again: without a file, the question was about them.
        going = [each for each in self._case(image) if each in lost or not self._is_own(each)]
        controller.end()
        for layer in (*going, image):
            if layer in layers:
                layers.remove(layer)
        if not any(each in layers for each in layers.selection):
            layers.selection.clear()  # it would hold on to the layer that was current
        engine = controller.engine
        controller.submit(lambda _: engine.forget(), lambda _: None)
        then = " Its session is kept: open the image again to go on with it." if kept else ""
        controller.say("done", f"Closed '{image.name}'.{then}")

    def _case(self, image: Image) -> list[Layer]:
        """Return the layers that lie on an image, without itself."""
        layers = self._controller.viewer.layers
        return [each for each in layers if each is not image and same_case(each, image)]

    def _is_own(self, layer: Layer) -> bool:
        if self._controller.keeps(layer):
            return False
        if isinstance(layer, Shapes) and layer.metadata.get(MADE):
            return False
        painted = layer in self._edited or bool(getattr(layer, "_undo_history", None))
        return painted or bool(layer.metadata.get(MADE)) or not was_opened(layer)

    def _on_inserted(self, event: Any) -> None:
        self._watch(event.value)

    def _watch(self, layer: Layer) -> None:
        if isinstance(layer, Labels):
            for event in (layer.events.paint, layer.events.data):
                event.connect(self._on_edited)

    def _on_edited(self, event: Any) -> None:
        self._edited.add(event.source)
        event.source.metadata.pop(KEPT, None)  # of a duplicate as well
