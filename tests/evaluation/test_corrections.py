import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_lungfm._core.exceptions import GeometryError
from napari_lungfm.evaluation.corrections import correction_click, effort
from napari_lungfm.models.prompts import Click

masks = hnp.array_shapes(min_dims=3, max_dims=3, max_side=8).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


def test_the_click_goes_to_the_middle_of_the_largest_missing_part():
    reference = np.zeros((5, 20, 20), bool)
    reference[2, 2:9, 3:10] = True  # 49 px, middle (5, 6)
    reference[2, 15:18, 15:18] = True
    reference[3, 4:9, 4:9] = True
    prediction = np.zeros_like(reference)
    assert correction_click(prediction, reference, (1.0, 1.0)) == Click(2, 5, 6, positive=True)


def test_a_surplus_part_gets_a_negative_click():
    reference = np.zeros((3, 20, 20), bool)
    reference[1, 5:10, 5:10] = True
    prediction = reference.copy()
    prediction[1, 5:10, 10:15] = True  # 25 px too many
    prediction[1, 5, 5] = False
    assert correction_click(prediction, reference, (1.0, 1.0)) == Click(1, 7, 12, positive=False)


def test_missing_and_surplus_parts_that_touch_are_two_parts():
    reference = np.zeros((1, 9, 12), bool)
    reference[0, 2:7, :5] = True  # 25 missing
    prediction = np.zeros_like(reference)
    prediction[0, 2:7, 5:9] = True  # 20 surplus, touching
    click = correction_click(prediction, reference, (1.0, 1.0))
    assert click == Click(0, 4, 2, positive=True)


def test_the_middle_is_found_in_millimetres():
    reference = np.zeros((1, 40, 9), bool)
    reference[0, 2:38, 1:8] = True  # 36 rows of 0.1 mm, 7 columns of 5 mm
    click = correction_click(np.zeros_like(reference), reference, (0.1, 5.0))
    assert click is not None
    assert click.y in (19, 20)


def test_the_edge_of_the_image_counts_as_a_border():
    reference = np.zeros((1, 9, 9), bool)
    reference[0, :5, :] = True
    click = correction_click(np.zeros_like(reference), reference, (1.0, 1.0))
    assert click is not None
    assert click.y == 2


def test_nothing_wrong_nothing_clicked():
    mask = np.ones((2, 3, 3), bool)
    assert correction_click(mask, mask, (1.0, 1.0)) is None


@given(masks, st.data())
@settings(max_examples=150)
def test_every_click_tells_the_truth_and_none_comes_twice(pair, data):
    prediction, reference = pair
    taken = []
    for _ in range(data.draw(st.integers(1, 5))):
        click = correction_click(prediction, reference, (1.0, 0.7), taken=taken)
        if click is None:
            left = [tuple(map(int, v)) for v in np.argwhere(prediction != reference)]
            assert set(left) <= set(taken)
            return
        place = (click.z, click.y, click.x)
        assert place not in taken
        assert prediction[place] != reference[place]
        assert click.positive == reference[place]
        wrong = (prediction != reference).sum(axis=(1, 2))
        if not taken:
            assert wrong[click.z] == wrong.max()
        taken.append(place)


def test_masks_of_different_shape_are_refused():
    with pytest.raises(GeometryError):
        correction_click(np.zeros((2, 3, 3), bool), np.zeros((3, 3, 3), bool), (1.0, 1.0))


def test_effort_counts_the_first_prompt():
    found = effort([0.7, 0.82, 0.9], 4)
    assert found.dice == (0.7, 0.82, 0.9, 0.9, 0.9)
    assert found.to_reach == {0.80: 2, 0.85: 3, 0.90: 3}
    assert found.area == pytest.approx((0.35 + 0.82 + 0.9 + 0.9 + 0.45) / 4)


def test_effort_without_corrections_is_the_first_value():
    found = effort([0.5], 0)
    assert found.area == 0.5
    assert found.to_reach[0.80] is None
