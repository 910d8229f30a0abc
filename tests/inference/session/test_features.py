"""What encoders make of slices is kept by the session: bounded, exact, and cleaned up."""

import gc
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_lungfm._core.exceptions import LungFMWarning
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference import AnnotationSession, CacheBudget, segment_object
from napari_lungfm.inference.session import SessionMismatchError, read_recording
from napari_lungfm.models.prompts import Box, Click, Prompt
from napari_lungfm.models.protocols import Prior, SlicePrediction

torch = pytest.importorskip("torch")

SHAPE = (20, 16, 16)
SLICE_BYTES = 16 * 16 * 2  # one map in float16
BOX = Box(9, 3, 3, 12, 12)


@dataclass
class Encoding:
    """Stands for a model whose encoder takes all the time: thresholds features as they are kept.

    The threshold lies where bfloat16 moves some values across it.
    """

    width: float = 1500.0
    precision: str = "float32"
    name: str = "encoding"
    encoded: list[int] = field(default_factory=list)

    def open(self, volume: Volume, *, cache: Any = None) -> "EncodingPredictor":
        from napari_lungfm.models.foundation.features import RecentFeatures

        return EncodingPredictor(self, volume, RecentFeatures() if cache is None else cache)


@dataclass
class EncodingPredictor:
    model: Encoding
    volume: Volume
    cache: Any

    def predict_slice(self, z: int, prompts: Any, prior: Prior | None = None) -> SlicePrediction:
        from napari_lungfm.models.foundation.features import FeatureKey
        from napari_lungfm.models.foundation.zoom import Crop
        from napari_lungfm.preprocessing.windowing import Window

        window = Window(0, self.model.width)
        key = FeatureKey(str(z), window, Crop.whole(SHAPE), "encoding", "w", "float32")
        features = self.cache.get(key)
        if features is None:
            self.model.encoded.append(z)
            features = self.cache.put(key, (torch.from_numpy(self.volume.array[z]).float() / 700,))
        corrected = sum(1 for p in prompts if isinstance(p, Click))
        return SlicePrediction((features[0].float() > -0.598 + 0.1 * corrected).numpy())


@pytest.fixture(scope="module")
def volume() -> Volume:
    hu = np.random.default_rng(0).integers(-900, 200, SHAPE).astype(np.int16)
    return Volume(hu, VolumeGeometry(SHAPE, (2.0, 1.0, 1.0)))


def worked(session: AnnotationSession, *prompts: Prompt) -> AnnotationSession:
    session.add_object(3)
    for prompt in prompts or (BOX,):
        session.add_prompt(3, prompt)
        list(session.propagate(3))
    return session


@pytest.mark.parametrize("memory", [0, 4 * SLICE_BYTES, 2**20])
def test_after_a_correction_no_slice_is_encoded_again(volume: Volume, memory: int) -> None:
    model = Encoding()
    with AnnotationSession(volume, model, cache=CacheBudget(memory)) as session:
        worked(session, BOX, Click(14, 5, 5), Click(2, 5, 5, positive=False))
        session.remove_prompt(3, 2)
        list(session.propagate(3))
        assert len(session.get(3).masks) == SHAPE[0]
        assert sorted(model.encoded) == list(range(SHAPE[0]))
        cache: Any = session._engine.features
        assert cache.statistics.memory_bytes <= memory
        assert (cache.folder is not None) == (memory < 2**20)


def test_the_model_keeps_its_own_way_if_asked(volume: Volume) -> None:
    session = worked(AnnotationSession(volume, Encoding(), cache=None))
    assert session._engine.features is None
    assert session.entries[0]["model"]["features"] is None


