"""What the worker thread does with a session: act, tell what changed, and how long it took."""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.exceptions import OutputError
from napari_lungfm._core.types import PathInput, ProgressCallback, Region
from napari_lungfm.geometry import Volume
from napari_lungfm.gui.annotation.jobs import JobContext
from napari_lungfm.gui.annotation.remarks import remark_on
from napari_lungfm.gui.annotation.session_files import SAVED
from napari_lungfm.inference.session import AnnotationSession, PromptOutcome
from napari_lungfm.inference.session.events import Direction
from napari_lungfm.inference.session.recording import Recording
from napari_lungfm.inference.session.state import SessionState, changed_region
from napari_lungfm.models.automatic.protocol import CancelCallback
from napari_lungfm.models.protocols import PromptableModel
from napari_lungfm.models.registry import create_model

#: Loaded models that are kept, so that going back to one is quick.
_KEPT_MODELS = 2
#: Most voxels of a patch (a slice at the least): drawing it and counting it takes a millisecond
#: or two, and other events have their turn before the next one.
_PATCH_VOXELS = 100_000


@dataclass(frozen=True)
class ModelWish:
    """Which model is wanted, and how.

    Parameters
    ----------
    name, device
        See `create_model`.
    options
        Further options, such as the window that it sees.
    """

    name: str
    device: str = "auto"
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Patch:
    """A part of the label map as it is now: ``label_map[region] = labels``."""

    region: Region
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Report:
    """What an action has led to.

    Parameters
    ----------
    state
        All objects now.
    patches
        Where the label map may differ from before, in parts that are quickly drawn.
    can_undo, can_redo
        Whether there is something to undo, to do again.
    seconds
        How long it took.
    label
        The object that was worked on.
    remark
        When a session was opened: what to know of model and image.
    renewed
        The file of the log, where it had to be written anew.
    """

    state: SessionState
    patches: tuple[Patch, ...]
    can_undo: bool
    can_redo: bool
    seconds: float
    label: int | None = None
    remark: str = ""
    renewed: Path | None = None


class WalkFailedError(Exception):
    """A propagation failed on the way; what it had found counts, as the report says."""

    def __init__(self, cause: BaseException, report: Report) -> None:
        super().__init__(str(cause))
        self.cause, self.report = cause, report


