"""The validation of Medical SAM 2's code on models whose answers are known."""

import math

import numpy as np
import pytest

from napari_lungfm._core.exceptions import GeometryError, UsageError
from napari_lungfm._core.seeding import generator
from napari_lungfm.evaluation import parse_protocol
from napari_lungfm.evaluation.prompt_protocols import is_zhu_validation
from napari_lungfm.evaluation.simulation import simulate
from napari_lungfm.evaluation.zhu_validation import (
    LOGIT_THRESHOLDS,
    evaluated_slices,
    score_slices,
    validate,
    zhu_prompts,
)
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Volume, VolumeGeometry
from napari_lungfm.models.prompts import Box, Click, MaskPrompt
from napari_lungfm.models.protocols import SlicePrediction
from napari_lungfm.models.registry import create_model

GRID = VolumeGeometry((44, 16, 20), (3.0, 1.0, 1.0))
BOXES, POINTS = parse_protocol("zhu-validation"), parse_protocol("zhu-validation-points")


def labels(tumour, first=2, last=41):
    """A lung from ``first`` to ``last``, 40 slices, and a tumour on the given ones."""
    array = np.zeros(GRID.shape, np.uint8)
    array[first : last + 1, 1:3, 1:3] = 1
    array[list(tumour), 6:12, 6:14] = 3
    return LabelMap(array, GRID, LUNG_LABELS)


def image():
    return Volume(np.zeros(GRID.shape, np.int16), GRID)


class HalfModel:
    """Finds the left half of the tumour where the reference has it: IoU 1/2, Dice 2/3.

    It keeps what it was asked. ``everywhere`` lets it find it on all slices.
    """

    name = "half"

    def __init__(self, truth, *, with_logits=True, everywhere=False):
        self.truth, self.with_logits, self.everywhere = truth, with_logits, everywhere
        self.asked = []

    def open(self, volume):
        return self

    def predict_slice(self, z, prompts, prior=None):
        self.asked.append((z, tuple(prompts), prior))
        mask = np.zeros(GRID.shape[1:], bool)
        if self.everywhere or self.truth[z].any():
            mask[6:12, 6:10] = True
        logits = np.where(mask, 6.0, -6.0).astype(np.float32) if self.with_logits else None
        return SlicePrediction(mask, 0.9, logits)


def run(model, reference, protocol=BOXES, seed=0):
    truth = reference.mask(3)
    slices = evaluated_slices(reference)
    return validate(model, image(), truth, slices, protocol, generator(seed))


# ---------------------------------------------------------------------- which slices
def test_the_first_quarter_of_what_any_structure_labels():
    assert evaluated_slices(labels([8, 9])) == range(2, 12)  # 40 slices, the lung's
    assert evaluated_slices(labels([0], 2, 41)) == range(10)  # 42 slices, the tumour's first
    assert evaluated_slices(labels([10], 10, 12)) == range(10, 10)  # three: a quarter is none
    assert evaluated_slices(LabelMap(np.zeros(GRID.shape, np.uint8), GRID)) == range(0)


def test_every_second_slice_is_prompted_also_where_nothing_is():
    reference = labels(range(5, 20))
    prompts = zhu_prompts(BOXES, reference.mask(3), range(2, 12), generator(0))
    assert [p.z for p in prompts] == [2, 4, 6, 8, 10]
    assert [type(p) for p in prompts] == [MaskPrompt, MaskPrompt, Box, Box, Box]
    assert not any(p.mask.any() for p in prompts[:2])
    assert prompts[2] == Box(6, 6, 6, 12, 14)


