"""With a real viewer: mouse and keys on the canvas, docks, closing. Needs a display."""

import os
import sys
import time

import numpy as np
import pytest

if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
    pytest.skip("there is no display; run under xvfb-run", allow_module_level=True)
pytest.importorskip("qtpy")

from qtpy.QtCore import QEvent, QPoint, QPointF, Qt, QTimer
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QMessageBox

from napari_lungfm.geometry import LabelMap, Structure, Volume, VolumeGeometry
from napari_lungfm.gui.annotation.cases import OPENED
from napari_lungfm.gui.annotation.tools import Tool
from napari_lungfm.gui.annotation.work import Patch
from napari_lungfm.gui.gui_thread import GuiThread
from napari_lungfm.gui.shared import _ENTRIES
from napari_lungfm.gui.widgets.quality_panel import QualityPanel
from napari_lungfm.io import read_label_map
from napari_lungfm.metrics import count_overlap
from napari_lungfm.models.prompts import Box, Click, MaskPrompt
from napari_lungfm.plugin.layer_geometry import image_layer, labels_layer

pytestmark = pytest.mark.gui
TUMOUR = int(Structure.TUMOUR)


class Hand:
    """A viewer with the panel, and a hand on mouse and keyboard.

    Keys and mouse events go to the canvas as those of a person do.
    """

    def __init__(self, viewer):
        self.viewer = viewer
        self.canvas = viewer.window._qt_viewer.canvas
        _, self.panel = viewer.window.add_plugin_dock_widget("napari-lungfm", "Annotate")
        self.controller = self.panel.controller
        self.image = viewer.layers["ct"]
        self.settle()

    def settle(self, seconds=0.15):
        end = time.monotonic() + seconds
        background = self.panel.workplace.background
        limit = time.monotonic() + 60
        while time.monotonic() < end or self.controller.busy or background.pending:
            QApplication.processEvents()
            time.sleep(0.005)
            assert time.monotonic() < limit, "the engine does not come to an end"
        QApplication.processEvents()

    def at(self, voxel):
        world = self.image.data_to_world(voxel)
        transform = self.canvas.view.transform * self.canvas.view.scene.transform
        x, y = transform.map([world[-1], world[-2]])[:2]
        return QPoint(round(x), round(y))

    def press(self, key, modifier=Qt.KeyboardModifier.NoModifier):
        QTest.keyClick(self.canvas.native, key, modifier)
        self.settle()

    def click(self, voxel):
        QTest.mouseMove(self.canvas.native, self.at(voxel))
        QTest.mouseClick(
            self.canvas.native,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
            self.at(voxel),
        )
        self.settle()

    def drag(self, start, end):
        native, a, b = self.canvas.native, self.at(start), self.at(end)
        left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        QTest.mouseMove(native, a)
        QTest.mousePress(native, left, none, a)
        for share in (0.3, 0.7, 1.0):
            place = QPointF(a + (b - a) * share)
            event = QMouseEvent(
                QEvent.Type.MouseMove,
                place,
                native.mapToGlobal(place),
                Qt.MouseButton.NoButton,
                left,
                none,
            )
            QApplication.sendEvent(native, event)
            QApplication.processEvents()
        QTest.mouseRelease(native, left, none, b)
        self.settle()

    @property
    def labels(self):
        return self.controller.annotation.layers.data

    @property
    def prompts(self):
        return list(self.controller.active_object.prompts.values())


@pytest.fixture
def hand(make_napari_viewer, volume, truth, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_LUNGFM_SESSIONS", str(tmp_path / "sessions"))
    monkeypatch.setattr(
        "napari_lungfm.gui.widgets.model_box.setting",
        lambda name: {"model": "classical", "device": "auto", "model_window": "as published"}[name],
    )
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1280, 800)
    data, options, _ = image_layer(volume, "ct")
    viewer.add_image(data, **options)
    labels = LabelMap(truth.astype(np.uint8) * np.uint8(TUMOUR), volume.geometry, {3: "tumour"})
    data, options, _ = labels_layer(labels, "reference")
    viewer.add_labels(data, **options, visible=False).metadata[OPENED] = True
    hand = Hand(viewer)
    yield hand
    hand.panel.release()
    assert not _ENTRIES


