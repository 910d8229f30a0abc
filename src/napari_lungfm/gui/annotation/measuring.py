"""Volume, diameters and mean intensity of the objects, drawn on the image and as text."""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from napari.layers import Shapes
from psygnal import Signal

from napari_lungfm.geometry import LabelMap, Volume
from napari_lungfm.gui.annotation.controller import Controller
from napari_lungfm.gui.annotation.facts import Annotation
from napari_lungfm.gui.annotation.images import placement_of
from napari_lungfm.gui.annotation.jobs import JobQueue
from napari_lungfm.gui.annotation.layers import MADE
from napari_lungfm.gui.annotation.notices import Level, Notice, explain
from napari_lungfm.inference.session import SessionState
from napari_lungfm.metrics.diameters import LesionMeasures, measure_objects, measures_csv

_LAYER = "diameters"
#: What its messages are about; see `Notice`.
MEASURE = "measure"


class Measuring:
    """Measures all objects of the session.

    Parameters
    ----------
    controller
        What is annotated.
    background
        Does the measuring.
    """

    #: Measures of all objects, a list of `LesionMeasures`.
    measured = Signal(object)

    def __init__(self, controller: Controller, background: JobQueue) -> None:
        self._controller, self._background = controller, background
        self._layer: Shapes | None = None
        self.measures: list[LesionMeasures] = []
        self.up_to_date = False
        controller.labels_changed.connect(self._on_labels)
        controller.changed.connect(self._follow_names)
        controller.opened.connect(self._forget)

    def measure(self) -> None:
        """Measure, draw the diameters, tell where the longest is, and go there."""
        here = self._controller.annotation
        if here is None or not any(each.masks for each in self._controller.objects.values()):
            self._say("warning", "There is nothing to measure yet: draw a box first (B).")
            return
        state, volume = self._controller.state, here.volume

        def done(measures: list[LesionMeasures]) -> None:
            if self._controller.annotation is not here:
                return
            self.measures, self.up_to_date = measures, self._controller.state is state
            self._draw(measures)
            self.measured.emit(measures)
            self._show_longest(measures)

        self._background.submit(
            lambda _: _measure(state, volume),
            done,
            lambda e: self._controller.noticed.emit(replace(explain(e), about=MEASURE)),
        )

    def csv(self) -> str:
        """Return the measures as a table, the name of the image's layer in its first column."""
        here, stream = self._controller.annotation, io.StringIO()
        header, *rows = csv.reader(io.StringIO(measures_csv(self.measures)))
        image = here.image.name if here is not None else ""
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", *header])
        writer.writerows([image, *row] for row in rows)
        return stream.getvalue()

    def show(self, measures: LesionMeasures) -> None:
        """Go to the slice of the longest diameter."""
        self._controller.go_to(measures.diameters.z)

    def _show_longest(self, measures: Sequence[LesionMeasures]) -> None:
        """Go to the longest diameter of the active object, or of all, and say where it is."""
        active = [each for each in measures if each.label == self._controller.active]
        longest = max(active or measures, key=lambda each: each.diameters.long_mm, default=None)
        if longest is None:
            return
        self.show(longest)
        found = longest.diameters
        text = f"'{longest.name}': longest diameter {found.long_mm:.1f} mm, on slice {found.z}."
        self._say("done", text)

    def _draw(self, measures: Sequence[LesionMeasures]) -> None:
        here, viewer = self._controller.annotation, self._controller.viewer
        if here is None:
            return
        if self._layer is not None and self._layer in viewer.layers:
            viewer.layers.remove(self._layer)
        lines: list[Any] = []
        colours: list[str] = []
        texts: list[str] = []
        for each in measures:
            found, colour = each.diameters, self._controller.colour_of(each.label)
            for ends in (found.long_ends, found.short_ends):
                lines.append(np.array([(found.z, *ends[0]), (found.z, *ends[1])]))
                colours.append(colour)
            lines.append(_place_of_text(here, self._controller.state, each))
            colours.append("transparent")
            texts += ["", "", f"{found.long_mm:.1f} × {found.short_mm:.1f} mm"]
        active = viewer.layers.selection.active
        self._layer = viewer.add_shapes(
            lines,
            shape_type="line",
            name=_LAYER,
            edge_color=colours,
            edge_width=0.6,
            opacity=1.0,
            features={"length": texts},
            text={"string": "{length}", "size": 11, "color": "#ffe680", "anchor": "upper_left"},
            metadata={MADE: True},
            **placement_of(here.image),
        )
        viewer.layers.selection.active = active

    def _on_labels(self, *_: object) -> None:
        self.up_to_date = False

    def _follow_names(self) -> None:
        """Call the objects what they are called now: nothing has to be measured again for that."""
        objects = self._controller.objects
        named = [
            replace(each, name=objects[each.label].name) if each.label in objects else each
            for each in self.measures
        ]
        if named != self.measures:
            self.measures = named
            self.measured.emit(named)

    def _say(self, level: Level, text: str) -> None:
        self._controller.noticed.emit(Notice(level, text, MEASURE))

    def _forget(self) -> None:
        self.measures, self.up_to_date = [], False
        self.measured.emit([])


def _place_of_text(here: Annotation, state: SessionState, measures: LesionMeasures) -> Any:
    """Return a line without length at the upper left of the mask on screen, which hides nothing."""
    found = measures.diameters
    ends = np.array([*found.long_ends, *found.short_ends], dtype=float)
    obj = state.objects.get(measures.label)
    crop = obj.masks.get(found.z) if obj is not None else None
    if crop is not None:
        corner = np.array([crop.y0, crop.x0], dtype=float)
        ends = np.vstack([ends, corner, corner + crop.shape])
    upwards = np.where(np.asarray(here.image.scale)[-2:] > 0, -1.0, 1.0)
    place = np.where(upwards < 0, ends.min(axis=0), ends.max(axis=0)) + upwards * (2.0, 0.0)
    return np.array([(found.z, *place)] * 2)


def _measure(state: SessionState, volume: Volume) -> list[LesionMeasures]:
    depth, height, width = volume.shape
    labels = state.labels((slice(0, depth), slice(0, height), slice(0, width)))
    names = {label: each.name for label, each in state.objects.items()}
    return measure_objects(LabelMap(labels, volume.geometry, names), volume)
