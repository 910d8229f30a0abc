"""Logits against ``SAM2VideoPredictor`` itself, on the same random weights and the same frames.

Everything runs the publishers' configurations through the publishers' modules; "tiny" ones have
fewer and narrower layers. Where behaviour differs on purpose a test says so and shows why.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from napari_lungfm._core.imports import require
from napari_lungfm.geometry import Volume
from napari_lungfm.models.foundation.sam2_build import build_sam2, published_config
from napari_lungfm.models.foundation.sam2_engine import IMAGE_MEAN, IMAGE_STD, prepare_images
from napari_lungfm.models.foundation.sam2_state import TrackState, Walk
from napari_lungfm.models.foundation.sam2_video import Sam2Model, Sam2Predictor
from napari_lungfm.models.prompts import Box, Click, MaskPrompt
from napari_lungfm.models.protocols import SlicePrediction
from napari_lungfm.models.registry import create_model
from napari_lungfm.models.weights import WeightStore
from napari_lungfm.models.weights.importing import import_file

#: Largest difference of logits that counts as the same.
SAME = 1e-4
BOX, CORNERS = Box(5, 30, 30, 60, 60), (30, 30, 59, 59)  # x0 y0 x1 y1, last pixel inside
KEEP = {"add_all_frames_to_correct_as_cond": True}


def walk_all(
    predictor: Sam2Predictor, state: TrackState, slices: int | range = 12
) -> tuple[TrackState, dict[int, np.ndarray]]:
    logits = {}
    whole = range(slices) if isinstance(slices, int) else slices
    for latest, z, prediction in predictor.walk(state, whole):
        state, logits[z] = latest, prediction.logits
    return state, logits


def difference(ours: SlicePrediction | np.ndarray, theirs: np.ndarray) -> float:
    array = ours.logits if isinstance(ours, SlicePrediction) else ours
    return float(np.abs(array - theirs).max())


def compare(ours: dict[int, np.ndarray], theirs: dict[int, np.ndarray], slices: range) -> None:
    for z in slices:
        assert difference(ours[z], theirs[z]) <= SAME, z


@dataclass(frozen=True)
class Pair:
    """Our predictor, and what makes theirs on the same weights and the same volume."""

    predictor: Sam2Predictor
    make_stock: Callable[..., Any]
    network: Any

    def __iter__(self) -> Iterator[Any]:
        return iter((self.predictor, self.make_stock))


@pytest.fixture(params=["sam2.1_hiera_t", "sam2_hiera_s"])
def pair(
    request: pytest.FixtureRequest,
    make_config: Callable[..., dict[str, Any]],
    make_random: Callable[..., Any],
    volume: Volume,
    stock: Any,
    window: Any,
) -> Pair:
    """For SAM 2.1 and for SAM 2.0."""
    config = make_config(base=request.param)
    network = make_random(build_sam2(config))
    model = Sam2Model("tiny", network, weight_hash="w", window=window, device="cpu")
    return Pair(
        model.open(volume),
        lambda volume=volume, **kw: stock(config, network.state_dict(), volume, **kw),
        network,
    )


def test_a_box_and_forward(pair: Pair) -> None:
    predictor, make_stock = pair
    theirs = make_stock()
    state, first = predictor.prompt(predictor.start(), 5, [BOX])
    assert difference(first, theirs.box(5, CORNERS)) <= SAME
    assert first.logits.std() > 0.05  # there is something to compare

    _, ours = walk_all(predictor, state)

    compare(ours, theirs.walk(start_frame_idx=5), range(6, 12))


@pytest.mark.parametrize("pair", ["sam2.1_hiera_t"], indirect=True)
def test_long_walks(pair: Pair, make_volume: Callable[..., Volume], window: Any) -> None:
    """More slices than memories (6) and object pointers (15): the far ones have to drop out."""
    volume, middle, depth = make_volume(41, 96), 20, 41
    predictor = Sam2Model("tiny", pair.network, weight_hash="w", window=window, device="cpu").open(
        volume
    )
    theirs = pair.make_stock(volume=volume)
    state, _ = predictor.prompt(predictor.start(), middle, [Box(middle, 30, 30, 60, 60)])
    theirs.box(middle, CORNERS)

    _, ours = walk_all(predictor, state, depth)

    compare(ours, theirs.walk(start_frame_idx=middle), range(middle + 1, depth))
    theirs.forget_tracked()
    compare(ours, theirs.walk(start_frame_idx=middle, reverse=True), range(middle))


def test_slices_are_prepared_as_sam_2_prepares_frames(tmp_path: Path) -> None:
    """By its own loader of frames: resizing, its filter and its rounding included."""
    grey = np.random.default_rng(0).integers(0, 256, (61, 97), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "frame.png")  # a JPEG would change the grey values
    misc = require("sam2.utils.misc", purpose="a test")
    for size in (32, 128):
        frame, height, width = misc._load_img_as_tensor(str(tmp_path / "frame.png"), size)
        mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGE_MEAN, IMAGE_STD))

        ours = prepare_images([grey], size)[0]

        assert (height, width) == (61, 97)
        torch.testing.assert_close(ours, (frame.float() - mean) / std, rtol=0, atol=1e-6)


def test_memory_matters_in_these_comparisons(pair: Pair) -> None:
    """Were memories ignored, or mixed up, the comparisons above would notice."""
    predictor, _ = pair
    one, _ = predictor.prompt(predictor.start(), 5, [BOX])
    other, _ = predictor.prompt(predictor.start(), 5, [Box(5, 5, 5, 20, 20)])
    (_, a), (_, b) = walk_all(predictor, one), walk_all(predictor, other)

    assert min(difference(a[z], b[z]) for z in (6, 9, 11)) > 100 * SAME


def test_clicks_one_after_the_other(pair: Pair) -> None:
    predictor, make_stock = pair
    theirs = make_stock()
    clicks = [Click(4, 40, 50), Click(4, 20, 20, positive=False), Click(4, 44, 46)]
    state, one = predictor.prompt(predictor.start(), 4, clicks[:1])
    state, all_three = predictor.prompt(state, 4, clicks)  # corrects its own first answer

    points = [[50, 40], [20, 20], [46, 44]]
    assert difference(one, theirs.clicks(4, points[:1], [1])) <= SAME
    assert difference(all_three, theirs.clicks(4, points, [1, 0, 1])) <= SAME
    _, ours = walk_all(predictor, state)
    compare(ours, theirs.walk(start_frame_idx=4), range(5, 12))


def test_a_box_with_clicks(pair: Pair) -> None:
    predictor, make_stock = pair
    _, ours = predictor.prompt(predictor.start(), 5, [Click(5, 45, 41, positive=False), BOX])

    theirs = make_stock().clicks(5, [[41, 45]], [0], box=list(CORNERS))

    assert difference(ours, theirs) <= SAME


def test_a_mask(pair: Pair) -> None:
    predictor, make_stock = pair
    theirs = make_stock()
    y, x = np.mgrid[:96, :96]
    mask = np.hypot(y - 44.3, x - 52.1) < 13.7
    state, first = predictor.prompt(predictor.start(), 6, [MaskPrompt(6, mask)])

    assert difference(first, theirs.mask(6, mask)) <= SAME
    _, ours = walk_all(predictor, state)
    compare(ours, theirs.walk(start_frame_idx=6), range(7, 12))


def test_an_empty_mask_says_that_the_object_is_absent(pair: Pair) -> None:
    predictor, make_stock = pair
    theirs = make_stock()
    empty = np.zeros((96, 96), bool)
    state, _ = predictor.prompt(predictor.start(), 5, [BOX])
    state, absent = predictor.prompt(state, 8, [MaskPrompt(8, empty)])
    theirs.box(5, CORNERS)

    assert difference(absent, theirs.mask(8, empty)) <= SAME
    assert not absent.mask.any()
    _, ours = walk_all(predictor, state)
    compare(ours, theirs.walk(start_frame_idx=5), range(6, 8))
    assert max(ours) == 7  # a hole marked by hand is a wall


def test_reverse(pair: Pair) -> None:
    predictor, make_stock = pair
    theirs = make_stock()
    state, _ = predictor.prompt(predictor.start(), 5, [BOX])
    theirs.box(5, CORNERS)
    _, ours = walk_all(predictor, state)

    compare(ours, theirs.walk(start_frame_idx=5, reverse=True), range(5))


def test_an_absent_object(pair: Pair, make_random: Callable[..., Any]) -> None:
    predictor, make_stock = pair
    make_random(pair.network, bias=-12.0)
    state, first = predictor.prompt(predictor.start(), 5, [BOX])

    assert difference(first, make_stock().box(5, CORNERS)) <= SAME
    assert first.logits.max() == -1024.0
    assert first.score is not None
    assert first.score < 0.02
    assert walk_all(predictor, state)[1] == {}  # nothing to start from


def test_several_objects_are_independent(pair: Pair) -> None:
    predictor, make_stock = pair
    theirs = make_stock()
    a, _ = predictor.prompt(predictor.start(), 5, [BOX])
    b, first = predictor.prompt(predictor.start(), 5, [Box(5, 10, 60, 30, 80)])
    theirs.box(5, CORNERS, obj=1)
    assert difference(first, theirs.box(5, (60, 10, 79, 29), obj=2)) <= SAME

    (_, ours_a), (_, ours_b) = walk_all(predictor, a), walk_all(predictor, b)

    compare(ours_a, theirs.walk(1, start_frame_idx=5), range(6, 12))
    theirs.forget_tracked()
    compare(ours_b, theirs.walk(2, start_frame_idx=5), range(6, 12))
    assert difference(ours_a[9], ours_b[9]) > 10 * SAME


# ---------------------------------------------------------------------- corrections
def test_a_correction_uses_the_previous_logits_and_the_memory(pair: Pair) -> None:
    predictor, make_stock = pair
    theirs = make_stock(**KEEP)
    state, _ = predictor.prompt(predictor.start(), 3, [Box(3, 30, 30, 60, 60)])
    theirs.box(3, CORNERS)
    state, _ = walk_all(predictor, state)
    theirs.walk(start_frame_idx=3)

    clicks = [Click(8, 20, 70), Click(8, 45, 45, positive=False)]
    state, one = predictor.prompt(state, 8, clicks[:1])
    state, two = predictor.prompt(state, 8, clicks)

    assert difference(one, theirs.clicks(8, [[70, 20]], [1])) <= SAME
    assert difference(two, theirs.clicks(8, [[70, 20], [45, 45]], [1, 0])) <= SAME
    fresh = predictor.prompt(predictor.start(), 8, clicks)[1]
    assert difference(two, fresh.logits) > 100 * SAME  # memory and previous logits did count


def test_propagation_after_a_correction(pair: Pair) -> None:
    """Each slice from the nearer prompted slice, with both prompted slices in memory."""
    predictor, make_stock = pair
    theirs = make_stock(**KEEP)
    state, _ = predictor.prompt(predictor.start(), 3, [Box(3, 30, 30, 60, 60)])
    theirs.box(3, CORNERS)
    state, _ = walk_all(predictor, state)
    theirs.walk(start_frame_idx=3)
    state, _ = predictor.prompt(state, 8, [Click(8, 20, 70)])
    theirs.clicks(8, [[70, 20]], [1])

    state, ours = walk_all(predictor, state)

    # Both end walking forward, the direction that a correction of an anchor is taken to have.
    for start, count, reverse in ((3, 3, True), (8, 2, True), (3, 2, False), (8, 3, False)):
        theirs.forget_tracked()
        logits = theirs.walk(start_frame_idx=start, max_frame_num_to_track=count, reverse=reverse)
        for z in set(logits) - {3, 8}:
            assert difference(ours[z], logits[z]) <= SAME, (start, z)
    assert set(ours) == set(range(12)) - {3, 8}
    # A click more on a slice that is a conditioning one by now, and on the very first.
    theirs.forget_tracked()
    for z, at in ((8, (30, 30)), (3, (50, 50))):
        state, again = predictor.prompt(state, z, [Click(z, *at)])
        assert difference(again, theirs.clicks(z, [list(at[::-1])], [1])) <= SAME


def test_corrections_are_kept_where_theirs_are_thrown_away(pair: Pair) -> None:
    """On purpose: by default the stock predictor forgets corrections (sam2 issue 731)."""
    predictor, make_stock = pair
    theirs = make_stock()  # the publishers' default
    state, _ = predictor.prompt(predictor.start(), 3, [Box(3, 30, 30, 60, 60)])
    theirs.box(3, CORNERS)
    state, _ = walk_all(predictor, state)
    before = theirs.walk(start_frame_idx=3)
    state, corrected = predictor.prompt(state, 8, [Click(8, 20, 70)])
    assert difference(corrected, theirs.clicks(8, [[70, 20]], [1])) <= SAME

    after = theirs.walk(start_frame_idx=3)
    state, _ = walk_all(predictor, state)

    # In theirs the corrected slice is tracked over again: the user's click has no effect on it.
    assert difference(after[8], before[8]) <= SAME
    # In ours it stands, and is a memory for the others.
    assert 8 in state.conditioning
    kept = predictor._engine.prediction(state.conditioning[8], state.crop, (96, 96))
    assert difference(kept, corrected.logits) == 0.0


def test_the_same_prompts_give_the_same_masks_again(pair: Pair) -> None:
    """On purpose: in theirs, what an earlier pass left behind changes the next."""
    predictor, make_stock = pair
    theirs = make_stock()
    theirs.box(5, CORNERS)
    alone = theirs.walk(start_frame_idx=5, reverse=True)
    theirs.walk(start_frame_idx=5)
    again = theirs.walk(start_frame_idx=5, reverse=True)
    assert difference(alone[3], again[3]) > SAME

    state, _ = predictor.prompt(predictor.start(), 5, [BOX])
    state, first = walk_all(predictor, state)
    _, second = walk_all(predictor, state)

    assert all(np.array_equal(first[z], second[z]) for z in first)


def test_one_end_does_not_change_the_other(pair: Pair) -> None:
    """A stop above leaves the slices below as they were, to the last bit."""
    predictor, _ = pair
    state, _ = predictor.prompt(predictor.start(), 5, [BOX])
    whole = walk_all(predictor, state)[1]
    stopped = {z: p.logits for _, z, p in predictor.walk(state, range(8))}

    assert set(stopped) == {0, 1, 2, 3, 4, 6, 7}
    assert all(np.array_equal(whole[z], stopped[z]) for z in stopped)


def test_single_slices_follow_theirs_in_any_order(pair: Pair) -> None:
    """The engine, told to remember everything as theirs does, agrees with it without resets."""
    predictor, make_stock = pair
    theirs = make_stock()
    theirs.box(5, CORNERS)
    forward = theirs.walk(start_frame_idx=5)
    backward = theirs.walk(start_frame_idx=5, reverse=True)
    engine = predictor._engine
    state, _ = predictor.prompt(predictor.start(), 5, [BOX])
    state = predictor._settled(state)

    tracked = {}
    for reverse, slices, expected in (
        (False, range(6, 12), forward),
        (True, range(4, -1, -1), backward),
    ):
        for z in slices:
            entry = engine.look(z, state.crop, state.conditioning, tracked, reverse=reverse)
            tracked[z] = replace(entry, walk=Walk(5, reverse, 1))
            ours = engine.prediction(entry, state.crop, (96, 96))
            assert difference(ours, expected[z]) <= SAME


# ---------------------------------------------------------------------- the real networks
#: Name in the catalogue, its configuration, its input size: SAM 2.1, MedSAM2 (Ma et al.) and
#: Medical SAM 2 (Zhu et al.).
PUBLISHED = [
    ("medsam2-ma", "sam2.1_hiera_t", 512),
    ("sam2.1-tiny", "sam2.1_hiera_t", 1024),
    ("medsam2-zhu", "sam2_hiera_s", 1024),
]


@dataclass(frozen=True)
class Loaded:
    """A model that came from a checkpoint file, and the stock predictor on the same weights."""

    predictor: Sam2Predictor
    theirs: Any


@pytest.fixture(params=PUBLISHED, ids=lambda each: each[0])
def loaded(
    request: pytest.FixtureRequest,
    make_random: Any,
    make_volume: Any,
    stock: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Loaded:
    """Seeded random weights of the published layout: file, store, catalogue name, model."""
    name, architecture, size = request.param
    torch.set_num_threads(2)
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "store"))
    config = published_config(architecture, image_size=size)
    weights = make_random(build_sam2(config)).state_dict()
    torch.save({"model": weights}, tmp_path / "published.pt")
    import_file(tmp_path / "published.pt", f"{name}:mine", store=WeightStore())
    model: Any = create_model(f"{name}:mine", device="cpu", window="-600/1500")
    volume = make_volume(4, 160)
    theirs = stock(config, weights, volume, encode_once=True, **KEEP)
    return Loaded(model.open(volume), theirs)


@pytest.mark.slow
def test_published_configurations(loaded: Loaded) -> None:
    """First clicks, two objects, both directions, a correction, propagation after it."""
    predictor, theirs = loaded.predictor, loaded.theirs
    click, box = Click(1, 70, 80), Box(1, 20, 100, 50, 140)
    one, clicked = predictor.prompt(predictor.start(), 1, [click])
    other, boxed = predictor.prompt(predictor.start(), 1, [box])
    assert difference(clicked, theirs.clicks(1, [[80, 70]], [1], obj=1)) <= SAME
    assert difference(boxed, theirs.box(1, (100, 20, 139, 49), obj=2)) <= SAME

    one, ours = walk_all(predictor, one, 4)
    _, ours_other = walk_all(predictor, other, range(1, 3))
    forward, forward_other = theirs.walk_both(start_frame_idx=1)
    compare(ours, forward, range(2, 4))
    compare(ours_other, forward_other, range(2, 3))
    assert difference(ours[2], ours_other[2]) > 10 * SAME
    theirs.forget_tracked()
    compare(ours, theirs.walk(1, start_frame_idx=1, reverse=True), range(1))

    theirs.forget_tracked()
    theirs.walk(1, start_frame_idx=1)
    one, corrected = predictor.prompt(one, 3, [Click(3, 80, 60, positive=False)])
    assert difference(corrected, theirs.clicks(3, [[60, 80]], [0], obj=1)) <= SAME
    _, again = walk_all(predictor, one, 4)
    theirs.forget_tracked()
    compare(again, theirs.walk(1, start_frame_idx=1, max_frame_num_to_track=1), range(2, 3))
    assert difference(again[2], ours[2]) > SAME  # the correction is in memory