def draw_box(hand, truth, z=9):
    rows, columns = np.nonzero(truth[z])
    hand.controller.set_image(hand.image)
    hand.press(Qt.Key.Key_B)
    hand.controller.go_to(z)
    hand.settle()
    hand.drag(
        (z, rows.min() - 0.6, columns.min() - 0.6), (z, rows.max() + 0.6, columns.max() + 0.6)
    )
    return Box(
        z,
        int(rows.min()),
        int(columns.min()),
        int(rows.max()) + 1,
        int(columns.max()) + 1,
    )


def test_napari_s_other_shapes_drawn_with_the_mouse_become_boxes(hand, truth):
    wanted = draw_box(hand, truth)
    first, boxes = hand.prompts[0], hand.controller.annotation.layers.boxes
    boxes.mode = "add_ellipse"
    hand.controller.go_to(10)
    hand.settle()
    hand.drag((10, wanted.y0, wanted.x0), (10, wanted.y1, wanted.x1))
    assert [type(p) for p in hand.prompts] == [Box, Box]
    assert "around your ellipse" in hand.panel.message.notice.text
    assert set(boxes.shape_type) == {"rectangle"}
    boxes.mode = "add_polygon"
    hand.controller.go_to(8)
    hand.settle()
    middle = (wanted.x0 + wanted.x1) / 2
    places = [(wanted.y0, middle), (wanted.y1, wanted.x0), (wanted.y1, wanted.x1)]
    for y, x in places:
        hand.click((8, y, x))
    assert len(hand.prompts) == 2  # it is not done yet
    assert len(boxes.data) == 3
    QTest.mouseDClick(
        hand.canvas.native,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
        hand.at((8, *places[-1])),
    )
    hand.settle()
    assert [p.z for p in hand.prompts] == [9, 10, 8]
    assert "around your polygon" in hand.panel.message.notice.text
    hand.controller.go_to(12)
    hand.settle()
    hand.click((12, *places[0]))
    hand.press(Qt.Key.Key_Escape)  # given up
    assert hand.controller.tool is Tool.LOOK
    assert len(hand.prompts) == len(boxes.data) == 3
    assert hand.prompts[0] == first


def test_from_the_box_to_the_corrected_tumour_with_mouse_and_keys(hand, truth):
    wanted = draw_box(hand, truth)
    assert hand.controller.tool is Tool.BOX
    (box,) = hand.prompts
    assert (
        np.abs(
            np.array([box.y0, box.x0, box.y1, box.x1])
            - [wanted.y0, wanted.x0, wanted.y1, wanted.x1]
        ).max()
        <= 1
    )
    assert hand.labels[9].any()
    hand.press(Qt.Key.Key_G)
    found = hand.labels == TUMOUR
    assert count_overlap(found, truth).dice > 0.85
    hand.press(Qt.Key.Key_R)
    hand.click((9, 3, 3))
    assert hand.prompts[-1] == Click(9, 3, 3, False)
    hand.press(Qt.Key.Key_A)
    hand.click((9, 22, 26))
    assert hand.prompts[-1] == Click(9, 22, 26, True)
    hand.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert len(hand.prompts) == 2
    hand.press(
        Qt.Key.Key_Z,
        Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier,
    )
    assert len(hand.prompts) == 3
    hand.panel.prompts.list.setCurrentRow(1)
    hand.panel.prompts.remove.click()
    hand.settle()
    assert [type(p) for p in hand.prompts] == [Box, Click]
    assert len(hand.controller.annotation.layers.clicks.data) == 1


