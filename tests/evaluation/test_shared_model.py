"""One opening for many sessions: what is shared, and what the books say of it."""

import tempfile
import time

import numpy as np
import pytest

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.seeding import generator
from napari_lungfm.evaluation import parse_protocol
from napari_lungfm.evaluation.shared_model import FeatureUse, SharedModel, saved_seconds
from napari_lungfm.evaluation.simulation import simulate
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.models.protocols import SlicePrediction
from napari_lungfm.models.registry import create_model

torch = pytest.importorskip("torch")
GRID = VolumeGeometry((9, 24, 24), (3.0, 1.0, 1.0))
ENCODING_S = 0.03


def scene():
    z, y, x = np.indices(GRID.shape)
    inside = ((z - 4) / 3.5) ** 2 + ((y - 11) / 7) ** 2 + ((x - 12) / 8) ** 2 <= 1
    noise = np.random.default_rng(0).normal(0, 20, GRID.shape)
    return Volume((np.where(inside, 40, -800) + noise).astype(np.int16), GRID), inside


class SlowEncoder:
    """A model whose encoder takes a known time, with the adapters' own slice features."""

    name = "slow"
    weight_hash = "w"

    def __init__(self, batch_size=None):
        self.opened = 0
        self.spent = 0.0  # what encoding really took; a busy machine sleeps longer
        self.batch_size = batch_size

    def open(self, volume, *, cache=None):
        from napari_lungfm.models.foundation.features import RecentFeatures, SliceFeatures
        from napari_lungfm.models.foundation.runtime import Runtime
        from napari_lungfm.models.foundation.slices import SliceSource
        from napari_lungfm.models.foundation.zoom import Crop
        from napari_lungfm.preprocessing.windowing import Window

        def encode(images):
            started = time.perf_counter()
            time.sleep(ENCODING_S)
            self.spent += time.perf_counter() - started
            return (images * 2.0,)

        self.opened += 1
        features = SliceFeatures(
            SliceSource(volume.array, Window(-400, 1000)),
            Runtime(torch.nn.Identity(), "cpu", "float32"),
            lambda greys: torch.stack([torch.from_numpy(g.copy()).float()[None] for g in greys]),
            encode,
            cache=cache if cache is not None else RecentFeatures(),
            name="slow",
            weights="w",
            batch_size=self.batch_size,
        )
        crop = Crop.whole(volume.shape[1:])

        class Predictor:
            def predict_slice(self, z, prompts, prior=None):
                upcoming = range(z + 1, volume.shape[0])
                grey = features.get(z, crop, upcoming)[0][0, 0].float().numpy()
                return SlicePrediction(grey > 255, 1.0)

        return Predictor()


def work(model, volume, reference, protocol="box-every-slice"):
    return simulate(model, volume, reference, parse_protocol(protocol), generator(0))


def test_the_books_of_one_unit_after_the_other():
    volume, reference = scene()
    model = SlowEncoder()
    n = int(reference.any(axis=(1, 2)).sum())
    with SharedModel(model, volume) as shared:
        first = work(shared, volume, reference)
        assert shared.use.encoded == n
        assert (shared.use.reused, shared.use.saved_seconds) == (0, 0.0)
        shared.begin()
        assert shared.use == FeatureUse()
        started = time.perf_counter()
        again = work(shared, volume, reference)
        seconds = time.perf_counter() - started
        assert (shared.use.encoded, shared.use.reused) == (0, n)
        # Alone it would have taken what was measured and what was saved.
        assert shared.use.saved_seconds == pytest.approx(model.spent, rel=0.5)
        assert seconds + saved_seconds(shared) >= 0.7 * model.spent
        # A user's waiting time is told as if alone, too.
        assert again.interactions[0].seconds >= 0.7 * model.spent
    assert model.opened == 1
    assert np.array_equal(first.mask, again.mask)
    assert np.array_equal(first.mask, work(SlowEncoder(), volume, reference).mask)


def test_a_slice_needed_twice_by_one_unit_saves_it_nothing():
    volume, reference = scene()
    with SharedModel(SlowEncoder(), volume) as shared:
        work(shared, volume, reference)
        work(shared, volume, reference)  # of the same unit: another structure, say
        assert shared.use.reused == 0
        shared.begin()
        work(shared, volume, reference)
        work(shared, volume, reference)
        assert shared.use.reused == int(reference.any(axis=(1, 2)).sum())


def test_of_slices_encoded_together_each_takes_its_part():
    volume, reference = scene()
    model = SlowEncoder(batch_size=4)
    with SharedModel(model, volume) as shared:
        work(shared, volume, reference)
        encoded = shared.use.encoded
        assert encoded == 8  # in two batches; seven slices have the object
        shared.begin()
        work(shared, volume, reference)
        assert (shared.use.encoded, shared.use.reused) == (0, 7)
        assert shared.use.saved_seconds == pytest.approx(model.spent * 7 / 8, rel=0.5)


def test_models_without_an_encoder_have_no_books():
    volume, reference = scene()
    model = create_model("prompt-ellipse")
    shared = SharedModel(model, volume)
    done = work(shared, volume, reference, "box-one")
    assert shared.use is None
    assert saved_seconds(shared) == saved_seconds(model) == 0.0
    assert np.array_equal(done.mask, work(model, volume, reference, "box-one").mask)
    shared.close()


def test_it_speaks_for_its_model_on_its_volume_only():
    volume, _ = scene()
    shared = SharedModel(SlowEncoder(), volume)
    assert (shared.name, shared.weight_hash) == ("slow", "w")
    with pytest.raises(AttributeError):
        shared.window  # noqa: B018
    other = Volume(volume.array.copy(), GRID)
    with pytest.raises(UsageError, match="opened for another volume"):
        shared.open(other)
    shared.close()


def test_closing_leaves_no_files(tmp_path, monkeypatch):
    from napari_lungfm.inference import feature_cache

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(
        feature_cache.BoundedFeatureCache.__init__, "__defaults__", (3000, 2**30)
    )  # next to no memory
    volume, reference = scene()
    with SharedModel(SlowEncoder(), volume) as shared:
        work(shared, volume, reference)
        assert any(tmp_path.rglob("*.safetensors"))
        shared.begin()
        work(shared, volume, reference)
        assert shared.use.encoded == 0  # found on disk
    assert list(tmp_path.iterdir()) == []