@dataclass(eq=False)
class Engine:
    """Models and session; its methods are for the worker thread alone.

    Parameters
    ----------
    session
        The session that is open, if any.
    """

    session: AnnotationSession | None = None
    #: Number of lines in the log when the last propagation began.
    walk_began: int = 0
    #: The file of the log, where it was written anew and nobody was told yet.
    _renewed: Path | None = None
    _models: dict[ModelWish, PromptableModel] = field(default_factory=dict)

    def model(self, wish: ModelWish) -> PromptableModel:
        """Return a model, loaded if need be."""
        model = self._models.pop(wish, None) or create_model(
            wish.name, device=wish.device, **dict(wish.options)
        )
        self._models[wish] = model
        while len(self._models) > _KEPT_MODELS:
            self._models.pop(next(iter(self._models)))
        return model

    def open(self, volume: Volume, wish: ModelWish, log: PathInput | None) -> Report:
        """Begin a new session."""
        start = time.perf_counter()
        self.session = None
        model = self.model(wish)
        self.session = AnnotationSession(volume, model, log=log, options=_plain(wish))
        return replace(self._report(start, None, None), remark=remark_on(wish.name, volume))

    def load(
        self,
        source: PathInput | Recording,
        volume: Volume,
        wish: ModelWish,
        log: PathInput | None,
        *,
        other_model: bool = False,
        progress: ProgressCallback | None = None,
        cancelled: CancelCallback | None = None,
    ) -> Report:
        """Open a session that was saved, or repeat one with another model.

        Raises
        ------
        InterruptedActionError
            If ``cancelled`` said yes; the session that was open stays.
        """
        start = time.perf_counter()
        before = SessionState() if self.session is None else self.session.state
        model = self.model(wish)
        self.session = AnnotationSession.load(
            source,
            volume,
            model,
            log=log,
            read_only=log is None,
            other_model=other_model,
            options=_plain(wish),
            progress=progress,
            cancelled=cancelled,
        )
        report = self._report(start, changed_region(before, self.session.state), None)
        return replace(report, remark=remark_on(wish.name, volume))

    def recording(self) -> Recording:
        """Return all that was done so far, to repeat it."""
        return Recording(list(self._open().entries), None, None, 0)

    def act(
        self, action: Callable[[AnnotationSession], object], label: int | None = None
    ) -> Report:
        """Do one action.

        Parameters
        ----------
        action
            Calls a method of the session and returns what it returns.
        label
            The object that it is about.
        """
        start = time.perf_counter()
        self._renew_log()
        result = action(self._open())
        region = result.changed if isinstance(result, PromptOutcome) else result
        return self._report(start, region if isinstance(region, tuple) else None, label)

    def walk(
        self,
        label: int,
        direction: Direction,
        until: int | None,
        context: JobContext,
        on_slice: Callable[[int, Patch | None, SessionState], None],
        meanwhile: Callable[[], None] | None = None,
    ) -> Report:
        """Propagate an object, telling of every slice; ends early when the job is cancelled.

        ``meanwhile`` is called after every slice, on this thread.

        Raises
        ------
        WalkFailedError
            If the model failed on the way.
        """
        start = time.perf_counter()
        session = self._open()
        self._renew_log()
        self.walk_began = len(session.entries)
        stream = session.propagate(label, direction, until=until)
        begun = shown = session.state
        try:
            for update in stream:
                shown = session.state
                patch = self._patch(update.changed)
                context.report(on_slice, update.z, patch, shown)
                with contextlib.suppress(OutputError):  # said when the walk has to be written
                    self._renew_log()
                if meanwhile is not None:
                    meanwhile()
                if context.cancelled:
                    break
        except Exception as error:
            report = self._report(start, changed_region(shown, session.state), label)
            raise WalkFailedError(error, report) from error
        finally:
            stream.close()
        # All slices were told of, but for those that a cancelled walk could no longer clear.
        told = begun if context.cancelled else shown
        return self._report(start, changed_region(told, session.state), label)

    def forget(self) -> None:
        """Let go of the session and of all that it holds in memory; models stay."""
        if self.session is not None:
            self.session.close()
        self.session = None

    def save(self) -> Path | None:
        """Save log and masks into one file beside the log; return the log if it was renewed."""
        self.keep()
        return self._told()

    def keep(self) -> None:
        """Save in the middle of a propagation; see `save`."""
        self._renew_log()
        session = self._open()
        if session.log_path is not None:
            session.save(session.log_path.with_suffix(SAVED))

    def _renew_log(self) -> None:
        """Write the log anew where its file is gone, or was changed by another program."""
        try:
            self._renewed = self._open().renew_log() or self._renewed
        except OutputError as error:
            msg = f"{error}. Nothing is lost yet: press Save masks to keep what is on screen"
            raise OutputError(msg) from error

    def _told(self) -> Path | None:
        """Return the log that was written anew, once."""
        renewed, self._renewed = self._renewed, None
        return renewed

    def _open(self) -> AnnotationSession:
        if self.session is None:
            raise NoSessionError
        return self.session

    def _patches(self, region: Region | None) -> tuple[Patch, ...]:
        """Cut what has changed into parts that are quickly drawn."""
        if region is None:
            return ()
        planes, rows, columns = region
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        step = max(_PATCH_VOXELS // max(area, 1), 1)
        parts = (
            (slice(z, min(z + step, planes.stop)), rows, columns)
            for z in range(planes.start, planes.stop, step)
        )
        return tuple(Patch(part, self._open().labels(part)) for part in parts)

    def _patch(self, region: Region | None) -> Patch | None:
        return None if region is None else Patch(region, self._open().labels(region))

    def _report(self, start: float, region: Region | None, label: int | None) -> Report:
        session = self._open()
        return Report(
            session.state,
            self._patches(region),
            session.can_undo,
            session.can_redo,
            time.perf_counter() - start,
            label,
            renewed=self._told(),
        )


class NoSessionError(Exception):
    """The session could not be opened; that was said already."""


def _plain(wish: ModelWish) -> Mapping[str, Any]:
    return dict(wish.options)
