"""The way from other threads to the GUI's."""

import time
from collections import deque
from collections.abc import Callable

from qtpy.QtCore import QObject, Qt, QTimer, Signal, Slot

#: Seconds that calls take in a row; then mouse, keys and drawing have their turn.
_BUDGET = 0.006


class GuiThread(QObject):
    """Runs callables on the thread that it was made on, in the order in which they come.

    A model can find slices faster than a screen shows them. However many calls wait, they are
    run for a few milliseconds at a time, and what else the window has to do comes in between.
    """

    _arrived = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False
        self._arrived.connect(self._run, Qt.ConnectionType.QueuedConnection)
        # A timer and not another queued signal, which Qt would run before it draws anything.
        self._next_turn = QTimer(self)
        self._next_turn.setSingleShot(True)
        self._next_turn.setInterval(0)
        self._next_turn.timeout.connect(self._run)

    def __call__(self, call: Callable[[], None]) -> None:
        """Have a callable run soon; nothing happens once Qt has gone."""
        self._calls.append(call)
        if self._woken:
            return
        self._woken = True
        try:
            self._arrived.emit()
        except RuntimeError:  # the Qt half of this object is gone: so is who waits for the answer
            return

    @Slot()
    def _run(self) -> None:
        # Before the first look at the calls: what comes from here on wakes this up again.
        self._woken = False
        end = time.perf_counter() + _BUDGET
        try:
            while self._calls:
                self._calls.popleft()()
                if time.perf_counter() > end:
                    break
        finally:
            if self._calls:
                self._woken = True
                self._next_turn.start()
