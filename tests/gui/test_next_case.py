"""Several images in one viewer: whose session gets what is drawn, and what a closed case takes."""

import gc
import weakref

import numpy as np
import pytest

from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry
from napari_lungfm.gui.annotation.cases import (
    OPENED,
    is_new_case,
    same_case,
    seen_instead,
    show_case,
)
from napari_lungfm.gui.annotation.closing import Closing
from napari_lungfm.gui.annotation.tools import Tool
from napari_lungfm.gui.widgets.propagate_box import PropagateBox
from napari_lungfm.plugin.layer_geometry import METADATA_KEY, image_layer, labels_layer


def add_image(viewer, name, *, moved=(0.0, 0.0, 0.0), shape=(20, 48, 48), source=None):
    """Add a CT; without ``moved`` and another shape it lies exactly where the first one does."""
    origin = np.array((-20.0, 30.0, -100.0)) + moved
    geometry = VolumeGeometry(shape, (3.0, 1.0, 1.0), tuple(origin))
    volume = Volume(np.full(shape, -700, np.int16), geometry, {"source": source, "modality": "CT"})
    data, options, _ = image_layer(volume, name)
    return viewer.add_image(data, **options)


@pytest.fixture
def drawn(bench, truth):
    """A session with a box, and the opened image and reference of the case."""
    bench.viewer.layers["reference"].metadata[OPENED] = True
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    return bench


# ---------------------------------------------------------------- what is seen, what is drawn on
def test_the_image_that_is_seen_is_the_topmost_that_hides_what_lies_below(viewer):
    ct = viewer.layers["ct"]
    viewer.dims.set_point(0, float(ct.data_to_world((9, 0, 0))[0]))
    assert seen_instead(viewer, ct, [(9, 20, 20)]) is None
    other = add_image(viewer, "other", moved=(10.0, 10.0, 0.0))
    assert seen_instead(viewer, ct, [(9, 20, 20)]) is other
    assert seen_instead(viewer, ct, [(9, 2, 2)]) is None  # it does not lie there
    assert seen_instead(viewer, ct, [(9, 2, 2), (9, 20, 20)]) is other
    assert seen_instead(viewer, ct, [(9, 55, 55)]) is other  # outside the image altogether
    for name, value in (("visible", False), ("opacity", 0.5), ("blending", "additive")):
        before = getattr(other, name)
        setattr(other, name, value)
        assert seen_instead(viewer, ct, [(9, 20, 20)]) is None
        setattr(other, name, before)
    viewer.dims.ndisplay = 3
    assert seen_instead(viewer, ct, [(9, 20, 20)]) is None
    viewer.dims.ndisplay = 2
    for layer in (ct, other):  # a PET on its CT
        layer.metadata[METADATA_KEY]["frame_of_reference"] = "1.2.3"
    assert seen_instead(viewer, ct, [(9, 20, 20)]) is None


def test_a_hidden_image_does_not_shield_what_lies_below(viewer):
    ct = viewer.layers["ct"]
    other = add_image(viewer, "other", moved=(1.0, 1.0, 0.0))
    show_case(viewer, ct)
    viewer.dims.set_point(0, float(ct.data_to_world((9, 0, 0))[0]))
    assert seen_instead(viewer, ct, [(9, 20, 20)]) is None
    ct.visible = False
    assert seen_instead(viewer, ct, [(9, 20, 20)]) is other


def test_images_of_two_files_on_one_grid_are_two_cases(viewer):
    one = add_image(viewer, "one", source="/a/one.nii.gz")
    two = add_image(viewer, "two", source="/a/two.nii.gz")
    assert not same_case(one, two)
    assert is_new_case(two, one)
    assert same_case(one, viewer.layers["reference"])
    computed = viewer.add_image(one.data * 2, scale=one.scale, translate=one.translate)
    assert not is_new_case(computed, one)
    assert not is_new_case(viewer.add_image(np.zeros((4, 9, 9))), one)  # of another plugin, say
    assert not is_new_case(viewer.add_image(np.zeros((9, 9))), one)


