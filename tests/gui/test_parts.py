import gc
import threading
import time
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel

from napari_lungfm.gui.annotation.downloads import Downloads
from napari_lungfm.gui.annotation.drawn import box_of, corners_of
from napari_lungfm.gui.annotation.edits import keep_others, stroke_of
from napari_lungfm.gui.annotation.jobs import JobQueue, Mailbox
from napari_lungfm.gui.annotation.keys import Shortcuts
from napari_lungfm.gui.annotation.models import device_choices, model_choices
from napari_lungfm.gui.annotation.view import SliceView
from napari_lungfm.gui.annotation.windows import describe, preset_name, show_window, shown_window
from napari_lungfm.models.prompts import Box
from napari_lungfm.models.weights import WeightStore
from napari_lungfm.models.weights.errors import DownloadCancelledError
from napari_lungfm.preprocessing.windowing import WINDOWS, Window


# ---------------------------------------------------------------- jobs
def test_jobs_are_done_in_order_and_told_on_the_caller_s_thread():
    mail, told = Mailbox(), []
    jobs = JobQueue(mail)
    for i in range(5):
        jobs.submit(lambda _, i=i: i, told.append, told.append)
    mail.flush(until=lambda: not jobs.pending)
    assert told == [0, 1, 2, 3, 4]
    jobs.close(timeout=5)
    assert not jobs.alive


def test_answers_of_an_older_generation_are_dropped():
    mail, told = Mailbox(), []
    jobs = JobQueue(mail)
    jobs.submit(lambda context: context.report(told.append, "progress"), told.append, told.append)
    jobs.renew()
    jobs.submit(lambda _: "new", told.append, told.append)
    mail.flush(until=lambda: not jobs.pending)
    assert told == ["new"]
    jobs.close(timeout=5)


def test_errors_come_back_as_errors():
    mail, failed = Mailbox(), []
    jobs = JobQueue(mail)
    jobs.submit(lambda _: 1 / 0, lambda _: None, failed.append)
    mail.flush(until=lambda: not jobs.pending)
    assert isinstance(failed[0], ZeroDivisionError)
    jobs.close(timeout=5)
    assert jobs.submit(lambda _: 1, failed.append, failed.append) is None


# ---------------------------------------------------------------- strokes
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_stroke_is_what_changed_whatever_its_parts(data):
    viewer = ViewerModel()
    start = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 4, (3, 12, 12))
    layer = viewer.add_labels(start.astype(np.uint8))
    layer.n_edit_dimensions = data.draw(st.sampled_from([2, 3]))
    layer.brush_size = data.draw(st.integers(1, 6))
    events = []
    layer.events.paint.connect(lambda event: events.append(event.value))
    before = layer.data.copy()
    with layer.block_history():
        for _ in range(data.draw(st.integers(1, 4))):
            place = [data.draw(st.integers(0, n - 1)) for n in layer.data.shape]
            viewer.dims.set_point(0, place[0])
            layer.paint(place, data.draw(st.integers(0, 4)), refresh=False)
    for value in events:
        stroke = stroke_of(value, layer.data)
        np.testing.assert_array_equal(stroke.before, before[stroke.region])
        np.testing.assert_array_equal(stroke.after, layer.data[stroke.region])
    if not events:
        np.testing.assert_array_equal(layer.data, before)


def test_single_voxels_set_by_a_program_are_a_stroke_too():
    layer = ViewerModel().add_labels(np.zeros((3, 6, 6), np.uint8))
    events = []
    layer.events.paint.connect(lambda event: events.append(event.value))
    layer.data_setitem((np.array([1, 1]), np.array([2, 3]), np.array([4, 4])), 5)
    stroke = stroke_of(events[0], layer.data)
    assert stroke.region == (slice(1, 2), slice(2, 4), slice(4, 5))
    assert stroke.before.max() == 0
    assert stroke.after.min() == 5


def test_what_a_stroke_took_from_others_is_given_back():
    layer = ViewerModel().add_labels(np.array([[[1, 0, 2, 3]]], np.uint8))
    events = []
    layer.events.paint.connect(lambda event: events.append(event.value))
    layer.brush_size = 9
    layer.paint((0, 0, 1), 2)
    stroke = stroke_of(events[0], layer.data)
    np.testing.assert_array_equal(keep_others(stroke, 2), [[[1, 2, 2, 3]]])


# ---------------------------------------------------------------- boxes
@given(
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(2, 20),
    st.integers(2, 20),
    st.integers(0, 9),
)
def test_a_box_and_its_corners_are_one(y, x, height, width, z):
    box = Box(z, y, x, y + height, x + width)
    assert box_of(corners_of(box), (10, 60, 60)) == box


def test_a_box_holds_the_voxels_whose_centres_lie_in_it():
    corners = np.array([(4, 2.4, 3.0), (4, 2.4, 8.9), (4, 6.5, 8.9), (4, 6.5, 3.0)])
    assert box_of(corners, (10, 20, 20)) == Box(4, 3, 3, 7, 9)
    assert box_of(corners + np.array([0, 30, 0]), (10, 20, 20)) is None


