"""Two small plots, painted directly: they are drawn anew with every brush stroke."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QFont, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_lungfm.gui.widgets.look import Look, blend

#: Slices that are shown on either side of the object, and the fewest slices shown.
_MARGIN, _FEWEST = 3, 16
#: Steps that the history has room for at the least.
_FEWEST_STEPS = 8


@dataclass(frozen=True, eq=False)
class SliceValues:
    """What the plot of slices shows.

    Parameters
    ----------
    values
        One per slice, NaN where there is nothing to show.
    top
        Value of the upper edge.
    title
        What is shown, with its unit.
    prompted, stale
        Slices with prompts on them, and slices that are out of date.
    z
        The slice in view.
    texts
        What to say of a slice, by its number.
    """

    values: npt.NDArray[np.float64]
    top: float
    title: str
    prompted: frozenset[int] = frozenset()
    stale: frozenset[int] = frozenset()
    z: int = 0
    texts: dict[int, str] = field(default_factory=dict)


class _Plot(QWidget):
    """A frame with a title and room for what is drawn in it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.look: Look | None = None
        self.setMinimumHeight(84)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def set_look(self, look: Look) -> None:
        """Take on the colours of the theme."""
        self.look = look
        self.update()

    @property
    def area(self) -> QRectF:
        """Where the data are drawn."""
        return QRectF(30, 20, max(self.width() - 38, 10), max(self.height() - 38, 10))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the frame, then the data."""
        if self.look is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect(), blend(self.look.background, self.look.surface, 0.5))
        small = QFont(self.font())
        small.setPointSizeF(max(small.pointSizeF() - 1.0, 6.5))
        painter.setFont(small)
        self.draw(painter, self.look)
        painter.end()

    def draw(self, painter: QPainter, look: Look) -> None:
        """Draw the data."""
        raise NotImplementedError

    def draw_frame(self, painter: QPainter, look: Look, title: str, top: str) -> None:
        """Draw title, base line and the values of the lower and upper edge."""
        area = self.area
        painter.setPen(look.text)
        room = self.width() - 12
        shown = painter.fontMetrics().elidedText(title, Qt.TextElideMode.ElideRight, room)
        painter.drawText(QRectF(6, 2, room, 16), Qt.AlignmentFlag.AlignLeft, shown)
        painter.setPen(look.dim)
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        painter.drawText(QRectF(0, area.top() - 8, 26, 16), right, top)
        painter.drawText(QRectF(0, area.bottom() - 8, 26, 16), right, "0")
        painter.setPen(QPen(blend(look.background, look.text, 0.25), 1))
        painter.drawLine(area.topLeft(), area.topRight())
        painter.drawLine(area.bottomLeft(), area.bottomRight())


class SlicePlot(_Plot):
    """One bar per slice; a click goes there."""

    slice_clicked = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown = SliceValues(np.zeros(0), 1.0, "")
        self.setMouseTracking(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    @property
    def shown(self) -> SliceValues:
        """What is drawn."""
        return self._shown

    def show_values(self, shown: SliceValues) -> None:
        """Draw other values."""
        self._shown = shown
        self.update()

    @property
    def span(self) -> range:
        """The slices that are drawn: those with values, the one in view, and some around."""
        shown, depth = self._shown, len(self._shown.values)
        used = [int(z) for z in np.flatnonzero(~np.isnan(shown.values))]
        used += [*shown.prompted, shown.z]
        first, last = min(used) - _MARGIN, max(used) + _MARGIN
        missing = max(0, _FEWEST - (last - first + 1))
        first, last = first - missing // 2, last + (missing + 1) // 2
        return range(max(first, 0), min(last, depth - 1) + 1)

    def slice_at(self, x: float) -> int | None:
        """Return the slice under a place in the widget."""
        if not len(self._shown.values):
            return None
        span, area = self.span, self.area
        index = int((x - area.left()) / area.width() * len(span))
        return span[min(max(index, 0), len(span) - 1)]

    def draw(self, painter: QPainter, look: Look) -> None:
        """Draw the bars."""
        shown = self._shown
        top = f"{shown.top:.3g}"
        self.draw_frame(painter, look, shown.title, top)
        if not len(shown.values):
            return
        area, span = self.area, self.span
        width = area.width() / len(span)
        for i, z in enumerate(span):
            left = area.left() + i * width
            if z == shown.z:
                painter.fillRect(
                    QRectF(left, area.top(), width, area.height() + 3),
                    blend(look.background, look.accent, 0.30),
                )
            self._draw_bar(painter, look, z, QRectF(left, area.top(), width, area.height()))
        self._draw_ends(painter, look, span)

    def _draw_bar(self, painter: QPainter, look: Look, z: int, place: QRectF) -> None:
        shown = self._shown
        value = float(shown.values[z])
        gap = min(1.5, place.width() * 0.15)
        if not np.isnan(value):
            share = min(max(value / shown.top, 0.0), 1.0) if shown.top else 0.0
            colour = look.accent if z not in shown.stale else blend(look.accent, look.dim, 0.75)
            if share == 0.0:  # missed or invented: a mark instead of a bar without height
                colour, share = look.error, 0.06
            height = share * place.height()
            painter.fillRect(
                QRectF(
                    place.left() + gap,
                    place.bottom() - height,
                    max(place.width() - 2 * gap, 1.0),
                    height,
                ),
                colour,
            )
        if z in shown.prompted:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(look.warning)
            middle = place.center().x()
            painter.drawEllipse(QPointF(middle, place.bottom() + 4), 2.4, 2.4)

    def _draw_ends(self, painter: QPainter, look: Look, span: range) -> None:
        area = self.area
        painter.setPen(look.dim)
        line = QRectF(area.left(), area.bottom() + 3, area.width(), 14)
        painter.drawText(line, Qt.AlignmentFlag.AlignLeft, str(span[0]))
        painter.drawText(line, Qt.AlignmentFlag.AlignRight, str(span[-1]))
        z = self._shown.z
        share = (z - span.start + 0.5) / len(span)
        if z in span and 0.06 < share < 0.94:
            painter.setPen(look.text)
            place = QRectF(area.left() + share * area.width() - 20, area.bottom() + 3, 40, 14)
            painter.drawText(place, Qt.AlignmentFlag.AlignCenter, str(z))

    def mousePressEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Go to the slice under the mouse."""
        z = self.slice_at(event.position().x())  # type: ignore[attr-defined]
        if z is not None:
            self.slice_clicked.emit(z)

    def mouseMoveEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Say what is under the mouse; drag to move through the slices."""
        z = self.slice_at(event.position().x())  # type: ignore[attr-defined]
        if z is None:
            return
        text = self._shown.texts.get(z, f"slice {z}")
        QToolTip.showText(event.globalPosition().toPoint(), text, self)  # type: ignore[attr-defined]
        if event.buttons() & Qt.MouseButton.LeftButton:  # type: ignore[attr-defined]
            self.slice_clicked.emit(z)


class HistoryPlot(_Plot):
    """Dice after each interaction."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._values: list[float] = []
        self._texts: list[str] = []
        self._seconds = 0.0
        self.setMouseTracking(True)

    @property
    def values(self) -> list[float]:
        """What is drawn."""
        return self._values

    @property
    def summary(self) -> str:
        """What stands under the curve: number of steps, and the seconds that they took."""
        return f"step {len(self._values)}, {self._seconds:.0f} s"

    def show_values(
        self, values: Sequence[float], texts: Sequence[str] = (), seconds: float = 0.0
    ) -> None:
        """Draw other values, each 0 to 1 or NaN; a text for each is shown under the mouse."""
        self._values, self._texts, self._seconds = list(values), list(texts), seconds
        self.update()

    def text_at(self, x: float) -> str:
        """Return the text of the step that is nearest to a place in the widget."""
        if not self._texts:
            return ""
        step = self.area.width() / max(len(self._values), _FEWEST_STEPS)
        index = int((x - self.area.left()) / step)
        return self._texts[min(max(index, 0), len(self._texts) - 1)]

    def mouseMoveEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Say what a step was."""
        text = self.text_at(event.position().x())  # type: ignore[attr-defined]
        QToolTip.showText(event.globalPosition().toPoint(), text, self)  # type: ignore[attr-defined]

    def draw(self, painter: QPainter, look: Look) -> None:
        """Draw a line with a dot for each value."""
        self.draw_frame(painter, look, "Dice by step", "1")
        area, values = self.area, self._values
        known = [(i, v) for i, v in enumerate(values) if not np.isnan(v)]
        if not known:
            return
        step = area.width() / max(len(values), _FEWEST_STEPS)
        points = [
            QPointF(area.left() + (i + 0.5) * step, area.bottom() - v * area.height())
            for i, v in known
        ]
        painter.setPen(QPen(look.good, 1.6))
        for a, b in pairwise(points):
            painter.drawLine(a, b)
        painter.setBrush(QColor(look.good))
        painter.setPen(Qt.PenStyle.NoPen)
        for point in points:
            painter.drawEllipse(point, 2.6, 2.6)
        painter.setPen(look.dim)
        line = QRectF(6, area.bottom() + 3, self.width() - 12, 14)
        shown = painter.fontMetrics().elidedText(
            self.summary, Qt.TextElideMode.ElideRight, int(line.width())
        )
        painter.drawText(line, Qt.AlignmentFlag.AlignRight, shown)
