from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import GeometryError, PromptError, UsageError
from napari_lungfm.geometry import Volume, VolumeGeometry, reorient
from napari_lungfm.inference import propagate_object, require_axial
from napari_lungfm.models.prompts import (
    Box,
    Click,
    MaskPrompt,
    Prompt,
    Stop,
    prompted_slices,
    slice_range,
)
from napari_lungfm.models.protocols import SlicePrediction, SlicePredictor, VolumePredictor

GRID = VolumeGeometry((12, 10, 10), (2.5, 1.0, 1.0))
BOX = (2, 2, 8, 8)
EDIT = np.zeros((10, 10), bool)
EDIT[1:3, 4:9] = True


def _present(*slices: int) -> np.ndarray:
    truth = np.zeros(GRID.shape, bool)
    truth[list(slices), 3:7, 3:7] = True
    return truth


def _run(predictor: Any, prompts: Sequence[Prompt], **options: Any) -> dict[int, np.ndarray]:
    masks: dict[int, np.ndarray] = {}
    for z, found in propagate_object(predictor, prompts, GRID, **options):
        assert z not in masks
        masks[z] = found.mask
    return masks


def test_it_walks_both_ways_to_the_ends(watched: Any) -> None:
    predictor = watched(_present(*range(3, 9)))
    assert isinstance(predictor, SlicePredictor)
    masks = _run(predictor, [Box(5, *BOX)])
    assert list(masks) == [5, 4, 3, 6, 7, 8]
    assert predictor.order == [5, 4, 3, 2, 6, 7, 8, 9]  # 2 and 9 were found empty
    priors = {z: prior for z, _, prior in predictor.asked}
    assert priors[5] is None
    assert (priors[3].z, priors[3].memory, priors[3].between) == (4, ("slice", 4), False)
    assert priors[8].prompted_areas == {5: 16}


def test_gaps_are_closed_from_both_sides(watched: Any) -> None:
    truth = _present(*range(2, 10))
    truth[9] = False
    truth[9, 2:8, 2:8] = True
    predictor = watched(truth)
    _run(predictor, [Box(2, *BOX), Box(9, *BOX), Stop(1), Stop(10)])
    assert predictor.order == [2, 9, 3, 8, 4, 7, 5, 6]
    prior = next(prior for z, _, prior in predictor.asked if z == 3)
    assert prior.between
    assert (prior.z, prior.memory) == (9, ("slice", 9))  # the larger of the two
    assert 16 <= prior.mask.sum() < 36


def test_a_walk_that_ends_in_a_gap_leaves_the_rest_to_the_other(watched: Any) -> None:
    predictor = watched(_present(2, 4, 5, 6, 7, 8))
    masks = _run(predictor, [Box(2, *BOX), Box(8, *BOX)])
    assert sorted(masks) == [2, 4, 5, 6, 7, 8]
    assert predictor.order[:3] == [2, 8, 3]
    assert predictor.order.count(3) == 1


def test_without_fill_only_prompted_slices_are_looked_at(watched: Any) -> None:
    predictor = watched(_present(*range(12)))
    assert sorted(_run(predictor, [Box(2, *BOX), Click(9, 4, 4)], fill=False)) == [2, 9]
    assert predictor.order == [2, 9]


def test_a_prompted_slice_comes_up_even_when_nothing_is_found(watched: Any) -> None:
    predictor = watched(_present(4, 5, 6, 7))
    masks = _run(predictor, [Box(5, *BOX), Box(8, *BOX)])
    assert not masks[8].any()
    assert sorted(masks) == [4, 5, 6, 7, 8]
    assert predictor.order.count(8) == 1
    assert _run(watched(_present()), [Box(5, *BOX)]).keys() == {5}


def test_prompts_of_other_slices_reach_the_model_on_the_way(watched: Any) -> None:
    predictor = watched(_present(*range(3, 9)))
    away = Click(7, 1, 1, positive=False)
    _run(predictor, [Box(5, *BOX), away])
    assert next(prompts for z, prompts, _ in predictor.asked if z == 7) == (away,)


def test_a_hand_edit_is_exact_and_carried_on(watched: Any) -> None:
    predictor = watched(_present(*range(3, 9)))
    masks = _run(predictor, [Box(5, *BOX), MaskPrompt(6, EDIT)])
    np.testing.assert_array_equal(masks[6], EDIT)
    prior = next(prior for z, _, prior in predictor.asked if z == 7)
    np.testing.assert_array_equal(prior.mask, EDIT)


def test_an_emptied_slice_is_a_hole_in_a_gap_and_an_end_beyond(watched: Any) -> None:
    predictor = watched(_present(*range(12)))
    nothing = np.zeros((10, 10), bool)
    masks = _run(
        predictor, [Box(3, *BOX), Box(7, *BOX), MaskPrompt(5, nothing), MaskPrompt(9, nothing)]
    )
    assert sorted(masks) == [0, 1, 2, 3, 4, 6, 7, 8]
    assert not {5, 9} & set(predictor.order)


