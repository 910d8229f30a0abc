"""Opening a CT without keeping the window from its work."""

from pathlib import Path
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Layer
from psygnal import Signal

from napari_lungfm.gui.annotation.cases import OPENED
from napari_lungfm.gui.annotation.errors import OpeningCancelledError
from napari_lungfm.gui.annotation.jobs import Job, JobContext, JobQueue
from napari_lungfm.gui.annotation.notices import Notice, explain
from napari_lungfm.plugin.layer_geometry import LayerData
from napari_lungfm.plugin.reader import read_layers


class Opening:
    """Reads files and folders on a thread of its own, one at a time.

    Parameters
    ----------
    viewer
        Where the layers go.
    background
        Does the reading.
    """

    #: Share of the slices that are read, ``None`` when it has ended.
    progressed = Signal(object)
    #: An image layer was opened.
    opened = Signal(object)
    #: Something is to be said to the user.
    noticed = Signal(Notice)

    def __init__(self, viewer: ViewerModel, background: JobQueue) -> None:
        self._viewer, self._background = viewer, background
        self._job: Job[list[LayerData]] | None = None

    @property
    def going_on(self) -> bool:
        """Whether something is being read."""
        return self._job is not None

    def open(self, path: Path) -> None:
        """Read what is at a path and add its layers: a DICOM folder, an image, labels, a session.

        Parameters
        ----------
        path
            See `read_layers`.
        """
        if self.going_on:
            return

        def work(context: JobContext) -> list[LayerData]:
            def progress(done: int, total: int) -> None:
                if context.cancelled:
                    msg = f"'{path.name}' was not opened: cancelled"
                    raise OpeningCancelledError(msg)
                context.report(self.progressed.emit, done / max(total, 1))

            return read_layers(path, progress=progress)

        self.noticed.emit(Notice("hint", f"Reading '{path.name}' …"))
        self.progressed.emit(0.0)
        self._job = self._background.submit(work, self._on_read, self._on_failed)

    def cancel(self) -> None:
        """Stop reading, between two slices."""
        if self._job is not None:
            self._job.cancel.set()

    def _on_read(self, found: list[LayerData]) -> None:
        self._end()
        layers = [self._viewer.add_layer(_layer(each)) for each in found]
        names = ", ".join(f"'{layer.name}'" for layer in layers)
        self.noticed.emit(Notice("done", f"Opened {names}."))
        for layer in layers:
            if isinstance(layer, Image):
                self.opened.emit(layer)

    def _on_failed(self, error: BaseException) -> None:
        self._end()
        self.noticed.emit(explain(error))

    def _end(self) -> None:
        self._job = None
        self.progressed.emit(None)


def _layer(made: LayerData) -> Any:
    data, options, kind = made
    layer = Layer.create(data, options, kind)
    layer.metadata[OPENED] = True
    return layer
