import threading

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry
from napari_lungfm.gui.annotation import opening as module
from napari_lungfm.gui.annotation.jobs import JobQueue, Mailbox
from napari_lungfm.gui.annotation.opening import Opening
from napari_lungfm.gui.annotation.session_files import BESIDE, SessionFiles
from napari_lungfm.gui.annotation.tools import Tool
from napari_lungfm.io import write_label_map, write_series
from napari_lungfm.plugin.layer_geometry import METADATA_KEY


@pytest.fixture
def reading(viewer):
    mail = Mailbox()
    jobs = JobQueue(mail)
    opening = Opening(viewer, jobs)
    opening.seen, opening.said = [], []
    opening.progressed.connect(opening.seen.append)
    opening.noticed.connect(opening.said.append)
    yield opening, mail
    jobs.close(timeout=5)


def test_a_dicom_folder_is_read_with_progress_on_another_thread(reading, viewer, tmp_path):
    opening, mail = reading
    array = np.random.default_rng(0).integers(-1000, 200, (6, 17, 20)).astype(np.int16)
    write_series(Volume(array, VolumeGeometry(array.shape, (2.5, 0.8, 0.7))), tmp_path / "ct")
    found = []
    opening.opened.connect(found.append)
    opening.open(tmp_path / "ct")
    assert opening.going_on
    mail.flush(until=lambda: not opening.going_on)
    (image,) = found
    assert isinstance(image, Image)
    assert image in viewer.layers
    np.testing.assert_array_equal(image.data, array)
    assert opening.seen[0] == 0.0
    assert opening.seen[-2:] == [1.0, None]
    assert opening.said[-1].level == "done"


def test_labels_are_opened_and_what_cannot_be_opened_is_said(reading, viewer, truth, tmp_path):
    opening, mail = reading
    labels = LabelMap(truth.astype(np.uint8), VolumeGeometry(truth.shape, (3.0, 1.0, 1.0)))
    write_label_map(labels, tmp_path / "mask.nii.gz")
    opening.open(tmp_path / "mask.nii.gz")
    mail.flush(until=lambda: not opening.going_on)
    assert isinstance(viewer.layers[-1], Labels)
    opening.open(tmp_path / "nothing.nii.gz")
    mail.flush(until=lambda: not opening.going_on)
    assert opening.said[-1].level == "error"
    assert "no such file" in opening.said[-1].text


def test_reading_can_be_cancelled_between_two_slices(reading, viewer, tmp_path, monkeypatch):
    opening, mail = reading
    started, layers = threading.Event(), list(viewer.layers)

    def read(path, *, progress):
        for done in range(1, 1000):
            progress(done, 1000)
            started.set()
            threading.Event().wait(0.01)
        return []

    monkeypatch.setattr(module, "read_layers", read)
    opening.open(tmp_path)
    assert started.wait(10)
    opening.cancel()
    mail.flush(until=lambda: not opening.going_on)
    assert opening.said[-1].level == "warning"
    assert "cancelled" in opening.said[-1].text
    assert list(viewer.layers) == layers


# ---------------------------------------------------------------- where sessions are
@pytest.fixture
def source(bench, tmp_path, monkeypatch):
    """An image that is a file, and sessions that may be kept beside it."""
    monkeypatch.delenv("NAPARI_LUNGFM_SESSIONS", raising=False)
    path = tmp_path / "case" / "ct.nii.gz"
    path.parent.mkdir()
    path.touch()
    bench.viewer.layers["ct"].metadata[METADATA_KEY]["source"] = str(path)
    bench.controller._files = SessionFiles()
    bench.controller._files.folder = tmp_path / "data"
    return bench, path


def test_a_session_is_kept_beside_its_image_and_found_before_work_begins(source, viewer, truth):
    bench, path = source
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    log = bench.controller.log
    assert log.parent == path.parent / BESIDE
    assert log.with_suffix(".session").is_file()
    bench.controller.end()
    offered = []
    bench.controller.restorable.connect(offered.append)
    bench.controller.set_image(None)
    bench.controller.set_image(viewer.layers["ct"])
    bench.settle()
    assert [each.log for each in offered[0]] == [log]
    assert bench.controller.annotation is None


def test_a_session_without_actions_leaves_nothing_beside_the_image(source):
    bench, path = source
    bench.controller.use(Tool.BOX)
    bench.settle()
    assert (path.parent / BESIDE).is_dir()
    bench.controller.end()
    assert list(path.parent.iterdir()) == [path]


def test_where_the_folder_of_the_image_cannot_be_written_to_the_data_folder_is_taken(source, truth):
    bench, path = source
    (path.parent / BESIDE).write_text("in the way")
    bench.controller.use(Tool.BOX)
    bench.settle()
    bench.box_around(truth, 9)
    assert bench.controller.log.parent == bench.controller._files.folder
    assert bench.labels[9].any()


def test_folders_can_be_asked_to_hold_no_sessions(source):
    _, path = source
    assert SessionFiles(beside=False).new_log("ct", str(path)).parent != path.parent / BESIDE
    assert SessionFiles().new_log("ct", str(path)).parent == path.parent / BESIDE
    assert SessionFiles().new_log("ct", str(path.parent / "gone")).parent == SessionFiles().folder
