import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import GeometryError
from napari_lungfm.geometry import VolumeGeometry

SEED = st.integers(0, 2**32 - 1)
ONCE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@given(SEED)
@ONCE
def test_index_and_world_agree_with_simpleitk(random_geometry, to_sitk, seed):
    geometry = random_geometry(seed)
    image = to_sitk(geometry)
    rng = np.random.default_rng(seed)
    points = rng.uniform(-5, 12, (6, 3))
    for point in points:
        expected = image.TransformContinuousIndexToPhysicalPoint(point[::-1].tolist())
        np.testing.assert_allclose(geometry.index_to_world(point), expected, atol=1e-6)
    whole = tuple(int(n) - 1 for n in geometry.shape)
    np.testing.assert_allclose(
        geometry.index_to_world(whole), image.TransformIndexToPhysicalPoint(whole[::-1]), atol=1e-6
    )
    np.testing.assert_allclose(
        geometry.world_to_index(geometry.index_to_world(points)), points, atol=1e-6
    )
    np.testing.assert_allclose(
        geometry.affine @ [*points[0], 1], [*geometry.index_to_world(points[0]), 1], atol=1e-6
    )


@given(SEED)
@ONCE
def test_affine_and_dict_come_back(random_geometry, seed):
    geometry = random_geometry(seed)
    back = VolumeGeometry.from_affine(geometry.shape, geometry.affine)
    assert back.is_close(geometry, 1e-9)
    np.testing.assert_allclose(back.direction, geometry.direction, atol=1e-9)
    exact = VolumeGeometry.from_dict(json.loads(json.dumps(geometry.to_dict())))
    assert exact.to_dict() == geometry.to_dict()


@given(SEED)
@ONCE
def test_crop_keeps_every_voxel_in_its_place(random_geometry, seed):
    geometry = random_geometry(seed)
    rng = np.random.default_rng(seed)
    starts = [int(rng.integers(0, n)) for n in geometry.shape]
    stops = [int(rng.integers(a + 1, n + 1)) for a, n in zip(starts, geometry.shape, strict=True)]
    part = geometry.crop(tuple(map(slice, starts, stops)))
    assert part.shape == tuple(b - a for a, b in zip(starts, stops, strict=True))
    corner = np.array(part.shape) - 1
    np.testing.assert_allclose(
        part.index_to_world(corner), geometry.index_to_world(corner + starts), atol=1e-6
    )
    assert (part.spacing, part.direction) == (geometry.spacing, geometry.direction)


def test_crop_takes_open_and_negative_slices_and_refuses_empty_ones():
    geometry = VolumeGeometry((5, 6, 7), (2, 1, 1))
    part = geometry.crop((slice(1, None), slice(-2, None), slice(None)))
    assert (part.shape, part.origin) == ((4, 2, 7), (0, 4, 2))
    for bad in (slice(3, 3), slice(9, 12), slice(0, 4, 2), slice(4, 1)):
        with pytest.raises(GeometryError, match="empty or has steps"):
            geometry.crop((bad, slice(None), slice(None)))


@given(SEED)
@ONCE
def test_resampled_covers_the_same_box(random_geometry, seed):
    geometry = random_geometry(seed)
    rng = np.random.default_rng(seed)
    spacing = tuple(rng.uniform(0.4, 5, 3))
    result = geometry.resampled(spacing)
    assert result.spacing == pytest.approx(spacing)
    np.testing.assert_allclose(
        result.index_to_world((-0.5, -0.5, -0.5)),
        geometry.index_to_world((-0.5, -0.5, -0.5)),
        atol=1e-6,
    )
    over = np.array(result.extent_mm) - geometry.extent_mm
    many = np.array(result.shape) > 1
    assert (np.abs(over)[many] <= np.array(spacing)[many] / 2 + 1e-9).all()
    assert geometry.resampled(geometry.spacing).is_close(geometry, 1e-9)


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, 1, np.nan), (np.inf, 1, 1), (1, 1)])
def test_resampled_refuses_an_impossible_spacing(spacing):
    with pytest.raises(GeometryError, match="three positive numbers"):
        VolumeGeometry((5, 5, 5)).resampled(spacing)


def test_derived_sizes():
    geometry = VolumeGeometry((10, 20, 30), (3.0, 0.5, 0.8))
    assert geometry.voxel_volume_ml == pytest.approx(0.0012)
    assert geometry.extent_mm == pytest.approx((30, 10, 24))


def test_plain_python_numbers_are_stored():
    geometry = VolumeGeometry(
        tuple(np.array([2, 3, 4])), tuple(np.float32([1, 2, 3])), np.zeros(3), np.eye(3)
    )
    assert json.dumps(geometry.to_dict())
    assert type(geometry.shape[0]) is int
    assert type(geometry.spacing[0]) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shape": (0, 3, 3)}, "positive sizes"),
        ({"shape": (3, 3)}, "positive sizes"),
        ({"spacing": (1, 0, 1)}, "spacing"),
        ({"spacing": (1, np.nan, 1)}, "spacing"),
        ({"spacing": (1, 1)}, "spacing"),
        ({"origin": (0, np.inf, 0)}, "origin"),
        ({"direction": np.zeros((2, 2))}, "3 x 3"),
        ({"direction": np.full((3, 3), np.nan)}, "3 x 3"),
        ({"direction": np.ones((3, 3))}, "right angles"),
        ({"direction": ((1, 0.2, 0), (0, 0.98, 0), (0, 0, 1))}, "right angles"),
        ({"direction": 2 * np.eye(3)}, "right angles"),
    ],
)
def test_impossible_grids_are_refused(values, message):
    with pytest.raises(GeometryError, match=message):
        VolumeGeometry(**{"shape": (3, 3, 3), **values})


def test_a_degenerate_or_sheared_affine_is_refused():
    with pytest.raises(GeometryError, match="not a grid"):
        VolumeGeometry.from_affine((2, 2, 2), np.zeros((4, 4)))
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    with pytest.raises(GeometryError, match="right angles"):
        VolumeGeometry.from_affine((2, 2, 2), sheared)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shape": (5, 6, 8)}, "shapes"),
        ({"spacing": (2.1, 1, 1)}, "spacings"),
        ({"origin": (0.5, 0, 0)}, "origins"),
        ({"direction": np.diag([1.0, -1.0, 1.0])}, "orientations"),
    ],
)
def test_differences_are_named(values, message):
    base = {"shape": (5, 6, 7), "spacing": (2, 1, 1)}
    one, other = VolumeGeometry(**base), VolumeGeometry(**{**base, **values})
    assert message in one.difference(other)
    assert message in other.difference(one)
    assert not one.is_close(other)


def test_rounding_of_a_header_is_not_a_difference_but_drift_over_many_slices_is():
    one = VolumeGeometry((300, 512, 512), (1.25, 0.9765625, 0.9765625), (-250.0, -250.0, -400.0))
    rounded = VolumeGeometry(one.shape, tuple(np.float32(one.spacing)), one.origin)
    assert one.is_close(rounded)
    assert "apart" in one.difference(
        VolumeGeometry(one.shape, (1.2505, *one.spacing[1:]), one.origin)
    )
