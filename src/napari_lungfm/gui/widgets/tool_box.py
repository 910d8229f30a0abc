"""The tools as buttons, with their keys on them."""

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QGridLayout, QPushButton, QWidget

from napari_lungfm.gui.annotation.tools import HINTS, Tool
from napari_lungfm.gui.widgets.look import Look, blend, tool_icon

#: Tool → text and key.
TOOL_KEYS: dict[Tool, tuple[str, str]] = {
    Tool.BOX: ("Box", "B"),
    Tool.POSITIVE: ("Add", "A"),
    Tool.NEGATIVE: ("Remove", "R"),
    Tool.BRUSH: ("Brush", "P"),
    Tool.ERASER: ("Eraser", "E"),
}
STOP_KEY = "S"


class ToolBox(QWidget):
    """Box, clicks, stop, brush and eraser."""

    chosen = Signal(object)
    stop = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        self.buttons: dict[Tool, QPushButton] = {}
        places = {
            Tool.BOX: (0, 0),
            Tool.POSITIVE: (0, 1),
            Tool.NEGATIVE: (0, 2),
            Tool.BRUSH: (1, 0),
            Tool.ERASER: (1, 1),
        }
        for tool, (row, column) in places.items():
            text, key = TOOL_KEYS[tool]
            button = _button(f"{text}   {key}", f"{HINTS[tool]}  Key {key}.")
            button.setCheckable(True)
            button.clicked.connect(lambda _=False, tool=tool: self._on_clicked(tool))
            self.buttons[tool] = button
            grid.addWidget(button, row, column)
        self.stop_button = _button(
            f"Ends here   {STOP_KEY}",
            "The tumour is not on this slice nor beyond: propagation stops before it.  Key S.",
        )
        self.stop_button.clicked.connect(self.stop)
        grid.addWidget(self.stop_button, 1, 2)
        for column in range(3):
            grid.setColumnStretch(column, 1)

    def show_tool(self, tool: Tool) -> None:
        """Show which tool is in hand."""
        for each, button in self.buttons.items():
            button.setChecked(each is tool)

    def set_look(self, look: Look) -> None:
        """Take on the colours of the theme."""
        for tool, button in self.buttons.items():
            button.setIcon(tool_icon(tool.value, look.text))
        self.stop_button.setIcon(tool_icon("stop", look.text))
        chosen = blend(look.raised, look.accent, 0.55)
        self.setStyleSheet(
            "QPushButton { padding: 5px 4px; text-align: left; }"
            f"QPushButton:checked {{ background-color: {chosen.name()};"
            f" border: 1px solid {look.accent.name()}; }}"
        )

    def _on_clicked(self, tool: Tool) -> None:
        self.chosen.emit(tool if self.buttons[tool].isChecked() else Tool.LOOK)


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    button.setIconSize(QSize(16, 16))
    return button