def test_the_whole_way_by_hand_then_saved_closed_and_restored(hand, truth, tmp_path):
    """Box, mask, propagation, correction, undo, redo, removal, brush; a file; another day."""
    control, shift = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
    draw_box(hand, truth)
    one_slice = hand.labels.copy()
    assert np.flatnonzero(one_slice.any(axis=(1, 2))).tolist() == [9]
    hand.press(Qt.Key.Key_G)
    assert count_overlap(hand.labels == TUMOUR, truth).dice > 0.85
    hand.press(Qt.Key.Key_R)
    hand.click((9, 3, 3))
    hand.press(Qt.Key.Key_A)
    hand.click((9, 22, 26))
    assert [type(p) for p in hand.prompts] == [Box, Click, Click]
    hand.press(Qt.Key.Key_Z, control)
    hand.press(Qt.Key.Key_Z, control | shift)
    hand.panel.prompts.list.setCurrentRow(1)
    hand.panel.prompts.remove.click()
    hand.settle()
    assert [getattr(p, "positive", None) for p in hand.prompts] == [None, True]
    hand.press(Qt.Key.Key_P)
    hand.controller.annotation.layers.masks.brush_size = 2
    hand.drag((9, 5, 5), (9, 5, 20))
    assert hand.labels[9, 5, 5:20].all()
    hand.controller.set_colour(TUMOUR, "#112233")
    hand.press(Qt.Key.Key_G)
    before, masks = hand.labels.copy(), hand.controller.annotation.layers.masks
    saved = masks.save(str(tmp_path / "tumour.nii.gz"), plugin="napari-lungfm")
    np.testing.assert_array_equal(read_label_map(saved[0]).array, before)

    hand.viewer.window.remove_dock_widget(hand.panel._dock)
    hand.settle(0.05)
    hand.viewer.layers.remove(masks)
    again = Hand(hand.viewer)
    assert again.panel.restore_bar.isVisible()
    again.panel.restore_button.click()
    again.settle()
    np.testing.assert_array_equal(again.labels, before)
    assert again.controller.colour_of(TUMOUR) == "#112233"
    assert [type(p) for p in again.prompts] == [Box, Click, MaskPrompt]
    again.press(Qt.Key.Key_Z, control)
    assert again.controller.can_redo
    again.panel.release()


def test_what_is_written_is_what_is_drawn(hand, truth):
    """A part that is drawn alone leaves the same picture as the whole layer drawn anew."""
    draw_box(hand, truth)
    masks, last = hand.controller.annotation.layers.masks, None
    for contour in (0, 1):
        masks.contour = contour
        for step in (2, 5):
            labels = np.roll(truth[9], step, axis=1)[10:40, 8:44] * np.uint8(TUMOUR)
            region = (slice(9, 10), slice(10, 40), slice(8, 44))
            hand.controller.draw(Patch(region, labels[None]))
            shown = np.array(masks._slice.image.view)
            hand.settle()
            picture = hand.canvas.screenshot()
            masks.refresh()
            np.testing.assert_array_equal(shown, masks._slice.image.view)
            hand.settle()
            assert picture == hand.canvas.screenshot()
            assert picture != last
            last = picture


def test_a_brush_stroke_of_the_mouse_is_a_prompt_and_scored_live(hand, truth):
    hand.panel.reference_combo.choose(hand.viewer.layers["reference"])
    draw_box(hand, truth)
    hand.press(Qt.Key.Key_P)
    hand.controller.annotation.layers.masks.brush_size = 2
    hand.drag((9, 5, 5), (9, 5, 20))
    assert isinstance(hand.prompts[-1], MaskPrompt)
    assert hand.labels[9, 5, 5:20].all()
    live = hand.panel.workplace.quality.live
    assert live.counts == count_overlap(hand.labels == TUMOUR, truth)
    hand.press(Qt.Key.Key_E)
    hand.drag((9, 5, 5), (9, 5, 20))
    assert not hand.labels[9, 5, 6:19].any()
    assert live.counts == count_overlap(hand.labels == TUMOUR, truth)


