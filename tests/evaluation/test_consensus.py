import math
from itertools import product

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_lungfm._core.exceptions import DataError, GeometryError, UsageError
from napari_lungfm.evaluation.consensus import (
    MARGIN,
    consensus,
    disagreement,
    pairwise_agreement,
)
from napari_lungfm.metrics import count_overlap, surface_scores

SHAPE = (4, 6, 5)
MASKS = st.lists(hnp.arrays(bool, SHAPE), min_size=2, max_size=5).map(
    lambda masks: {f"reader {i}": mask for i, mask in enumerate(masks)}
)


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_majority_and_disagreement_are_counts_of_votes(masks):
    votes = np.sum(list(masks.values()), axis=0)
    np.testing.assert_array_equal(consensus(masks, "majority").mask, 2 * votes > len(masks))
    np.testing.assert_array_equal(disagreement(masks), np.minimum(votes, len(masks) - votes))


@pytest.fixture
def readers():
    """A ball as three careful readers see it, and one who takes far too much."""
    random = np.random.default_rng(0)
    z, y, x = np.ogrid[:30, :60, :60]
    away = np.sqrt((2 * (z - 15)) ** 2 + (y - 30) ** 2 + (x - 30) ** 2)
    masks = {f"careful {i}": away < 12 + random.normal(0, 0.7, away.shape) for i in range(3)}
    return masks | {"careless": away < 18}, away < 12


def test_staple_knows_whom_to_trust(readers):
    masks, true = readers
    found = consensus(masks)
    scores = {name: count_overlap(mask, true).dice for name, mask in masks.items()}
    assert count_overlap(found.mask, true).dice > max(0.9, scores["careless"] + 0.2)
    assert found.specificity["careless"] < min(
        found.specificity[name] for name in masks if name != "careless"
    )
    assert set(found.sensitivity) == set(masks)
    assert found.mask.sum() < masks["careless"].sum()


def test_staple_is_that_of_simpleitk_around_the_masks(readers):
    masks, _ = readers
    z, y, x = np.nonzero(masks["careless"])
    region = tuple(slice(a.min() - MARGIN, a.max() + 1 + MARGIN) for a in (z, y, x))
    images = [SimpleITK.GetImageFromArray(m[region].astype(np.uint8)) for m in masks.values()]
    probability = SimpleITK.GetArrayFromImage(SimpleITK.STAPLE(images, 1.0))
    expected = np.zeros(masks["careless"].shape, bool)
    expected[region] = probability >= 0.5
    np.testing.assert_array_equal(consensus(masks, "staple").mask, expected)


@pytest.mark.parametrize("method", ["staple", "majority"])
def test_simple_cases(method, readers):
    _, ball = readers
    nothing = np.zeros_like(ball)
    assert not consensus({"a": nothing, "b": nothing}, method).mask.any()
    same = consensus({"a": ball, "b": ball.copy(), "c": ball.copy()}, method)
    np.testing.assert_array_equal(same.mask, ball)
    full = np.ones((2, 3, 3), bool)
    assert consensus({"a": full, "b": full}, method).mask.all()
    # The order of the masks does not matter.
    shifted = np.roll(ball, 2, axis=1)
    masks = {"a": ball, "b": shifted, "c": ball | shifted}
    turned = dict(reversed(masks.items()))
    np.testing.assert_array_equal(consensus(masks, method).mask, consensus(turned, method).mask)


def test_a_reader_who_saw_nothing_does_not_break_staple(readers):
    masks, true = readers
    masks["blind"] = np.zeros_like(true)
    found = consensus(masks)
    assert found.sensitivity["blind"] == pytest.approx(0, abs=0.05)
    assert count_overlap(found.mask, true).dice > 0.9


def test_pairwise_agreement_is_that_of_the_metrics(readers):
    masks, _ = readers
    spacing = (3.0, 0.8, 0.7)
    table = pairwise_agreement(masks, spacing)
    assert [(row.first, row.second) for row in table] == [
        (a, b) for i, (a, b) in enumerate(product(masks, masks)) if i % 4 > i // 4
    ]
    for row in table:
        one, two = masks[row.first], masks[row.second]
        counts, surface = count_overlap(one, two), surface_scores(one, two, spacing)
        assert (row.dice, row.iou) == (counts.dice, counts.iou)
        assert row.hd95_mm == pytest.approx(surface.hd95_mm)
        assert row.nsd_2mm == pytest.approx(surface.nsd[2.0])
        assert row.volume_difference_ml == pytest.approx(
            (int(one.sum()) - int(two.sum())) * 3 * 0.8 * 0.7 / 1000
        )
    (quick, *_) = pairwise_agreement(masks, spacing, surfaces=False)
    assert quick.dice == table[0].dice
    assert math.isnan(quick.hd95_mm)


def test_two_empty_masks_have_no_overlap_to_speak_of():
    nothing = np.zeros(SHAPE, bool)
    (row,) = pairwise_agreement({"a": nothing, "b": nothing}, (1, 1, 1))
    assert math.isnan(row.dice)
    assert math.isnan(row.hd95_mm)
    assert row.volume_difference_ml == 0


def test_what_cannot_be_compared_is_refused():
    mask = np.ones(SHAPE, bool)
    with pytest.raises(UsageError, match="2 to 255"):
        consensus({"a": mask})
    with pytest.raises(GeometryError, match="one grid"):
        disagreement({"a": mask, "b": mask[1:]})
    with pytest.raises(DataError, match="boolean"):
        pairwise_agreement({"a": mask, "b": mask.astype(np.uint8)}, (1, 1, 1))
    with pytest.raises(UsageError, match="median"):
        consensus({"a": mask, "b": mask}, "median")