@pytest.mark.parametrize("moved", [(0.0, 0.0, 3.0), (40.0, 0.0, 0.0)], ids=["here", "elsewhere"])
def test_what_is_drawn_on_another_case_is_refused_and_says_whose_turn_it_is(drawn, truth, moved):
    bench, viewer = drawn, drawn.viewer
    before, prompts = bench.labels.copy(), dict(bench.controller.active_object.prompts)
    add_image(viewer, "other", moved=moved)
    bench.controller.go_to(9)
    x = 44 if moved[0] else 20
    bench.box(9, 20, x, 30, x + 12)
    bench.click(9, 20, x)
    bench.layers.masks.selected_label = 3
    bench.layers.masks.paint((9, 3, x), 3)
    bench.settle()
    said = [n for n in bench.notices if n.level == "warning"]
    assert len(said) == 3
    assert all("you see 'other' here, but 'ct' is being annotated" in n.text for n in said)
    np.testing.assert_array_equal(bench.labels, before)
    assert bench.same_as_session()
    assert dict(bench.controller.active_object.prompts) == prompts
    assert len(bench.layers.boxes.data) == 1
    assert len(bench.layers.clicks.data) == 0
    show_case(viewer, viewer.layers["ct"])
    bench.box(9, 20, 20, 30, 30)
    assert dict(bench.controller.active_object.prompts) != prompts


def test_an_end_is_not_marked_on_another_case(drawn):
    image = add_image(drawn.viewer, "other", moved=(1.0, 1.0, 0.0))
    show_case(drawn.viewer, image)
    drawn.viewer.fit_to_view(layers=[image])
    drawn.controller.stop_here()
    drawn.settle()
    assert "you see 'other' here" in drawn.notices[-1].text
    assert len(drawn.controller.active_object.prompts) == 1


def test_masks_and_boxes_come_above_an_image_that_was_put_on_top(drawn):
    layers, viewer = drawn.viewer.layers, drawn.viewer
    layers.move(layers.index(viewer.layers["ct"]), len(layers))
    drawn.controller.use(Tool.BOX)
    assert [each.name for each in layers] == ["reference", "ct", "masks", "boxes", "clicks"]
    assert drawn.controller.tool is Tool.BOX
    layers.move(layers.index(viewer.layers["ct"]), len(layers))
    drawn.box(8, 18, 20, 27, 30)
    assert layers.index(viewer.layers["ct"]) < layers.index(drawn.layers.masks)
    assert drawn.controller.tool is Tool.BOX


# ---------------------------------------------------------------- tools
def test_a_new_object_begins_with_the_box_tool_and_a_word(drawn):
    drawn.controller.use(Tool.NEGATIVE)
    drawn.controller.add_object()
    drawn.settle()
    assert drawn.controller.tool is Tool.BOX
    assert drawn.notices[-1].text == "'object 2': drag a box around it on one slice."
    drawn.controller.use(Tool.BRUSH)
    drawn.controller.add_object("rim")
    drawn.settle()
    assert drawn.controller.tool is Tool.BRUSH
    assert drawn.notices[-1].text.startswith("'rim': paint it, or press B")


def test_a_tool_on_a_locked_object_says_so_by_its_name_alone(drawn):
    drawn.controller.rename(drawn.controller.active, "apex")
    drawn.controller.set_locked(drawn.controller.active, locked=True)
    drawn.settle()
    for tool in (Tool.BRUSH, Tool.ERASER, Tool.BOX):
        drawn.controller.use(tool)
        assert drawn.notices[-1].level == "warning"
        assert drawn.notices[-1].text == "'apex' is locked: unlock it in the list to change it."
    drawn.box(9, 18, 20, 27, 30)
    assert drawn.notices[-1].text == "'apex' is locked; unlock it first."


