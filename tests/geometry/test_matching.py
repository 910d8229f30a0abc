import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_lungfm._core.exceptions import GeometryError
from napari_lungfm.geometry import LabelMap, VolumeGeometry, match_geometry, reorient

SEED = st.integers(0, 2**32 - 1)
ONCE = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
CODES = st.sampled_from(["SPL", "IAR", "LSP", "PRI", "RIA", "ALS"])


def labels_on(geometry, seed=0):
    array = np.random.default_rng(seed).integers(0, 4, geometry.shape).astype(np.uint8)
    return LabelMap(array, geometry, {3: "tumour"})


def test_the_same_grid_is_the_identity_without_a_copy(random_geometry):
    geometry = random_geometry(3)
    label_map = labels_on(geometry)
    same = VolumeGeometry.from_dict(geometry.to_dict())
    result = match_geometry(label_map, same)
    assert result.array is label_map.array
    assert result.geometry is same
    assert result.labels == label_map.labels


@given(SEED, CODES)
@ONCE
def test_flipped_permuted_cropped_and_padded_masks_are_matched_exactly(
    random_geometry, seed, codes
):
    """A part of the image's labels, on a grid that also reaches beyond the image."""
    geometry = random_geometry(seed)
    rng = np.random.default_rng(seed)
    truth = labels_on(geometry, seed)
    starts = [int(rng.integers(0, n)) for n in geometry.shape]
    stops = [int(rng.integers(a + 1, n + 1)) for a, n in zip(starts, geometry.shape, strict=True)]
    region = tuple(map(slice, starts, stops))
    kept = np.zeros_like(truth.array)
    kept[region] = truth.array[region]
    part = truth.crop(region)
    before, after = rng.integers(0, 4, (2, 3))
    padded_shape = tuple(int(n) for n in np.array(part.shape) + before + after)
    origin = part.geometry.index_to_world(-before)
    padded = VolumeGeometry(padded_shape, geometry.spacing, tuple(origin), geometry.direction)
    stored = reorient(
        LabelMap(np.pad(part.array, list(zip(before, after, strict=True))), padded, truth.labels),
        codes,
    )
    result = match_geometry(stored, geometry)
    np.testing.assert_array_equal(result.array, kept)
    assert result.geometry is geometry
    assert result.array.dtype == np.uint8
    assert result.labels == truth.labels


GRID = VolumeGeometry((6, 7, 8), (3.0, 0.9, 0.8), (-20.0, 30.0, 5.0))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("fraction", [0.5, -0.5, 0.1, 1.4])
def test_a_shift_by_part_of_a_voxel_is_refused(axis, fraction):
    shift = np.zeros(3)
    shift[axis] = fraction
    moved = VolumeGeometry(GRID.shape, GRID.spacing, tuple(GRID.index_to_world(shift)))
    with pytest.raises(GeometryError, match="resample it first"):
        match_geometry(labels_on(moved), GRID)


@pytest.mark.parametrize("codes", ["SPL", "IAR", "LSP"])
@pytest.mark.parametrize("spacing", [(3.0, 0.9, 0.9), (1.5, 0.9, 0.8), (3.0, 0.9, 0.82)])
def test_another_spacing_is_refused_in_any_orientation(codes, spacing):
    other = labels_on(VolumeGeometry(GRID.shape, spacing, GRID.origin))
    with pytest.raises(GeometryError, match="not on the voxel grid"):
        match_geometry(reorient(other, codes), GRID)


def test_another_angle_is_refused():
    a = np.deg2rad(2)
    turned = ((np.cos(a), -np.sin(a), 0), (np.sin(a), np.cos(a), 0), (0, 0, 1))
    with pytest.raises(GeometryError, match="not on the voxel grid"):
        match_geometry(
            labels_on(VolumeGeometry(GRID.shape, GRID.spacing, GRID.origin, turned)), GRID
        )


def test_a_turn_about_the_diagonal_of_the_volume_is_refused():
    """It leaves the first and last voxel in place and moves the other corners by millimetres."""
    image = VolumeGeometry((200, 200, 200))
    diagonal = np.ones(3) / np.sqrt(3)
    turn = Rotation.from_rotvec(0.008 * diagonal).as_matrix()
    turned = VolumeGeometry(image.shape, image.spacing, image.origin, turn)
    assert turned.difference(image) is not None
    last = np.array(image.shape) - 1
    np.testing.assert_allclose(turned.index_to_world(last), image.index_to_world(last), atol=1e-9)
    mask = np.zeros(image.shape, np.uint8)
    with pytest.raises(GeometryError, match="not on the voxel grid"):
        match_geometry(LabelMap(mask, turned), image)


def test_labelled_voxels_outside_the_image_are_counted_and_refused():
    array = np.zeros(GRID.shape, np.uint8)
    array[0, :, :] = 1
    array[5, 0, :3] = 2
    above = VolumeGeometry(GRID.shape, GRID.spacing, tuple(GRID.index_to_world((1, 0, 0))))
    with pytest.raises(GeometryError, match=r"^3 labelled voxels of the mask lie outside"):
        match_geometry(LabelMap(array, above), GRID)
    far = VolumeGeometry(GRID.shape, GRID.spacing, tuple(GRID.index_to_world((100, 0, -50))))
    with pytest.raises(GeometryError, match="lie outside"):
        match_geometry(LabelMap(array, far), GRID)
    nothing = match_geometry(LabelMap(np.zeros_like(array), far), GRID)
    assert not nothing.array.any()


def test_rounded_headers_are_matched():
    fine = VolumeGeometry((40, 50, 50), (3.0, 0.9765625, 0.9765625), (-250.123456, -99.5, 12.25))
    rounded = VolumeGeometry(fine.shape, (3.0, 0.97656, 0.97656), (-250.1235, -99.5, 12.25))
    array = np.random.default_rng(0).integers(0, 2, fine.shape).astype(np.uint8)
    for codes in ("SPL", "IAR"):
        result = match_geometry(reorient(LabelMap(array, rounded), codes), fine)
        np.testing.assert_array_equal(result.array, array)