def test_clicks_lie_inside_and_depend_on_the_seed():
    truth = labels(range(5, 20)).mask(3)
    drawn = [zhu_prompts(POINTS, truth, range(2, 12), generator(seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    clicks = [p for p in drawn[0] if isinstance(p, Click)]
    assert [p.z for p in clicks] == [6, 8, 10]
    assert all(p.positive and truth[p.z, p.y, p.x] for p in clicks)


# ---------------------------------------------------------------------- scores
@pytest.mark.parametrize("n_present", [2, 4, 6, 10])
@pytest.mark.parametrize("with_logits", [True, False])
def test_a_fraction_f_scored_s_gives_one_minus_f_plus_f_times_s(n_present, with_logits):
    """The tumour begins late in the ten evaluated slices: f = n/10, s = 1/2 (Dice 2/3)."""
    reference = labels(range(12 - n_present, 20))
    done = run(HalfModel(reference.mask(3), with_logits=with_logits), reference)
    f = n_present / 10
    scores = done.scores
    assert (len(scores.z), scores.n_present) == (10, n_present)
    assert scores.share_present == pytest.approx(f)
    assert scores.iou == pytest.approx((1 - f) + f * 0.5)
    assert scores.dice == pytest.approx((1 - f) + f * 2 / 3)
    assert (scores.iou_present, scores.dice_present) == pytest.approx((0.5, 2 / 3))
    assert scores.iou_absent == 1.0 or n_present == 10
    assert done.with_logits is with_logits
    assert np.flatnonzero(done.mask.any(axis=(1, 2))).tolist() == list(range(12 - n_present, 12))


def test_an_empty_prediction_has_one_minus_f():
    truth = labels(range(9, 20)).mask(3)
    scores = score_slices({}, truth, range(2, 12))
    assert scores.iou == scores.dice == pytest.approx(0.7)
    assert scores.iou_present == 0.0


def test_what_is_found_where_nothing_is_counts_as_nothing():
    truth = labels(range(9, 20)).mask(3)
    everywhere = {z: SlicePrediction(truth[10]) for z in range(2, 12)}
    scores = score_slices(everywhere, truth, range(2, 12))
    assert scores.iou == pytest.approx(0.3)
    assert (scores.iou_absent, scores.iou_present) == (0.0, 1.0)


def test_scores_are_means_over_thresholds_of_the_logits():
    """Logits of 0.4 outside pass two of five thresholds, whatever the model's own mask says."""
    reference = np.zeros((1, 4, 10), bool)
    reference[0, :, :5] = True
    logits = np.where(reference[0], 2.0, 0.4).astype(np.float32)
    scores = score_slices({0: SlicePrediction(logits > 0, 1.0, logits)}, reference, range(1))
    assert LOGIT_THRESHOLDS == (0.1, 0.3, 0.5, 0.7, 0.9)
    assert scores.iou == pytest.approx((2 * 0.5 + 3 * 1.0) / 5)
    assert scores.dice == pytest.approx((2 * 2 / 3 + 3 * 1.0) / 5)
    mask_only = score_slices({0: SlicePrediction(logits > 0)}, reference, range(1))
    assert mask_only.iou == pytest.approx(0.5)


def test_a_structure_on_none_of_the_slices_is_undefined():
    reference = labels(range(30, 34))
    done = run(HalfModel(reference.mask(3), everywhere=True), reference)
    assert math.isnan(done.scores.iou)
    assert math.isnan(done.scores.iou_present)
    assert done.scores.share_present == 0
    assert done.with_logits is None  # nothing was asked
    assert len(done.prompts) == 5
    short = labels([10], 10, 12)
    scores = run(HalfModel(short.mask(3)), short).scores
    assert scores.z == ()
    assert math.isnan(scores.iou)
    assert math.isnan(scores.share_present)


# ---------------------------------------------------------------------- tracking
def test_between_slices_are_tracked_forward_only():
    """The model would find it everywhere: before the first prompted slice nothing is kept."""
    reference = labels(range(5, 9))  # prompted on 6 and 8, not on 2, 4 and 10
    model = HalfModel(reference.mask(3), everywhere=True)
    done = run(model, reference)
    found = np.flatnonzero(done.mask.any(axis=(1, 2))).tolist()
    assert found == [6, 7, 8, 9]  # not 5, which only 6 could reach; 9 goes on from 8
    iou = dict(zip(done.scores.z, done.scores.slice_iou, strict=True))
    assert (iou[5], iou[7], iou[9]) == (0.0, 0.5, 0.0)
    assert {z: iou[z] for z in (2, 3, 4, 10, 11)} == dict.fromkeys((2, 3, 4, 10, 11), 1.0)


def test_a_structure_that_no_prompted_slice_has_is_not_found():
    reference = labels([5])
    model = HalfModel(reference.mask(3), everywhere=True)
    done = run(model, reference)
    assert model.asked == []
    assert not done.mask.any()
    assert done.scores.iou == pytest.approx(0.9)


@pytest.mark.parametrize("protocol", [BOXES, POINTS])
@pytest.mark.parametrize("model", ["prompt-box", "prompt-ellipse", "classical"])
def test_every_model_can_be_validated(model, protocol):
    """Holes, ends and a quarter that begins within the structure, on models without logits."""
    reference = labels([2, 3, 4, 5, 8, 9, 10, 11, 12])
    hu = np.where(reference.mask(3), 30, -800).astype(np.int16)
    done = validate(
        create_model(model),
        Volume(hu, GRID),
        reference.mask(3),
        evaluated_slices(reference),
        protocol,
        generator(0),
    )
    found = set(np.flatnonzero(done.mask.any(axis=(1, 2))).tolist())
    assert {2, 4, 8, 10} <= found <= {2, 3, 4, 5, 8, 9, 10, 11}
    assert done.with_logits is False
    assert done.scores.iou > 0.2  # seven of the ten slices carry it
    if model == "prompt-box" and protocol is BOXES:
        assert done.scores.iou_present == pytest.approx(1.0)


# ---------------------------------------------------------------------- names
def test_its_names_are_known_and_take_no_modifiers():
    assert is_zhu_validation("zhu-validation")
    assert is_zhu_validation("zhu-validation-points")
    assert not is_zhu_validation("box-one")
    for name in ("zhu-validation+jitter-3", "zhu-validation-points+corrections-2"):
        with pytest.raises(UsageError, match="takes no modifiers"):
            parse_protocol(name)


def test_it_is_never_taken_for_one_of_ours():
    reference = labels(range(5, 20)).mask(3)
    with pytest.raises(UsageError, match="a validation of its own"):
        simulate(create_model("prompt-box"), image(), reference, BOXES, generator(0))
    with pytest.raises(UsageError, match="no validation"):
        zhu_prompts(parse_protocol("box-one"), reference, range(10), generator(0))


def test_slices_must_be_axial():
    reference = labels(range(5, 20))
    turned = VolumeGeometry(
        GRID.shape, GRID.spacing, direction=((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    )
    volume = Volume(np.zeros(GRID.shape, np.int16), turned)
    with pytest.raises(GeometryError, match="axial"):
        validate(
            create_model("prompt-box"), volume, reference.mask(3), range(4), BOXES, generator(0)
        )
