import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.models.prompt_only import PromptOnlyModel, Shape, sphere_radius_mm
from napari_lungfm.models.prompts import Box, Click, MaskPrompt, Prompt, Stop, slice_range


def _masks(
    prompts: Sequence[Prompt],
    *,
    shape: Shape = "ellipse",
    grid: tuple[int, int, int] = (41, 60, 60),
    spacing: tuple[float, float, float] = (3.0, 1.0, 1.0),
    fill: bool = True,
    **options: float,
) -> np.ndarray:
    volume = Volume(np.full(grid, np.nan), VolumeGeometry(grid, spacing))
    predictor = PromptOnlyModel(shape, **options).open(volume)
    result = np.zeros(grid, bool)
    seen: set[int] = set()
    for z, found in predictor.propagate(prompts, slice_range(prompts, grid[0]), fill=fill):
        assert z not in seen
        seen.add(z)
        result[z] = found.mask
    return result


def _distance(
    grid: tuple[int, int, int], centre: tuple[float, float, float]
) -> Iterator[np.ndarray]:
    """Distances from the centre: slices from indices, rows and columns from voxel centres."""
    z, y, x = np.ogrid[: grid[0], : grid[1], : grid[2]]
    return iter((z - centre[0], y + 0.5 - centre[1], x + 0.5 - centre[2]))


def test_one_box_spans_the_ellipsoid() -> None:
    box = Box(20, 10, 16, 50, 44)
    z, y, x = _distance((41, 60, 60), (20, 30.0, 30.0))
    half_z = (20.0 + 14.0) / 2 / 3.0
    expected = (z / half_z) ** 2 + (y / 20.0) ** 2 + (x / 14.0) ** 2 <= 1.0
    np.testing.assert_array_equal(_masks([box]), expected)


def test_in_plane_axes_count_in_mm() -> None:
    masks = _masks([Box(20, 10, 16, 50, 44)], spacing=(3.0, 0.5, 2.0))
    reach = (20 * 0.5 + 14 * 2.0) / 2  # mm
    assert np.flatnonzero(masks.any(axis=(1, 2)))[[0, -1]].tolist() == [
        20 - math.floor(reach / 3.0),
        20 + math.floor(reach / 3.0),
    ]


def test_one_box_spans_the_cuboid() -> None:
    masks = _masks([Box(20, 10, 16, 50, 44)], shape="box")
    expected = np.zeros_like(masks)
    expected[20 - 5 : 20 + 6, 10:50, 16:44] = True  # 17 mm, slices of 3 mm
    np.testing.assert_array_equal(masks, expected)


def test_one_click_spans_the_sphere() -> None:
    masks = _masks([Click(20, 29, 31)], point_radius_mm=14.0)
    z, y, x = _distance((41, 60, 60), (20, 29.5, 31.5))
    np.testing.assert_array_equal(masks, (3.0 * z) ** 2 + y**2 + x**2 <= 14.0**2)
    assert masks.sum() * 3.0 / 1000 == pytest.approx(4 / 3 * math.pi * 1.4**3, rel=0.03)


def test_several_clicks_are_averaged_on_a_slice_and_make_a_capsule_over_slices() -> None:
    radius = 9.0
    masks = _masks(
        [Click(20, 29, 31), Click(20, 31, 31), Click(10, 30, 31)], point_radius_mm=radius
    )
    disc = masks[15].sum()
    assert all(masks[z].sum() == disc for z in range(10, 21))
    assert np.flatnonzero(masks.any(axis=(1, 2)))[[0, -1]].tolist() == [8, 22]


def test_between_slices_the_axes_are_interpolated() -> None:
    masks = _masks([Box(10, 10, 20, 30, 40), Box(14, 20, 10, 60, 50)])
    _, y, x = _distance((1, 60, 60), (0, 30.0, 30.0))
    np.testing.assert_array_equal(masks[12], ((y / 15.0) ** 2 + (x / 15.0) ** 2 <= 1.0)[0])


