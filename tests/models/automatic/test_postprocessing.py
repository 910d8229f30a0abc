import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import LungFMWarning, UsageError
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, VolumeGeometry
from napari_lungfm.models.automatic.postprocessing import POSTPROCESSING, parse_steps, postprocess

GRID = VolumeGeometry((10, 30, 40), (3.0, 2.0, 2.0))


def _label_map():
    array = np.zeros(GRID.shape, np.uint8)
    array[2:8, 5:20, 22:34] = 1
    array[0, 28, 38] = 1  # a speck
    array[2:8, 5:20, 4:16] = 2
    array[3:6, 8:12, 24:28] = 3  # in the left lung
    array[4, 22, 10] = 3  # 5 mm (2.5 voxels) below the right lung's edge
    array[9, 29, 0] = 3  # far away
    return LabelMap(array, GRID, LUNG_LABELS)


def test_nothing_is_done_by_default():
    label_map = _label_map()
    assert postprocess(label_map, ()) is label_map


def test_the_largest_component_of_every_label_is_kept():
    done = postprocess(_label_map(), ("largest-components",)).array
    assert done[0, 28, 38] == 0
    assert (done == 3).sum() == 3 * 4 * 4
    lungs_only = postprocess(_label_map(), ("largest-lungs",)).array
    assert (lungs_only == 3).sum() == 3 * 4 * 4 + 2
    assert lungs_only[0, 28, 38] == 0


def test_tumours_far_from_the_lungs_are_dropped():
    before = _label_map()
    after = postprocess(before, ("largest-lungs", "lung-constraint")).array
    assert after[9, 29, 0] == 0
    assert after[4, 22, 10] == 3
    assert (after == 3).sum() == 3 * 4 * 4 + 1
    assert np.array_equal(after == 2, before.array == 2)


def test_without_lungs_there_is_nothing_to_judge_by():
    array = np.where(_label_map().array == 3, 3, 0).astype(np.uint8)
    only = LabelMap(array, GRID, LUNG_LABELS)
    with pytest.warns(LungFMWarning, match="lung-constraint did nothing: no lung was found"):
        assert np.array_equal(postprocess(only, ("lung-constraint",)).array, array)


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(POSTPROCESSING)))
def test_nothing_is_ever_added_and_twice_is_once(seed, step):
    rng = np.random.default_rng(seed)
    array = rng.choice(4, size=GRID.shape, p=(0.7, 0.1, 0.1, 0.1)).astype(np.uint8)
    array[rng.random(GRID.shape) < 0.5] = 0
    once = postprocess(LabelMap(array, GRID, LUNG_LABELS), (step,))
    assert ((once.array == array) | (once.array == 0)).all()
    assert np.array_equal(postprocess(once, (step,)).array, once.array)


def test_names_may_have_commas_between_them():
    assert parse_steps("largest-lungs, lung-constraint") == ("largest-lungs", "lung-constraint")
    assert parse_steps("none") == ()
    for both in ("largest-lungs,none", ["none", "largest-lungs"]):
        with pytest.raises(UsageError, match="'none' stands alone, not beside largest-lungs"):
            parse_steps(both)
    with pytest.raises(UsageError, match="no post-processing 'magic'; choose from largest-comp"):
        parse_steps(["magic"])
