"""Window presets as buttons, and the window in use."""

from napari.layers import Image
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_lungfm.gui.annotation.windows import PRESET_KEYS, describe, preset_name, shown_window
from napari_lungfm.gui.widgets.look import Look, blend

_SHORT = {"lung": "Lung", "mediastinum": "Med.", "soft tissue": "Soft", "bone": "Bone"}


class WindowBox(QWidget):
    """How the image is shown; the model's own window is in the box of the model."""

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.buttons: dict[str, QPushButton] = {}
        row = QHBoxLayout()
        row.setSpacing(3)
        for key, name in PRESET_KEYS.items():
            button = QPushButton(f"{_SHORT[name]} {key}")
            button.setToolTip(f"Show the {name} window.  Key {key}.")
            button.setCheckable(True)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.clicked.connect(lambda _=False, name=name: self.chosen.emit(name))
            self.buttons[name] = button
            row.addWidget(button, 1)
        self.text = QLabel()
        self.outline = QPushButton("Outline  O")
        self.outline.setToolTip("Show masks as outlines, to see what is under them.  Key O.")
        self.outline.setCheckable(True)
        self.outline.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        below = QHBoxLayout()
        below.setSpacing(3)
        below.addWidget(self.text, 1)
        below.addWidget(self.outline)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(row)
        column.addLayout(below)

    def refresh(self, image: Image | None, seen: str) -> None:
        """Show the window of an image.

        Parameters
        ----------
        image
            The image layer.
        seen
            The window that the model sees, in words.
        """
        window = None if image is None or image.rgb else shown_window(image)
        name = preset_name(window)
        for each, button in self.buttons.items():
            button.setChecked(each == name)
            button.setEnabled(image is not None)
        self.text.setText(f"You: {describe(window)}\nModel: {seen}")

    def set_look(self, look: Look) -> None:
        """Take on the colours of the theme."""
        chosen = blend(look.raised, look.accent, 0.55)
        self.setStyleSheet(
            "QPushButton { padding: 3px 2px; }"
            f"QPushButton:checked {{ background-color: {chosen.name()}; }}"
        )
        self.text.setStyleSheet(f"QLabel {{ color: {look.dim.name()}; }}")
