"""Propagate, its progress, and the way back: undo and redo."""

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QWidget,
)

from napari_lungfm.gui.annotation.controller import Controller
from napari_lungfm.gui.annotation.facts import Repeating, Walking
from napari_lungfm.gui.widgets.look import Look, blend

_WAYS = ("both ways", "up", "down", "up to slice", "down to slice")


class PropagateBox(QWidget):
    """The button that matters most.

    Parameters
    ----------
    controller
        What it asks.
    """

    go = Signal()

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        #: Name and last slice of the case that the slices are those of.
        self._case = ("", -1)
        self.button = QPushButton("Propagate   G")
        self.button.setToolTip("Carry the object through the other slices.  Key G.")
        self.way = QComboBox()
        self.way.addItems(_WAYS)
        self.way.setToolTip("Up goes to higher slice numbers.")
        self.until = QSpinBox()
        self.until.setToolTip("The last slice.")
        self.until.hide()
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.stop = QPushButton("Cancel   Esc")
        self.stop.setToolTip("Stop after the slice that the model is at.  Key Esc.")
        self.undo = QPushButton("Undo   Ctrl+Z")
        self.redo = QPushButton("Redo   Ctrl+Shift+Z")
        for widget in (self.button, self.way, self.stop, self.undo, self.redo):
            widget.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._lay_out()
        self.button.clicked.connect(self.propagate)
        self.stop.clicked.connect(controller.cancel)
        self.undo.clicked.connect(controller.undo)
        self.redo.clicked.connect(controller.redo)
        self.way.currentIndexChanged.connect(self._on_way)
        self.show_walking(None)

    def _lay_out(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        first = QHBoxLayout()
        first.setSpacing(4)
        first.addWidget(self.button, 3)
        first.addWidget(self.way, 2)
        first.addWidget(self.until, 1)
        second = QHBoxLayout()
        second.setSpacing(4)
        second.addWidget(self.bar, 1)
        second.addWidget(self.stop)
        third = QHBoxLayout()
        third.setSpacing(4)
        third.addWidget(self.undo, 1)
        third.addWidget(self.redo, 1)
        grid.addLayout(first, 0, 0)
        grid.addLayout(second, 1, 0)
        grid.addLayout(third, 2, 0)

    def propagate(self) -> None:
        """Propagate the way that is chosen."""
        way = self.way.currentText()
        direction = "both" if way == "both ways" else "up" if way.startswith("up") else "down"
        until = self.until.value() if way.endswith("slice") else None
        self._controller.propagate(direction, until)

    def _on_way(self, _: int) -> None:
        limited = self.way.currentText().endswith("slice")
        self.until.setVisible(limited)
        if limited:
            self._fit_to_case(anew=True)

    def _fit_to_case(self, *, anew: bool) -> None:
        """Offer the slices of the case that is chosen, and one of them that can be reached."""
        image, here = self._controller.image, self._controller.annotation
        if image is None or image.ndim != 3 or image.rgb:
            return
        last = int(image.data.shape[0]) - 1
        case = (image.name, last)
        self.until.setRange(0, last)
        if case == self._case and not anew:
            return
        self._case = case
        obj, upwards = self._controller.active_object, self.way.currentText().startswith("up")
        shown = here.view.z if here is not None else -1
        start = obj.prompted if obj is not None else ()
        beyond = start and (shown > start[-1] if upwards else 0 <= shown < start[0])
        self.until.setValue(shown if beyond else last if upwards else 0)

    def show_walking(self, walking: Walking | None) -> None:
        """Show how far the propagation is."""
        self._show_going(walking is not None)
        if walking is not None:
            self.bar.setRange(0, 0)
            where = "" if walking.z is None else f"slice {walking.z}, {walking.done} done"
            self.bar.setFormat(where or "looking at the first slices")

    def show_repeating(self, repeating: Repeating | None) -> None:
        """Show how far a session is that is done again."""
        self._show_going(repeating is not None)
        if repeating is not None:
            self.bar.setRange(0, repeating.total)
            self.bar.setValue(repeating.done)
            known = f"step {repeating.done + 1} of {repeating.total}"
            self.bar.setFormat(known if repeating.total else "getting ready")

    def _show_going(self, going: bool) -> None:
        self.bar.setEnabled(going)
        self.stop.setEnabled(going)
        self.button.setEnabled(not going)
        if not going:
            self.bar.setRange(0, 1)
            self.bar.setValue(0)
            self.bar.setFormat("")

    def refresh(self) -> None:
        """Show what can be done now."""
        obj = self._controller.active_object
        self._fit_to_case(anew=False)
        self.undo.setEnabled(self._controller.can_undo)
        self.redo.setEnabled(self._controller.can_redo)
        self.button.setText("Propagate again   G" if obj and obj.stale else "Propagate   G")

    def set_look(self, look: Look) -> None:
        """Take on the colours of the theme."""
        strong = blend(look.raised, look.accent, 0.55)
        hover = blend(look.raised, look.accent, 0.75)
        self.button.setStyleSheet(
            f"QPushButton {{ background-color: {strong.name()}; font-weight: 600; padding: 6px; }}"
            f"QPushButton:hover {{ background-color: {hover.name()}; }}"
            f"QPushButton:disabled {{ background-color: {look.raised.name()}; }}"
        )
