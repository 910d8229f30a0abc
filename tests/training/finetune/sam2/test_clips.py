"""What a network sees of a clip, and what it is prompted with."""

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from napari_lungfm._core.seeding import generator
from napari_lungfm.models.foundation.sam2_engine import prepare_images
from napari_lungfm.models.foundation.sam2_prompts import FIRST_CORNER, LAST_CORNER, POSITIVE
from napari_lungfm.preprocessing.windowing import Window, to_uint8
from napari_lungfm.training.finetune.sam2.clips import (
    ClipPreparation,
    PreparedClip,
    from_marked,
    grey_slices,
    network_input,
    prompt_of,
    truth_slices,
)
from napari_lungfm.training.finetune.samples import FineTuneClip

WINDOW = Window(-600.0, 1500.0)


def test_slices_are_those_of_the_model_in_use(clip_of: Callable[..., FineTuneClip]) -> None:
    clip = clip_of(3, side=50)
    wanted = prepare_images([to_uint8(plane, WINDOW) for plane in clip.image], 64)
    found = network_input(grey_slices(clip.image, WINDOW, 64))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_no_structure_is_lost_for_being_small() -> None:
    mask = np.zeros((2, 512, 512), dtype=bool)
    mask[0, 300:302, 100] = True
    seen = truth_slices(mask, 64)
    assert seen.shape == (2, 64, 64)
    assert seen[0].nonzero().tolist() == [[37, 12]]
    assert not seen[1].any()


def numbered(marked: list[int], count: int) -> PreparedClip:
    truth = torch.zeros((count, 4, 4), dtype=torch.bool)
    truth[marked] = True
    grey = torch.arange(count, dtype=torch.uint8)[:, None, None].expand(-1, 4, 4)
    return PreparedClip(grey, truth, True, 1, "a", tuple(range(10, 10 + count)))


@pytest.mark.parametrize(
    ("marked", "upwards", "wanted"),
    [
        ([0, 1], True, [10, 11, 12, 13]),
        ([2, 3], True, [13, 12, 11, 10]),
        ([0, 3], True, [10, 11, 12, 13]),
        ([0, 3], False, [13, 12, 11, 10]),
        ([1], True, [11, 12, 13, 13]),
        ([2], True, [12, 11, 10, 10]),
    ],
)
def test_clips_begin_with_the_structure(
    marked: list[int], upwards: bool, wanted: list[int]
) -> None:
    begun = from_marked(numbered(marked, 4), upwards=upwards)
    assert list(begun.slices) == wanted
    assert begun.truth[0].any()
    assert begun.grey[:, 0, 0].tolist() == [place - 10 for place in wanted]


def test_prompts_are_on_the_structure() -> None:
    truth = torch.zeros((32, 32), dtype=torch.bool)
    truth[4:9, 10:21] = True
    box = prompt_of(truth, boxed=True)
    assert box["point_coords"].shape == (1, 2, 2)
    assert box["point_labels"].tolist() == [[FIRST_CORNER, LAST_CORNER]]
    (x0, y0), (x1, y1) = box["point_coords"][0].tolist()
    assert (round(x0), round(y0), round(x1), round(y1)) in {(10, 4, 20, 8), (10, 4, 21, 9)}
    for number in range(20):
        click = prompt_of(truth, boxed=False, rng=generator("click", number))
        assert click["point_labels"].tolist() == [[POSITIVE]]
        x, y = click["point_coords"][0, 0].tolist()
        assert truth[int(y), int(x)]
    x, y = prompt_of(truth, boxed=False)["point_coords"][0, 0].tolist()
    assert int(y) == 6


def test_preparation_is_a_function_of_the_generator(clip_of: Callable[..., FineTuneClip]) -> None:
    prepare = ClipPreparation(size=64, window=WINDOW, prompts="mixed", begin_marked=True)
    again = pickle.loads(pickle.dumps(prepare))
    kinds = set()
    for number in range(12):
        one = prepare(clip_of(3), generator("a", number))
        other = again(clip_of(3), generator("a", number))
        assert (one.seed, one.boxed, one.slices) == (other.seed, other.boxed, other.slices)
        assert torch.equal(one.grey, other.grey)
        kinds.add(one.boxed)
    assert kinds == {True, False}


@pytest.mark.parametrize(("prompts", "boxed"), [("box", True), ("point", False)])
def test_the_kind_of_prompts_is_kept(
    prompts: str, boxed: bool, clip_of: Callable[..., FineTuneClip]
) -> None:
    prepare = ClipPreparation(size=64, window=WINDOW, prompts=prompts, begin_marked=False)
    assert {prepare(clip_of(2), generator("a", n)).boxed for n in range(8)} == {boxed}
