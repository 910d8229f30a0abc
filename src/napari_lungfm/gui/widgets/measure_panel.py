"""Volume, diameters and mean intensity of every object."""

from pathlib import Path

import napari
from qtpy.QtCore import Qt
from qtpy.QtGui import QFontMetrics
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QFileDialog,
    QGridLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
)

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm._core.files import write_text
from napari_lungfm.gui.annotation.measuring import MEASURE
from napari_lungfm.gui.annotation.notices import Notice, explain
from napari_lungfm.gui.widgets.compare_panel import in_lines
from napari_lungfm.gui.widgets.docked import DockedWidget
from napari_lungfm.gui.widgets.look import look_of, swatch
from napari_lungfm.gui.widgets.message_bar import MessageBar
from napari_lungfm.metrics.diameters import LesionMeasures

_ROWS = ("Volume", "Longest diameter", "Perpendicular", "Product (WHO)", "Mean", "Slice")
#: Least width of a column and what the swatch beside a name takes, in pixels.
_COLUMN_WIDTH, _SWATCH_WIDTH = 96, 32
_HINT = "Measure draws the longest axial diameter (RECIST 1.1) and its perpendicular (WHO)."


class MeasurePanel(DockedWidget):
    """One column per object.

    Parameters
    ----------
    napari_viewer
        The viewer.
    """

    about = MEASURE

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__(napari_viewer)
        self._measuring = measuring = self.workplace.measuring
        self.message = MessageBar()
        self.message.show_notice(Notice("hint", _HINT))
        self.measure = QPushButton("Measure")
        self.copy, self.save = QPushButton("Copy"), QPushButton("Save CSV …")
        self.copy.setToolTip("Copy the table, with the ends of the diameters in LPS mm, as CSV.")
        for button in (self.measure, self.copy, self.save):
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.table = QTableWidget(len(_ROWS), 0)
        self.table.setVerticalHeaderLabels(_ROWS)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(_COLUMN_WIDTH)  # with many objects, the table is scrolled
        self._lay_out()
        self.measure.clicked.connect(lambda _=False: measuring.measure())
        self.copy.clicked.connect(self._on_copy)
        self.save.clicked.connect(self._on_save)
        self.table.cellClicked.connect(lambda _, column: measuring.show(measuring.measures[column]))
        self.follow(measuring.measured, self._on_measured)
        self.follow(self.controller.noticed, self.show_notice)
        self.follow(self.controller.changed, self.soon)
        self.follow(self.viewer.events.theme, self._on_theme)
        self._on_theme()
        self._on_measured(measuring.measures)

    def _lay_out(self) -> None:
        buttons = QGridLayout()
        buttons.setSpacing(4)
        buttons.addWidget(self.measure, 0, 0, 1, 2)
        buttons.addWidget(self.copy, 1, 0)
        buttons.addWidget(self.save, 1, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 2, 4, 2)
        column.setSpacing(4)
        column.addWidget(self.message)
        column.addLayout(buttons)
        column.addWidget(self.table, 1)

    def refresh(self) -> None:
        """Show whether the numbers are those of the masks on screen, and the objects' colours."""
        for i, each in enumerate(self._measuring.measures[: self.table.columnCount()]):
            self.table.horizontalHeaderItem(i).setIcon(
                swatch(self.controller.colour_of(each.label))
            )
        stale = bool(self._measuring.measures) and not self._measuring.up_to_date
        self.measure.setText("Measure again (masks have changed)" if stale else "Measure")

    def _on_measured(self, measures: list[LesionMeasures]) -> None:
        self.table.setColumnCount(len(measures))
        fit = QFontMetrics(self.table.horizontalHeader().font())
        for i, each in enumerate(measures):
            name = in_lines(each.name, fit, _COLUMN_WIDTH - _SWATCH_WIDTH)
            header = QTableWidgetItem(swatch(self.controller.colour_of(each.label)), name)
            header.setToolTip(each.name)
            self.table.setHorizontalHeaderItem(i, header)
            for row, text in enumerate(texts_of(each)):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(row, i, item)
            if each.label == self.controller.active:
                self.table.scrollToItem(self.table.item(0, i))
        for button in (self.copy, self.save):
            button.setEnabled(bool(measures))
        self.refresh()

    def _on_copy(self) -> None:
        QApplication.clipboard().setText(self._measuring.csv())
        self.message.show_notice(Notice("done", "The table is on the clipboard."))

    def _on_save(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save measures", "measures.csv", "CSV (*.csv)")
        if not name:
            return
        try:
            write_text(Path(name), self._measuring.csv())
        except LungFMError as error:
            self.message.show_notice(explain(error))
            return
        self.message.show_notice(Notice("done", f"Saved '{Path(name).name}'."))

    def _on_theme(self, _: object = None) -> None:
        self.message.set_look(look_of(self.viewer.theme))


def texts_of(measures: LesionMeasures) -> tuple[str, ...]:
    """Return the measures of an object as text, one per row of the table."""
    found = measures.diameters
    return (
        f"{measures.volume_ml:.2f} mL",
        f"{found.long_mm:.1f} mm",
        f"{found.short_mm:.1f} mm",
        f"{measures.who_product_mm2:.0f} mm²",
        f"{measures.mean_hu:.0f} HU".replace("-", "\N{MINUS SIGN}"),
        f"{found.z} of {measures.first_slice}–{measures.last_slice}",
    )
