"""Closing a case: its layers go, and what it held in memory; its session stays on disk."""

from pathlib import Path

from napari.layers import Image

from napari_lungfm.gui.annotation.cases import bring_to_top, same_case
from napari_lungfm.gui.annotation.controller import Controller
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

    def close(self) -> None:
        """Save the session a last time, and take the case away; a propagation is cancelled."""
        controller = self._controller
        image, here = controller.image, controller.annotation
        if image is None:
            return
        # napari's canvas can break down when an image below others is taken out, not when it is
        # on top; what is moved has to be drawn once, so that the rest comes later.
        bring_to_top(controller.viewer, image)
        restoring = controller.repetition is not None
        if here is None or here.log is None or (restoring and not here.ready):
            controller.defer(lambda: self._take_away(image))
            return
        engine = controller.engine

        def save() -> None:  # what was drawn just now is told of before this
            controller.submit(lambda _: engine.save(), saved, failed)

        def saved(renewed: Path | None) -> None:
            here.log = renewed or here.log
            self._take_away(image)

        def failed(error: BaseException) -> None:
            if isinstance(error, NoSessionError):
                self._take_away(image)
                return
            notice = explain(error)
            controller.say(notice.level, f"'{image.name}' was not closed. {notice.text}")

        if not here.ready:  # what was drawn meanwhile is done first
            controller.say("hint", f"'{image.name}' is closed as soon as the model is ready …")
        else:
            controller.cancel()
        controller.defer(save)

    def _take_away(self, image: Image) -> None:
        controller, layers = self._controller, self._controller.viewer.layers
        if image not in layers:
            return
        kept = controller.annotation is not None and bool(controller.objects)
        log = controller.log
        kept = kept and log is not None and log.is_file()
        controller.end()
        for layer in [each for each in layers if each is image or same_case(each, image)]:
            layers.remove(layer)
        engine = controller.engine
        controller.submit(lambda _: engine.forget(), lambda _: None)
        then = " Its session is kept: open the image again to go on with it." if kept else ""
        controller.say("done", f"Closed '{image.name}'.{then}")
