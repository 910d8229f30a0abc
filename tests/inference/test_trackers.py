"""Every kind of predictor behaves alike behind `as_tracker`."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import PromptError
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference.propagation import propagate_object
from napari_lungfm.inference.trackers import (
    MemoryTracker,
    SliceTracker,
    VolumeTracker,
    as_tracker,
)
from napari_lungfm.models import create_model
from napari_lungfm.models.crops import SliceCrop
from napari_lungfm.models.prompts import (
    Box,
    Click,
    MaskPrompt,
    Prompt,
    Stop,
    by_slice,
    in_order,
    slice_range,
    to_dict,
)
from napari_lungfm.models.protocols import ObjectTracker, Prior, SlicePrediction

SHAPE = (8, 20, 20)
GRID = VolumeGeometry(SHAPE, (2.5, 1.0, 1.0))
EDIT = np.zeros(SHAPE[1:], bool)
EDIT[6:9, 4:9] = True


def _volume() -> Volume:
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    ball = (2.5 * (z - 4)) ** 2 + (y - 9.0) ** 2 + (x - 10.0) ** 2 <= 36.0
    hu = np.where(ball, 40, -850) + np.random.default_rng(0).normal(0, 20, SHAPE)
    return Volume(hu.astype(np.int16), GRID)


VOLUME = _volume()


class Telling:
    """Answers differently to whatever it is told."""

    def predict_slice(
        self, z: int, prompts: Sequence[Prompt], prior: Prior | None = None
    ) -> SlicePrediction:
        seen = prior is not None and (prior.z, int(prior.mask.sum()), prior.memory, prior.between)
        told = [to_dict(prompt) for prompt in in_order(prompts)]
        seed = zlib.crc32(repr((z, told, seen)).encode())
        random = np.random.default_rng(seed)
        if not prompts and random.random() < 0.2:
            return SlicePrediction(np.zeros(SHAPE[1:], bool))
        return SlicePrediction(random.random(SHAPE[1:]) < 0.3, memory=seed)


def _all_at_once(predictor: Any, prompts: Sequence[Prompt], **options: Any) -> dict[int, Any]:
    stream = propagate_object(predictor, prompts, GRID, **options)
    return {z: SliceCrop.of(found.mask) for z, found in stream if found.mask.any()}


def _step_by_step(tracker: Any, prompts: Sequence[Prompt]) -> dict[int, Any]:
    masks: dict[int, Any] = {}
    state = tracker.start(in_order(prompts))
    for z, group in by_slice(in_order(prompts)).items():
        state, found = tracker.prompt(state, z, group)
        masks[z] = SliceCrop.of(found.mask)
    for _, z, found in tracker.walk(state, slice_range(prompts, SHAPE[0])):
        masks[z] = SliceCrop.of(found.mask)
    return {z: crop for z, crop in masks.items() if crop is not None}


slices = st.integers(0, SHAPE[0] - 1)
any_prompts = st.lists(
    st.one_of(
        st.builds(Box, slices, st.just(3), st.just(4), st.just(15), st.just(16)),
        st.builds(Click, slices, st.just(9), st.just(10)),
        st.builds(Click, slices, st.just(9), st.just(15), st.just(False)),
        st.builds(Stop, slices),
        st.builds(MaskPrompt, slices, st.sampled_from([EDIT, np.zeros_like(EDIT)])),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("name", ["telling", "prompt-box", "prompt-ellipse"])
@given(prompts=any_prompts)
@settings(deadline=None)
def test_all_prompts_then_a_walk_is_propagation(name: str, prompts: list[Prompt]) -> None:
    predictor = Telling() if name == "telling" else create_model(name).open(VOLUME)
    try:
        expected = _all_at_once(predictor, prompts)
    except PromptError:
        return
    assert _step_by_step(as_tracker(predictor, GRID), prompts) == expected


@given(prompts=any_prompts)
@settings(max_examples=15, deadline=None)
def test_the_classical_method_step_by_step(prompts: list[Prompt]) -> None:
    predictor = create_model("classical").open(VOLUME)
    try:
        expected = _all_at_once(predictor, prompts)
    except PromptError:
        return
    assert _step_by_step(as_tracker(predictor, GRID), prompts) == expected


def test_each_kind_gets_its_tracker() -> None:
    assert isinstance(as_tracker(Telling(), GRID), SliceTracker)
    assert isinstance(as_tracker(create_model("prompt-box").open(VOLUME), GRID), VolumeTracker)
    native = as_tracker(Telling(), GRID)
    assert isinstance(native, ObjectTracker)
    assert isinstance(as_tracker(native, GRID), MemoryTracker)


class Watched(Telling):
    def __init__(self) -> None:
        self.priors: dict[int, Prior | None] = {}

    def predict_slice(
        self, z: int, prompts: Sequence[Prompt], prior: Prior | None = None
    ) -> SlicePrediction:
        self.priors[z] = prior
        mask = np.zeros(SHAPE[1:], bool)
        mask[5 : 8 + z, 5:15] = 2 <= z <= 6
        return SlicePrediction(mask, memory=("made on", z))


def _walked(tracker: Any, state: Any, **options: Any) -> Any:
    for latest, _, _ in tracker.walk(state, range(SHAPE[0]), **options):
        state = latest
    return state


def test_clicks_on_a_tracked_slice_correct_what_was_found_there() -> None:
    predictor = Watched()
    tracker = SliceTracker(predictor, SHAPE[1:])
    state, _ = tracker.prompt(tracker.start(), 4, [Box(4, 3, 4, 15, 16)])
    state = _walked(tracker, state)
    first, _ = tracker.prompt(state, 6, [Click(6, 9, 10)])
    prior = predictor.priors[6]
    assert prior is not None
    assert (prior.z, prior.memory, prior.mask.sum()) == (6, ("made on", 6), 9 * 10)
    assert prior.prompted_areas == {4: 70}
    # A second click starts from what the walk had found, not from the first correction.
    tracker.prompt(first, 6, [Click(6, 9, 10), Click(6, 12, 12, positive=False)])
    assert predictor.priors[6] is not None
    assert predictor.priors[6].memory == ("made on", 6)
    # A slice that no walk has reached has nothing to correct.
    tracker.prompt(tracker.start(), 6, [Click(6, 9, 10)])
    assert predictor.priors[6] is None


def test_clicks_where_a_walk_found_nothing_are_told_what_is_nearest() -> None:
    predictor = Watched()
    tracker = SliceTracker(predictor, SHAPE[1:])
    begun, _ = tracker.prompt(tracker.start(), 4, [Box(4, 3, 4, 15, 16)])
    walked = _walked(tracker, begun)  # finds slices 2 to 6
    tracker.prompt(walked, 7, [Click(7, 9, 10)])
    prior = predictor.priors[7]
    assert prior is not None
    assert (prior.z, prior.memory, prior.mask.sum()) == (6, ("made on", 6), 9 * 10)
    assert not prior.between
    # A box says by itself how large the object is, and so do prompts before any walk.
    tracker.prompt(walked, 7, [Box(7, 3, 4, 15, 16)])
    assert predictor.priors[7] is None
    tracker.prompt(begun, 7, [Click(7, 9, 10)])
    assert predictor.priors[7] is None


def test_corrected_slices_are_not_asked_again() -> None:
    predictor = Watched()
    tracker = SliceTracker(predictor, SHAPE[1:])
    state, _ = tracker.prompt(tracker.start(), 4, [Box(4, 3, 4, 15, 16)])
    state, _ = tracker.prompt(_walked(tracker, state), 6, [Click(6, 9, 10, positive=False)])
    predictor.priors.clear()
    found = {z: p.mask.sum() for _, z, p in tracker.walk(state, range(SHAPE[0]))}
    assert 6 not in predictor.priors
    assert found[6] == 90
    assert predictor.priors[7].z == 6


def test_a_part_leaves_the_rest_alone() -> None:
    tracker = SliceTracker(Watched(), SHAPE[1:])
    state, _ = tracker.prompt(tracker.start(), 4, [Box(4, 3, 4, 15, 16)])
    up = _walked(tracker, state, part=range(4, SHAPE[0]))
    assert sorted(up.tracked) == [5, 6]
    both = _walked(tracker, up, part=range(5))
    assert sorted(both.tracked) == [2, 3, 5, 6]


def test_ends_are_remembered_as_ends() -> None:
    predictor = Watched()
    tracker = SliceTracker(predictor, SHAPE[1:])
    state, _ = tracker.prompt(tracker.start(), 4, [Box(4, 3, 4, 15, 16)])
    state = _walked(tracker, state)
    shrunk = predictor.predict_slice
    predictor.predict_slice = (
        lambda z, *rest: (  # type: ignore[method-assign]
            SlicePrediction(np.zeros(SHAPE[1:], bool)) if z == 5 else shrunk(z, *rest)
        )
    )
    assert sorted(_walked(tracker, state).tracked) == [2, 3]