# ---------------------------------------------------------------- keys, views, windows, models
def test_shortcuts_are_bound_for_every_layer_and_given_back():
    viewer, pressed = ViewerModel(), []
    first = viewer.add_labels(np.zeros((3, 4, 4), np.uint8))
    first.bind_key("B", lambda _: pressed.append("own"))
    keys = Shortcuts(viewer, {"B": lambda: pressed.append("ours")})
    keys.bind()
    second = viewer.add_points(ndim=3)
    for provider in (viewer, first, second):
        (bound,) = [f for k, f in provider.keymap.items() if str(k) == "B"]
        bound(provider)
    assert pressed == ["ours"] * 3
    keys.unbind()
    assert not [k for k in viewer.keymap if str(k) == "B"]
    assert not [k for k in second.keymap if str(k) == "B"]
    (bound,) = [f for k, f in first.keymap.items() if str(k) == "B"]
    bound(first)
    assert pressed[-1] == "own"


def test_a_layer_that_is_taken_out_has_its_own_keys_again_and_is_not_held():
    viewer, pressed = ViewerModel(), []
    layer = viewer.add_labels(np.zeros((3, 4, 4), np.uint8))
    layer.bind_key("B", lambda _: pressed.append("own"))
    keys = Shortcuts(viewer, {"B": lambda: pressed.append("ours"), "N": lambda: None})
    keys.bind()
    viewer.layers.remove(layer)
    assert [str(k) for k in layer.keymap] == ["B"]
    viewer.layers.append(layer)
    assert {str(k) for k in layer.keymap} == {"B", "N"}
    keys.unbind()
    assert [str(k) for k in layer.keymap] == ["B"]
    (bound,) = layer.keymap.values()
    bound(layer)
    assert pressed == ["own"]
    keys.bind()
    viewer.layers.remove(layer)
    viewer.layers.selection.clear()
    gone = weakref.ref(layer)
    del layer, bound
    gc.collect()
    assert gone() is None


def test_a_view_knows_its_slice_in_millimetres():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((10, 8, 8)), scale=(2.5, 0.7, 0.7), translate=(-100, 3, 4))
    view = SliceView(viewer, layer)
    view.go_to(7)
    assert view.z == 7
    view.go_to(99)
    assert view.z == 9
    assert view.problem is None
    assert view.shows(8, 9)
    assert not view.shows(0, 8)


def test_windows_are_presets_of_contrast_limits():
    layer = ViewerModel().add_image(np.zeros((2, 4, 4), np.int16), contrast_limits=(-10, 10))
    show_window(layer, WINDOWS["lung"])
    assert preset_name(shown_window(layer)) == "lung"
    assert describe(shown_window(layer)) == "L −600  W 1500"
    show_window(layer, Window(40, 410))
    assert preset_name(shown_window(layer)) is None


def test_models_that_need_no_weights_can_be_chosen_and_others_say_what_they_need(tmp_path):
    choices = {c.name: c for c in model_choices(WeightStore(tmp_path))}
    assert choices["classical"].state == "ready"
    assert choices["prompt-ellipse"].state == "ready"
    wanted = choices["sam2.1-tiny"]
    assert wanted.state in ("download", "not installed")
    assert "MB" in wanted.detail or "torch" in wanted.detail
    names = [c.name for c in model_choices(WeightStore(tmp_path))]
    assert names.index("classical") < names.index("medsam")


def test_a_model_that_does_not_fit_into_memory_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "napari_lungfm.gui.annotation.models.hardware", lambda: {"memory_gib": "2.0"}
    )
    pytest.importorskip("torch")
    choices = {c.name: c for c in model_choices(WeightStore(tmp_path))}
    assert choices["sam2.1-large"].state == "too big"
    assert "this computer has 2.0 GiB" in choices["sam2.1-large"].detail


def test_devices_begin_with_auto():
    assert device_choices()[:2] == ("auto", "cpu")


# ---------------------------------------------------------------- downloads
def test_a_download_tells_its_progress_and_can_be_cancelled(monkeypatch):
    fetching = pytest.importorskip("napari_lungfm.models.weights.fetch")
    started, ended, seen = threading.Event(), [], []

    def fetch(name, *, licence_accepted, progress, cancelled):
        assert licence_accepted
        progress(5_000_000, 10_000_000)
        started.set()
        while not cancelled():
            time.sleep(0.01)
        raise DownloadCancelledError("stopped")

    monkeypatch.setattr(fetching, "fetch", fetch)
    mail = Mailbox()
    downloads = Downloads(mail)
    downloads.fetch("sam2.1-tiny", lambda *n: seen.append(n), lambda *e: ended.append(e))
    assert started.wait(20)
    assert downloads.going_on
    downloads.cancel()
    mail.flush(until=lambda: ended)
    ((notice, here),) = ended
    assert not here
    assert "goes on from here" in notice.text
    assert seen == [(5_000_000, 10_000_000)]
    assert not downloads.going_on
    downloads.close()


def test_the_licence_is_named_before_a_download():
    assert "licence of the weights" in Downloads(Mailbox()).licence("medsam2-ma")
