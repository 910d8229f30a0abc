import numpy as np
import pytest

from napari_lungfm.geometry import LUNG_LABELS, LabelMap, VolumeGeometry
from napari_lungfm.models.automatic.plausibility import told_if_doubtful

LUNGS = {1: "left lung", 2: "right lung"}


def _found(voxels, spacing=(3.0, 1.0, 1.0), labels=LUNGS):
    """A label map with as many voxels of every label as are asked for."""
    array = np.zeros((30, 40, 40), np.uint8)
    flat = array.reshape(-1)
    start = 0
    for value, count in voxels.items():
        flat[start : start + count] = value
        start += count
    return LabelMap(array, VolumeGeometry(array.shape, spacing), labels)


def test_nothing_is_said_of_lungs_as_they_are():
    assert told_if_doubtful(_found({1: 900, 2: 900}, (10.0, 4.0, 4.0))) == ()
    assert told_if_doubtful(_found({1: 9, 2: 9}, (20.0, 0.1, 0.1), LUNG_LABELS)) == ()
    assert told_if_doubtful(_found({}, labels={3: "tumour"})) == ()


@pytest.mark.parametrize(
    ("voxels", "labels", "told"),
    [
        ({}, LUNGS, "no lungs were found"),
        ({3: 5}, LUNG_LABELS, "no lungs were found"),
        ({1: 5}, LUNGS, "no right lung was found"),
        ({}, {1: "left lung"}, "no left lung was found"),
        ({1: 5}, {1: "left upper lobe", 2: "left lower lobe"}, "no left lower lobe was found"),
    ],
)
def test_lungs_that_were_not_found_are_told(voxels, labels, told):
    assert told_if_doubtful(_found(voxels, labels=labels)) == (told,)


@pytest.mark.parametrize(
    ("spacing", "told"),
    [
        (
            (15.0, 10.0, 10.0),
            "a left lung of 30 L: the spacing of the image may be wrong, "
            "voxels of 15 × 10 × 10 mm (z, y, x)",
        ),
        (
            (3.0, 0.05, 1.0),
            "voxels of 3 × 0.05 × 1 mm (z, y, x): the spacing of the image may be wrong",
        ),
        (
            (30.0, 10.0, 10.0),
            "a left lung of 60 L and voxels of 30 × 10 × 10 mm (z, y, x): "
            "the spacing of the image may be wrong",
        ),
    ],
)
def test_lungs_and_voxels_of_no_human_are_one_note(spacing, told):
    assert told_if_doubtful(_found({1: 20_000, 2: 10}, spacing)) == (told,)
