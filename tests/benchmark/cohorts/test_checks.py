import dataclasses

import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm._core.exceptions import DicomError
from napari_lungfm.benchmark.cohorts.checks import FACTS, flags, measure
from napari_lungfm.benchmark.cohorts.contours import contour_volume_ml
from napari_lungfm.benchmark.cohorts.raw import Reading
from napari_lungfm.benchmark.cohorts.thumbnails import HEIGHT, thumbnail
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry


def read(case, **changes):
    array = case.reference.array
    lungs = np.where(array == 3, 0, array).astype(np.uint8)
    reading = Reading(case.volume, array == 3, lungs, "RTSTRUCT GTV-1")
    return dataclasses.replace(reading, **changes), lungs


def test_a_chest_is_measured(chest):
    reading, lungs = read(chest)
    facts = measure(reading, lungs)
    assert set(facts) <= set(FACTS)
    assert facts["tumour_ml"] == pytest.approx(4 / 3 * np.pi * 2.0**3, rel=0.08)  # 20 mm
    assert facts["tumour_components"] == 1
    assert facts["tumour_largest_share"] == 1.0
    assert (facts["tumour_slices"], facts["tumour_gaps"]) == (5, 0)
    one_lung = 4 / 3 * np.pi * 5.5 * 9.0 * 8.0
    assert facts["right_lung_ml"] == pytest.approx(one_lung, rel=0.02)
    assert facts["left_lung_ml"] == pytest.approx(one_lung - facts["tumour_ml"], rel=0.02)
    assert facts["tumour_in_lungs"] == 0.0
    assert facts["lungs_swapped"] is False
    assert flags(facts) == []


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        (lambda lungs: np.where(lungs > 0, 3 - lungs, 0), "left lung lies on the patient's right"),
        (lambda lungs: np.where(lungs == 1, 0, lungs), "one lung is 0% of both"),
        (lambda lungs: lungs * (np.indices(lungs.shape)[0] < 8), "the lungs have 0."),
        (lambda lungs: np.maximum(lungs, np.indices(lungs.shape)[0] == 0), "first or last slice"),
    ],
)
def test_lungs_that_are_worth_a_look(chest, change, flag):
    reading, lungs = read(chest)
    changed = change(lungs).astype(np.uint8)
    assert any(flag in each for each in flags(measure(reading, changed)))


def test_the_own_lungs_are_compared_outside_the_tumour(chest):
    reading, lungs = read(chest)
    with_tumour = np.where(reading.tumour, 1, lungs).astype(np.uint8)
    assert measure(reading, with_tumour)["own_lungs_dice"] == 1.0
    facts = measure(reading, np.where(lungs == 2, 0, lungs).astype(np.uint8))
    assert facts["own_left_lung_dice"] == 1.0
    assert facts["own_right_lung_dice"] == 0.0
    assert any("own lungs disagree (Dice 0.6" in each for each in flags(facts))


def test_lungs_that_are_contoured_as_one_are_compared_too(chest):
    reading, lungs = read(chest, lungs=None, both_lungs=chest.reference.array == 1)
    facts = measure(reading, lungs)
    assert 0.6 < facts["own_lungs_dice"] < 0.7
    assert "own_left_lung_dice" not in facts


def test_parts_and_gaps_of_a_tumour_are_counted(chest):
    tumour = chest.reference.array == 3
    used = np.flatnonzero(tumour.any(axis=(1, 2)))
    tumour[used[1]] = False
    reading, lungs = read(chest, tumour=tumour)
    facts = measure(reading, lungs)
    assert (facts["tumour_components"], facts["tumour_gaps"]) == (2, 1)
    assert 0.5 < facts["tumour_largest_share"] < 1.0


def test_contours_enclose_what_the_mask_has(chest, tmp_path):
    """A ring: the hole is a contour within the other."""
    mask = chest.reference.array == 3
    holed = mask.copy()
    holed[:, 28:31, 48:51] = False
    assert holed.sum() < mask.sum()
    io.write_series(chest.volume, tmp_path / "ct")
    path = tmp_path / "rs.dcm"
    for inside in (mask, holed):
        label_map = LabelMap.from_mask(inside, chest.volume.geometry)
        io.write_rtstruct(label_map, tmp_path / "ct", path, {3: "GTV-1"})
        expected = inside.sum() * chest.volume.geometry.voxel_volume_ml
        assert contour_volume_ml(path, 1, chest.volume.geometry) == pytest.approx(expected)
    with pytest.raises(DicomError, match="no contours of ROI number 7"):
        contour_volume_ml(path, 7, chest.volume.geometry)


def test_a_mask_that_lost_a_part_of_its_contours_is_flagged(chest):
    reading, lungs = read(chest)
    whole = measure(reading, lungs)["tumour_ml"]
    facts = measure(dataclasses.replace(reading, facts={"contour_ml": whole * 1.3}), lungs)
    assert facts["contour_difference"] == pytest.approx(1 / 1.3 - 1)
    assert any("different volumes (-23.1%)" in each for each in flags(facts))
    facts = measure(dataclasses.replace(reading, facts={"seg_dice": 0.5}), lungs)
    assert any("SEG of the tumour disagree (Dice 0.500)" in each for each in flags(facts))


def test_a_thumbnail_shows_slices_upright_with_outlines(chest):
    from io import BytesIO

    from PIL import Image

    picture = np.asarray(Image.open(BytesIO(thumbnail(chest.volume, chest.reference))))
    # The axial slice is 300 mm high and 360 mm wide, the coronal one 192 mm high.
    assert picture.shape == (HEIGHT, round(HEIGHT * 360 / 300) + round(HEIGHT * 360 / 192), 3)
    red, blue = (picture[..., c].astype(int) for c in (0, 2))
    orange = (red - blue) > 80
    assert orange.any()
    # The tumour is in the left lung: on the right of an axial slice as radiologists see it.
    assert np.argwhere(orange[:, : HEIGHT * 360 // 300])[:, 1].mean() > HEIGHT * 0.6
    narrow = VolumeGeometry((3, 4, 5), (1.0, 1.0, 1.0))
    small = Volume(np.zeros((3, 4, 5), np.int16), narrow)
    assert thumbnail(small, LabelMap.from_mask(np.ones((3, 4, 5)), narrow))
