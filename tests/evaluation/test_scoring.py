import json
import math
import pickle
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_lungfm._core.exceptions import DataError, GeometryError
from napari_lungfm.evaluation.scoring import (
    AVERAGED_FIELDS,
    StructureScores,
    aggregate_scores,
    score_label_maps,
    score_structure,
    score_values,
)
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Structure, VolumeGeometry, reorient
from napari_lungfm.metrics import count_overlap, count_overlap_per_slice, surface_scores

GRID = VolumeGeometry((12, 30, 32), (3.0, 0.8, 0.9), (-10.0, 5.0, 40.0))


def ball(centre, radius_mm, grid=GRID):
    steps = [
        (i - c) * s for i, c, s in zip(np.indices(grid.shape), centre, grid.spacing, strict=True)
    ]
    return sum(s * s for s in steps) <= radius_mm**2


def chest(shift=0):
    array = np.zeros(GRID.shape, np.uint8)
    array[ball((6, 15, 8 + shift), 7)] = 1
    array[ball((6, 15, 23 + shift), 6)] = 2
    array[ball((5, 14, 9 + shift), 3)] = 3
    return LabelMap(array, GRID, LUNG_LABELS)


def same(one, other):
    return json.dumps(one.to_dict()) == json.dumps(other.to_dict())


def test_all_scores_of_a_known_pair():
    reference, prediction = np.zeros((2, *GRID.shape), bool)
    reference[3:7, 10:20, 10:20] = True
    prediction[5:10, 10:20, 10:20] = True
    prediction[1, 10, 10] = True
    scores = score_structure(prediction, reference, GRID)
    voxel = 3.0 * 0.8 * 0.9 / 1000
    assert scores.dice == pytest.approx(400 / 901)
    assert scores.iou == pytest.approx(200 / 701)
    assert scores.volume_ml == pytest.approx(501 * voxel)
    assert scores.reference_volume_ml == pytest.approx(400 * voxel)
    assert scores.volume_difference_ml == pytest.approx(101 * voxel)
    assert (scores.slices_beyond_low, scores.slices_beyond_high) == (1, 3)
    assert scores.volume_beyond_ml == pytest.approx(301 * voxel)
    assert scores.n_reference_slices == 4
    assert scores.slice_dice == {1: 0, 3: 0, 4: 0, 5: 1, 6: 1, 7: 0, 8: 0, 9: 0}
    assert scores.slice_dice_mean == scores.slice_iou_mean == 0.25
    assert scores.hd95_mm == 9.0


@given(
    *[hnp.arrays(bool, (4, 5, 6), fill=st.sampled_from([True, False])) for _ in range(2)],
    st.sampled_from([(1.0, 1.0, 1.0), (3.0, 0.7, 0.9)]),
)
@settings(max_examples=60, deadline=None)
def test_cropping_to_the_masks_changes_no_score(prediction, reference, spacing):
    scores = score_structure(prediction, reference, VolumeGeometry((4, 5, 6), spacing))
    counts = count_overlap(prediction, reference)
    surface = surface_scores(prediction, reference, spacing)
    per_slice = count_overlap_per_slice(prediction, reference)
    expected = {
        "dice": counts.dice,
        "iou": counts.iou,
        "hd95_mm": surface.hd95_mm,
        "nsd_1mm": surface.nsd[1.0],
        "nsd_2mm": surface.nsd[2.0],
        "slice_dice_mean": per_slice.mean_dice,
        "slice_iou_mean": per_slice.mean_iou,
    }
    assert set(expected) == set(AVERAGED_FIELDS)
    for name, value in expected.items():
        assert getattr(scores, name) == pytest.approx(value, nan_ok=True)
    dice = {z: d for z, d in enumerate(per_slice.dice.tolist()) if not math.isnan(d)}
    assert scores.slice_dice == dice


def test_a_failed_method_scores_as_an_empty_prediction():
    reference = chest()
    for structure, scores in score_label_maps(None, reference).items():
        empty = score_structure(np.zeros(GRID.shape, bool), reference.mask(int(structure)), GRID)
        assert same(scores, empty)
        assert scores.dice == scores.iou == scores.nsd_1mm == scores.slice_dice_mean == 0
        assert math.isnan(scores.hd95_mm)
        assert scores.volume_ml == 0
        assert scores.volume_difference_ml == -scores.reference_volume_ml < 0


def test_both_empty_is_undefined():
    nothing = np.zeros(GRID.shape, bool)
    scores = score_structure(nothing, nothing, GRID)
    for name in (*AVERAGED_FIELDS, "slices_beyond_low", "slices_beyond_high"):
        assert math.isnan(getattr(scores, name)), name
    assert scores.volume_ml == scores.reference_volume_ml == scores.volume_difference_ml == 0
    assert scores.n_reference_slices == 0
    assert scores.slice_dice == {}


@pytest.mark.parametrize("codes", ["SPL", "IAR", "LSP", "PRI"])
def test_orientation_of_either_file_does_not_matter(codes):
    reference, prediction = chest(), chest(shift=1)
    expected = score_label_maps(prediction, reference)
    for pair in (
        (reorient(prediction, codes), reference),
        (prediction, reorient(reference, codes)),
    ):
        turned = score_label_maps(*pair)
        for structure in Structure:
            for name in ("dice", "hd95_mm", "nsd_1mm", "slice_dice_mean", "volume_ml"):
                assert getattr(turned[structure], name) == pytest.approx(
                    getattr(expected[structure], name)
                )
            assert turned[structure].slice_dice == expected[structure].slice_dice


