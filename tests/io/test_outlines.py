import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from napari_lungfm.io.outlines import fill_outline, trace_outlines


def area(polygon: np.ndarray) -> float:
    """Signed area by the shoelace formula."""
    y, x = polygon.T
    return float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 2)


@settings(max_examples=200, deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)))
def test_filling_the_outlines_gives_the_mask_back(mask):
    outlines = trace_outlines(mask)
    filled = np.zeros_like(mask)
    for outline in outlines:
        filled ^= fill_outline(outline, mask.shape)
    np.testing.assert_array_equal(filled, mask)
    assert sum(area(o) for o in outlines) == mask.sum()  # holes count negative


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["#"], 1),
        (["##", "##"], 1),
        (["#.", ".#"], 2),
        (["###", "#.#", "###"], 2),
        (["#####", "#...#", "#.#.#", "#...#", "#####"], 3),
        (["..", ".."], 0),
    ],
)
def test_number_of_outlines(rows, expected):
    mask = np.array([[c == "#" for c in row] for row in rows])
    assert len(trace_outlines(mask)) == expected


def test_a_rectangle_has_four_corners_on_pixel_edges():
    mask = np.zeros((6, 8), bool)
    mask[2:5, 1:7] = True
    (outline,) = trace_outlines(mask)
    assert sorted(map(tuple, outline.tolist())) == [(1.5, 0.5), (1.5, 6.5), (4.5, 0.5), (4.5, 6.5)]


def test_a_polygon_is_cut_off_at_the_border_and_may_miss_the_image():
    square = np.array([[-5.0, -5.0], [-5.0, 1.4], [2.6, 1.4], [2.6, -5.0]])
    inside = fill_outline(square, (4, 4))
    expected = np.zeros((4, 4), bool)
    expected[:3, :2] = True
    np.testing.assert_array_equal(inside, expected)
    assert not fill_outline(square - 50, (4, 4)).any()
    assert not fill_outline(square + 50, (4, 4)).any()
