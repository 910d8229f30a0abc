import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_lungfm._core.exceptions import PromptError
from napari_lungfm.models.prompts import (
    Box,
    Click,
    MaskPrompt,
    Prompt,
    Stop,
    by_slice,
    check_prompts,
    from_dict,
    in_order,
    is_conditioning,
    prompted_slices,
    slice_range,
    to_dict,
)

SHAPE = (6, 5, 7)
FULL, EMPTY = np.ones((5, 7), bool), np.zeros((5, 7), bool)

slices = st.integers(0, SHAPE[0] - 1)
boxes = st.builds(
    lambda z, y0, x0, h, w: Box(z, y0, x0, min(5, y0 + h), min(7, x0 + w)),
    slices,
    st.integers(0, 4),
    st.integers(0, 6),
    st.integers(1, 5),
    st.integers(1, 7),
)
clicks = st.builds(Click, slices, st.integers(0, 4), st.integers(0, 6), st.booleans())
masks = st.builds(MaskPrompt, slices, hnp.arrays(bool, (5, 7)))
prompts = st.one_of(boxes, clicks, masks, st.builds(Stop, slices))


@given(prompts)
def test_a_prompt_survives_json(prompt: Prompt) -> None:
    assert from_dict(json.loads(json.dumps(to_dict(prompt)))) == prompt


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_masks_of_any_shape_survive_json(mask: np.ndarray) -> None:
    back = from_dict(json.loads(json.dumps(to_dict(MaskPrompt(3, mask)))))
    assert isinstance(back, MaskPrompt)
    assert back.mask.dtype == bool
    np.testing.assert_array_equal(back.mask, mask)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "scribble", "z": 1},
        {"kind": "box", "z": 1, "box": [1, 2, 3]},
        {"kind": "click", "z": 1, "point": [1, 2]},
        {"kind": "mask", "z": 1, "shape": [2, 2], "runs": [1, 1]},
    ],
)
def test_values_that_are_no_prompt_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match="prompt"):
        from_dict(values)


@given(st.lists(prompts, max_size=6), st.randoms())
def test_the_canonical_order_does_not_depend_on_the_given_one(
    given_: list[Prompt], random: Any
) -> None:
    shuffled = list(given_)
    random.shuffle(shuffled)
    assert in_order(shuffled) == in_order(given_)
    assert sorted(map(hash, in_order(given_))) == sorted(map(hash, given_))


def test_box_around_is_tight() -> None:
    mask = EMPTY.copy()
    mask[1:4, 2] = mask[3, 5] = True
    assert Box.around(mask, 4) == Box(4, 1, 2, 4, 6)
    with pytest.raises(PromptError, match="empty mask of slice 4"):
        Box.around(EMPTY, 4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([Box(6, 0, 0, 1, 1)], "slices 0 to 5"),
        ([Box(0, 2, 0, 2, 3)], "is empty"),
        ([Box(0, 0, 0, 6, 3)], "reaches outside"),
        ([Click(0, 5, 0)], "outside the slice"),
        ([MaskPrompt(0, np.ones((7, 5), bool))], "has shape"),
        ([Click(0, 1, 1), Click(0, 1, 1, positive=False)], "positive and a negative"),
        ([Box(2, 0, 0, 1, 1), Stop(2)], "slice 2 has a stop"),
        ([Box(2, 0, 0, 1, 1), MaskPrompt(2, EMPTY)], "slice 2 has an empty mask"),
        ([MaskPrompt(2, FULL), MaskPrompt(2, np.eye(5, 7, dtype=bool))], "two different masks"),
        ([Click(0, 1, 1, positive=False), Stop(3), MaskPrompt(1, EMPTY)], "where the object is"),
        ([], "where the object is"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(bad: list[Prompt], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        check_prompts(bad, SHAPE)


def test_the_same_mask_twice_is_no_contradiction() -> None:
    check_prompts([MaskPrompt(2, FULL), MaskPrompt(2, FULL.copy())], SHAPE)


def test_stops_and_empty_masks_limit_the_slices() -> None:
    box = Box(3, 0, 0, 2, 2)
    assert slice_range([box], 6) == range(6)
    assert slice_range([box, Stop(0), Stop(1)], 6) == range(2, 6)
    assert slice_range([box, MaskPrompt(5, EMPTY)], 6) == range(5)
    gap = [box, Box(1, 0, 0, 2, 2)]
    assert slice_range([*gap, MaskPrompt(2, EMPTY)], 6) == range(6)  # a hole, not an end
    with pytest.raises(PromptError, match="between the prompted slices 1 and 3"):
        slice_range([*gap, Stop(2)], 6)


def test_what_says_where_the_object_is() -> None:
    group = [
        Click(4, 0, 0),
        Click(1, 0, 0, positive=False),
        MaskPrompt(2, EMPTY),
        MaskPrompt(3, FULL),
    ]
    assert [is_conditioning(prompt) for prompt in group] == [True, False, False, True]
    assert prompted_slices(group) == (3, 4)
    assert list(by_slice([*group, Stop(5)])) == [1, 2, 3, 4]