def test_the_last_slice_is_one_of_the_case_that_is_chosen(qtbot, drawn):
    controller, viewer = drawn.controller, drawn.viewer
    box = PropagateBox(controller)
    qtbot.addWidget(box)
    box.way.setCurrentIndex(box.way.findText("up to slice"))
    assert (box.until.maximum(), box.until.value()) == (19, 19)
    box.until.setValue(15)
    box.refresh()
    assert box.until.value() == 15
    controller.set_image(add_image(viewer, "small", moved=(200.0, 0.0, 0.0), shape=(8, 30, 30)))
    box.refresh()
    assert (box.until.maximum(), box.until.value()) == (7, 7)
    controller.set_image(viewer.layers["ct"])
    box.way.setCurrentIndex(box.way.findText("down to slice"))
    assert (box.until.maximum(), box.until.value()) == (19, 0)


@pytest.mark.parametrize(
    ("direction", "until", "why"),
    [
        ("up", 3, "it begins at slice 9, where the last prompt is"),
        ("down", 12, "it begins at slice 9, where the first prompt is"),
        ("up", 99, "the volume has the slices 0 to 19"),
    ],
)
def test_why_a_slice_cannot_be_the_last_one_is_said(drawn, direction, until, why):
    drawn.controller.propagate(direction, until)
    drawn.settle()
    assert why in drawn.notices[-1].text


# ---------------------------------------------------------------- closing
def test_closing_names_what_a_user_has_made_computed_or_edited(drawn, truth):
    bench, viewer = drawn, drawn.viewer
    closing, ct = bench.place.closing, viewer.layers["ct"]
    assert closing.question == ""  # masks are in the session, the reference was opened
    bench.place.measuring.measure()
    bench.settle()
    assert "diameters" in viewer.layers
    assert closing.question == ""  # measured again in a moment
    viewer.add_labels(truth.astype(np.uint8), name="own", scale=ct.scale, translate=ct.translate)
    viewer.add_points(ndim=3, name="notes", scale=ct.scale, translate=ct.translate)
    viewer.add_labels(truth.astype(np.uint8), name="elsewhere")  # on another grid
    bench.place.comparing.consensus(3, "majority")
    bench.settle()
    viewer.layers["reference"].paint((9, 3, 3), 1)
    assert [each.name for each in closing.at_risk] == ["reference", "majority", "own", "notes"]
    for name in ("'reference'", "'majority'", "'own'", "'notes'"):
        assert name in closing.question
    assert "elsewhere" not in closing.question
    closing.close()
    late = viewer.add_points(ndim=3, name="late", scale=ct.scale, translate=ct.translate)
    bench.settle()
    assert [each.name for each in viewer.layers] == ["elsewhere", "late"]  # nobody was asked of it
    assert late in viewer.layers


def test_masks_of_an_ended_session_are_at_risk_only_where_they_are_in_no_file(drawn, volume):
    closing, masks = drawn.place.closing, drawn.layers.masks
    drawn.controller.end()
    assert closing.at_risk == []
    assert Closing(drawn.controller).at_risk == []  # the panel was closed and opened again
    masks.paint((9, 3, 3), 1)
    assert closing.at_risk == [masks]


def test_closing_frees_what_the_case_held_in_memory(bench, viewer, volume, truth):
    other = Volume(volume.array.copy(), volume.geometry, {"modality": "CT"})
    for layer in list(viewer.layers):
        viewer.layers.remove(layer)
    data, options, _ = image_layer(other, "again")
    image = viewer.add_image(data, **options)
    mask = LabelMap(truth.astype(np.uint8) * np.uint8(3), volume.geometry, {3: "tumour"})
    data, options, _ = labels_layer(mask, "reference")
    bench.place.quality.set_reference(viewer.add_labels(data, **options))
    bench.controller.set_image(image)
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.propagate()
    bench.settle()
    held = [other.array, mask.array, bench.labels, image, bench.layers, bench.controller.annotation]
    gone = [weakref.ref(each) for each in held]
    del held, data, options, image, mask, other, layer
    bench.place.quality.set_reference(None)
    bench.place.closing.close()
    bench.settle()
    gc.collect()
    assert [each() is None for each in gone] == [True] * len(gone)
