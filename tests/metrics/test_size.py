import math

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import label

from napari_lungfm._core.exceptions import DataError, GeometryError
from napari_lungfm.metrics import (
    axial_diameters,
    mean_hu,
    slices_beyond_ends,
    volume_difference_ml,
    volume_ml,
)

SPACINGS = st.tuples(*[st.sampled_from([0.5, 0.7, 1.0, 2.5])] * 3)
MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)).filter(
    np.any
)


@given(MASKS, SPACINGS)
def test_volume_and_mean_agree_with_simpleitk(mask, spacing):
    rng = np.random.default_rng(mask.size)
    voxels = rng.integers(-1000, 1000, mask.shape).astype(np.int16)
    images = [SimpleITK.GetImageFromArray(a) for a in (voxels, mask.astype(np.uint8))]
    for image in images:
        image.SetSpacing(spacing[::-1])
    shape = SimpleITK.LabelShapeStatisticsImageFilter()
    shape.Execute(images[1])
    statistics = SimpleITK.LabelStatisticsImageFilter()
    statistics.Execute(*images)
    assert volume_ml(mask, spacing) == pytest.approx(shape.GetPhysicalSize(1) / 1000)
    assert mean_hu(voxels, mask) == pytest.approx(statistics.GetMean(1))


def test_volumes_and_their_difference():
    one, two = np.zeros((2, 10, 10, 10), bool)
    one[0, 0, :4] = True
    two[5, :, :] = True
    assert volume_ml(one, (2.5, 2, 2)) == pytest.approx(0.04)
    assert volume_difference_ml(one, two, (2.5, 2, 2)) == pytest.approx(-0.96)
    assert volume_difference_ml(two, one, (2.5, 2, 2)) == pytest.approx(0.96)


def test_mean_hu_of_large_int16_values_does_not_overflow():
    voxels = np.full((40, 40, 40), 3000, np.int16)
    assert mean_hu(voxels, np.ones(voxels.shape, bool)) == 3000.0
    assert math.isnan(mean_hu(voxels, np.zeros(voxels.shape, bool)))
    with pytest.raises(GeometryError):
        mean_hu(voxels, np.zeros((4, 4, 4), bool))


def test_slices_beyond_the_ends():
    reference = np.zeros((12, 4, 4), bool)
    reference[4:7, 1, 1] = True
    prediction = np.zeros_like(reference)
    prediction[[0, 2, 5, 7, 8, 11], 0, 0] = True
    prediction[0, 0, 1] = True
    beyond = slices_beyond_ends(prediction, reference, (3.0, 2.0, 2.0))
    assert (beyond.low, beyond.high) == (2, 3)
    assert beyond.volume_ml == pytest.approx(6 * 0.012)
    within = slices_beyond_ends(reference, reference, (3, 2, 2))
    assert (within.low, within.high, within.volume_ml) == (0, 0, 0)
    nothing = slices_beyond_ends(np.zeros_like(reference), reference, (3, 2, 2))
    assert (nothing.low, nothing.high, nothing.volume_ml) == (0, 0, 0)
    undefined = slices_beyond_ends(prediction, np.zeros_like(reference), (3, 2, 2))
    assert all(math.isnan(v) for v in (undefined.low, undefined.high, undefined.volume_ml))


def test_diameters_of_simple_shapes():
    mask = np.zeros((3, 20, 20), bool)
    assert axial_diameters(mask, (1, 1, 1)) is None
    mask[1, 4, 5] = True
    one = axial_diameters(mask, (3.0, 0.8, 0.5))
    assert (one.z, one.long_mm, one.short_mm) == pytest.approx((1, 0.8, 0.5))
    assert one.long_ends in (((3.5, 5.0), (4.5, 5.0)), ((4.5, 5.0), (3.5, 5.0)))
    mask[1, 4, 5:12] = True
    row = axial_diameters(mask, (3.0, 1.0, 1.0))
    assert (row.long_mm, row.short_mm) == pytest.approx((7, 1))
    assert sorted(row.long_ends) == [(4.0, 4.5), (4.0, 11.5)]


