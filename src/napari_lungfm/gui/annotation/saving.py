"""Writing the masks to a file that other programs read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from psygnal import Signal

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.gui.annotation.bench_view import counted
from napari_lungfm.gui.annotation.controller import Controller
from napari_lungfm.gui.annotation.jobs import JobQueue
from napari_lungfm.gui.annotation.notices import Notice, explain
from napari_lungfm.plugin.layer_geometry import METADATA_KEY
from napari_lungfm.plugin.writer import write_dicom_seg, write_labels, write_rtstruct

_Writer = Callable[[str, Any, dict[str, Any]], list[str]]
#: End of the name → what it is, and what writes it; the first that fits counts.
_FORMATS: dict[str, tuple[str, _Writer]] = {
    ".nii.gz": ("NIfTI", write_labels),
    ".nii": ("NIfTI, not compressed", write_labels),
    ".nrrd": ("NRRD", write_labels),
    ".mha": ("MetaImage", write_labels),
    ".rtstruct.dcm": ("RTSTRUCT", write_rtstruct),
    ".seg.dcm": ("DICOM SEG", write_dicom_seg),
    ".dcm": ("DICOM SEG", write_dicom_seg),
}
_DICOM = (".seg.dcm", ".rtstruct.dcm")


class Saving:
    """Writes the masks on screen, in the background.

    Parameters
    ----------
    controller
        What is annotated.
    background
        Does the writing.
    """

    #: Something is to be said to the user.
    noticed = Signal(Notice)

    def __init__(self, controller: Controller, background: JobQueue) -> None:
        self._controller, self._background = controller, background

    @property
    def possible(self) -> bool:
        """Whether there is something to save."""
        return any(each.masks for each in self._controller.objects.values())

    def formats(self) -> dict[str, str]:
        """Return what can be written here: end of the name → what it is, the usual one first."""
        ends = [".nii.gz", ".nrrd", ".mha", *(_DICOM if self._facts().get("series_uid") else ())]
        return {end: _FORMATS[end][0] for end in ends}

    def proposal(self) -> Path:
        """Return a place that suggests itself: beside the image, never in its DICOM folder."""
        here = self._controller.annotation
        name = "masks" if here is None else f"{here.image.name} masks"
        name = "".join(c if c.isalnum() or c in " .,+-_" else "_" for c in name)
        source = self._facts().get("source")
        folder = Path(source).parent if source and Path(source).exists() else Path.home()
        return folder / f"{name}.nii.gz"

    def save(self, path: Path, fallback: str = ".nii.gz") -> None:
        """Write the masks as they are now; the end of the name says in which format.

        Parameters
        ----------
        path
            The file.
        fallback
            End that a name gets which has none of those that are known.
        """
        here = self._controller.annotation
        if here is None or not self.possible:
            self.noticed.emit(Notice("warning", "There is no mask yet: draw a box first (B)."))
            return
        end = next((e for e in _FORMATS if path.name.lower().endswith(e)), None)
        if end is None:
            path, end = path.with_name(path.name + fallback), fallback
            if path.exists():  # the file dialog has asked about another name
                msg = f"'{path.name}' exists; choose it by its full name to replace it"
                self.noticed.emit(explain(UsageError(msg)))
                return
        write = _FORMATS[end][1]
        data, options, _ = here.layers.masks.as_layer_data_tuple()
        data = data.copy()  # the engine goes on drawing into it
        saved = [each for each in self._controller.objects.values() if each.masks]
        stale = sum(len(each.stale) for each in saved)

        def done(_: object) -> None:
            text = f"Saved {counted(len(saved), 'object')} in '{path}'."
            if stale:
                text += f" {counted(stale, 'slice')} of it out of date: propagate, save again."
            self.noticed.emit(Notice("warning" if stale else "done", text))

        self._background.submit(
            lambda _: write(str(path), data, options),
            done,
            lambda error: self.noticed.emit(explain(error)),
        )

    def _facts(self) -> dict[str, Any]:
        here = self._controller.annotation
        return {} if here is None else dict(here.layers.masks.metadata.get(METADATA_KEY, {}))
