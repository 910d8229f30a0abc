import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.preprocessing import (
    WINDOWS,
    Window,
    clip_and_scale,
    to_uint8,
    told_if_no_hu,
)

HU = hnp.arrays(np.int16, hnp.array_shapes(min_dims=1, max_dims=3, max_side=5))
WINDOW = st.builds(Window, st.integers(-1500, 1500), st.integers(1, 4000))


def test_presets():
    assert (WINDOWS["lung"].low, WINDOWS["lung"].high) == (-1350, 150)
    assert (WINDOWS["mediastinum"].low, WINDOWS["mediastinum"].high) == (-160, 240)
    assert {"bone", "soft tissue"} <= set(WINDOWS)
    assert Window.between(-1000, 1000) == Window(0, 2000)


@pytest.mark.parametrize(("level", "width"), [(0, 0), (0, -1), (np.nan, 5), (0, np.inf)])
def test_an_impossible_window_is_refused(level, width):
    with pytest.raises(UsageError, match="positive width"):
        Window(level, width)


def test_known_grey_values():
    hu = np.array([-2000, -1350, -600, 150, 3000], np.int16)
    np.testing.assert_array_equal(to_uint8(hu, WINDOWS["lung"]), [0, 0, 128, 255, 255])
    np.testing.assert_array_equal(to_uint8(np.arange(256), Window.between(0, 255)), range(256))


@given(HU, WINDOW)
def test_grey_values_are_the_nearest_and_monotone(hu, window):
    grey = to_uint8(hu, window)
    assert grey.dtype == np.uint8
    assert grey.shape == hu.shape
    exact = np.clip((hu.astype(float) - window.low) / window.width, 0, 1) * 255
    assert np.abs(grey - exact).max() <= 0.5 + 1e-3
    order = np.argsort(hu.ravel())
    assert (np.diff(grey.ravel()[order].astype(int)) >= 0).all()


@given(HU)
def test_clip_and_scale(hu):
    unit = clip_and_scale(hu)
    assert unit.dtype == np.float32
    expected = (np.clip(hu.astype(float), -1000, 1000) + 1000) / 2000
    np.testing.assert_allclose(unit, expected, atol=1e-6)
    assert unit.min() >= 0
    assert unit.max() <= 1


def test_known_scaled_values():
    np.testing.assert_array_equal(
        clip_and_scale(np.array([-3000, -1000, 0, 1000, 1001])), [0, 0, 0.5, 1, 1]
    )
    np.testing.assert_array_equal(clip_and_scale(np.array([0.0, 50.0]), 0, 100), [0, 0.5])
    with pytest.raises(UsageError):
        clip_and_scale(np.zeros(3), 5, 5)


def test_a_volume_keeps_its_geometry(small_ct):
    before = small_ct.array.copy()
    grey = to_uint8(small_ct, WINDOWS["lung"])
    assert isinstance(grey, Volume)
    assert grey.geometry is small_ct.geometry
    assert grey.metadata == small_ct.metadata
    np.testing.assert_array_equal(grey.array, to_uint8(small_ct.array, WINDOWS["lung"]))
    np.testing.assert_array_equal(small_ct.array, before)


def test_nan_is_refused_and_infinities_are_clipped():
    hu = np.zeros((3, 4, 5))
    hu[1, 2, 3] = np.nan
    for convert in (lambda a: to_uint8(a, WINDOWS["lung"]), clip_and_scale):
        with pytest.raises(DataError, match="1 voxels of the image are NaN"):
            convert(hu)
    ends = np.array([-np.inf, np.inf])
    np.testing.assert_array_equal(to_uint8(ends, WINDOWS["lung"]), [0, 255])
    np.testing.assert_array_equal(clip_and_scale(ends), [0, 1])


def chest(shape=(4, 8, 8)):
    values = np.full(shape, -1000, dtype=np.int16)
    values[:, 2:6, 2:6] = 40
    values[:, 3, 3:5] = -820
    return values


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (chest(), None),
        (chest().astype(np.float32), None),
        (np.where(chest() < -900, -3024, chest()), None),  # padding below, lung within
        (np.clip(chest(), -160, 240), None),
        (np.concatenate([np.full((2, 8, 8), -1000), chest()]), None),  # the first slices are air
        ((chest() + 1000) / 1040.0, "values from 0 to 1:"),
        (((chest() + 1000) / 1040.0 * 255).astype(np.uint8), "values from 0 to 255:"),
        (chest() + 1024, "values from 24 to 1064:"),
        (chest() / 500.0, "values from -2 to 0.08:"),
        (np.where(chest() == -1000, -2000, chest() + 1024), "values from -2000 to 1064:"),
        (np.zeros((4, 8, 8)), "all values are 0:"),
        (np.full((4, 8, 8), -1000), "all values are -1000:"),
        (np.where(chest() == 40, np.nan, chest() / 1000.0), "values from -1 to -0.82:"),
        (np.full((4, 8, 8), np.nan), None),
    ],
)
def test_images_that_are_evidently_not_in_hu_are_told(array, told):
    text = told_if_no_hu(Volume(array, VolumeGeometry(array.shape, (2.0, 1.0, 1.0))))
    assert (text is None) == (told is None)
    if told is not None:
        assert text.startswith(f"{told} this does not look like HU (air near -1000")
        assert "\n" not in text
