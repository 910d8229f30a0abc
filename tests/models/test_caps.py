import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm.models.caps import EllipsoidCap


@given(st.floats(5.0, 60.0), st.floats(5.0, 40.0), st.floats(1.0, 5.0), st.integers(1, 8))
def test_two_slices_of_an_ellipsoid_tell_where_it_ends(
    half_axis: float, radius: float, slice_mm: float, end: int
) -> None:
    fraction = end * slice_mm / half_axis
    if not 0.2 < fraction < 0.95:
        return
    on_end = radius * math.sqrt(1.0 - fraction**2)
    if half_axis * (1.0 - fraction) > on_end:
        return
    cap = EllipsoidCap.over(end, {0: radius, end: on_end}, slice_mm)
    assert cap.half_axis_mm == pytest.approx(half_axis)
    beyond = 0.5 * cap.height_mm
    expected = math.sqrt(1.0 - ((end * slice_mm + beyond) / half_axis) ** 2)
    assert on_end * cap.scale(beyond) == pytest.approx(radius * expected)


def test_one_slice_is_an_equator() -> None:
    cap = EllipsoidCap.over(7, {7: 12.0}, 3.0, elongation=1.5)
    assert (cap.offset_mm, cap.half_axis_mm) == (0.0, 18.0)
    assert cap.scale(0.0) == 1.0
    assert cap.scale(18.0) == cap.scale(40.0) == 0.0


@given(st.dictionaries(st.integers(0, 20), st.floats(1.0, 50.0), min_size=1), st.floats(0.5, 6.0))
def test_a_cap_is_no_higher_than_over_a_single_slice_and_shrinks(
    sizes: dict[int, float], slice_mm: float
) -> None:
    end = max(sizes)
    cap = EllipsoidCap.over(end, sizes, slice_mm)
    assert 0.0 <= cap.height_mm <= sizes[end] * (1 + 1e-9)
    scales = [cap.scale(t * cap.height_mm) for t in (0.0, 0.3, 0.6, 1.0, 1.1)]
    assert scales == sorted(scales, reverse=True)
    assert scales[0] == pytest.approx(1.0)
