"""Masks of automatic and promptable models and others, in one table."""

import math
import re

import napari
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtGui import QFont, QFontMetrics
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_lungfm.gui.annotation.comparing import ANNOTATION, COMPARE, Computable, computable
from napari_lungfm.gui.annotation.notices import Notice
from napari_lungfm.gui.annotation.scoring import Row
from napari_lungfm.gui.widgets.docked import DockedWidget
from napari_lungfm.gui.widgets.layer_combo import LayerCombo
from napari_lungfm.gui.widgets.look import heading, look_of
from napari_lungfm.gui.widgets.message_bar import MessageBar
from napari_lungfm.gui.widgets.model_box import CAPTION_WIDTH
from napari_lungfm.gui.widgets.structure_combo import StructureCombo

#: Heading → what it is.
_COLUMNS = {
    "Dice": "Dice coefficient",
    "IoU": "intersection over union",
    "HD95": "95th percentile Hausdorff distance in mm",
    "NSD": "normalised surface Dice at 2 mm",
}
#: The entry for a trained model that was not imported.
_FOLDER = "folder of a trained model …"
#: Width of the column of names in pixels; beside a scroll bar the scores still have room.
_NAME_WIDTH = 112
_HINT = "Compare scores every mask of the structure: the reference is chosen in Annotate."


class ComparePanel(DockedWidget):
    """Compute masks, score all masks, find a consensus, go on from one of them.

    Parameters
    ----------
    napari_viewer
        The viewer.
    """

    about = COMPARE

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__(napari_viewer)
        self._comparing = comparing = self.workplace.comparing
        self.message = MessageBar()
        self.message.show_notice(Notice("hint", _HINT))
        self.structure, self.models = _combo(), ModelCombo()
        self.in_reference, self.in_reference_caption = StructureCombo(), QLabel("In reference")
        self.run = QPushButton("Compute")
        self.run.setToolTip(
            "Make the model's mask. Promptable models, called (prompted), get your prompts."
        )
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self._on_progress(None)
        self.compare = QPushButton("Compare all")
        self.compare.setToolTip("Score every mask of the structure.")
        self.staple, self.majority = QPushButton("STAPLE"), QPushButton("Majority")
        self.disagree = QPushButton("Disagreement")
        self.source = LayerCombo(self.viewer, Labels, empty="no other mask")
        self.start = QPushButton("Start from it")
        self.start.setToolTip("Correct this mask by clicks, boxes and brush.")
        self.table = QTableWidget(0, len(_COLUMNS) + 1)
        self._lay_out()
        self.run.clicked.connect(self._on_run)
        self.compare.clicked.connect(self._on_compare)
        self.staple.clicked.connect(lambda _=False: comparing.consensus(self.label, "staple"))
        self.majority.clicked.connect(lambda _=False: comparing.consensus(self.label, "majority"))
        self.disagree.clicked.connect(lambda _=False: comparing.disagreement(self.label))
        self.start.clicked.connect(self._on_start)
        self.in_reference.chosen.connect(self._on_in_reference)
        self.structure.currentIndexChanged.connect(lambda _=0: self._show_in_reference())
        self.follow(comparing.compared, self.show_rows)
        self.follow(self.workplace.quality.changed, self.soon)
        self.follow(comparing.progressed, self._on_progress)
        self.follow(self.controller.noticed, self.show_notice)
        self.follow(self.controller.changed, self.soon)
        self.follow(self.controller.opened, self._on_opened)
        self.follow(self.viewer.events.theme, self._on_theme)
        self.at_the_end(self.source.disconnect_viewer)
        self._on_theme()
        self.refresh()
        self._prepare_table("")

    @property
    def label(self) -> int:
        """The structure that is compared."""
        return int(self.structure.currentData() or 3)

    def _lay_out(self) -> None:
        top = QGridLayout()
        top.setHorizontalSpacing(6)
        top.setVerticalSpacing(4)
        top.setColumnMinimumWidth(0, CAPTION_WIDTH)
        top.setColumnStretch(1, 1)
        rows = (("Structure", self.structure), ("Model", self.models), ("Mask", self.source))
        top.addWidget(self.in_reference_caption, 1, 0)
        top.addWidget(self.in_reference, 1, 1, 1, 2)
        for row, (caption, widget) in zip((0, 2, 4), rows, strict=True):
            top.addWidget(QLabel(caption), row, 0)
            # Names of models are long: theirs has the whole row.
            top.addWidget(widget, row, 1, 1, 2 if widget is self.models else 1)
        top.addWidget(self.bar, 3, 1)
        for row, button in ((0, self.compare), (3, self.run), (4, self.start)):
            top.addWidget(button, row, 2)
        makers = QHBoxLayout()
        makers.setSpacing(4)
        for button in (self.staple, self.majority, self.disagree):
            makers.addWidget(button, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 2, 4, 2)
        column.setSpacing(4)
        column.addWidget(self.message)
        column.addLayout(top)
        column.addWidget(heading("Scores"))
        column.addWidget(self.table, 1)
        column.addWidget(heading("New layers from all masks of the structure"))
        column.addLayout(makers)
        for button in (
            self.run,
            self.compare,
            self.staple,
            self.majority,
            self.disagree,
            self.start,
        ):
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.table.setWordWrap(True)

    def refresh(self) -> None:
        """Show what can be compared now."""
        wanted = self._comparing.structures()
        shown = {
            self.structure.itemData(i): self.structure.itemText(i)
            for i in range(self.structure.count())
        }
        if shown != wanted:
            kept = self.label
            self.structure.clear()
            for label, name in wanted.items():
                self.structure.addItem(name, label)
            self.structure.setCurrentIndex(max(self.structure.findData(kept), 0))
        self.start.setEnabled(self.source.layer is not None)
        self._show_in_reference()

    def _show_in_reference(self) -> None:
        """Let the structure of the reference be chosen where the object's name leaves it open."""
        quality, label = self.workplace.quality, self.label
        structures, matched = quality.structures, quality.reference_label(label)
        asked = label in self.controller.objects and bool(structures)
        lone = len(structures) == 1 and matched is not None
        for widget in (self.in_reference_caption, self.in_reference):
            widget.setVisible(asked and not lone)
        self.in_reference.show_choice(structures, matched, quality.chosen_structure(label))

    def _on_in_reference(self, value: int | None) -> None:
        self.workplace.quality.choose_structure(self.label, value)
        self._on_compare()

    def show_rows(self, pairs: bool, rows: list[Row]) -> None:
        """Show the table."""
        self._prepare_table("Δ mL" if pairs else "mL")
        self.table.setRowCount(len(rows))
        titles = [*_COLUMNS, "Δ mL" if pairs else "mL"]
        header_font = QFont(self.table.verticalHeader().font())
        header_font.setBold(True)  # as that of the annotation
        fit = QFontMetrics(header_font)
        for i, row in enumerate(rows):
            header = QTableWidgetItem(in_lines(row.name, fit, _NAME_WIDTH - 12))
            header.setToolTip(row.name)
            if row.name == ANNOTATION:
                font = header.font()
                font.setBold(True)
                header.setFont(font)
            self.table.setVerticalHeaderItem(i, header)
            values = (
                _text(row.dice, 3),
                _text(row.iou, 3),
                _text(row.hd95_mm, 1),
                _text(row.nsd_2mm, 3),
                _text(row.volume_ml, 1),
            )
            for j, (title, text) in enumerate(zip(titles, values, strict=True)):
                item = QTableWidgetItem(text)
                item.setToolTip(f"{row.name}\n{title} {text}")
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(i, j, item)
        self.table.resizeRowsToContents()
        what = "each pair agrees" if pairs else "every mask fits the reference"
        self.message.show_notice(Notice("done", f"This is how well {what}."))

    def _prepare_table(self, last: str) -> None:
        self.table.setHorizontalHeaderLabels([*_COLUMNS, last or "mL"])
        for i, tip in enumerate(_COLUMNS.values()):
            self.table.horizontalHeaderItem(i).setToolTip(tip)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        # Volumes have up to four digits before the point; the scores share what is left.
        header.setSectionResizeMode(len(_COLUMNS), QHeaderView.ResizeMode.ResizeToContents)
        self.table.verticalHeader().setMaximumWidth(_NAME_WIDTH)

    def _on_opened(self) -> None:
        """Scores of another session, or another case, are none of this one."""
        self.table.setRowCount(0)

    def _on_compare(self, _: bool = False) -> None:
        self.table.setRowCount(0)  # if it fails, no old scores stand under the message
        self._comparing.compare(self.label)

    def _on_run(self) -> None:
        if self._comparing.running:
            self._comparing.cancel()
            return
        wanted = self.models.chosen
        if wanted is None:
            name = QFileDialog.getExistingDirectory(self, "Folder of a trained model")
            wanted = Computable(name) if name else None
        if wanted is not None:
            self._comparing.run(wanted)

    def _on_start(self) -> None:
        layer = self.source.layer
        if isinstance(layer, Labels):
            self._comparing.start_from(layer, self.label)

    def _on_progress(self, share: float | None) -> None:
        self.bar.setEnabled(share is not None)
        self.run.setText("Compute" if share is None else "Cancel")
        if share is None:
            self.bar.setRange(0, 1)
            self.bar.setValue(0)
        else:
            self.bar.setRange(0, 0 if share == 0 else 100)
            self.bar.setValue(round(100 * share))

    def _on_theme(self, _: object = None) -> None:
        self.message.set_look(look_of(self.viewer.theme))


