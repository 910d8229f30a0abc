"""The way from other threads to the GUI's."""

from collections.abc import Callable

from qtpy.QtCore import QObject, Qt, Signal, Slot


class GuiThread(QObject):
    """Runs callables on the thread that it was made on, in the order in which they come."""

    _arrived = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._arrived.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def __call__(self, call: Callable[[], None]) -> None:
        """Have a callable run soon; nothing happens once Qt has gone."""
        try:
            self._arrived.emit(call)
        except RuntimeError:  # the Qt half of this object is gone: so is who waits for the answer
            return

    @Slot(object)
    def _run(self, call: Callable[[], None]) -> None:
        call()