def test_the_folder_goes_with_the_session(volume: Volume, tmp_path: Path) -> None:
    def folder_of(session: AnnotationSession) -> Path:
        cache: Any = session._engine.features
        assert list(cache.folder.iterdir())
        found: Path = cache.folder
        return found

    closed = worked(AnnotationSession(volume, Encoding(), cache=CacheBudget(0)))
    folder = folder_of(closed)
    closed.close()
    assert not folder.exists()
    forgotten = worked(AnnotationSession(volume, Encoding(), cache=CacheBudget(0)))
    folder = folder_of(forgotten)
    del forgotten
    gc.collect()
    assert not folder.exists()
    with AnnotationSession(volume, Encoding(), cache=CacheBudget(0, folder=tmp_path)) as lasting:
        worked(lasting)
    model = Encoding()
    with AnnotationSession(volume, model, cache=CacheBudget(0, folder=tmp_path)) as later:
        worked(later)
    assert model.encoded == []  # a folder that was named stays


@pytest.fixture
def log(volume: Volume, tmp_path: Path) -> Callable[[CacheBudget | None], Path]:
    def make(cache: CacheBudget | None) -> Path:
        path = tmp_path / "log.jsonl"
        worked(AnnotationSession(volume, Encoding(), log=path, cache=cache))
        return path

    return make


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32", None])
def test_a_log_is_replayed_with_its_own_rounding(volume: Volume, log: Any, precision: Any) -> None:
    """Masks here hang on the rounding, and whoever replays need not know of it."""
    path = log(None if precision is None else CacheBudget(precision=precision))
    for cache in (CacheBudget(), CacheBudget(0, precision="bfloat16"), None):
        if cache is None and precision not in (None, "float32"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error", LungFMWarning)
            again = AnnotationSession.load(path, volume, Encoding(), read_only=True, cache=cache)
        assert again.differing_lines == ()
    assert read_recording(path).features == (precision or "float32")


def test_rounding_matters_in_this_test(volume: Volume) -> None:
    fine, coarse = (
        worked(AnnotationSession(volume, Encoding(), cache=CacheBudget(precision=each)))
        for each in ("float32", "bfloat16")
    )
    assert (fine.mask(3) != coarse.mask(3)).any()


def test_segment_object_has_the_default(volume: Volume) -> None:
    session = worked(AnnotationSession(volume, Encoding()))
    assert session.entries[0]["model"]["features"] == "float16"
    found = segment_object(Encoding(), volume, [BOX])
    np.testing.assert_array_equal(found.array == 3, session.mask(3))


# ---------------------------------------------------------------------- options and precision
def test_other_options_are_refused_and_both_are_named(
    volume: Volume, log: Any, tmp_path: Path
) -> None:
    path = log(CacheBudget())
    AnnotationSession.load(path, volume, Encoding(), read_only=True).save(tmp_path / "saved")
    for source in (path, tmp_path / "saved"):
        text = source.read_bytes()
        with pytest.raises(SessionMismatchError, match=r"option width = 1500.*has 900"):
            AnnotationSession.load(source, volume, Encoding(900.0))
        other = AnnotationSession.load(
            source, volume, Encoding(900.0), other_model=True, options={"width": 900}
        )
        assert other.entries[0]["model"]["settings"] == {"width": 900.0}
        assert other.entries[0]["model"]["options"] == {"width": 900}
        assert source.read_bytes() == text


def test_options_that_no_model_shows_are_compared_if_they_are_given(
    volume: Volume, tmp_path: Path
) -> None:
    path, given = tmp_path / "log.jsonl", {"attention": "fast"}
    AnnotationSession(volume, Encoding(), log=path, options=given)
    AnnotationSession.load(path, volume, Encoding(), options=given, read_only=True)
    AnnotationSession.load(path, volume, Encoding(), read_only=True)
    with pytest.raises(SessionMismatchError, match=r"attention = 'fast'.*'stock' here"):
        AnnotationSession.load(path, volume, Encoding(), options={"attention": "stock"})


def test_another_precision_is_told_and_every_line_says_which(volume: Volume, log: Any) -> None:
    path = log(CacheBudget())
    with pytest.warns(LungFMWarning, match="made in float32.*computes in bfloat16 here"):
        session = AnnotationSession.load(path, volume, Encoding(precision="bfloat16"))
    session.add_prompt(3, Click(4, 5, 5))
    assert [line["precision"] for line in session.entries[-2:]] == ["float32", "bfloat16"]