@pytest.mark.parametrize(("limit", "expected"), [(2.4, [5]), (2.5, [4, 5, 6]), (1e9, range(12))])
def test_the_extent_is_limited_in_mm(watched: Any, limit: float, expected: Sequence[int]) -> None:
    masks = _run(watched(_present(*range(12))), [Box(5, *BOX)], max_extent_mm=limit)
    assert sorted(masks) == list(expected)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_senseless_limit_is_refused(watched: Any, limit: float) -> None:
    with pytest.raises(UsageError, match="positive number of mm"):
        propagate_object(watched(_present(5)), [Box(5, *BOX)], GRID, max_extent_mm=limit)


def test_bad_prompts_are_refused_before_any_work(watched: Any) -> None:
    predictor = watched(_present(5))
    with pytest.raises(PromptError, match="slices 0 to 11"):
        propagate_object(predictor, [Box(12, *BOX)], GRID)
    assert not predictor.asked


def test_it_can_be_left_at_any_slice(watched: Any) -> None:
    predictor = watched(_present(*range(12)))
    stream = propagate_object(predictor, [Box(5, *BOX)], GRID)
    assert [next(stream)[0], next(stream)[0]] == [5, 4]
    assert predictor.order == [5, 4]


class _Walker:
    """A `VolumePredictor` that fills every slice it may."""

    def propagate(
        self, prompts: Sequence[Prompt], slices: range, *, fill: bool
    ) -> Iterator[tuple[int, SlicePrediction]]:
        for z in slices if fill else prompted_slices(prompts):
            yield z, SlicePrediction(np.ones((10, 10), bool))


def test_volume_predictors_walk_themselves_but_hand_edits_stand() -> None:
    walker = _Walker()
    assert isinstance(walker, VolumePredictor)
    prompts = [Box(3, *BOX), MaskPrompt(5, EDIT), Box(7, *BOX), Stop(9)]
    hole = MaskPrompt(6, np.zeros((10, 10), bool))
    masks = _run(walker, [*prompts, hole], max_extent_mm=5.0)
    assert sorted(masks) == [1, 2, 3, 4, 5, 7, 8]
    np.testing.assert_array_equal(masks[5], EDIT)


slices = st.integers(0, 11)
any_prompts = st.lists(
    st.one_of(
        st.builds(Box, slices, *(st.just(v) for v in BOX)),
        st.builds(Click, slices, st.just(4), st.just(4)),
        st.builds(Click, slices, st.just(1), st.just(1), st.just(False)),
        st.builds(Stop, slices),
        st.builds(MaskPrompt, slices, st.sampled_from([EDIT, np.zeros((10, 10), bool)])),
    ),
    max_size=6,
)


@given(any_prompts, st.sets(slices), st.booleans(), st.randoms())
def test_for_any_prompts(given_: list[Prompt], present: set[int], fill: bool, random: Any) -> None:
    from_truth = _Answering(_present(*present))
    try:
        masks = _run(from_truth, given_, fill=fill)
    except PromptError:
        return
    prompted = prompted_slices(given_)
    allowed = slice_range(given_, 12)
    assert set(masks) <= (set(allowed) if fill else set(prompted))
    assert set(prompted) <= set(masks)
    assert tuple(sorted(list(masks)[: len(prompted)])) == prompted
    for prompt in given_:
        if isinstance(prompt, MaskPrompt) and prompt.z in masks:
            np.testing.assert_array_equal(masks[prompt.z], prompt.mask)
    shuffled = list(given_)
    random.shuffle(shuffled)
    again = _run(from_truth, shuffled, fill=fill)
    assert list(again) == list(masks)
    assert all(np.array_equal(again[z], masks[z]) for z in masks)


class _Answering:
    def __init__(self, truth: np.ndarray) -> None:
        self.truth = truth

    def predict_slice(
        self, z: int, prompts: Sequence[Prompt], prior: Any = None
    ) -> SlicePrediction:
        return SlicePrediction(self.truth[z].copy())


@pytest.mark.parametrize("codes", ["SPL", "IAR", "SLP", "IRP"])
def test_any_axial_order_is_taken(codes: str) -> None:
    volume = reorient(Volume(np.zeros(GRID.shape, np.int16), GRID), codes)
    require_axial(volume.geometry)


@pytest.mark.parametrize(("codes", "axis"), [("LPS", 2), ("PSL", 1), ("RIA", 1)])
def test_other_orders_are_refused_saying_which_axis_is_axial(codes: str, axis: int) -> None:
    volume = reorient(Volume(np.zeros(GRID.shape, np.int16), GRID), codes)
    with pytest.raises(GeometryError, match=f"along array axis {axis} of this volume.*{codes}"):
        require_axial(volume.geometry)