def test_diameters_of_an_ellipse(ellipsoid):
    mask = ellipsoid((9, 120, 150), (4, 60, 75), (4, 40 / 0.5, 25 / 0.7))
    found = axial_diameters(mask[:, 10:110], (1.0, 0.5, 0.7))  # cut off: touches the border
    assert found.z == 4
    chord = 2 * 25 * math.sqrt(1 - (25 / 40) ** 2)
    assert found.long_mm == pytest.approx(math.hypot(50, chord), abs=0.7)
    mask = ellipsoid((9, 180, 150), (4, 90, 75), (4, 40 / 0.5, 25 / 0.7))
    whole = axial_diameters(mask, (1.0, 0.5, 0.7))
    assert whole.z == 4
    assert whole.long_mm == pytest.approx(80, abs=0.6)
    assert whole.short_mm == pytest.approx(50, abs=0.8)


def test_separate_cross_sections_are_not_joined():
    mask = np.zeros((2, 10, 60), bool)
    mask[0, 2, 2:8] = True
    mask[0, 8, 50:57] = True
    found = axial_diameters(mask, (1, 1, 1))
    assert found.long_mm == pytest.approx(7)
    mask[0, 3, 8] = True  # touches at a corner
    assert axial_diameters(mask, (1, 1, 1)).long_mm == pytest.approx(np.hypot(7, 1), abs=0.6)
    # Neighbouring slices do not join them either.
    mask[1, 2:9, 2:57] = True
    mask[1, 3:8] = False
    assert axial_diameters(mask, (1, 1, 1)).z == 1


@given(MASKS, SPACINGS)
@settings(max_examples=100, deadline=None)
def test_diameters_agree_with_brute_force(mask, spacing):
    found = axial_diameters(mask, spacing)
    sections = []
    for z, plane in enumerate(mask):
        numbered, count = label(plane, np.ones((3, 3)))
        sections += [(z, _edge_points(numbered == k + 1, spacing)) for k in range(count)]
    lengths = [_longest(points) for _, points in sections]
    assert found.long_mm == pytest.approx(max(lengths))
    assert found.z == next(
        z for (z, _), n in zip(sections, lengths, strict=True) if n > max(lengths) - 1e-9
    )
    scale = np.array(spacing[1:])
    ends = np.array(found.long_ends) * scale
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(found.long_mm)
    chord = np.array(found.short_ends) * scale
    assert np.linalg.norm(chord[1] - chord[0]) == pytest.approx(found.short_mm)
    assert (ends[1] - ends[0]) @ (chord[1] - chord[0]) == pytest.approx(0, abs=1e-6)
    points = next(
        p
        for z, p in sections
        if z == found.z and _holds(p, ends) and _longest(p) > max(lengths) - 1e-9
    )
    assert found.short_mm == pytest.approx(_longest_perpendicular(points, ends), abs=1e-6)


def _edge_points(section, spacing):
    return np.array(
        [
            ((y + dy) * spacing[1], (x + dx) * spacing[2])
            for y, x in np.argwhere(section)
            for dy, dx in ((-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5))
        ]
    )


def _longest(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1).max()


def _holds(points, ends):
    return all(np.isclose(points, end).all(axis=1).any() for end in ends)


def _longest_perpendicular(points, ends):
    """Over the lines at right angles through every point: how far the hull reaches on them.

    Where a line meets the hull is where it meets a segment between two points of the set.
    """
    unit = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    along, across = points @ unit, points @ np.array([-unit[1], unit[0]])
    best = 0.0
    for place in along:
        left, right = along <= place + 1e-12, along >= place - 1e-12
        a, u = along[left][:, None], across[left][:, None]
        b, v = along[right][None], across[right][None]
        span = np.where(b - a > 1e-12, b - a, 1.0)
        share = np.where(b - a > 1e-12, (place - a) / span, 0.0)
        met = u + share * (v - u)
        best = max(best, met.max() - met.min())
    return best


def test_bad_input_is_refused():
    with pytest.raises(DataError):
        axial_diameters(np.ones((2, 2, 2), np.uint8), (1, 1, 1))
    with pytest.raises(GeometryError):
        axial_diameters(np.ones((2, 2), bool), (1, 1, 1))


@pytest.mark.real_data
def test_diameters_of_a_real_tumour_are_measured_fast(ibsi_tumour):
    tumour, spacing = ibsi_tumour
    found = axial_diameters(tumour, spacing)
    assert found.long_mm == pytest.approx(103.8, abs=0.1)
    assert found.short_mm == pytest.approx(96.7, abs=0.1)
