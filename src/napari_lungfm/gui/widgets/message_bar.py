"""The line that says what to do next, and what went wrong."""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QWidget

from napari_lungfm.gui.annotation.notices import Notice
from napari_lungfm.gui.widgets.look import Look, blend

_LINES = 2


class MessageBar(QLabel):
    """Two lines of text with a coloured edge; longer text makes it grow."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWordWrap(True)
        self.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        # Room for two lines, so that the panel does not jump with every message.
        self.setMinimumHeight(self.fontMetrics().lineSpacing() * _LINES + 16)
        self._look: Look | None = None
        self._notice = Notice("hint", "")

    @property
    def notice(self) -> Notice:
        """What is shown."""
        return self._notice

    def show_notice(self, notice: Notice) -> None:
        """Show a message."""
        self._notice = notice
        self.setText(notice.text)
        self._paint()

    def set_look(self, look: Look) -> None:
        """Take on the colours of the theme."""
        self._look = look
        self._paint()

    def _paint(self) -> None:
        look = self._look
        if look is None:
            return
        edge = {
            "hint": look.accent,
            "done": look.good,
            "warning": look.warning,
            "error": look.error,
        }[self._notice.level]
        back = blend(look.background, edge, 0.12 if look.dark else 0.10)
        self.setStyleSheet(
            f"QLabel {{ background-color: {back.name()}; color: {look.text.name()};"
            f" border-left: 4px solid {edge.name()}; border-radius: 3px; padding: 4px 6px; }}"
        )
