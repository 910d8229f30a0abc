"""Masks saved beside the log whenever the engine has nothing else to do, and while it walks."""

import math
import time
from collections.abc import Callable
from pathlib import Path

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm.gui.annotation.jobs import JobContext
from napari_lungfm.gui.annotation.work import Engine

#: Submits work with what follows when it is done, and when it fails.
Submit = Callable[
    [
        Callable[[JobContext], Path | None],
        Callable[[Path | None], None],
        Callable[[BaseException], None],
    ],
    None,
]

#: Seconds of a propagation until the first saving, and between two of them, and how much longer
#: than a saving took.
_FIRST, _EVERY, _RATIO = 0.5, 3.0, 20.0


class Autosave:
    """Saves the session of an engine, one saving at a time.

    The log has every action already; with the masks beside it, opening computes nothing.

    Parameters
    ----------
    engine
        Whose session.
    submit
        See `Workbench.submit`.
    done
        Told of a log that was written anew, or ``None``.
    failed
        Told of what went wrong.
    """

    def __init__(
        self,
        engine: Engine,
        submit: Submit,
        done: Callable[[Path | None], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._engine, self._submit, self._done, self._failed = engine, submit, done, failed
        self._waits = False

    def forget(self) -> None:
        """Another session begins: what was to be saved of the last one is dropped."""
        self._waits = False

    def soon(self, log: Path | None, *, busy: bool) -> None:
        """Save masks beside a log, unless that waits already or other work does."""
        if log is None or self._waits or busy:
            return
        self._waits = True
        self._submit(lambda _: self._engine.save(), self._on_saved, self._on_not_saved)

    def _on_saved(self, renewed: Path | None) -> None:
        self._waits = False
        self._done(renewed)

    def _on_not_saved(self, error: BaseException) -> None:
        self._waits = False
        self._failed(error)


class Meanwhile:
    """Saves soon, then every few seconds, however often it is called.

    Where saving is slow, it is done more seldom.

    Parameters
    ----------
    save
        What saves.
    """

    def __init__(self, save: Callable[[], None]) -> None:
        self._save = save
        self._next = time.monotonic() + _FIRST

    def __call__(self) -> None:
        """Save, if it is time."""
        began = time.monotonic()
        if began < self._next:
            return
        try:
            self._save()
        except LungFMError:  # a full disk: said by the saving at the end, work goes on
            self._next = math.inf
            return
        now = time.monotonic()
        self._next = now + max(_EVERY, _RATIO * (now - began))
