"""What an automatic model is, to everything above it."""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias, runtime_checkable

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm._core.types import ProgressCallback
from napari_lungfm.geometry import LabelMap, Volume

#: Asked between two steps of the work; true ends it.
CancelCallback: TypeAlias = Callable[[], bool]


class SegmentationCancelledError(LungFMError):
    """The caller asked to stop; there is no result."""


@runtime_checkable
class AutomaticModel(Protocol):
    """A named model that needs no prompts."""

    @property
    def name(self) -> str:
        """The name on the command line and in records."""
        ...

    @property
    def labels(self) -> Mapping[int, str]:
        """Label value → name of what it finds; values of `geometry.Structure` where they fit."""
        ...

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        ...

    def segment(
        self,
        volume: Volume,
        *,
        progress: ProgressCallback | None = None,
        cancelled: CancelCallback | None = None,
    ) -> LabelMap:
        """Segment a volume.

        Parameters
        ----------
        volume
            CT in HU, in any orientation.
        progress
            Called with the work done and the whole of it (slices, steps).
        cancelled
            Asked again and again; when it says yes the work ends soon.

        Returns
        -------
        LabelMap
            uint8 on the grid of ``volume``, labels named as in `labels`.

        Raises
        ------
        SegmentationCancelledError
            If `cancelled` said yes.
        """
        ...


class Steps:
    """Tells the progress of work that is done in steps, and ends it when asked to.

    Parameters
    ----------
    total
        Number of steps.
    progress, cancelled
        As in `AutomaticModel.segment`.
    """

    def __init__(
        self,
        total: int,
        progress: ProgressCallback | None = None,
        cancelled: CancelCallback | None = None,
    ) -> None:
        self._done, self._total = 0, total
        self._progress, self._cancelled = progress, cancelled

    def check(self) -> None:
        """Raise `SegmentationCancelledError` if the caller wants to stop."""
        if self._cancelled is not None and self._cancelled():
            msg = "the segmentation was cancelled; nothing was kept"
            raise SegmentationCancelledError(msg)

    def advance(self, steps: int = 1) -> None:
        """Count steps as done."""
        self._done = min(self._done + steps, self._total)
        if self._progress is not None:
            self._progress(self._done, self._total)
        self.check()
