"""What napari's other buttons draw among the boxes, how clicks are shown, images without a unit."""

import numpy as np
import pytest

pytest.importorskip("napari")

from napari_lungfm.geometry import Structure
from napari_lungfm.gui.annotation.tools import Tool
from napari_lungfm.models.prompts import Box

TUMOUR = int(Structure.TUMOUR)
#: Corners on slice 9 of what a person draws around the ball with other tools than the box.
OUTLINES = {
    "ellipse": [(10, 14), (10, 38), (34, 38), (34, 14)],
    "polygon": [(10, 26), (22, 38), (34, 26), (22, 14)],
    "path": [(10, 26), (22, 38), (34, 26), (22, 14), (11, 25)],
}


def corners(points, z=9):
    return np.array([(z, y, x) for y, x in points], dtype=float)


@pytest.mark.parametrize("kind", list(OUTLINES))
def test_another_shape_becomes_the_box_around_it_and_that_is_said(bench, kind):
    bench.controller.use(Tool.BOX)
    bench.settle()
    bench.layers.boxes.add([corners(OUTLINES[kind])], shape_type=kind)
    bench.settle()
    (prompt,) = bench.controller.active_object.prompts.values()
    assert prompt == Box(9, 10, 14, 35, 39)
    assert f"The box around your {kind} was taken." in bench.notices[-1].text
    assert "Propagate (G)" in bench.notices[-1].text
    assert list(bench.layers.boxes.shape_type) == ["rectangle"]
    np.testing.assert_allclose(bench.layers.boxes.data[0].min(axis=0), [9, 9.5, 13.5])
    bench.layers.boxes.add([corners(OUTLINES[kind][:3], z=11)], shape_type="path")
    bench.box(12, 12, 16, 30, 36)
    assert "was taken" not in bench.notices[-1].text
    assert len(bench.controller.active_object.prompts) == 3


@pytest.mark.parametrize(
    ("kind", "points", "says"),
    [
        ("line", [(10, 14), (34, 38)], "A line has no area"),
        ("path", [(10, 14), (10, 20), (10, 38)], "too small"),
    ],
)
def test_what_has_no_area_is_refused_with_a_hint(bench, kind, points, says):
    bench.controller.use(Tool.BOX)
    bench.settle()
    bench.layers.boxes.add([corners(points)], shape_type=kind)
    bench.settle()
    assert says in bench.notices[-1].text
    assert bench.notices[-1].level == "warning"
    assert not bench.controller.objects
    assert len(bench.layers.boxes.data) == 0


def test_a_polygon_that_was_given_up_is_no_box(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    entries = len(bench.controller.session.entries)
    boxes = bench.layers.boxes
    boxes.events.data(value=boxes.data, action="added", data_indices=(-1,), vertex_indices=((),))
    bench.settle()
    assert len(bench.controller.session.entries) == entries


def test_nothing_is_put_right_while_a_polygon_is_being_drawn(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    boxes = bench.layers.boxes
    boxes.mode = "add_polygon"
    boxes._is_creating = True
    boxes.add([corners(OUTLINES["path"][:2])], shape_type="path", gui=True)
    bench.controller.rename(TUMOUR, "GTV")
    bench.controller.set_colour(TUMOUR, "#00ff00")
    bench.settle()
    assert len(boxes.data) == 2
    boxes._is_creating = False
    bench.layers.restore_prompts()
    assert len(boxes.data) == 1


def test_no_marker_is_seen_on_slices_without_a_click(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    clicks = bench.layers.clicks
    assert clicks.canvas_size_limits[0] == 0
    bench.controller.go_to(9)
    bench.controller.use(Tool.POSITIVE)
    bench.click(9, 22, 26)
    assert clicks.canvas_size_limits[0] > 0
    bench.controller.go_to(12)
    assert clicks.canvas_size_limits[0] == 0
    bench.controller.go_to(9)
    assert clicks.canvas_size_limits[0] > 0


def without_unit(bench, scale=(3, 1, 1), units=None):
    array = bench.viewer.layers["ct"].data
    return bench.viewer.add_image(array.copy(), name="plain", scale=scale, units=units)


def test_a_scale_without_a_unit_is_said_to_be_taken_as_mm(bench, truth):
    remarks = []
    bench.controller.remarked.connect(remarks.append)
    bench.controller.set_image(without_unit(bench))
    assert "names no unit" in remarks[-1]
    assert "3 × 1 × 1" in remarks[-1]
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    assert remarks[-1] == bench.controller.remark
    assert "3 × 1 × 1" in remarks[-1]
    bench.controller.end()
    assert "3 × 1 × 1" in remarks[-1]  # it is still true
    bench.viewer.layers.remove("plain")
    bench.settle()
    assert remarks[-1] == ""
    bench.controller.set_image(bench.viewer.layers["ct"])
    assert remarks[-1] == ""


@pytest.mark.parametrize(("unit", "scale"), [("um", 1000.0), ("cm", 0.1), ("mm", 1.0)])
def test_other_units_of_length_are_converted(bench, truth, unit, scale):
    given = np.array([3.0, 1.0, 1.0]) * scale
    bench.controller.set_image(without_unit(bench, given, unit))
    assert bench.controller.remark == ""
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    assert bench.controller.annotation.volume.spacing == pytest.approx((3, 1, 1))
    assert bench.controller.voxel_volume_ml() == pytest.approx(0.003)
    np.testing.assert_allclose(bench.layers.masks.scale, given)