def test_plots_under_the_slider_go_to_the_slice_that_is_clicked(hand, truth):
    draw_box(hand, truth)
    hand.press(Qt.Key.Key_G)
    panel = hand.panel._quality_dock.inner_widget()
    plot = panel.slices
    span = plot.span
    index = span.index(11)
    x = plot.area.left() + (index + 0.5) / len(span) * plot.area.width()
    QTest.mouseClick(
        plot,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
        QPoint(round(x), round(plot.area.center().y())),
    )
    hand.settle()
    assert hand.controller.annotation.view.z == 11
    assert plot.shown.z == 11


def test_keys_are_given_back_when_the_panel_is_hidden_or_closed(hand):
    keys = {str(key) for key in hand.viewer.keymap}
    assert {"B", "A", "R", "S", "G", "F5"} <= keys
    dock = hand.panel._dock
    dock.close()
    hand.settle()
    assert not hand.viewer.keymap
    dock.show()
    hand.settle()
    assert {str(key) for key in hand.viewer.keymap} == keys
    hand.viewer.window.remove_dock_widget(dock)
    hand.settle(0.05)
    assert not hand.viewer.keymap
    assert hand.panel.released


def test_closing_the_panel_keeps_the_masks_and_ends_the_threads(hand, truth):
    draw_box(hand, truth)
    masks, jobs = hand.controller.annotation.layers.masks, hand.controller._queue
    hand.viewer.window.remove_dock_widget(hand.panel._dock)
    jobs.close(timeout=10)
    assert not jobs.alive
    assert [layer.name for layer in hand.viewer.layers] == ["ct", "reference", "masks"]
    assert masks.data.any()


def test_windows_by_key_and_what_is_shown(hand):
    hand.press(Qt.Key.Key_F6)
    assert tuple(hand.image.contrast_limits) == (-160, 240)
    assert hand.panel.windows.buttons["mediastinum"].isChecked()
    windows = hand.panel.windows
    assert (windows.level.value(), windows.width_.value()) == (40, 400)
    hand.image.contrast_limits = (-100, 100)
    hand.settle()
    assert not windows.buttons["mediastinum"].isChecked()
    assert windows.own.isChecked()
    windows.level.setValue(-500)
    assert tuple(hand.image.contrast_limits) == (-600, -400)
    hand.press(Qt.Key.Key_F5)
    assert tuple(hand.image.contrast_limits) == (-1350, 150)
    hand.press(Qt.Key.Key_F9)
    assert tuple(hand.image.contrast_limits) == (-600, -400)


def test_the_window_does_not_stand_still_while_the_engine_works(hand, truth):
    """No stretch without the event loop; generous, for machines under load."""
    draw_box(hand, truth)
    hand.controller.propagate()
    longest, last = 0.0, time.monotonic()
    while hand.controller.busy:
        QApplication.processEvents()
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        time.sleep(0.001)
    assert longest < 0.5


def test_many_answers_at_once_leave_room_for_everything_else(hand):
    """Calls come in order, and not all of them in one go."""
    thread, order, beats = GuiThread(), [], []
    timer = QTimer()
    timer.timeout.connect(lambda: beats.append(len(order)))
    timer.start(0)

    def call(i):
        time.sleep(0.001)
        order.append(i)

    for i in range(120):
        thread(lambda i=i: call(i))
    limit = time.monotonic() + 30
    while len(order) < 120 and time.monotonic() < limit:
        QApplication.processEvents()
    timer.stop()
    assert order == list(range(120))
    assert len({n for n in beats if 0 < n < 120}) >= 5


