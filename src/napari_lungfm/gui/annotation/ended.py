"""Mask layers of sessions that have ended: they go when their session or their image does."""

import weakref
from pathlib import Path

from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

#: Where a mask layer says in which session's file its masks are, as long as nobody edits it.
KEPT = "napari-lungfm-kept"


class EndedMasks:
    """Remembers which mask layer was left behind by which session, as long as nobody edits it.

    Parameters
    ----------
    viewer
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._left: list[tuple[weakref.ref[Image], weakref.ref[Labels], Path]] = []

    def note(self, image: Image, layer: Labels, log: Path | None) -> None:
        """Note the masks of a session that ends; those that are kept in no file stay."""
        if log is None:
            return
        left = (weakref.ref(image), weakref.ref(layer), log)
        self._left.append(left)
        layer.metadata[KEPT] = str(log)

        def edited(_: object = None) -> None:  # what was changed since is in no session
            shown = left[1]()
            if shown is not None:
                shown.metadata.pop(KEPT, None)
            if left in self._left:
                self._left.remove(left)

        for event in (layer.events.paint, layer.events.data):
            event.connect(edited)

    def keeps(self, layer: Layer) -> bool:
        """Tell whether a layer shows masks that are in the file of a session as they are."""
        log = layer.metadata.get(KEPT)
        return log is not None and Path(log).is_file()

    def take_away(self, image: Image) -> None:
        """Remove what lies on an image and is in a session's file as well."""
        for left in list(self._left):
            owner, layer, log = left[0](), left[1](), left[2]
            if owner is not None and owner is not image:
                continue
            self._left.remove(left)
            if layer is not None and layer in self._viewer.layers and log.is_file():
                self._viewer.layers.remove(layer)
