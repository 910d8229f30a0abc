import math

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_lungfm._core.exceptions import DataError, GeometryError
from napari_lungfm.metrics import Counts, count_overlap, count_overlap_per_slice

SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
PAIRS = SHAPES.flatmap(
    lambda shape: st.tuples(
        *[
            st.one_of(hnp.arrays(bool, shape), hnp.arrays(bool, shape, fill=st.just(False)))
            for _ in range(2)
        ]
    )
)


def mask(*indices, shape=(4, 5, 6)):
    result = np.zeros(shape, bool)
    for index in indices:
        result[index] = True
    return result


def test_counts_of_a_known_pair():
    reference = mask((1, 2, 3), (1, 2, 4), (2, 2, 3))
    prediction = mask((1, 2, 4), (2, 2, 3), (3, 0, 0), (3, 4, 5))
    counts = count_overlap(prediction, reference)
    assert counts == Counts(tp=2, fp=2, fn=1)
    assert counts.dice == pytest.approx(4 / 7)
    assert counts.iou == pytest.approx(2 / 5)


def test_both_empty_is_undefined_and_one_empty_is_zero():
    empty, one = mask(), mask((0, 0, 0))
    assert math.isnan(count_overlap(empty, empty).dice)
    assert math.isnan(count_overlap(empty, empty).iou)
    for pair in ((empty, one), (one, empty)):
        assert count_overlap(*pair).dice == 0.0
        assert count_overlap(*pair).iou == 0.0


def test_slices_empty_in_both_are_left_out_of_the_mean():
    reference = mask((1, 0, 0), (2, 0, 0))
    prediction = mask((1, 0, 0), (3, 0, 0), (3, 0, 1))
    counts = count_overlap_per_slice(prediction, reference)
    np.testing.assert_array_equal(counts.scored, [False, True, True, True])
    np.testing.assert_array_equal(counts.dice, [np.nan, 1.0, 0.0, 0.0])
    assert counts.mean_dice == pytest.approx(1 / 3)
    assert counts.mean_iou == pytest.approx(1 / 3)
    assert math.isnan(count_overlap_per_slice(mask(), mask()).mean_dice)
    assert math.isnan(count_overlap_per_slice(mask(), mask()).mean_iou)


@given(PAIRS)
def test_properties(pair):
    prediction, reference = pair
    counts = count_overlap(prediction, reference)
    assert counts == Counts(*_brute_force(prediction, reference))
    swapped = count_overlap(reference, prediction)
    assert (swapped.tp, swapped.fp, swapped.fn) == (counts.tp, counts.fn, counts.fp)
    per_slice = count_overlap_per_slice(prediction, reference)
    assert (per_slice.tp.sum(), per_slice.fp.sum(), per_slice.fn.sum()) == (
        counts.tp,
        counts.fp,
        counts.fn,
    )
    if prediction.any() or reference.any():
        assert counts.dice == pytest.approx(2 * counts.iou / (1 + counts.iou))
        for z in range(len(prediction)):
            alone = count_overlap(prediction[z], reference[z])
            np.testing.assert_equal(per_slice.dice[z], alone.dice)
            np.testing.assert_equal(per_slice.iou[z], alone.iou)


def _brute_force(prediction, reference):
    pairs = list(zip(prediction.ravel().tolist(), reference.ravel().tolist(), strict=True))
    return pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))


@given(PAIRS)
def test_agrees_with_simpleitk(pair):
    prediction, reference = pair
    if not (prediction.any() or reference.any()):
        return
    measures = SimpleITK.LabelOverlapMeasuresImageFilter()
    measures.Execute(
        *(SimpleITK.GetImageFromArray(m.astype(np.uint8)) for m in (reference, prediction))
    )
    counts = count_overlap(prediction, reference)
    assert counts.dice == pytest.approx(measures.GetDiceCoefficient())
    assert counts.iou == pytest.approx(measures.GetJaccardCoefficient())


def test_agrees_with_monai():
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    rng = np.random.default_rng(0)
    for density in (0.02, 0.3, 0.9):
        prediction, reference = rng.random((2, 7, 9, 11)) < density
        tensors = [torch.from_numpy(m)[None, None] for m in (prediction, reference)]
        counts = count_overlap(prediction, reference)
        assert counts.dice == pytest.approx(metrics.compute_dice(*tensors).item())
        assert counts.iou == pytest.approx(metrics.compute_iou(*tensors).item())
        # As many "cases" as slices; ours leaves out the slices that are empty in both.
        slices = [t[0, 0][:, None] for t in tensors]
        mean = metrics.DiceMetric(reduction="mean", ignore_empty=False)
        mean(*slices)
        per_slice = count_overlap_per_slice(prediction, reference)
        assert per_slice.scored.all()
        assert per_slice.mean_dice == pytest.approx(mean.aggregate().item())


def test_anything_but_boolean_masks_of_one_shape_is_refused():
    good = mask((0, 0, 0))
    for bad in (good.astype(np.uint8), good.astype(np.float32)):
        with pytest.raises(DataError, match="prediction must be boolean"):
            count_overlap(bad, good)
        with pytest.raises(DataError, match="reference must be boolean"):
            count_overlap_per_slice(good, bad)
    with pytest.raises(GeometryError, match="one grid"):
        count_overlap(good, good[:3])
    with pytest.raises(GeometryError, match="3 axes"):
        count_overlap_per_slice(good[0], good[0])


@pytest.mark.real_data
def test_known_answers_of_prompt_shapes_on_a_real_tumour(ibsi_tumour):
    tumour, spacing = ibsi_tumour
    assert tumour.sum() == 125_256
    ellipses = np.stack([_inscribed_ellipse(s) for s in tumour])
    assert round(count_overlap(ellipses, tumour).dice, 3) == 0.935
    assert round(count_overlap_per_slice(ellipses, tumour).mean_dice, 3) == 0.924
    spanned = _spanned_ellipsoid(tumour, spacing)
    assert round(count_overlap(spanned, tumour).dice, 3) == 0.749


def _box(section):
    rows, columns = np.flatnonzero(section.any(1)), np.flatnonzero(section.any(0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def _inscribed_ellipse(section):
    if not section.any():
        return np.zeros_like(section)
    y0, y1, x0, x1 = _box(section)
    y, x = np.indices(section.shape) + 0.5
    return ((2 * y - y0 - y1) / (y1 - y0)) ** 2 + ((2 * x - x0 - x1) / (x1 - x0)) ** 2 <= 1


def _spanned_ellipsoid(tumour, spacing):
    best = int(np.argmax(tumour.sum(axis=(1, 2))))
    y0, y1, x0, x1 = _box(tumour[best])
    half_z = ((y1 - y0) * spacing[1] + (x1 - x0) * spacing[2]) / 4 / spacing[0]
    z, y, x = np.indices(tumour.shape)
    radius = ((z - best) / half_z) ** 2
    radius += ((2 * y + 1 - y0 - y1) / (y1 - y0)) ** 2 + ((2 * x + 1 - x0 - x1) / (x1 - x0)) ** 2
    return radius <= 1
