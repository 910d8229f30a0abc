import numpy as np
import pytest

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm.benchmark.cohorts import lungs as module
from napari_lungfm.benchmark.cohorts.lungs import lung_source
from napari_lungfm.benchmark.cohorts.raw import Reading
from napari_lungfm.geometry import LUNG_LABELS, LabelMap
from napari_lungfm.models.weights import WeightsNotFoundError


class Fake:
    """A model at the boundary: what it finds is given."""

    name, parameters = "fake", 0

    def __init__(self, found, labels):
        self.found, self.labels = found, labels

    def segment(self, volume, *, progress=None, cancelled=None):
        return LabelMap(self.found, volume.geometry, self.labels)


@pytest.fixture
def fake(monkeypatch):
    def install(found, labels):
        calls = []

        def create(name, /, **options):
            calls.append((name, options))
            return Fake(found, labels)

        monkeypatch.setattr(module, "create_automatic_model", create)
        return calls

    return install


@pytest.fixture
def reading(chest):
    return Reading(chest.volume, chest.reference.array == 3, None, "label 1")


def test_a_model_gives_lungs_and_nothing_else(fake, reading, chest):
    calls = fake(chest.reference.array, dict(LUNG_LABELS))
    source = lung_source("lungmask", "cpu")
    assert calls == [("lungmask", {"device": "cpu", "fallback": False})]
    found = source.find(reading)
    assert set(np.unique(found)) == {0, 1, 2}
    assert np.array_equal(found == 1, chest.reference.array == 1)


def test_models_that_do_not_find_both_lungs_are_refused(fake, chest):
    fake(chest.reference.array, {1: "left upper lobe", 2: "right lung"})
    with pytest.raises(UsageError, match="does not find: left lung"):
        lung_source("lungmask")


def test_no_lungs_found_is_an_error_of_the_patient(fake, reading, chest):
    fake(np.zeros_like(chest.reference.array), dict(LUNG_LABELS))
    with pytest.raises(DataError, match="found no lungs"):
        lung_source("lungs-classical").find(reading)


def test_lungs_of_the_data(reading, chest):
    with pytest.raises(DataError, match="no lungs with the data"):
        lung_source("own").find(reading)
    assert lung_source("none").find(reading) is None
    own = Reading(chest.volume, reading.tumour, chest.reference.array, "x")
    assert lung_source("own").find(own) is chest.reference.array


def test_nothing_stands_in_for_lungmask_in_silence(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsNotFoundError, match="--lungs lungs-classical"):
        lung_source("lungmask")


def test_the_identity_tells_models_apart():
    names = ("own", "none", "lungs-classical")
    assert len({lung_source(name).identity for name in names}) == len(names)
