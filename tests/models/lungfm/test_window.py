import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm.models.lungfm.window import (
    LEAST_SIDE,
    LOOK_SIDE,
    Window,
    filled_box,
    resized,
    spots,
)


@given(st.floats(-20, 60), st.floats(-20, 60), st.integers(LEAST_SIDE, 90))
def test_a_cut_has_the_voxels_of_the_slice_and_air_beyond(y: float, x: float, side: int) -> None:
    plane = torch.arange(40 * 50, dtype=torch.float32).reshape(1, 40, 50)
    window = Window.around(y, x, side)
    padded = np.pad(plane[0].numpy(), 200, constant_values=-5.0)
    expected = padded[
        200 + window.y0 : 200 + window.y0 + window.side,
        200 + window.x0 : 200 + window.x0 + window.side,
    ]
    np.testing.assert_array_equal(window.cut(plane, -5.0)[0].numpy(), expected)


@given(st.integers(-150, 90), st.integers(-150, 90), st.sampled_from([LEAST_SIDE, 64, 97, 128]))
def test_what_a_window_has_of_a_slice_is_all_it_needs(y0: int, x0: int, side: int) -> None:
    plane = torch.arange(40.0 * 50).reshape(1, 40, 50).sin() * 1000
    window = Window(y0, x0, side)
    rows, columns = window.within((40, 50))
    part = plane[:, rows, columns].clone()
    assert part.shape[1] <= side
    assert part.shape[2] <= side
    seen = window.seen_from(rows.start, columns.start)
    assert torch.equal(seen.look(part, -5.0), window.look(plane, -5.0))


def test_a_window_is_centred_and_never_too_small() -> None:
    window = Window.around(30.0, 40.0, 50.0)
    assert (window.y0, window.x0, window.side) == (5, 15, 50)
    assert Window.around(30.0, 40.0, 2.0).side == LEAST_SIDE


@given(st.integers(-30, 40), st.integers(-30, 40), st.integers(LEAST_SIDE, 200))
def test_there_and_back_keeps_a_smooth_image_where_it_was(y0: int, x0: int, side: int) -> None:
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(70.0), indexing="ij")
    plane = (0.5 * y - 0.25 * x)[None]
    window = Window(y0, x0, side)
    back = window.back(window.look(plane, 0.0), (60, 70), -99.0)[0]
    inside = torch.zeros(60, 70, dtype=torch.bool)
    inside[max(y0, 0) : max(y0 + side, 0), max(x0, 0) : max(x0 + side, 0)] = True
    assert bool((back[~inside] == -99.0).all())
    # Linear images survive linear resampling, but for the border of slice and window.
    deep = inside.clone()
    margin = 4 + side // 32
    deep[:margin], deep[-margin:], deep[:, :margin], deep[:, -margin:] = False, False, False, False
    deep[: max(0, y0 + margin)] = False
    deep[max(0, y0 + side - margin) :] = False
    deep[:, : max(0, x0 + margin)] = False
    deep[:, max(0, x0 + side - margin) :] = False
    assert torch.allclose(back[deep], plane[0][deep], atol=0.6)


def test_places_follow_the_image() -> None:
    window = Window(10, 20, 64)
    plane = torch.zeros(1, 100, 100)
    plane[0, 42, 52] = 1.0
    look = window.look(plane, 0.0)[0]
    y, x = window.place(42.5, 52.5)
    peak = np.unravel_index(int(look.argmax()), look.shape)
    assert abs(peak[0] + 0.5 - y) <= 1
    assert abs(peak[1] + 0.5 - x) <= 1


@given(st.floats(-20, 140), st.floats(-20, 140), st.floats(0.0, 90), st.floats(0.0, 90))
def test_a_box_covers_its_area(y0: float, x0: float, height: float, width: float) -> None:
    cover = filled_box((y0, x0, y0 + height, x0 + width), torch.zeros(()))
    rows = max(0.0, min(y0 + height, LOOK_SIDE) - max(y0, 0.0))
    columns = max(0.0, min(x0 + width, LOOK_SIDE) - max(x0, 0.0))
    assert float(cover.sum()) == pytest.approx(rows * columns, abs=0.05)
    assert 0 <= float(cover.min()) <= float(cover.max()) <= 1.001


def test_spots_peak_where_the_clicks_are() -> None:
    image = spots([(20.5, 30.5), (100.5, 90.5)], torch.zeros(()))
    assert image[20, 30] == 1
    assert image[100, 90] == 1
    assert image[60, 60] < 1e-6
    assert float(spots([], torch.zeros(())).sum()) == 0


def test_shrinking_averages() -> None:
    checkers = (torch.arange(256) % 2).float().expand(1, 256, 256)
    assert torch.allclose(resized(checkers, 64)[0, :, 2:-2], torch.full((64, 60), 0.5), atol=0.02)
