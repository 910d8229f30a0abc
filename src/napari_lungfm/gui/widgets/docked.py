"""What all our dock widgets have in common: they let go of the viewer when they are closed."""

from collections.abc import Callable
from typing import Any

import napari
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QDockWidget, QWidget

from napari_lungfm.gui.shared import Hold

#: Milliseconds between two refreshes of a widget: often enough to look alive.
_FRAME_MS = 40


class _Ties:
    """What binds a widget to viewer and workplace; outlives the Qt half of the widget."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        self.hold = Hold(viewer)
        self.cut = False
        self._ends: list[Callable[[], object]] = []

    def add(self, end: Callable[[], object]) -> None:
        self._ends.append(end)

    def release(self) -> None:
        if self.cut:
            return
        self.cut = True
        while self._ends:
            self._ends.pop()()
        self.hold.release()


class DockedWidget(QWidget):
    """A widget of a viewer that holds on to its workplace.

    Parameters
    ----------
    viewer
        The viewer that it is docked in.
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        # napari hands out a proxy that wraps layers as well: nothing would be identical any more.
        viewer = getattr(viewer, "__wrapped__", viewer)
        self.viewer = viewer
        self._ties = ties = _Ties(viewer)
        self.workplace = ties.hold.workplace
        self.controller = self.workplace.controller
        self._waits = False
        self._dock: QDockWidget | None = None
        # Not a method of this widget: its Qt half is gone when Qt tells of its end.
        self.destroyed.connect(lambda _=None: ties.release())

    @property
    def released(self) -> bool:
        """Whether the widget has let go."""
        return self._ties.cut

    def follow(self, signal: Any, slot: Callable[..., Any]) -> None:
        """Connect a signal of viewer or workplace until the widget is closed."""
        signal.connect(slot)
        self._ties.add(lambda: signal.disconnect(slot))

    def at_the_end(self, call: Callable[[], object]) -> None:
        """Have something called when the widget is closed; it must not touch widgets."""
        self._ties.add(call)

    def soon(self, *_: object) -> None:
        """Refresh once, however many things have changed."""
        if not self._waits and not self._ties.cut:
            self._waits = True
            QTimer.singleShot(_FRAME_MS, self._refresh_now)

    def refresh(self) -> None:
        """Show everything as it is now."""
        raise NotImplementedError

    def _refresh_now(self) -> None:
        self._waits = False
        if not self._ties.cut:
            self.refresh()

    def docked(self, *, shown: bool) -> None:
        """Hear that the dock was shown or hidden; one that is behind another counts as shown."""

    def let_go(self) -> None:
        """Put away what needs the widget to be alive still."""

    # ------------------------------------------------------------------ Qt
    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Follow the dock that the widget is in."""
        super().showEvent(event)
        if self._dock is not None:
            return
        parent = self.parentWidget()
        while parent is not None and not isinstance(parent, QDockWidget):
            parent = parent.parentWidget()
        if parent is not None:
            self._dock = parent
            # "Annotate (napari-lungfm)" is too long for a tab beside two others.
            parent.setWindowTitle(parent.windowTitle().removesuffix(" (napari-lungfm)"))
            parent.toggleViewAction().toggled.connect(self._on_dock)

    def _on_dock(self, shown: bool) -> None:
        if not self._ties.cut:
            self.docked(shown=shown)

    def event(self, event: QEvent) -> bool:
        """Let go when napari takes the widget out of its dock."""
        done = super().event(event)
        if event.type() == QEvent.Type.ParentChange and self._dock and self.parent() is None:
            self.release()
        return bool(done)

    def closeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Let go."""
        self.release()
        super().closeEvent(event)

    def release(self) -> None:
        """Let go of viewer and workplace; may be called more than once."""
        if not self._ties.cut:
            self.let_go()
            self._ties.release()
