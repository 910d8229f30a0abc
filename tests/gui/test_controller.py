import json
import shutil
import time

import numpy as np
import pytest

from napari_lungfm.geometry import Structure, Volume, VolumeGeometry
from napari_lungfm.gui.annotation.autosave import Meanwhile
from napari_lungfm.gui.annotation.jobs import Mailbox
from napari_lungfm.gui.annotation.session_files import SessionFiles
from napari_lungfm.gui.annotation.tools import Tool
from napari_lungfm.gui.annotation.work import ModelWish
from napari_lungfm.gui.shared import Workplace
from napari_lungfm.models.prompts import Box, Click, MaskPrompt, Stop
from napari_lungfm.plugin.layer_geometry import image_layer, info_of_layer
from napari_lungfm.plugin.session_files import read_session_masks

TUMOUR = int(Structure.TUMOUR)


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def prompts_of(bench):
    return list(bench.controller.active_object.prompts.values())


def test_a_box_gives_a_mask_on_its_slice_at_once(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.settle()
    bench.box_around(truth, 9)
    (box,) = prompts_of(bench)
    rows, columns = np.nonzero(truth[9])
    assert box == Box(9, rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    assert bench.labels[9].any()
    assert not np.delete(bench.labels, 9, axis=0).any()
    assert bench.same_as_session()


def test_propagation_fills_the_tumour_and_undo_and_redo_go_all_the_way(classical, truth):
    bench = classical
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.propagate()
    bench.settle()
    assert dice(bench.labels == TUMOUR, truth) > 0.9
    done = bench.labels.copy()
    while bench.controller.can_undo:
        bench.controller.undo()
        bench.settle()
    assert not bench.labels.any()
    assert len(bench.layers.boxes.data) == 0
    while bench.controller.can_redo:
        bench.controller.redo()
        bench.settle()
    np.testing.assert_array_equal(bench.labels, done)
    assert len(bench.layers.boxes.data) == 1


def test_a_box_drawn_anew_on_a_slice_takes_the_place_of_the_old_one(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box(9, 5, 5, 20, 20)
    bench.box_around(truth, 9)
    (box,) = prompts_of(bench)
    assert box.y1 == np.nonzero(truth[9])[0].max() + 1
    assert len(bench.layers.boxes.data) == 1


def test_clicks_are_positive_or_negative_as_the_tool_says(classical, truth):
    bench = classical
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.use(Tool.NEGATIVE)
    bench.click(9, 2, 2)
    bench.controller.use(Tool.POSITIVE)
    bench.click(9, 22, 26)
    _, first, second = prompts_of(bench)
    assert (first, second) == (Click(9, 2, 2, False), Click(9, 22, 26, True))
    symbols = [str(symbol) for symbol in bench.layers.clicks.symbol]
    assert symbols == ["x", "cross"]


def test_a_prompt_from_the_middle_can_be_removed(classical, truth):
    bench = classical
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.use(Tool.NEGATIVE)
    bench.click(9, 2, 2)
    bench.click(9, 45, 45)
    first, middle, last = bench.controller.active_object.prompts
    bench.controller.remove_prompt(TUMOUR, middle)
    bench.settle()
    assert list(bench.controller.active_object.prompts) == [first, last]
    assert len(bench.layers.clicks.data) == 1
    np.testing.assert_array_equal(bench.layers.clicks.data[0], (9, 45, 45))


def test_a_box_that_is_moved_in_its_layer_is_another_prompt(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    (before,) = prompts_of(bench)
    boxes = bench.layers.boxes
    boxes._data_view.shift(0, np.array([5.0, 0.0]))
    boxes.events.data(value=boxes.data, action="changed", data_indices=(0,), vertex_indices=((),))
    bench.settle()
    (after,) = prompts_of(bench)
    assert after == Box(9, before.y0 + 5, before.x0, before.y1 + 5, before.x1)
    assert bench.labels[9, : after.y0].max() == 0


def test_deleting_a_click_in_its_layer_removes_the_prompt(classical, truth):
    bench = classical
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.use(Tool.NEGATIVE)
    bench.click(9, 2, 2)
    bench.layers.clicks.selected_data = {0}
    bench.layers.clicks.remove_selected()
    bench.settle()
    assert [type(p) for p in prompts_of(bench)] == [Box]


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0)])
def test_prompts_in_another_view_than_axial_are_refused_with_a_hint(bench, truth, order):
    bench.controller.use(Tool.BOX)
    bench.settle()
    bench.viewer.dims.order = order
    bench.box_around(truth, 9)
    assert not bench.controller.objects
    assert len(bench.layers.boxes.data) == 0
    assert "not axial" in bench.notices[-1].text
    assert bench.notices[-1].level == "warning"


def test_prompts_in_3d_and_in_turned_views_are_refused(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.settle()
    bench.viewer.dims.ndisplay = 3
    bench.box_around(truth, 9)
    assert "2D view" in bench.notices[-1].text
    bench.viewer.dims.ndisplay = 2
    bench.viewer.layers["ct"].affine = [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    bench.box_around(truth, 9)
    assert "turned" in bench.notices[-1].text
    assert not bench.controller.objects


def test_a_transposed_axial_view_takes_prompts(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.viewer.dims.order = (0, 2, 1)
    bench.box_around(truth, 9)
    assert len(prompts_of(bench)) == 1


def test_a_click_with_the_box_tool_is_no_box(bench):
    bench.controller.use(Tool.BOX)
    bench.settle()
    bench.box(9, 20.0, 20.0, 20.3, 20.3)
    assert not bench.controller.objects
    assert "too small" in bench.notices[-1].text
    assert len(bench.layers.boxes.data) == 0


def test_a_box_beyond_the_border_is_cut_off(bench):
    bench.controller.use(Tool.BOX)
    bench.box(9, -8.0, 30.0, 20.0, 60.0)
    assert prompts_of(bench) == [Box(9, 0, 30, 21, 48)]


def test_brush_and_eraser_become_prompts_and_survive_propagation(classical, truth):
    bench = classical
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.propagate()
    bench.settle()
    bench.controller.use(Tool.BRUSH)
    bench.controller.go_to(11)
    bench.layers.masks.brush_size = 3
    bench.layers.masks.paint((11, 4, 4), TUMOUR)
    bench.settle()
    painted = bench.labels[11].copy()
    assert painted[4, 4] == TUMOUR
    assert isinstance(prompts_of(bench)[-1], MaskPrompt)
    bench.controller.propagate()
    bench.settle()
    np.testing.assert_array_equal(bench.labels[11], painted)
    bench.controller.undo()
    bench.settle()
    bench.controller.undo()
    bench.settle()
    assert bench.labels[11, 4, 4] == 0
    assert bench.same_as_session()


def test_other_objects_keep_their_voxels_under_the_brush(bench):
    bench.controller.use(Tool.BOX)
    bench.box(9, 10, 10, 20, 20)
    bench.controller.add_object("second")
    bench.settle()
    second = bench.controller.active
    assert second != TUMOUR
    masks = bench.layers.masks
    masks.preserve_labels = False  # a user can switch it off
    before = bench.labels[9] == TUMOUR
    masks.brush_size = 9
    bench.controller.go_to(9)
    masks.paint((9, 12, 12), second)
    bench.settle()
    np.testing.assert_array_equal(bench.labels[9] == TUMOUR, before)
    assert (bench.labels[9] == second).any()
    assert bench.same_as_session()


def test_a_locked_object_is_not_changed_by_any_tool(bench):
    bench.controller.use(Tool.BOX)
    bench.box(9, 10, 10, 20, 20)
    bench.controller.set_locked(TUMOUR, locked=True)
    bench.settle()
    before = bench.labels.copy()
    bench.controller.go_to(9)
    bench.layers.masks.paint((9, 30, 30), TUMOUR)
    bench.settle()
    np.testing.assert_array_equal(bench.labels, before)
    assert "locked" in bench.notices[-1].text
    bench.box(10, 10, 10, 20, 20)
    assert "finished" in bench.notices[-1].text or "locked" in bench.notices[-1].text
    assert len(bench.layers.boxes.data) == 1
    np.testing.assert_array_equal(bench.labels, before)


def test_painting_a_label_that_nobody_has_makes_an_object(bench):
    bench.controller.use(Tool.BRUSH)
    bench.settle()
    bench.controller.go_to(5)
    bench.layers.masks.paint((5, 20, 20), 7)
    bench.settle()
    assert list(bench.controller.objects) == [7]
    assert bench.same_as_session()


def test_a_stop_ends_the_object(classical, truth):
    bench = classical
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.go_to(11)
    bench.controller.stop_here()
    bench.settle()
    assert prompts_of(bench)[-1] == Stop(11)
    bench.controller.propagate()
    bench.settle()
    assert bench.labels[10].any()
    assert not bench.labels[11:].any()


def test_propagation_one_way_and_to_a_slice(classical, truth):
    bench = classical
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.propagate("up", 10)
    bench.settle()
    found = np.flatnonzero(bench.labels.any(axis=(1, 2)))
    assert found.tolist() == [9, 10]


@pytest.mark.parametrize(
    ("direction", "until", "words"),
    [
        ("both", None, "the first and the last slice of the image"),
        ("up", None, "the last slice of the image"),
        ("down", None, "the first slice of the image"),
        ("up", 19, None),
        ("up", 15, None),
    ],
)
def test_an_object_that_reaches_an_end_of_the_image_is_said_so(gated, direction, until, words):
    bench, model = gated
    model.truth = np.zeros(bench.controller.image.data.shape, bool)
    model.truth[:, 10:20, 10:20] = True
    bench.controller.use(Tool.BOX)
    model.free = 99
    bench.box(9, 10, 10, 19, 19)
    bench.controller.propagate(direction, until)
    bench.settle()
    notice = bench.notices[-1]
    assert notice.text.startswith("'tumour': slices ")
    assert notice.level == ("warning" if words else "done")
    assert (words or "mL (") in notice.text
    assert ("check the end, or mark it (S)" in notice.text) == bool(words)


def test_an_object_renamed_to_blanks_keeps_its_name_in_the_list_and_says_why(qtbot, bench):
    table_module = pytest.importorskip("napari_lungfm.gui.widgets.object_table")
    bench.controller.use(Tool.BOX)
    bench.box(4, 10, 10, 20, 20)
    table = table_module.ObjectTable(bench.controller)
    qtbot.addWidget(table)
    table.refresh()
    table.tree.topLevelItem(0).setText(0, "   ")
    bench.settle()
    assert table.tree.topLevelItem(0).text(0) == "tumour"
    assert bench.controller.objects[TUMOUR].name == "tumour"
    assert "needs a name" in bench.notices[-1].text


def test_objects_are_renamed_coloured_jumped_to_and_deleted(bench):
    bench.controller.use(Tool.BOX)
    bench.box(4, 10, 10, 20, 20)
    bench.controller.add_object("node")
    bench.settle()
    second = bench.controller.active
    bench.box(15, 30, 30, 40, 40)
    assert bench.controller.objects[second].name == "node"
    bench.controller.rename(second, "  hilar node ")
    bench.settle()
    assert bench.controller.objects[second].name == "hilar node"
    assert info_of_layer(bench.layers.masks).labels == {TUMOUR: "tumour", second: "hilar node"}
    bench.controller.set_colour(second, "#123456")
    np.testing.assert_allclose(
        bench.layers.masks.get_color(second)[:3], np.array([0x12, 0x34, 0x56]) / 255, atol=1e-3
    )
    bench.settle()
    assert bench.controller.objects[second].colour == "#123456"
    bench.controller.undo()
    bench.settle()
    assert bench.controller.colour_of(second) != "#123456"
    bench.controller.jump_to(TUMOUR)
    assert bench.controller.annotation.view.z == 4
    bench.controller.delete(second)
    bench.settle()
    assert list(bench.controller.objects) == [TUMOUR]
    assert bench.same_as_session()


def test_choosing_a_label_in_napari_chooses_the_object(bench):
    bench.controller.use(Tool.BOX)
    bench.box(4, 10, 10, 20, 20)
    bench.controller.add_object()
    bench.settle()
    assert bench.controller.active != TUMOUR
    bench.layers.masks.selected_label = TUMOUR
    assert bench.controller.active == TUMOUR


def test_another_model_repeats_the_prompts(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    ellipse = bench.labels.copy()
    bench.controller.set_model(ModelWish("prompt-box"))
    bench.settle()
    assert bench.controller.annotation.wish.name == "prompt-box"
    assert np.count_nonzero(bench.labels) > np.count_nonzero(ellipse)
    assert bench.same_as_session()


def test_a_model_that_cannot_be_had_leaves_the_old_one_at_work(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    before = bench.labels.copy()
    bench.controller.set_model(ModelWish("nonsense"))
    bench.settle()
    assert bench.notices[-1].level == "error"
    assert bench.controller.wish.name == "prompt-ellipse"
    bench.box_around(truth, 10)
    assert bench.labels[10].any()
    np.testing.assert_array_equal(bench.labels[9], before[9])


def test_repeating_with_another_model_can_be_cancelled(gated, truth, monkeypatch):
    """Nothing of the new model is kept, and what was there stays, undo included."""
    bench, quick = gated
    quick.free = 100
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.propagate()
    bench.settle()
    before, log = bench.labels.copy(), bench.controller.log
    slow, told = type(quick)(truth, free=3), []
    monkeypatch.setattr("napari_lungfm.gui.annotation.work.create_model", lambda *_, **__: slow)
    bench.controller.repeating.connect(told.append)
    bench.controller.set_model(ModelWish("slow"))
    bench.mail.flush(until=lambda: len(slow.seen) == 3, timeout=10)
    assert bench.controller.repetition is not None
    bench.controller.cancel()
    slow.gate.release()
    bench.settle()
    assert len(slow.seen) <= 4
    assert bench.controller.repetition is None
    assert told[0].total == 0
    assert told[-1] is None
    assert {each.total for each in told[1:-1]} == {3}  # object, box, propagation
    assert "'gated' and its masks stay" in bench.notices[-1].text
    assert bench.controller.wish.name == "gated"
    assert bench.controller.log == log
    np.testing.assert_array_equal(bench.labels, before)
    bench.controller.undo()
    bench.settle()
    assert np.count_nonzero(bench.labels) < np.count_nonzero(before)


def test_a_mask_of_elsewhere_is_the_start_of_an_object(bench, truth):
    bench.controller.start_from(truth, "u-net")
    bench.settle()
    np.testing.assert_array_equal(bench.labels == TUMOUR, truth)
    assert all(isinstance(p, MaskPrompt) for p in prompts_of(bench))
    bench.controller.undo()
    bench.settle()
    assert not bench.labels.any()


# ---------------------------------------------------------------- what users can do wrong
def test_no_image_is_said(viewer, bench):
    viewer.layers.clear()
    bench.controller.use(Tool.BOX)
    assert bench.notices[-1].level == "error"
    assert "open a CT" in bench.notices[-1].text


@pytest.mark.parametrize(
    ("add", "words"),
    [
        (lambda v: v.add_image(np.zeros((8, 8)), name="x"), "2D image"),
        (lambda v: v.add_image(np.zeros((4, 8, 8, 3), np.uint8), rgb=True, name="x"), "RGB"),
        (lambda v: v.add_image(np.zeros((2, 4, 8, 8)), name="x"), "4 axes"),
        (lambda v: v.add_image(np.zeros((4, 8, 8)), name="x"), "no spacing"),
        (
            lambda v: v.add_image(np.zeros((4, 8, 8)), name="x", scale=(3, 1, 1), rotate=30),
            "turned",
        ),
    ],
)
def test_images_that_cannot_be_used_are_refused_with_what_to_do(bench, add, words):
    layer = add(bench.viewer)
    bench.controller.set_image(layer)
    bench.controller.use(Tool.BOX)
    assert bench.notices[-1].level == "error"
    assert words in bench.notices[-1].text
    assert bench.controller.annotation is None
    assert layer in bench.viewer.layers


def test_an_image_that_is_not_axial_is_refused_and_nothing_is_left_behind(bench, volume):
    coronal = VolumeGeometry(
        volume.shape, volume.spacing, (0, 0, 0), ((1, 0, 0), (0, 0, 1), (0, -1, 0))
    )
    data, options, _ = image_layer(Volume(volume.array, coronal), "coronal")
    layer = bench.viewer.add_image(data, **options)
    bench.controller.set_image(layer)
    bench.controller.use(Tool.BOX)
    bench.settle()
    assert bench.notices[-1].level == "error"
    assert bench.controller.annotation is None
    assert [each.name for each in bench.viewer.layers] == ["ct", "reference", "coronal"]


def test_propagating_nothing_is_a_hint(bench):
    bench.controller.use(Tool.BOX)
    bench.settle()
    bench.controller.propagate()
    assert "draw a box" in bench.notices[-1].text


def test_a_model_that_breaks_leaves_everything_as_it_was(bench, truth, monkeypatch):
    class Broken:
        name = "broken"

        def open(self, volume):
            return self

        def predict_slice(self, z, prompts, prior=None):
            raise MemoryError

    model = Broken()
    monkeypatch.setattr("napari_lungfm.gui.annotation.work.create_model", lambda *_, **__: model)
    bench.controller.set_model(ModelWish("broken"))
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    assert "Not enough memory" in bench.notices[-1].text
    assert not bench.labels.any()
    assert len(bench.layers.boxes.data) == 0


# ---------------------------------------------------------------- work under way
def test_slices_appear_while_they_are_found_and_cancelling_keeps_them(gated, truth):
    bench, model = gated
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.propagate("up")
    model.gate.release()
    model.gate.release()
    bench.mail.flush(until=bench.labels[11].any, timeout=10)
    assert bench.controller.propagation.done >= 2
    assert not bench.labels[12].any()
    bench.controller.cancel()
    model.gate.release()
    bench.settle()
    assert bench.controller.propagation is None
    assert bench.labels[11].any()
    assert not bench.labels[13].any()
    assert bench.same_as_session()


def test_a_stroke_during_a_propagation_stays(gated, truth):
    bench, model = gated
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.propagate("up")
    model.gate.release()
    bench.mail.flush(until=bench.labels[10].any, timeout=10)
    bench.layers.masks.brush_size = 3
    bench.controller.go_to(11)
    bench.layers.masks.paint((11, 3, 3), TUMOUR)
    for _ in range(30):
        model.gate.release()
    bench.settle()
    assert bench.labels[11, 3, 3] == TUMOUR
    assert bench.same_as_session()


def test_removing_the_image_during_work_is_safe(gated, truth):
    bench, model = gated
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.propagate()
    masks = bench.layers.masks
    bench.viewer.layers.remove("ct")
    for _ in range(30):
        model.gate.release()
    bench.settle()
    assert bench.controller.annotation is None
    assert masks not in bench.viewer.layers  # they are in the session
    assert "removed" in bench.notices[-1].text


def test_closing_during_work_ends_the_thread_and_says_nothing_more(gated, truth):
    bench, model = gated
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.propagate()
    bench.place.close()
    said = len(bench.notices)
    for _ in range(30):
        model.gate.release()
    bench.controller._queue.close(timeout=10)
    bench.mail.flush()
    assert not bench.controller._queue.alive
    assert len(bench.notices) == said


def test_undo_during_a_propagation_stops_it_and_takes_it_back(gated, truth):
    bench, model = gated
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    before = bench.labels.copy()
    bench.controller.propagate("up")
    model.gate.release()
    model.gate.release()
    bench.mail.flush(until=bench.labels[11].any, timeout=10)
    bench.controller.redo()  # not now
    bench.controller.undo()
    model.gate.release()
    bench.settle()
    assert bench.controller.propagation is None
    np.testing.assert_array_equal(bench.labels, before)
    assert "stopped and taken back" in bench.notices[-1].text
    bench.controller.redo()
    bench.settle()
    assert bench.labels[11].any()
    assert bench.same_as_session()


def test_undo_before_the_first_slice_of_a_propagation_undoes_nothing_else(gated, truth):
    bench, model = gated
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    before = bench.labels.copy()

    def fail(z, prompts, prior=None):
        model.gate.acquire(timeout=20)
        raise MemoryError

    model.predict_slice = fail
    bench.controller.propagate("up")
    bench.controller.undo()
    model.gate.release()
    bench.settle()
    assert len(prompts_of(bench)) == 1
    np.testing.assert_array_equal(bench.labels, before)


def test_a_propagation_that_fails_on_the_way_keeps_what_it_found(gated, truth):
    bench, model = gated
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    find = model.predict_slice

    def fail(z, prompts, prior=None):
        if z == 12:
            raise MemoryError
        return find(z, prompts, prior)

    model.predict_slice, model.free = fail, 99
    bench.controller.propagate("up")
    bench.settle()
    notice = bench.notices[-1]
    assert notice.level == "error"
    assert "Not enough memory" in notice.text
    assert "2 slices that it had found stayed" in notice.text
    assert bench.labels[11].any()
    assert not bench.labels[12].any()
    assert bench.same_as_session()
    bench.controller.undo()
    bench.settle()
    assert not bench.labels[11].any()


# ---------------------------------------------------------------- keeping
def test_a_crash_during_a_propagation_loses_no_slices_that_were_saved(
    gated, viewer, truth, tmp_path, monkeypatch
):
    for limit in ("_FIRST", "_EVERY", "_RATIO"):
        monkeypatch.setattr(f"napari_lungfm.gui.annotation.autosave.{limit}", 0.0)
    bench, model = gated
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.propagate("up")
    for _ in range(3):
        model.gate.release()
    bench.mail.flush(until=bench.labels[12].any, timeout=10)
    saved, end = bench.controller.log.with_suffix(".session"), time.monotonic() + 20
    while not read_session_masks(saved).label_map.array[11].any():
        assert time.monotonic() < end
        time.sleep(0.05)
    # A crash: nothing is closed, and another program begins on the same image.
    folder = tmp_path / "crashed"
    shutil.copytree(tmp_path / "sessions", folder)
    second = type(bench)(viewer, folder)
    mark = bench.controller.engine.session.entries[0]["image"]["hash"]
    (saved,) = SessionFiles(folder).of_image(mark)
    second.controller.restore(saved)
    second.settle()
    assert "propagation of 'tumour' was not finished" in second.notices[-1].text
    assert "Propagate again (G)" in second.notices[-1].text
    found = np.flatnonzero(second.labels.any(axis=(1, 2))).tolist()
    assert found in ([9, 10, 11], [9, 10, 11, 12])
    assert second.same_as_session()
    model.free = 999
    second.controller.propagate("up")
    second.settle()
    assert dice(second.labels[9:] == TUMOUR, truth[9:]) > 0.99
    second.place.close()


def test_a_session_is_restored_after_a_crash(bench, viewer, truth, tmp_path):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.propagate()
    bench.settle()
    before, log = bench.labels.copy(), bench.controller.log
    assert log.is_file()
    assert log.with_suffix(".session").is_file()
    # A crash: nothing is closed. Another program begins on the same image.
    second = type(bench)(viewer, tmp_path / "sessions")
    offered = []
    second.controller.restorable.connect(offered.append)
    second.controller.set_model(ModelWish("prompt-ellipse"))
    second.controller.begin()
    second.settle()
    assert [each.log for each in offered[0]] == [log]
    second.controller.restore(offered[0][0])
    second.settle()
    np.testing.assert_array_equal(second.labels, before)
    assert second.controller.can_undo
    assert second.controller.log != log
    second.place.close()


def opened_models(monkeypatch):
    """Names of the models that the engine makes, in order."""
    from napari_lungfm.gui.annotation import work

    names, make = [], work.create_model

    def note(name, **options):
        names.append(name)
        return make(name, **options)

    monkeypatch.setattr(work, "create_model", note)
    return names


def test_restoring_opens_the_model_of_the_session_alone(
    bench, viewer, truth, tmp_path, monkeypatch
):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    before = bench.labels.copy()
    second = type(bench)(viewer, tmp_path / "sessions")
    offered, names = [], opened_models(monkeypatch)
    second.controller.restorable.connect(offered.append)
    second.controller.set_model(ModelWish("prompt-box"))
    second.controller.look_for_sessions(viewer.layers["ct"])
    second.settle()
    second.controller.restore(offered[0][0])
    second.settle()
    assert names == ["prompt-ellipse"]
    assert second.controller.wish.name == "prompt-ellipse"
    np.testing.assert_array_equal(second.labels, before)
    second.place.close()


def test_a_session_whose_model_is_missing_shows_its_masks_and_says_what_to_do(
    bench, viewer, truth, tmp_path, monkeypatch
):
    from napari_lungfm.gui.annotation import work
    from napari_lungfm.models.weights import WeightsNotFoundError

    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    before, make = bench.labels.copy(), work.create_model
    bench.controller.end()
    viewer.layers.remove("masks")
    second = type(bench)(viewer, tmp_path / "sessions")
    offered = []
    second.controller.restorable.connect(offered.append)
    second.controller.set_model(ModelWish("prompt-box"))
    second.controller.look_for_sessions(viewer.layers["ct"])
    second.settle()

    def gone(name, **options):
        if name == "prompt-ellipse":
            raise WeightsNotFoundError("its weights are gone; fetch them")
        return make(name, **options)

    monkeypatch.setattr(work, "create_model", gone)
    saved = offered[-1][0]
    offered.clear()
    second.controller.restore(saved)
    second.settle()
    notice = second.notices[-1]
    assert notice.level == "error"
    assert "needs its model 'prompt-ellipse': its weights are gone; fetch them" in notice.text
    assert "press Restore again" in notice.text
    np.testing.assert_array_equal(viewer.layers["ct (saved masks)"].data, before)
    assert second.controller.annotation is None
    assert second.controller.wish.name == "prompt-box"
    assert len(offered) == 1  # again
    monkeypatch.setattr(work, "create_model", make)
    second.controller.use(Tool.BOX)
    second.box_around(truth, 10)
    assert second.labels[10].any()
    assert not second.labels[9].any()
    second.place.close()


def test_without_masks_the_log_is_replayed(bench, viewer, truth, tmp_path):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    before, log = bench.labels.copy(), bench.controller.log
    log.with_suffix(".session").unlink()
    second = type(bench)(viewer, tmp_path / "sessions")
    second.controller.set_model(ModelWish("prompt-ellipse"))
    mark = bench.controller.engine.session.entries[0]["image"]["hash"]
    (saved,) = SessionFiles(tmp_path / "sessions").of_image(mark)
    second.controller.restore(saved)
    second.settle()
    assert [each.text for each in second.notices][-1] == "Restored: 1 object."
    np.testing.assert_array_equal(second.labels, before)
    second.place.close()


def test_a_session_in_which_nothing_was_done_leaves_no_file(bench, tmp_path):
    bench.controller.use(Tool.BOX)
    bench.settle()
    bench.controller.end()
    assert list((tmp_path / "sessions").iterdir()) == []
    assert [each.name for each in bench.viewer.layers] == ["ct", "reference"]


def test_the_mask_layer_carries_what_a_file_needs(bench, truth, volume):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    info = info_of_layer(bench.layers.masks)
    assert info.geometry.is_close(volume.geometry)
    assert info.labels == {TUMOUR: "tumour"}


def test_removing_the_mask_layer_ends_the_session_and_offers_it_again(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    before, log, offered = bench.labels.copy(), bench.controller.log, []
    bench.controller.restorable.connect(offered.append)
    bench.viewer.layers.remove("masks")
    bench.settle()
    assert bench.controller.annotation is None
    assert "press Restore to go on with it, or B" in bench.notices[-1].text
    assert {layer.name for layer in bench.viewer.layers} == {"ct", "reference"}
    assert [each.log for each in offered[0]] == [log]
    bench.controller.restore(offered[0][0])
    bench.settle()
    np.testing.assert_array_equal(bench.labels, before)


@pytest.mark.parametrize("which", ["boxes", "clicks"])
def test_a_layer_of_prompts_that_is_removed_comes_back_with_its_prompts(classical, truth, which):
    bench = classical
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.use(Tool.NEGATIVE)
    bench.click(9, 2, 2)
    before = prompts_of(bench)
    bench.viewer.layers.remove(which)
    bench.settle()
    assert "put back" in bench.notices[-1].text
    assert "Remove prompt" in bench.notices[-1].text
    assert which in bench.viewer.layers
    assert prompts_of(bench) == before
    assert (len(bench.layers.boxes.data), len(bench.layers.clicks.data)) == (1, 1)
    bench.controller.use(Tool.POSITIVE)
    bench.click(9, 22, 26)
    bench.controller.use(Tool.BOX)
    assert bench.controller.tool is Tool.BOX
    bench.box_around(truth, 10)
    assert len(prompts_of(bench)) == 4
    assert bench.same_as_session()


def test_labels_that_a_script_puts_in_place_are_a_hand_edit(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    wanted = bench.labels.copy()
    wanted[7, 3:9, 3:9] = TUMOUR
    wanted[9, :5, :5] = TUMOUR
    wanted[11, 30:40, 30:40] = 5
    bench.layers.masks.data = wanted.astype(np.int64)
    bench.settle()
    np.testing.assert_array_equal(bench.labels, wanted)
    assert bench.layers.masks.data is bench.labels
    assert bench.labels.dtype == np.uint8
    assert bench.same_as_session()
    assert {p.z for p in prompts_of(bench) if isinstance(p, MaskPrompt)} == {7, 9}
    assert set(bench.controller.objects) == {TUMOUR, 5}
    bench.controller.set_locked(5, locked=True)
    bench.settle()
    bench.layers.masks.data = np.zeros_like(wanted)  # the box contradicts: it says "here"
    bench.settle()
    assert bench.notices[-1].level == "error"
    assert (bench.labels == 5).any()
    assert bench.same_as_session()


@pytest.mark.parametrize(
    "data", [np.zeros((3, 4, 5), np.uint8), np.full((20, 48, 48), 700), np.full((20, 48, 48), -1)]
)
def test_labels_that_do_not_fit_are_put_back(bench, truth, data):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    before = bench.labels.copy()
    bench.layers.masks.data = data
    bench.settle()
    assert "were not taken" in bench.notices[-1].text
    np.testing.assert_array_equal(bench.layers.masks.data, before)
    assert bench.same_as_session()


def test_choosing_another_image_begins_anew(bench, viewer, volume, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    data, options, _ = image_layer(volume, "second")
    bench.controller.set_image(viewer.add_image(data, **options))
    assert bench.controller.annotation is None
    bench.controller.use(Tool.BOX)
    bench.settle()
    assert bench.controller.annotation.image.name == "second"
    assert not bench.labels.any()
    assert len([each for each in viewer.layers if each.name.startswith("masks")]) == 2


def test_a_folder_that_cannot_be_written_to_does_not_keep_one_from_working(
    viewer, truth, tmp_path, bench
):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    other = type(bench)(viewer, blocked / "sessions")
    other.controller.set_model(ModelWish("prompt-ellipse"))
    other.controller.use(Tool.BOX)
    other.settle()
    assert "without saving" in other.notices[-1].text
    other.controller.use(Tool.BOX)
    other.box_around(truth, 9)
    assert other.labels[9].any()
    assert other.controller.log is None
    other.place.close()


# ---------------------------------------------------------------- what goes wrong around it
def paint(bench, place, label, size=9):
    bench.controller.use(Tool.BRUSH)
    bench.controller.go_to(place[0])
    bench.layers.masks.brush_size = size
    bench.layers.masks.paint(place, label)
    bench.settle()


def test_the_mask_layer_s_own_undo_is_that_of_the_session(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    before = bench.labels.copy()
    paint(bench, (9, 10, 10), TUMOUR)
    after, masks = bench.labels.copy(), bench.layers.masks
    assert (before != after).any()
    for ask, wanted in ((masks.undo, before), (masks.redo, after), (masks.undo, before)):
        ask()
        bench.settle()
        np.testing.assert_array_equal(bench.labels, wanted)
        assert bench.same_as_session()
    bench.controller.end()
    masks.undo()  # napari's own again, with nothing of before
    np.testing.assert_array_equal(masks.data, before)
    masks.paint((9, 40, 40), TUMOUR)
    masks.undo()
    np.testing.assert_array_equal(masks.data, before)


def test_masks_of_an_ended_session_go_when_it_is_restored_or_its_image_goes(
    bench, viewer, volume, truth
):
    ct, offered = viewer.layers["ct"], []
    bench.controller.restorable.connect(offered.append)
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    done = bench.labels.copy()
    data, options, _ = image_layer(volume, "second")
    second = viewer.add_image(data, **options)
    bench.controller.set_image(second)
    bench.controller.set_image(ct)
    bench.settle()
    assert [each.name for each in viewer.layers if "masks" in each.name] == ["masks"]
    bench.controller.restore(offered[-1][0])
    bench.settle()
    np.testing.assert_array_equal(bench.labels, done)
    assert [each.name for each in viewer.layers if "masks" in each.name] == ["masks"]
    bench.controller.set_image(second)
    bench.settle()
    viewer.layers.remove(ct)
    bench.settle()
    assert [each.name for each in viewer.layers] == ["reference", "second"]


def test_masks_that_were_edited_after_their_session_stay(bench, viewer, volume, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    left = bench.layers.masks
    bench.controller.set_image(None)
    left.paint((3, 3, 3), 7)
    bench.controller.set_image(viewer.layers["ct"])
    bench.controller.use(Tool.BOX)
    bench.settle()
    assert left in viewer.layers


def test_a_session_whose_folder_vanishes_is_written_anew(bench, truth, tmp_path):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    shutil.rmtree(tmp_path / "sessions")
    bench.controller.propagate()
    bench.settle()
    assert any("written anew" in each.text for each in bench.notices)
    log, session = bench.controller.log, bench.controller.engine.session
    assert len(log.read_text().splitlines()) == len(session.entries)
    shutil.rmtree(tmp_path / "sessions")
    bench.place.closing.close()
    bench.settle()
    assert "Its session is kept" in bench.notices[-1].text
    mark = session.entries[0]["image"]["hash"]
    assert [each.log for each in SessionFiles(tmp_path / "sessions").of_image(mark)] == [log]


@pytest.mark.parametrize("when", ["before an action", "in a propagation", "before the end"])
def test_a_session_whose_file_another_program_changed_goes_on_beside_it(gated, truth, when):
    bench, model = gated
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    log = bench.controller.log
    theirs = log.read_bytes() + b"{}\n"
    if when != "in a propagation":
        log.write_bytes(theirs)
        for _ in range(100):
            model.gate.release()
    if when != "before the end":
        bench.controller.propagate()
    if when == "in a propagation":
        model.gate.release()
        walk = bench.controller._walks
        bench.mail.flush(until=lambda: walk.now is not None and walk.now.done > 0)
        log.write_bytes(theirs)
        for _ in range(100):
            model.gate.release()
    bench.settle()
    if when == "before the end":
        bench.place.closing.close()
        bench.settle()
        assert "Its session is kept" in bench.notices[-1].text
    else:
        assert "a new file beside it" in bench.notices[-1].text
        np.testing.assert_array_equal(bench.labels == TUMOUR, truth)
        assert bench.controller.log == log.with_name(f"{log.stem}-2.jsonl")
    session = bench.controller.engine.session
    new = log.with_name(f"{log.stem}-2.jsonl")
    assert log.read_bytes() == theirs
    lines = new.read_text().splitlines()
    assert len(lines) >= 3
    if session is not None:
        assert len(lines) == len(session.entries)
    assert read_session_masks(new.with_suffix(".session")).label_map.array[9].any()
    mark = json.loads(lines[0])["image"]["hash"]
    assert SessionFiles(log.parent).of_image(mark)[0].log == new


def test_a_session_that_can_be_kept_nowhere_any_more_says_what_to_press(bench, truth, tmp_path):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    shutil.rmtree(tmp_path / "sessions")
    (tmp_path / "sessions").write_text("in the way")
    before = bench.labels.copy()
    bench.controller.propagate()
    bench.settle()
    assert "press Save masks" in bench.notices[-1].text
    np.testing.assert_array_equal(bench.labels, before)
    bench.place.closing.close()
    bench.settle()
    assert "was not closed" in bench.notices[-1].text
    assert bench.layers.masks in bench.viewer.layers


def test_a_propagation_is_saved_in_its_first_second(monkeypatch):
    now, saved = [100.0], []
    monkeypatch.setattr("napari_lungfm.gui.annotation.autosave.time.monotonic", lambda: now[0])
    meanwhile = Meanwhile(lambda: saved.append(now[0]))
    while now[0] < 108:
        meanwhile()
        now[0] += 0.25
    assert saved == [100.5, 103.5, 106.5]


@pytest.mark.parametrize("everything", [False, True])
def test_layers_deleted_together_are_no_error(bench, viewer, truth, everything):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    ours = set(viewer.layers) if everything else set(bench.layers.all)
    viewer.layers.selection = ours
    viewer.layers.remove_selected()
    bench.settle()
    assert bench.controller.annotation is None
    left = [] if everything else ["ct", "reference"]
    assert [each.name for each in viewer.layers] == left
    assert bench.notices[-1].level == "warning"


def test_a_box_drawn_while_the_model_loads_is_done_before_the_case_is_closed(bench, truth):
    bench.controller.use(Tool.BOX)
    log = bench.controller.log
    bench.box_around(truth, 9, wait=False)
    bench.place.closing.close()
    bench.settle()
    assert "Its session is kept" in bench.notices[-1].text
    assert read_session_masks(log.with_suffix(".session")).label_map.array[9].any()


def test_closing_asks_before_a_box_is_lost_that_no_model_has_seen(viewer, truth):
    place = Workplace(viewer, mail := Mailbox(), None)
    controller, closing = place.controller, place.closing
    controller.set_model(ModelWish("prompt-ellipse"))
    controller.set_image(viewer.layers["ct"])
    assert not closing.would_lose
    controller.use(Tool.BOX)
    assert not closing.would_lose
    corners = [(9, 10, 14), (9, 10, 38), (9, 34, 38), (9, 34, 14)]
    controller.annotation.layers.boxes.add_rectangles([np.array(corners, dtype=float)])
    assert closing.would_lose
    mail.flush(until=lambda: bool(controller.objects) and not controller.busy)
    assert closing.would_lose
    closing.close()
    mail.flush(until=lambda: not controller.busy)
    assert [each.name for each in viewer.layers] == []
    place.close()


def test_a_box_outside_the_image_is_said_to_be_there(bench):
    bench.controller.use(Tool.BOX)
    bench.settle()
    bench.box(9, -50, -50, -20, -20)
    assert bench.notices[-1].text == "This box is outside the image."
    assert len(bench.layers.boxes.data) == 0


def test_redo_after_undoing_all_does_not_ask_for_a_box(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    while bench.controller.can_undo:
        bench.controller.undo()
        bench.settle()
    assert "Draw a box" in bench.notices[-1].text
    while bench.controller.can_redo:
        bench.controller.redo()
        bench.settle()
    assert bench.notices[-1].text == "Done again."


def test_a_stroke_through_several_slices_is_one_step(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    before, entries = bench.labels.copy(), len(bench.controller.session.entries)
    bench.viewer.dims.order = (1, 0, 2)
    bench.layers.masks.brush_size = 15
    bench.layers.masks.paint((13, 20, 10), TUMOUR)
    bench.settle()
    changed = np.flatnonzero((before != bench.labels).any(axis=(1, 2)))
    assert len(changed) > 1, (changed, bench.notices[-1])
    assert len(bench.controller.session.entries) == entries + 1
    assert bench.same_as_session()
    bench.controller.undo()
    bench.settle()
    np.testing.assert_array_equal(bench.labels, before)


def test_a_stroke_over_slices_drawn_before_is_one_step_too(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    for place in ((13, 12, 10), (11, 30, 30)):
        paint(bench, place, TUMOUR, size=5)
    before, entries = bench.labels.copy(), len(bench.controller.session.entries)
    bench.viewer.dims.order = (1, 0, 2)
    paint(bench, (13, 20, 10), TUMOUR, size=15)
    after = bench.labels.copy()
    changed = np.flatnonzero((before != after).any(axis=(1, 2)))
    assert {11, 13} < set(changed.tolist())
    assert len(bench.controller.session.entries) == entries + 1
    bench.controller.undo()
    bench.settle()
    np.testing.assert_array_equal(bench.labels, before)
    bench.controller.redo()
    bench.settle()
    np.testing.assert_array_equal(bench.labels, after)
    assert bench.same_as_session()


def test_an_object_may_be_called_locked_and_a_locked_one_has_another_icon(qtbot, bench, truth):
    table_module = pytest.importorskip("napari_lungfm.gui.widgets.object_table")
    table = table_module.ObjectTable(bench.controller)
    qtbot.addWidget(table)
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.rename(TUMOUR, "tumour (locked)")
    bench.settle()

    def shown():
        table.refresh()
        item = table.tree.topLevelItem(0)
        return item.text(0), item.icon(0).pixmap(18, 18).toImage(), item.toolTip(0)

    open_ = shown()
    bench.controller.set_locked(TUMOUR, locked=True)
    bench.settle()
    locked = shown()
    assert open_[0] == locked[0] == "tumour (locked)"
    assert open_[1] != locked[1]
    assert locked[2].startswith("Locked")
