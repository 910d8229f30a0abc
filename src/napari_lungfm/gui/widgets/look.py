"""Colours of napari's theme, and small icons drawn in them."""

from collections.abc import Callable
from dataclasses import dataclass

from napari.utils.theme import get_system_theme, get_theme
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPen, QPixmap, QPolygonF
from qtpy.QtWidgets import QLabel

_SIDE = 18.0


@dataclass(frozen=True)
class Look:
    """The colours in use.

    Parameters
    ----------
    text, dim
        Of letters, and of less important ones.
    background, surface, raised
        Of the panel, of fields in it, of buttons.
    accent, good, warning, error
        What they say.
    dark
        Whether the theme is a dark one.
    """

    text: QColor
    dim: QColor
    background: QColor
    surface: QColor
    raised: QColor
    accent: QColor
    good: QColor
    warning: QColor
    error: QColor
    dark: bool


def look_of(theme_name: str) -> Look:
    """Return the colours of one of napari's themes."""
    theme = get_theme(get_system_theme() if theme_name == "system" else theme_name)
    rgb = theme.to_rgb_dict()

    def colour(name: str) -> QColor:
        parts = [int(float(p)) for p in rgb[name].strip("rgba()").split(",")[:3]]
        return QColor(*parts)

    dark = theme.type == "dark"
    text, background = colour("text"), colour("background")
    return Look(
        text=text,
        dim=blend(text, background, 0.35),
        background=background,
        surface=colour("foreground"),
        raised=colour("primary"),
        accent=QColor("#4aa3ff") if dark else QColor("#0b66c3"),
        good=QColor("#3fbf7f") if dark else QColor("#1b7f4b"),
        warning=QColor("#f0b429") if dark else QColor("#a86a00"),
        error=QColor("#ff6b5e") if dark else QColor("#c0281b"),
        dark=dark,
    )


def blend(a: QColor, b: QColor, share: float) -> QColor:
    """Return a colour between two, ``share`` of it the second."""
    parts = [
        round(p * (1 - share) + q * share)
        for p, q in zip(a.getRgb()[:3], b.getRgb()[:3], strict=True)
    ]
    return QColor(*parts)


def swatch(colour: str, *, locked: bool = False) -> QIcon:
    """Return a filled square as an icon; a padlock where the object is locked."""

    def draw(painter: QPainter) -> None:
        if not locked:
            painter.fillRect(QRectF(3, 3, 12, 12), QColor(colour))
            return
        painter.fillRect(QRectF(3, 8, 12, 8), QColor(colour))
        painter.drawArc(QRectF(5.5, 2.5, 7, 10), 0, 180 * 16)

    return _icon(draw, QColor(colour))


def tool_icon(name: str, colour: QColor) -> QIcon:
    """Return the icon of a tool."""
    return _icon(_DRAWINGS[name], colour)


def _icon(draw: Callable[[QPainter], None], colour: QColor) -> QIcon:
    scale = 3
    pixmap = QPixmap(int(_SIDE * scale), int(_SIDE * scale))
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.scale(scale, scale)
    painter.setPen(QPen(colour, 1.7, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    draw(painter)
    painter.end()
    return QIcon(pixmap)


def _box(p: QPainter) -> None:
    pen = QPen(p.pen())
    pen.setStyle(Qt.PenStyle.CustomDashLine)
    pen.setDashPattern([2.0, 1.6])
    p.setPen(pen)
    p.drawRect(QRectF(2.5, 3.5, 13, 11))


def _plus(p: QPainter) -> None:
    p.drawLine(QPointF(9, 3.5), QPointF(9, 14.5))
    p.drawLine(QPointF(3.5, 9), QPointF(14.5, 9))


def _minus(p: QPainter) -> None:
    p.drawLine(QPointF(3.5, 9), QPointF(14.5, 9))


def _stop(p: QPainter) -> None:
    p.drawLine(QPointF(3, 14.5), QPointF(15, 14.5))
    p.drawLine(QPointF(9, 3), QPointF(9, 11))
    p.drawPolyline(QPolygonF([QPointF(6, 8), QPointF(9, 11), QPointF(12, 8)]))


def _brush(p: QPainter) -> None:
    p.drawLine(QPointF(14.5, 3.5), QPointF(8.2, 9.8))
    p.setBrush(p.pen().color())
    p.drawEllipse(QPointF(6, 12), 2.6, 2.6)


def _eraser(p: QPainter) -> None:
    p.drawPolygon(
        QPolygonF([QPointF(3, 11), QPointF(9.5, 4.5), QPointF(14, 9), QPointF(7.5, 15.5)])
    )
    p.drawLine(QPointF(6.2, 7.8), QPointF(10.7, 12.3))


_DRAWINGS: dict[str, Callable[[QPainter], None]] = {
    "box": _box,
    "positive": _plus,
    "negative": _minus,
    "stop": _stop,
    "brush": _brush,
    "eraser": _eraser,
}


def heading(text: str) -> QLabel:
    """Return the heading of a section."""
    label = QLabel(text)
    label.setStyleSheet("QLabel { font-weight: 600; padding-top: 3px; }")
    return label