def test_every_widget_opens_from_the_manifest_and_nothing_is_cut_off(hand):
    for name in ("Measure", "Compare", "Live quality", "Open CT"):
        _, widget = hand.viewer.window.add_plugin_dock_widget(
            "napari-lungfm", name, tabify=name != "Live quality"
        )
        hand.settle()
        assert widget.controller is hand.controller
    hand.panel._dock.raise_()
    hand.settle()
    body = hand.panel._body
    assert body.width() >= body.minimumSizeHint().width()
    assert hand.viewer.window._qt_window.width() <= 1280
    for widget in list(hand.viewer.window._wrapped_dock_widgets.values()):
        hand.viewer.window.remove_dock_widget(widget)
    hand.settle(0.05)


# ---------------------------------------------------------------- what is said, and going on
def test_a_lone_reference_is_chosen_and_shown_and_one_chosen_by_hand_stays(hand, volume):
    combo, reference = hand.panel.reference_combo, hand.viewer.layers["reference"]
    assert combo.layer is reference
    assert combo.currentText() == "reference"
    assert hand.panel.workplace.comparing.reference is reference
    text = hand.panel.message.notice.text
    assert "Draw a box around the tumour" in text
    assert "'reference' is the reference" in text
    assert not hand.controller.objects  # scored against, never a prompt
    combo.setCurrentIndex(0)
    combo.activated.emit(0)
    hand.viewer.add_labels(np.zeros_like(reference.data), name="mine")
    hand.settle()
    assert combo.layer is None


@pytest.mark.parametrize(
    ("add", "words"),
    [
        (lambda v: v.add_image(np.zeros((9, 9)), name="x"), "is a single 2D image"),
        (
            lambda v: v.add_image(np.zeros((4, 9, 9, 3), np.uint8), rgb=True, name="x"),
            "is a colour (RGB) image",
        ),
    ],
)
def test_images_that_are_no_volume_are_refused_and_the_panel_goes_on(hand, truth, add, words):
    layer = add(hand.viewer)
    hand.panel.image_combo.choose(layer)
    hand.settle()
    hand.press(Qt.Key.Key_F5)
    hand.press(Qt.Key.Key_B)
    assert hand.panel.message.notice.level == "error"
    assert words in hand.panel.message.notice.text
    hand.press(Qt.Key.Key_G)
    hand.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert hand.controller.annotation is None
    hand.panel.image_combo.choose(hand.image)
    hand.settle()
    assert "Draw a box around the tumour" in hand.panel.message.notice.text
    draw_box(hand, truth)
    assert hand.labels[9].any()


def slow(monkeypatch, seconds=0.15):
    """Make the classical model slow enough to be interrupted."""
    from napari_lungfm.models.classical import ClassicalPredictor

    find = ClassicalPredictor.predict_slice

    def wait(self, *args, **options):
        time.sleep(seconds)
        return find(self, *args, **options)

    monkeypatch.setattr(ClassicalPredictor, "predict_slice", wait)


def walk_until(hand, z):
    hand.controller.propagate("up")
    limit = time.monotonic() + 60
    while not hand.labels[z].any():
        QApplication.processEvents()
        time.sleep(0.005)
        assert time.monotonic() < limit


def test_undo_while_it_propagates_takes_the_propagation_back(hand, truth, monkeypatch):
    draw_box(hand, truth)
    before = hand.labels.copy()
    slow(monkeypatch)
    walk_until(hand, 10)
    hand.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    np.testing.assert_array_equal(hand.labels, before)
    assert "stopped and taken back" in hand.panel.message.notice.text
    assert len(hand.prompts) == 1
    hand.press(Qt.Key.Key_A)
    hand.click((9, 22, 26))
    assert len(hand.prompts) == 2


def test_the_panel_closed_while_it_propagates_is_gone_on_with(hand, truth, monkeypatch):
    draw_box(hand, truth)
    slow(monkeypatch)
    walk_until(hand, 10)
    jobs = hand.controller._queue
    masks = hand.controller.annotation.layers.masks
    hand.viewer.window.remove_dock_widget(hand.panel._dock)
    jobs.close(timeout=20)
    assert not jobs.alive
    assert masks.data[10].any()
    hand.viewer.layers.remove(masks)
    again = Hand(hand.viewer)
    assert again.panel.restore_bar.isVisible()
    again.panel.restore_button.click()
    again.settle()
    assert "was not finished" in again.panel.message.notice.text
    assert again.labels[10].any()
    assert not again.labels[13].any()
    again.press(Qt.Key.Key_G)
    assert count_overlap(again.labels == TUMOUR, truth).dice > 0.85
    again.panel.release()


