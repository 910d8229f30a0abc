"""A small CT with a bright ball in it, a viewer without a window, and a workplace on both."""

import threading

import numpy as np
import pytest

pytest.importorskip("napari")

from napari.components import ViewerModel

from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry
from napari_lungfm.gui.annotation.jobs import Mailbox
from napari_lungfm.gui.annotation.session_files import SessionFiles
from napari_lungfm.gui.annotation.work import ModelWish
from napari_lungfm.gui.shared import Workplace
from napari_lungfm.models.protocols import SlicePrediction
from napari_lungfm.plugin.layer_geometry import image_layer, labels_layer

SHAPE = (20, 48, 48)
SPACING = (3.0, 1.0, 1.0)
CENTRE, RADIUS = (9, 22, 26), 12.0


def ball():
    """The ball: boolean (z, y, x), radius in mm."""
    grid = np.indices(SHAPE, dtype=float)
    squares = [((g - c) * s) ** 2 for g, c, s in zip(grid, CENTRE, SPACING, strict=True)]
    return sum(squares) <= RADIUS**2


@pytest.fixture(scope="session")
def truth():
    return ball()


@pytest.fixture(scope="session")
def volume(truth):
    noise = np.random.default_rng(0).normal(0, 12, SHAPE)
    array = (np.where(truth, 40, -850) + noise).astype(np.int16)
    geometry = VolumeGeometry(SHAPE, SPACING, (-20.0, 30.0, -100.0))
    return Volume(array, geometry, {"modality": "CT"})


@pytest.fixture
def viewer(volume, truth):
    model = ViewerModel()
    data, options, _ = image_layer(volume, "ct")
    model.add_image(data, **options)
    labels = LabelMap(truth.astype(np.uint8) * np.uint8(3), volume.geometry, {3: "tumour"})
    data, options, _ = labels_layer(labels, "reference")
    model.add_labels(data, **options)
    return model


class Bench:
    """A workplace without Qt, and shortcuts for what a person would do."""

    def __init__(self, viewer, folder):
        self.viewer, self.mail = viewer, Mailbox()
        self.place = Workplace(viewer, self.mail, SessionFiles(folder))
        self.controller = self.place.controller
        self.notices = []
        self.controller.noticed.connect(self.notices.append)
        self.controller.set_image(viewer.layers["ct"])

    def settle(self, timeout=30.0):
        """Wait until the engine has nothing to do and the screen shows it."""
        background = self.place.background
        self.mail.flush()
        self.mail.flush(
            until=lambda: not self.controller.busy and not background.pending, timeout=timeout
        )
        self.mail.flush()

    @property
    def layers(self):
        return self.controller.annotation.layers

    @property
    def labels(self):
        return self.layers.data

    def box(self, z, y0, x0, y1, x1, *, wait=True):
        """Draw a box whose corners are voxel centres, y1 and x1 inclusive."""
        corners = [(z, y0, x0), (z, y0, x1), (z, y1, x1), (z, y1, x0)]
        self.layers.boxes.add_rectangles([np.array(corners, dtype=float)])
        if wait:
            self.settle()

    def box_around(self, mask, z, **options):
        rows, columns = np.nonzero(mask[z])
        self.box(z, rows.min(), columns.min(), rows.max(), columns.max(), **options)

    def click(self, z, y, x):
        self.layers.clicks.add(np.array([z, y, x], dtype=float))
        self.settle()

    def same_as_session(self):
        session = self.controller.engine.session
        return np.array_equal(session.label_map().array, self.labels)


@pytest.fixture
def bench(viewer, tmp_path):
    bench = Bench(viewer, tmp_path / "sessions")
    bench.controller.set_model(ModelWish("prompt-ellipse"))
    yield bench
    bench.place.close()


@pytest.fixture
def classical(bench):
    bench.controller.set_model(ModelWish("classical"))
    return bench


class GatedModel:
    """Finds the ball, but waits at a gate before every slice but the first ``free``."""

    name = "gated"

    def __init__(self, truth, free=1):
        self.truth, self.free, self.seen = truth, free, []
        self.gate = threading.Semaphore(0)

    def open(self, volume):
        return self

    def predict_slice(self, z, prompts, prior=None):
        if len(self.seen) >= self.free:
            self.gate.acquire(timeout=20)
        self.seen.append(z)
        return SlicePrediction(self.truth[z].copy())


@pytest.fixture
def gated(bench, truth, monkeypatch):
    model = GatedModel(truth)
    monkeypatch.setattr("napari_lungfm.gui.annotation.work.create_model", lambda *_, **__: model)
    bench.controller.set_model(ModelWish("gated"))
    yield bench, model
    for _ in range(100):
        model.gate.release()
