"""Window presets as buttons, one of one's own, and the window in use."""

from napari.layers import Image
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSpinBox, QVBoxLayout, QWidget

from napari_lungfm.gui.annotation.windows import PRESET_KEYS, preset_name, shown_window
from napari_lungfm.gui.widgets.look import Look, blend
from napari_lungfm.preprocessing.windowing import Window

_SHORT = {"lung": "Lung", "mediastinum": "Med.", "soft tissue": "Soft", "bone": "Bone"}
#: Shows the window that was typed or dragged last.
OWN_KEY = "F9"
_LEVELS, _WIDTHS = (-2000, 4000), (1, 6000)
#: In pixels: a minus sign and four digits.
_NUMBER_WIDTH = 62


class WindowBox(QWidget):
    """How the image is shown; the model's own window is in the box of the model."""

    #: Name of a preset.
    chosen = Signal(str)
    #: A `Window` of one's own.
    typed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.buttons: dict[str, QPushButton] = {}
        for key, name in PRESET_KEYS.items():
            button = _button(f"{_SHORT[name]} {key}", f"Show the {name} window.  Key {key}.")
            button.setCheckable(True)
            button.clicked.connect(lambda _=False, name=name: self.chosen.emit(name))
            self.buttons[name] = button
        self.own = _button(
            f"Own {OWN_KEY}", f"Show the window that you typed or dragged last.  Key {OWN_KEY}."
        )
        self.own.setCheckable(True)
        self.level = _number(_LEVELS, "Level in HU; type your own.")
        self.width_ = _number(_WIDTHS, "Width in HU; type your own.")
        self.text = QLabel()
        self.outline = _button(
            "Outline O", "Show masks as outlines, to see what is under them.  Key O."
        )
        self.outline.setCheckable(True)
        self._own: Window | None = None
        self._lay_out()
        self.own.clicked.connect(lambda _=False: self.use_own())
        self.level.valueChanged.connect(self._on_typed)
        self.width_.valueChanged.connect(self._on_typed)

    def _lay_out(self) -> None:
        presets, below = QHBoxLayout(), QHBoxLayout()
        for row in (presets, below):
            row.setSpacing(3)
        for button in self.buttons.values():
            presets.addWidget(button, 1)
        for caption, number in (("L", self.level), ("W", self.width_)):
            below.addWidget(QLabel(caption))
            below.addWidget(number)
        below.addWidget(self.own, 1)
        below.addWidget(self.outline, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(presets)
        column.addLayout(below)
        column.addWidget(self.text)

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
        if window is not None and name is None:
            self._own = window
        for each, button in self.buttons.items():
            button.setChecked(each == name)
            button.setEnabled(window is not None)
        self.own.setChecked(window is not None and name is None)
        self.own.setEnabled(window is not None)
        for number, value in (
            (self.level, window and window.level),
            (self.width_, window and window.width),
        ):
            number.setEnabled(window is not None)
            if value is not None and not number.hasFocus():
                with QSignalBlocker(number):
                    number.setValue(round(value))
        self.text.setText(f"The model sees {seen}")

    def use_own(self) -> None:
        """Show the window that was typed or dragged last; else the present one is one's own."""
        self.typed.emit(self._own or Window(float(self.level.value()), float(self.width_.value())))

    def set_look(self, look: Look) -> None:
        """Take on the colours of the theme."""
        chosen = blend(look.raised, look.accent, 0.55)
        self.setStyleSheet(
            "QPushButton { padding: 3px 4px; }"
            "QSpinBox { padding: 2px 4px; margin: 0px; }"
            f"QPushButton:checked {{ background-color: {chosen.name()}; }}"
        )
        self.text.setStyleSheet(f"QLabel {{ color: {look.dim.name()}; }}")

    def _on_typed(self, _: int) -> None:
        self._own = Window(float(self.level.value()), float(self.width_.value()))
        self.typed.emit(self._own)


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return button


def _number(bounds: tuple[int, int], tip: str) -> QSpinBox:
    number = QSpinBox()
    number.setRange(*bounds)
    number.setSingleStep(10)
    number.setButtonSymbols(QSpinBox.ButtonSymbols.NoButtons)  # they need room; keys and wheel do
    number.setFixedWidth(_NUMBER_WIDTH)
    number.setAlignment(Qt.AlignmentFlag.AlignRight)
    number.setKeyboardTracking(False)  # not at every digit
    number.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
    number.setToolTip(tip)
    return number