def test_a_case_is_closed_with_a_button_and_the_panel_says_what_is_next(hand, truth):
    draw_box(hand, truth)
    hand.panel.close_button.click()
    hand.settle()
    assert list(hand.viewer.layers) == []
    assert "Closed 'ct'" in hand.panel.message.notice.text
    assert not hand.panel.close_button.isEnabled()
    hand.press(Qt.Key.Key_B)
    assert "There is no image" in hand.panel.message.notice.text


def test_a_remark_stands_in_amber_until_the_case_is_left(hand):
    hand.controller.remarked.emit("Note: this does not look like HU.")
    assert hand.panel.remark.isVisible()
    assert hand.panel.remark.text() == "Note: this does not look like HU."
    hand.controller.remarked.emit("")
    assert not hand.panel.remark.isVisible()


def test_undo_while_the_panel_is_hidden_is_still_that_of_the_session(hand, truth):
    draw_box(hand, truth)
    before = hand.labels.copy()
    hand.press(Qt.Key.Key_P)
    hand.controller.annotation.layers.masks.brush_size = 3
    hand.drag((9, 5, 5), (9, 5, 20))
    painted = hand.labels.copy()
    assert (painted != before).any()
    hand.panel.parent().hide()
    hand.settle()
    assert not hand.panel.shortcuts.bound
    hand.viewer.layers.selection.active = hand.controller.annotation.layers.masks
    hand.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    np.testing.assert_array_equal(hand.labels, before)
    np.testing.assert_array_equal(hand.controller.session.label_map().array, before)


def test_the_bin_takes_all_our_layers_and_restore_brings_them_back(hand, truth):
    draw_box(hand, truth)
    done = hand.labels.copy()
    hand.viewer.layers.selection = set(hand.controller.annotation.layers.all)
    hand.viewer.window._qt_viewer.layerButtons.deleteButton.click()
    hand.settle()
    assert [each.name for each in hand.viewer.layers] == ["ct", "reference"]
    hand.panel.restore_button.click()
    hand.settle()
    np.testing.assert_array_equal(hand.labels, done)


def test_a_refused_reference_does_not_stay_chosen_and_old_scores_go(hand, truth):
    _, compare = hand.viewer.window.add_plugin_dock_widget("napari-lungfm", "Compare")
    draw_box(hand, truth)
    hand.panel.reference_combo.choose(hand.viewer.layers["reference"])
    compare.compare.click()
    hand.settle()
    assert compare.table.rowCount() == 1
    hand.controller.rename(TUMOUR, "left lung")
    hand.settle()
    compare.compare.click()
    hand.settle()
    assert "does not have this structure" in compare.message.notice.text
    assert compare.table.rowCount() == 0
    other = hand.viewer.add_labels(np.zeros((20, 48, 48), np.uint8), name="other")
    hand.panel.reference_combo.choose(other)
    hand.settle()
    assert hand.panel.message.notice.level == "error"
    chosen = hand.panel.reference_combo.layer  # none, or the one that suggests itself again
    assert chosen in (None, hand.viewer.layers["reference"])
    assert hand.panel.workplace.comparing.reference is chosen
    hand.controller.rename(TUMOUR, "tumour")
    hand.settle()
    compare.compare.click()
    hand.settle()
    assert compare.table.rowCount() == 1
    hand.controller.end()  # another case is next
    assert compare.table.rowCount() == 0
    compare.release()