def test_boxes_on_every_third_slice_of_a_ball_leave_it_nearly_unchanged() -> None:
    z, y, x = _distance((41, 60, 60), (20, 30.0, 30.0))
    ball = (3.0 * z) ** 2 + y**2 + x**2 <= 25.0**2
    present = np.flatnonzero(ball.any(axis=(1, 2)))
    masks = _masks([Box.around(ball[i], int(i)) for i in present[::3]])
    assert 2 * (masks & ball).sum() / (masks.sum() + ball.sum()) > 0.97


def test_without_propagation_only_prompted_slices_are_filled() -> None:
    masks = _masks([Box(10, 10, 20, 30, 40), Box(14, 20, 10, 60, 50)], fill=False, shape="box")
    assert np.flatnonzero(masks.any(axis=(1, 2))).tolist() == [10, 14]
    assert masks[10].sum() == 400
    assert masks[14].sum() == 1600


def test_a_mask_is_kept_and_stands_for_its_box() -> None:
    ring = np.zeros((60, 60), bool)
    ring[10:50, 10:50] = True
    ring[20:40, 20:40] = False
    masks = _masks([MaskPrompt(20, ring), Box(20, 0, 0, 5, 5)])
    np.testing.assert_array_equal(masks[20], ring)
    np.testing.assert_array_equal(masks[19], _masks([Box(20, 10, 10, 50, 50)])[19])


def test_several_boxes_on_a_slice_are_all_filled() -> None:
    masks = _masks([Box(20, 0, 0, 4, 4), Box(20, 10, 10, 14, 14)], shape="box", fill=False)
    assert masks[20].sum() == 32


def test_stops_and_empty_masks_limit_and_negative_clicks_change_nothing() -> None:
    box = Box(20, 10, 10, 50, 50)
    plain = _masks([box])
    np.testing.assert_array_equal(_masks([box, Click(20, 30, 30, positive=False)]), plain)
    empty = MaskPrompt(18, np.zeros((60, 60), bool))
    limited = _masks([box, Stop(23), empty])
    np.testing.assert_array_equal(limited[19:23], plain[19:23])
    assert not limited[:19].any()
    assert not limited[23:].any()


def test_a_hole_between_prompted_slices_stays_empty() -> None:
    boxes = [Box(20, 10, 10, 50, 50), Box(24, 10, 10, 50, 50)]
    masks = _masks([*boxes, MaskPrompt(22, np.zeros((60, 60), bool))])
    assert masks[[20, 21, 23, 24]].any(axis=(1, 2)).all()
    assert not masks[22].any()


@given(st.integers(0, 59), st.integers(0, 59), st.integers(1, 60), st.integers(1, 60))
def test_the_ellipse_touches_all_sides_of_its_box_and_stays_inside(
    y0: int, x0: int, height: int, width: int
) -> None:
    box = Box(20, y0, x0, min(60, y0 + height), min(60, x0 + width))
    mask = _masks([box], fill=False)[20]
    inside = Box.around(mask, 20)
    assert box.y0 <= inside.y0 <= inside.y1 <= box.y1
    assert box.x0 <= inside.x0 <= inside.x1 <= box.x1
    if (box.y1 - box.y0) % 2 and (box.x1 - box.x0) % 2:  # a voxel centre lies on each axis end
        assert mask[(box.y0 + box.y1) // 2, box.x0 : box.x1].all()


def test_radius_of_a_volume() -> None:
    assert sphere_radius_mm(4 / 3 * math.pi * 8.0) == pytest.approx(20.0)


@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan, math.inf])
def test_a_senseless_radius_is_refused(radius: float) -> None:
    with pytest.raises(UsageError, match="positive number of mm"):
        PromptOnlyModel("ellipse", radius)


def test_a_senseless_shape_is_refused() -> None:
    with pytest.raises(UsageError, match="'box' or 'ellipse'"):
        PromptOnlyModel("star")  # type: ignore[arg-type]
