import numpy as np
import pytest

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm.datasets import Case, Cohort
from napari_lungfm.geometry import LabelMap, Structure, Volume, VolumeGeometry


def _volume(shape=(4, 5, 6), dtype=np.int16, **grid):
    return Volume(np.zeros(shape, dtype), VolumeGeometry(shape, **grid))


def _labels(values, **grid):
    array = np.asarray(values, dtype=np.uint8)
    return LabelMap(array, VolumeGeometry(array.shape, **grid))


def test_structures_are_those_that_occur():
    array = np.zeros((4, 5, 6))
    array[1, 2, 3], array[2, 2, 2] = 3, 1
    case = Case("a", _volume(), _labels(array))
    assert case.structures == (Structure.LEFT_LUNG, Structure.TUMOUR)


def test_image_and_reference_must_share_a_grid():
    with pytest.raises(DataError, match=r"case 'a'.*not on one grid.*spacings"):
        Case("a", _volume(), _labels(np.zeros((4, 5, 6)), spacing=(1, 1, 2)))


def test_unknown_label_values_are_named():
    array = np.zeros((4, 5, 6))
    array[0, 0, 0] = 7
    with pytest.raises(DataError, match=r"\[7\].*3 tumour"):
        Case("a", _volume(), _labels(array))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_must_be_finite(bad):
    volume = _volume(dtype=np.float32)
    volume.array[1, 1, 1] = bad
    with pytest.raises(DataError, match="1 voxels of the image are NaN or infinite"):
        Case("a", volume, _labels(np.zeros((4, 5, 6))))


class _Source:
    def __init__(self, name):
        self.name = name

    def fingerprint(self):
        return self.name

    def load(self):
        raise AssertionError


def test_a_case_cannot_be_in_both_parts():
    with pytest.raises(UsageError, match=r"more than once: a"):
        Cohort("c", "", test=(_Source("a"), _Source("b")), train=(_Source("a"),))
