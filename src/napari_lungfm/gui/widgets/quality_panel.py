"""Numbers and plots under the slider."""

from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_lungfm.gui.widgets.docked import DockedWidget
from napari_lungfm.gui.widgets.look import look_of
from napari_lungfm.gui.widgets.plots import HistoryPlot, SlicePlot, SliceValues
from napari_lungfm.gui.widgets.structure_combo import StructureCombo

#: Milliseconds without a change before the distances of surfaces are computed.
_PAUSE_MS = 900
#: Width of the numbers in pixels.
_NUMBERS_WIDTH = 220
_SURFACE = "95th percentile Hausdorff distance, and normalised surface Dice at 2 mm"
_NO_REFERENCE = "Choose a reference to score it."


class QualityPanel(DockedWidget):
    """Dice and IoU of volume and slice, a bar per slice, and the history.

    Parameters
    ----------
    napari_viewer
        The viewer.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__(napari_viewer)
        self._quality = quality = self.workplace.quality
        self.volume, self.slice, self.surface = QLabel(), QLabel(), QLabel()
        self.worst, self.next = QPushButton("Worst   W"), QPushButton("Next error   N")
        self.surface.setToolTip(_SURFACE)
        self.worst.setToolTip("Go to the slice with the most wrong voxels.  Key W.")
        self.next.setToolTip("Go to the next slice that differs from the reference.  Key N.")
        self.structure, self.structure_row = StructureCombo(), QWidget()
        self.slices, self.history = SlicePlot(), HistoryPlot()
        self._lay_out()
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.setInterval(_PAUSE_MS)
        self._pause.timeout.connect(quality.measure_surfaces)
        self.worst.clicked.connect(quality.go_to_worst)
        self.structure.chosen.connect(
            lambda value: quality.choose_structure(self.controller.active, value)
        )
        self.next.clicked.connect(lambda _=False: quality.go_to_next())
        self.slices.slice_clicked.connect(self.controller.go_to)
        self.follow(quality.changed, self._changed)
        self.follow(self.controller.changed, self._changed)
        self.follow(self.viewer.dims.events.point, self.soon)
        self.follow(self.viewer.dims.events.order, self.soon)
        self.follow(self.viewer.events.theme, self.refresh_look)
        self.refresh_look()
        self.refresh()

    def _lay_out(self) -> None:
        numbers = QWidget()
        numbers.setFixedWidth(_NUMBERS_WIDTH)
        column = QVBoxLayout(numbers)
        column.setContentsMargins(2, 0, 2, 0)
        column.setSpacing(2)
        for label in (self.volume, self.slice, self.surface):
            column.addWidget(label)
        row = QHBoxLayout(self.structure_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(QLabel("In reference"))
        row.addWidget(self.structure, 1)
        column.addWidget(self.structure_row)
        column.addStretch(1)
        buttons = QGridLayout()
        buttons.setSpacing(3)
        buttons.addWidget(self.worst, 0, 0)
        buttons.addWidget(self.next, 0, 1)
        column.addLayout(buttons)
        row = QHBoxLayout(self)
        row.setContentsMargins(4, 2, 4, 2)
        row.setSpacing(6)
        row.addWidget(numbers)
        row.addWidget(self.slices, 5)
        row.addWidget(self.history, 2)
        self.setMaximumHeight(150)

    # ------------------------------------------------------------------ showing
    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Fix the size of the numbers: the window would be laid out anew with each of them."""
        super().showEvent(event)
        for label in (self.volume, self.slice, self.surface):
            label.setFixedSize(_NUMBERS_WIDTH - 4, label.fontMetrics().lineSpacing() + 4)

    def _changed(self, *_: object) -> None:
        self.soon()
        self._pause.start()

    def refresh(self) -> None:
        """Show everything as it is now."""
        scored = self._quality.has_reference
        for button in (self.worst, self.next):
            button.setEnabled(scored)
        self._show_numbers()
        self._show_structures()
        self.slices.show_values(self._slice_values())
        self._show_history()

    def _show_numbers(self) -> None:
        live, here = self._quality.live, self.controller.annotation
        if live is None or here is None:
            self.volume.setText("<b>No object yet</b>")
            self.slice.setText("")
            self.surface.setText("")
            return
        z, per_voxel = here.view.z, self.controller.voxel_volume_ml()
        size = int(live.counts.tp + live.counts.fp) * per_voxel
        if not live.has_reference:
            area = int(live.areas[z]) * np.prod(here.volume.spacing[1:]) / 100.0
            self.volume.setText(f"<b>{size:.2f} mL</b>")
            self.slice.setText(f"Slice {z}: {area:.2f} cm²")
            chosen = self._quality.reference_chosen
            text = "Not in the reference by name." if chosen else _NO_REFERENCE
            self.surface.setText(text)
            return
        counts, plane = live.counts, live.slice_counts(z)
        self.volume.setText(f"<b>Dice {_score(counts.dice)}</b> &nbsp;IoU {_score(counts.iou)}")
        self.slice.setText(f"Slice {z}: {_score(plane.dice)}  IoU {_score(plane.iou)}")
        surface = self._quality.surface
        self.surface.setText(
            "Surface: when you pause …"
            if surface is None
            else f"HD95 {surface.hd95_mm:.1f} mm  NSD {_score(surface.nsd[2.0])}"
        )

    def _show_structures(self) -> None:
        """Let the structure be chosen where the name of the object leaves that open."""
        quality, label = self._quality, self.controller.active
        structures, matched = quality.structures, quality.reference_label(label)
        asked = label in self.controller.objects and bool(structures)
        lone = len(structures) == 1 and matched is not None
        self.structure_row.setVisible(asked and not lone)
        self.structure.show_choice(structures, matched, quality.chosen_structure(label))
        way_out = quality.way_out
        self.surface.setToolTip(f"Not in the reference: {way_out}." if way_out else _SURFACE)

    def _slice_values(self) -> SliceValues:
        live, here = self._quality.live, self.controller.annotation
        obj = self.controller.active_object
        if live is None or here is None or obj is None:
            return SliceValues(np.zeros(0), 1.0, "Per slice")
        marks = {"prompted": obj.slices_with_prompts, "stale": obj.stale, "z": here.view.z}
        if live.has_reference:
            values = live.per_slice.dice
            texts = {
                int(z): f"slice {z}: Dice {values[z]:.3f}"
                for z in np.flatnonzero(~np.isnan(values))
            }
            return SliceValues(values, 1.0, "Dice per slice", texts=texts, **marks)
        unit = float(np.prod(here.volume.spacing[1:])) / 100.0
        areas = live.areas * unit
        top = _nice(float(areas.max()))
        values = np.where(areas > 0, areas, np.nan)
        texts = {int(z): f"slice {z}: {areas[z]:.2f} cm²" for z in np.flatnonzero(areas)}
        return SliceValues(values, top, "Area per slice (cm²)", texts=texts, **marks)

    def _show_history(self) -> None:
        live = self._quality.live
        entries = live.history if live is not None else []
        texts = [
            f"step {i}: Dice {_score(each.dice)}, {each.n_prompts} prompts, {each.seconds:.1f} s"
            for i, each in enumerate(entries, start=1)
        ]
        seconds = sum(each.seconds for each in entries)
        self.history.show_values([each.dice for each in entries], texts, seconds)
        self.history.setVisible(self._quality.has_reference)

    def refresh_look(self, _: object = None) -> None:
        """Take on the colours of the theme."""
        look = look_of(self.viewer.theme)
        self.slices.set_look(look)
        self.history.set_look(look)
        self.surface.setStyleSheet(f"QLabel {{ color: {look.dim.name()}; }}")

    def let_go(self) -> None:
        """Compute nothing any more."""
        self._pause.stop()


def _score(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def _nice(value: float) -> float:
    """Return a round number that is not below a value."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if value <= step * power))