class ModelCombo(QComboBox):
    """What can be computed, looked up anew whenever it is opened; at the end, any folder."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        _make_narrow(self)
        self.currentTextChanged.connect(self.setToolTip)
        self._listed: tuple[Computable, ...] = ()
        self.list_anew()

    @property
    def chosen(self) -> Computable | None:
        """The model; ``None`` for the folder of a trained one."""
        index = self.currentIndex()
        return self._listed[index] if 0 <= index < len(self._listed) else None

    def list_anew(self) -> None:
        """Look up the models; the choice stays where it can."""
        kept, self._listed = self.currentText(), computable()
        self.clear()
        self.addItems([*(each.title for each in self._listed), _FOLDER])
        self.setCurrentIndex(max(self.findText(kept), 0))

    def showPopup(self) -> None:  # noqa: N802 - Qt's name
        """Look them up, for one may have been fetched or trained since."""
        self.list_anew()
        super().showPopup()


def _combo() -> QComboBox:
    combo = QComboBox()
    _make_narrow(combo)
    return combo


def _make_narrow(combo: QComboBox) -> None:
    combo.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(8)


def in_lines(name: str, fit: QFontMetrics, width: int) -> str:
    """Return a name in lines of a width in pixels, broken where it can be; nothing is left out."""
    lines = [""]
    for piece in re.findall(r"[^ \-:_./]*[ \-:_./]*", name):
        if fit.horizontalAdvance((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
            continue
        lines.append("")
        for letter in piece:  # one that is too long by itself is cut through
            if fit.horizontalAdvance(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return "\n".join(line.strip() for line in lines if line.strip())


def _text(value: float, digits: int) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