# ---------------------------------------------------------------- several panels
def test_panels_are_tabs_and_each_says_what_is_about_it(hand, truth):
    window = hand.viewer.window
    draw_box(hand, truth)
    panels = [hand.panel]
    for name in ("Compare", "Measure"):  # as from the menu, which does not ask for tabs
        panels.append(window.add_plugin_dock_widget("napari-lungfm", name)[1])
        hand.settle(0.4)
        assert [each.in_sight for each in panels] == [False] * (len(panels) - 1) + [True]
    annotate, compare, measure = panels
    docks = window._qt_window.tabifiedDockWidgets(annotate._dock)
    assert {*docks} == {compare._dock, measure._dock}
    assert window._qt_window.height() <= 800
    said = annotate.message.notice
    measure.measure.click()
    hand.settle()
    assert "longest diameter" in measure.message.notice.text
    hand.controller.rename(TUMOUR, "Left upper lobe nodule, spiculated")
    hand.settle(0.3)
    header = measure.table.horizontalHeaderItem(0)
    assert header.toolTip() == "Left upper lobe nodule, spiculated"
    assert " ".join(header.text().split()) == header.toolTip()
    assert "\n" in header.text()
    assert annotate.message.notice is said
    assert "longest" not in compare.message.notice.text
    hand.controller.say("hint", "go on")  # its panel is behind: said where it is seen as well
    assert annotate.message.notice.text == measure.message.notice.text == "go on"
    annotate._dock.raise_()
    hand.settle(0.3)
    hand.controller.say("hint", "and on")
    assert annotate.message.notice.text == "and on"
    assert measure.message.notice.text == "go on"
    for widget in (compare, measure):
        window.remove_dock_widget(widget)
    hand.settle(0.05)


def test_the_structure_of_a_reference_is_chosen_under_the_slider_and_in_compare(
    hand, truth, volume
):
    labels = np.where(truth, 5, np.where(np.roll(truth, 6, axis=1), 2, 0)).astype(np.uint8)
    several = LabelMap(labels, volume.geometry, {5: "GTV-1", 2: "Heart"})
    data, options, _ = labels_layer(several, "multi")
    hand.panel.reference_combo.choose(hand.viewer.add_labels(data, **options))
    draw_box(hand, truth)
    hand.settle(0.3)
    quality = next(w for w in QApplication.allWidgets() if isinstance(w, QualityPanel))
    assert quality.structure_row.isVisible()
    said = quality.surface
    assert "one of: Heart, GTV-1" in said.toolTip()
    assert said.fontMetrics().horizontalAdvance(said.text()) <= said.width()  # nothing is cut off
    combo = quality.structure
    texts = [combo.itemText(i) for i in range(combo.count())]
    assert texts == ["choose …", "Heart", "GTV-1"]
    combo.activated.emit(2)
    hand.settle(0.3)
    assert combo.currentText() == "GTV-1"
    assert "Dice" in quality.volume.text()
    _, compare = hand.viewer.window.add_plugin_dock_widget("napari-lungfm", "Compare")
    hand.settle(0.3)
    assert compare.in_reference.currentText() == "GTV-1"
    compare.compare.click()
    hand.settle()
    right = compare.table.item(0, 0).text()
    compare.in_reference.activated.emit(1)
    hand.settle(0.3)
    assert compare.table.item(0, 0).text() != right
    assert combo.currentText() == "Heart"
    hand.controller.rename(TUMOUR, "GTV-1")
    hand.settle(0.3)
    assert combo.currentText() == "GTV-1"
    hand.viewer.window.remove_dock_widget(compare)
    hand.settle(0.05)


# ---------------------------------------------------------------- the next case
def add_next(hand, name="next", *, by=5.0):
    """Open another CT, shifted a little: it covers the first one."""
    geometry = VolumeGeometry((14, 48, 48), (3.0, 1.0, 1.0), (-20.0 + by, 30.0, -100.0))
    volume = Volume(np.full(geometry.shape, -500, np.int16), geometry, {"modality": "CT"})
    data, options, _ = image_layer(volume, name)
    layer = hand.viewer.add_image(data, **options)
    layer.metadata[OPENED] = True
    data, options, _ = labels_layer(
        LabelMap(np.ones(geometry.shape, np.uint8), geometry, {1: "GTV"}), f"{name} GTV"
    )
    hand.viewer.add_labels(data, **options).metadata[OPENED] = True
    return layer


