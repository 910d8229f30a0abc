"""What all our dock widgets have in common: they let go of the viewer when they are closed."""

import contextlib
from collections.abc import Callable
from typing import Any, ClassVar
from weakref import WeakSet

import napari
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from napari_lungfm.gui.annotation.notices import Notice
from napari_lungfm.gui.shared import Hold
from napari_lungfm.gui.widgets.message_bar import MessageBar

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

    #: Messages about this are its own, see `Notice`; ``None`` for a widget that shows none.
    about: ClassVar[str | None] = None
    message: MessageBar
    _all: ClassVar["WeakSet[DockedWidget]"] = WeakSet()

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
        self._all.add(self)

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

    def show_notice(self, notice: Notice) -> None:
        """Show a message that is about this panel, or whose panel is not in sight."""
        its_own = (each for each in self._panels() if each.about == notice.about)
        if notice.about == self.about or (
            self.in_sight and not any(each.in_sight for each in its_own)
        ):
            self.message.show_notice(notice)

    @property
    def in_sight(self) -> bool:
        """Whether the widget can be seen: Qt calls one behind another tab visible as well."""
        return self.isVisible() and not self.visibleRegion().isEmpty()

    def _panels(self) -> list["DockedWidget"]:
        """Return the open panels of this window that show messages, this one included."""
        return [
            each
            for each in list(self._all)
            if each.about is not None and not each.released and each.workplace is self.workplace
        ]

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
            if self.about is not None:
                QTimer.singleShot(0, self._join_the_others)

    def _join_the_others(self) -> None:
        """Become a tab beside our other panels: one above the other, none would fit the screen."""
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            dock, window = self._dock, self._dock.parent() if self._dock is not None else None
            if self.released or dock is None or not isinstance(window, QMainWindow):
                return
            area = window.dockWidgetArea(dock)
            for other in (each._dock for each in self._panels() if each is not self):
                if other is None or other.isFloating() or dock.isFloating():
                    continue
                if other in window.tabifiedDockWidgets(dock):
                    return
                if not other.isHidden() and window.dockWidgetArea(other) == area:
                    window.tabifyDockWidget(other, dock)
                    dock.raise_()
                    return

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
