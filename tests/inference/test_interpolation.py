import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm.inference.interpolation import interpolated_mask

Y, X = np.ogrid[:60, :70]


def _disc(y: float, x: float, radius: float) -> np.ndarray:
    return np.hypot(Y - y, X - x) <= radius


@given(st.integers(20, 40), st.integers(25, 45), st.integers(4, 15))
def test_a_shape_between_two_of_its_kind_is_itself(y: int, x: int, radius: int) -> None:
    disc = _disc(y, x, radius)
    np.testing.assert_array_equal(interpolated_mask(disc, disc, 0.3), disc)


def test_radii_are_mixed() -> None:
    for weight in (0.25, 0.5, 0.75):
        got = interpolated_mask(_disc(30, 35, 20), _disc(30, 35, 8), weight)
        radius = np.sqrt(got.sum() / np.pi)
        assert abs(radius - (20 - 12 * weight)) < 0.6


def test_the_ends_are_the_masks_themselves() -> None:
    a, b = _disc(25, 30, 12), _disc(32, 38, 9)
    np.testing.assert_array_equal(interpolated_mask(a, b, 0.0), a)
    np.testing.assert_array_equal(interpolated_mask(a, b, 1.0), b)


def test_far_apart_there_is_nothing_between() -> None:
    assert not interpolated_mask(_disc(10, 10, 3), _disc(50, 60, 3), 0.5).any()


def test_a_mask_at_the_border_of_the_slice_is_handled() -> None:
    mask = np.zeros((60, 70), bool)
    mask[:, :10] = True
    np.testing.assert_array_equal(interpolated_mask(mask, mask, 0.5), mask)