def test_a_cropped_prediction_is_put_in_its_place():
    reference, prediction = chest(), chest(shift=1)
    region = (slice(2, 11), slice(3, 28), slice(0, 32))
    assert prediction.crop(region).array.any()
    whole = prediction.array.copy()
    outside = np.ones(whole.shape, bool)
    outside[region] = False
    whole[outside] = 0
    for structure, scores in score_label_maps(prediction.crop(region), reference).items():
        expected = score_label_maps(LabelMap(whole, GRID, LUNG_LABELS), reference)[structure]
        assert same(scores, expected)


def test_structures_are_found_by_name_first():
    reference = chest()
    # lungmask's own order, and a tumour that is label 1.
    swapped = np.array([0, 2, 1, 3], np.uint8)[reference.array]
    named = LabelMap(swapped, GRID, {1: "right lung", 2: "left lung", 3: "Tumor"})
    assert all(s.dice == 1 for s in score_label_maps(named, reference).values())
    only = LabelMap.from_mask(reference.mask(3), GRID, label=1, name="tumour")
    scores = score_label_maps(only, reference)
    assert scores[Structure.TUMOUR].dice == 1
    assert scores[Structure.LEFT_LUNG].volume_ml == 0  # label 1 is the tumour here
    nameless = LabelMap(reference.array, GRID)
    assert all(s.dice == 1 for s in score_label_maps(nameless, reference).values())


def test_values_may_differ_between_the_two():
    reference = chest()
    one = LabelMap.from_mask(reference.mask(3), GRID, label=7, name="gtv")
    scores = score_values(one, reference, {"lesion": (7, 3), "no lung": (None, 1)})
    assert list(scores) == ["lesion", "no lung"]
    assert scores["lesion"].dice == 1
    assert (scores["no lung"].dice, scores["no lung"].volume_ml) == (0, 0)
    turned = score_values(reorient(one, "IAR"), reference, {"lesion": (7, 3)})
    assert same(turned["lesion"], scores["lesion"])


def test_only_what_was_asked_for_is_scored():
    scores = score_label_maps(chest(), chest(), [Structure.TUMOUR])
    assert list(scores) == [Structure.TUMOUR]
    assert aggregate_scores(scores) == {}


def test_lungs_and_avg():
    reference = chest()
    scores = score_label_maps(chest(shift=1), reference)
    left, right, tumour = (scores[s] for s in Structure)
    assert len({left.dice, right.dice, tumour.dice}) == 3
    both = aggregate_scores(scores)
    for name in AVERAGED_FIELDS:
        a, b, c = (getattr(s, name) for s in (left, right, tumour))
        assert both["lungs"][name] == pytest.approx((a + b) / 2)
        assert both["avg"][name] == pytest.approx((a + b + c) / 3)
    lungs = aggregate_scores({s: scores[s] for s in (Structure.LEFT_LUNG, Structure.RIGHT_LUNG)})
    assert lungs == {"lungs": both["lungs"]}


def test_an_undefined_structure_makes_the_average_undefined():
    reference = chest()
    without = LabelMap(np.where(reference.array == 2, 0, reference.array), GRID, LUNG_LABELS)
    both = aggregate_scores(score_label_maps(without, without))
    assert math.isnan(both["lungs"]["dice"])
    assert math.isnan(both["avg"]["dice"])


def test_to_dict_is_json_and_comes_back():
    nothing = np.zeros(GRID.shape, bool)
    for prediction in (ball((6, 15, 12), 6), nothing):
        scores = score_structure(prediction, ball((6, 15, 13), 6), GRID)
        text = json.dumps(scores.to_dict(), allow_nan=False)
        back = StructureScores.from_dict(json.loads(text))
        for field in fields(scores):
            value, expected = getattr(back, field.name), getattr(scores, field.name)
            np.testing.assert_equal(value, expected)
    undefined = score_structure(nothing, nothing, GRID).to_dict()
    assert undefined["dice"] is None
    assert undefined["slices_beyond_low"] is None


def test_scores_travel_between_processes():
    scores = score_structure(ball((6, 15, 12), 6), ball((6, 15, 13), 6), GRID)
    assert pickle.loads(pickle.dumps(scores)) == scores


def test_masks_that_do_not_fit_are_refused():
    mask = ball((6, 15, 12), 6)
    with pytest.raises(GeometryError, match="the prediction has shape"):
        score_structure(mask[1:], mask, GRID)
    with pytest.raises(GeometryError, match="the reference has shape"):
        score_structure(mask, mask[1:], GRID)
    with pytest.raises(DataError, match="boolean"):
        score_structure(mask.astype(np.uint8), mask, GRID)
    shifted = VolumeGeometry(GRID.shape, GRID.spacing, (-10.4, 5.0, 40.0))
    with pytest.raises(GeometryError, match="voxel grid"):
        score_label_maps(LabelMap(chest().array, shifted), chest())