def test_a_ct_that_is_opened_is_the_case_with_its_reference_and_takes_what_is_drawn(hand, truth):
    draw_box(hand, truth)
    hand.panel.propagation.way.setCurrentIndex(3)
    layer = add_next(hand)
    hand.settle(0.4)
    assert hand.panel.image_combo.layer is layer
    assert hand.panel.reference_combo.currentText() == "next GTV"
    assert hand.panel.propagation.until.maximum() == 13
    text = hand.panel.message.notice.text
    assert "'next' is annotated now. What you did on 'ct' is kept." in text
    assert "'next GTV' is the reference" in text
    hand.image = layer
    hand.press(Qt.Key.Key_B)
    hand.controller.go_to(9)
    hand.settle()
    hand.drag((9, 10, 10), (9, 20, 20))
    assert hand.controller.annotation.image is layer
    assert len(hand.prompts) == 1


def test_a_ct_that_is_opened_during_work_waits_and_is_not_drawn_on(hand, truth, monkeypatch):
    draw_box(hand, truth)
    monkeypatch.setattr(type(hand.controller), "under_way", True)
    add_next(hand)
    hand.settle(0.4)
    monkeypatch.undo()
    assert hand.panel.image_combo.layer is hand.image
    assert hand.panel.message.notice.level == "warning"
    assert "choose 'next' under Image" in hand.panel.message.notice.text
    hand.press(Qt.Key.Key_B)
    hand.drag((9, 15, 15), (9, 30, 30))
    assert "you see 'next' here, but 'ct' is being annotated" in hand.panel.message.notice.text
    assert len(hand.prompts) == 1
    hand.panel.image_combo.activated.emit(0)  # the one that is chosen, once more: it comes up
    hand.drag((9, 15, 15), (9, 30, 30))
    assert hand.prompts[0].x0 == 15


def test_the_key_of_a_tool_keeps_it_in_hand_and_escape_puts_it_away(hand):
    hand.press(Qt.Key.Key_B)
    hand.press(Qt.Key.Key_B)
    assert hand.controller.tool is Tool.BOX
    hand.press(Qt.Key.Key_Escape)
    assert hand.controller.tool is Tool.LOOK


def test_closing_asks_by_name_before_layers_of_the_user_go(hand, truth, monkeypatch):
    draw_box(hand, truth)
    ct, asked, answer = hand.image, [], [QMessageBox.StandardButton.No]
    hand.viewer.add_labels(
        truth.astype(np.uint8), name="own", scale=ct.scale, translate=ct.translate
    )
    monkeypatch.setattr(QMessageBox, "question", lambda *a: (asked.append(a[2]), answer[0])[1])
    hand.panel.close_button.click()
    hand.settle()
    assert "'own'" in asked[0]
    assert "own" in hand.viewer.layers
    answer[0] = QMessageBox.StandardButton.Yes
    hand.panel.close_button.click()
    hand.settle()
    assert list(hand.viewer.layers) == []


def test_the_canvas_is_the_current_one_in_opengl_while_layers_go(hand, truth, monkeypatch):
    draw_box(hand, truth)
    native, current = hand.canvas.native, []

    def removing(_=None):
        native.doneCurrent()  # as after a frame; ours is called after this one

    hand.viewer.layers.events.removing.connect(removing, position="first")
    hand.viewer.layers.events.removed.connect(
        lambda _: current.append(native.context().currentContext() is not None), position="first"
    )
    hand.panel.close_button.click()
    hand.settle()
    assert list(hand.viewer.layers) == []
    assert len(current) == 5
    assert all(current)
