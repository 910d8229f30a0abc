"""Sessions with real models: the classical method, the baselines, SAM 2 with random weights."""

from typing import Any

import numpy as np
import pytest

from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference import AnnotationSession, segment_object
from napari_lungfm.models import create_model
from napari_lungfm.models.crops import SliceCrop
from napari_lungfm.models.prompts import Box, Click, Stop

SHAPE = (16, 48, 48)
GRID = VolumeGeometry(SHAPE, (3.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def ball() -> tuple[Volume, np.ndarray]:
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    inside = (3.0 * (z - 8)) ** 2 + (y - 24.0) ** 2 + (x - 24.0) ** 2 <= 144.0
    hu = np.where(inside, 40, -850) + np.random.default_rng(0).normal(0, 20, SHAPE)
    return Volume(hu.astype(np.int16), GRID), inside


@pytest.mark.parametrize("name", ["classical", "prompt-box", "prompt-ellipse"])
def test_a_session_and_segment_object_agree(name: str, ball: Any) -> None:
    volume, inside = ball
    prompts = [Box.around(inside[8], 8), Click(6, 24, 24), Stop(11), Click(7, 10, 24, False)]
    session = AnnotationSession(volume, create_model(name))
    session.add_object(3)
    session.add_prompts(3, prompts)
    list(session.propagate(3))
    expected = segment_object(create_model(name), volume, prompts)
    np.testing.assert_array_equal(session.label_map().array, expected.array)


def test_a_correction_gets_the_object_right(ball: Any) -> None:
    """The classical method leaks into a vessel; one negative click takes it out."""
    volume, inside = ball
    array = volume.array.copy()
    array[9, 22:27, 33:48] = 40
    session = AnnotationSession(Volume(array, GRID), create_model("classical"))
    session.add_object(3)
    session.add_prompt(3, Box.around(inside[8], 8))
    list(session.propagate(3))
    leaked = session.mask(3)[9] & ~inside[9]
    (update,) = session.add_prompt(3, Click(9, 24, 40, positive=False)).slices
    assert not update.mask[24, 40]
    assert (update.mask & ~inside[9]).sum() <= leaked.sum()
    assert (update.mask & inside[9]).sum() > 0.9 * inside[9].sum()
    list(session.propagate(3))
    np.testing.assert_array_equal(session.mask(3)[9], update.mask)
    session.remove_prompt(3, 2)
    list(session.propagate(3))
    np.testing.assert_array_equal(session.mask(3)[9] & ~inside[9], leaked)


# ---------------------------------------------------------------------- SAM 2
@pytest.fixture(scope="module")
def sam2_model() -> Any:
    """A published configuration made small, with seeded random weights."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("sam2")
    from napari_lungfm.models.foundation.sam2_build import (
        build_sam2,
        published_config,
        with_image_size,
    )
    from napari_lungfm.models.foundation.sam2_video import Sam2Model
    from napari_lungfm.models.foundation.zoom import Zoom
    from napari_lungfm.preprocessing.windowing import Window

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = with_image_size(published_config("sam2.1_hiera_t"), 128)
    torch.manual_seed(0)
    network = build_sam2(config)
    with torch.no_grad():  # sure that objects are there, so that walks go far
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(4.0)

    def make(**options: Any) -> Any:
        zoom = Zoom(1.0, 16.0) if options.pop("zoomed", False) else None
        return Sam2Model(
            "tiny",
            network,
            weight_hash="w0",
            window=Window(-600, 1500),
            device="cpu",
            zoom=zoom,
            **options,
        )

    yield make
    torch.set_num_threads(threads)


def _encoded(session: AnnotationSession) -> int:
    encoded: int = session._engine.runner._tracker._tracker.encoded
    return encoded


@pytest.fixture(scope="module")
def small(ball: Any) -> Volume:
    volume, _ = ball
    return volume.crop(np.s_[4:13, :, :])


def test_corrections_encode_nothing_new(sam2_model: Any, small: Volume) -> None:
    session = AnnotationSession(small, sam2_model())
    session.add_object(3)
    session.add_prompt(3, Box(4, 12, 12, 37, 37))
    assert _encoded(session) == 1
    list(session.propagate(3))
    encoded = _encoded(session)
    assert encoded == len(session.get(3).masks) > 5
    first = session.get(3).masks
    (update,) = session.add_prompt(3, Click(6, 14, 14, positive=False)).slices
    assert update.changed is not None
    list(session.propagate(3))
    assert session.get(3).masks[6] == update.crop
    assert session.get(3).masks != first
    session.remove_prompt(3, 2)
    list(session.propagate(3))
    assert session.get(3).masks == first
    session.undo()
    session.undo()
    session.add_prompt(3, Box(5, 10, 10, 30, 30))
    list(session.propagate(3, "up"))
    assert _encoded(session) == encoded


def test_the_order_of_the_tracker_is_that_of_the_predictor(sam2_model: Any, small: Volume) -> None:
    """Prompts in one action and a walk are what the model does with all prompts at once."""
    prompts = [Box(4, 12, 12, 37, 37), Click(6, 20, 20), Click(2, 14, 14, False), Stop(8)]
    session = AnnotationSession(small, sam2_model(), cache=None)  # unrounded, as below
    session.add_object(3)
    session.add_prompts(3, prompts)
    list(session.propagate(3))
    stream = (
        sam2_model().open(small).propagate(sorted(prompts, key=lambda p: p.z), range(8), fill=True)
    )
    expected = {z: SliceCrop.of(found.mask) for z, found in stream}
    assert session.get(3).masks == {z: crop for z, crop in expected.items() if crop}


@pytest.mark.filterwarnings("ignore:zoom does not apply")  # after the large box
@pytest.mark.parametrize("zoomed", [False, True])
def test_it_replays_to_the_voxel(
    sam2_model: Any, small: Volume, tmp_path: Any, zoomed: bool
) -> None:
    log = tmp_path / "log.jsonl"
    session = AnnotationSession(small, sam2_model(zoomed=zoomed), log=log, kept_states=2)
    session.add_object(3)
    session.add_prompt(3, Click(4, 24, 24))
    list(session.propagate(3, "up"))
    stream = session.propagate(3, "down")
    next(stream)
    next(stream)
    stream.close()
    session.add_prompt(3, Click(6, 20, 20))  # reached by the first walk: a correction
    session.add_prompt(3, Box(2, 2, 2, 46, 46))  # does not fit into a crop around the clicks
    list(session.propagate(3))
    session.remove_prompt(3, 1)
    list(session.propagate(3))
    session.undo()
    again = AnnotationSession.load(log, small, sam2_model(zoomed=zoomed))
    assert not again.differing_lines
    assert again.get(3).masks == session.get(3).masks
    assert again.get(3).stale == session.get(3).stale


def test_a_lone_negative_click_beside_the_zoomed_crop_blocks_nothing(
    sam2_model: Any, small: Volume
) -> None:
    session = AnnotationSession(small, sam2_model(zoomed=True))
    session.add_object(3)
    session.add_prompt(3, Box(4, 18, 18, 24, 24))
    runner = session._engine.runner
    crop = runner.run(session.get(3).history).state.inner.crop
    assert crop.zoomed
    assert not crop.holds([Click(6, 33, 20)])
    session.add_prompt(3, Click(6, 33, 20, positive=False))
    assert list(session.propagate(3))
    crop = runner.run(session.get(3).history).state.inner.crop
    assert crop.holds([Click(6, 33, 20)])
