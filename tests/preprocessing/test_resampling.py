import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from napari_lungfm._core.exceptions import DataError, GeometryError, UsageError
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry, reorient
from napari_lungfm.preprocessing import resample_labels, resample_volume, resampled_grid


def test_a_linear_ramp_in_the_patient_is_kept(small_ct):
    """Linear interpolation is exact for an image that is linear in world coordinates."""
    slope = np.array([3.0, -2.0, 5.0])
    source = small_ct.geometry
    ramp = source.index_to_world(np.moveaxis(np.indices(source.shape), 0, -1)) @ slope
    volume = Volume(ramp.astype(np.float32), source)
    result = resample_volume(volume, (1.1, 1.3, 0.7), fill=-9999)
    assert result.array.dtype == np.float32
    place = result.geometry.index_to_world(np.moveaxis(np.indices(result.shape), 0, -1))
    index = source.world_to_index(place)
    inner = ((index >= 0) & (index <= np.array(source.shape) - 1)).all(axis=-1)
    assert inner.mean() > 0.5
    np.testing.assert_allclose(result.array[inner], (place @ slope)[inner], atol=1e-2)
    assert (result.array != -9999).all()  # the grid covers the same box and no more


def test_agrees_with_scipy_on_an_unrelated_grid(small_ct, oblique):
    centre = small_ct.geometry.index_to_world((4, 6.5, 5)) - (5, -4, 7)
    target = VolumeGeometry((12, 10, 8), (1.5, 1.0, 1.2), tuple(centre), oblique)
    index = small_ct.geometry.world_to_index(
        target.index_to_world(np.moveaxis(np.indices(target.shape), 0, -1))
    )
    last = np.array(small_ct.shape) - 1
    inner = ((index > 0.01) & (index < last - 0.01)).all(axis=-1)
    outer = ((index < -0.51) | (index > last + 0.51)).any(axis=-1)
    assert inner.any()
    assert outer.any()
    for order, name in ((0, "nearest"), (1, "linear")):
        result = resample_volume(small_ct, target, interpolation=name)
        expected = map_coordinates(
            small_ct.array.astype(float), np.moveaxis(index, -1, 0), order=order, mode="nearest"
        )
        np.testing.assert_allclose(result.array[inner], expected[inner], atol=0.01)
        assert (result.array[outer] == -1000).all()
    assert resample_volume(small_ct, target, interpolation="nearest").array.dtype == np.int16


def test_bspline_is_closer_than_linear_for_a_smooth_image():
    geometry = VolumeGeometry((24, 24, 24), (2.0, 1.0, 1.0))

    def smooth(grid):
        x, y, z = np.moveaxis(
            grid.index_to_world(np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0
        )
        return np.sin(x / 3) * np.cos(y / 3) * np.sin(z / 6) * 500

    volume = Volume(smooth(geometry), geometry)
    errors = {}
    for name in ("nearest", "linear", "bspline"):
        result = resample_volume(volume, (1.3, 0.8, 0.7), interpolation=name)
        inner = tuple(slice(5, n - 5) for n in result.shape)
        errors[name] = np.abs(result.array - smooth(result.geometry))[inner].max()
    assert errors["bspline"] < errors["linear"] / 4 < errors["nearest"] / 4


def test_values_outside(small_ct):
    away = VolumeGeometry((2, 2, 2), (1, 1, 1), (5000.0, 0.0, 0.0))
    assert (resample_volume(small_ct, away).array == -1000).all()
    assert (resample_volume(small_ct, away, fill=-2000).array == -2000).all()
    bright = Volume(np.clip(small_ct.array, -160, 240), small_ct.geometry)
    assert (resample_volume(bright, away).array == -160).all()


def test_same_spacing_gives_the_same_voxels(small_ct):
    assert resampled_grid(small_ct, small_ct.spacing) is small_ct.geometry
    result = resample_volume(small_ct, small_ct.geometry)
    np.testing.assert_allclose(result.array, small_ct.array, atol=1e-3)


def test_bad_input_is_refused(small_ct):
    with pytest.raises(UsageError, match="no interpolation 'cubic'"):
        resample_volume(small_ct, (1, 1, 1), interpolation="cubic")
    for spacing in ((1, 0, 1), (1, -1, 1), (1, 1, np.nan), (np.inf, 1, 1)):
        with pytest.raises(GeometryError, match="spacing"):
            resample_volume(small_ct, spacing)
    voxels = small_ct.array.astype(np.float32)
    voxels[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        resample_volume(Volume(voxels, small_ct.geometry), (1, 1, 1))


# ------------------------------------------------------------------ labels
def lungs_and_tumour(geometry):
    """Three touching labels, described in the patient."""
    x, y, z = np.moveaxis(
        geometry.index_to_world(np.moveaxis(np.indices(geometry.shape), 0, -1)), -1, 0
    )
    labels = np.zeros(geometry.shape, np.uint8)
    body = (x / 30) ** 2 + (y / 24) ** 2 + (z / 36) ** 2 <= 1
    labels[body & (x > 0)] = 1
    labels[body & (x <= 0)] = 2
    labels[(x - 12) ** 2 + (y - 3) ** 2 + (z + 5) ** 2 <= 9**2] = 3
    return LabelMap(labels, geometry, {1: "left lung", 2: "right lung", 3: "tumour"})


def grid(spacing, direction=((1, 0, 0), (0, 1, 0), (0, 0, 1))):
    shape = [round(90 / s) for s in spacing]
    corner = VolumeGeometry(tuple(shape), spacing, (0, 0, 0), direction)
    middle = corner.index_to_world((np.array(shape) - 1) / 2)
    return VolumeGeometry(tuple(shape), spacing, tuple(-middle), direction)


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


@pytest.mark.parametrize("turned", [False, True])
def test_labels_stay_where_they_are_in_the_patient(oblique, turned):
    source = lungs_and_tumour(grid((1.25, 0.8, 0.8)))
    target = grid((2.0, 1.0, 1.0), *([oblique] if turned else []))
    result = resample_labels(source, target)
    truth = lungs_and_tumour(target)
    assert result.labels == source.labels
    assert result.array.dtype == np.uint8
    for value in (1, 2, 3):
        assert dice(result.mask(value), truth.mask(value)) > 0.97


def test_labels_lose_less_than_with_the_nearest_voxel():
    source = lungs_and_tumour(grid((1.25, 0.7, 0.7)))
    target = source.geometry.resampled((3.0, 1.0, 1.0))

    def nearest(label_map, onto):
        image = Volume(label_map.array, label_map.geometry)
        array = resample_volume(image, onto, interpolation="nearest").array
        return LabelMap(array, onto)

    for value in (1, 2, 3):
        losses = []
        for method in (resample_labels, nearest):
            back = method(method(source, target), source.geometry)
            losses.append(1 - dice(back.mask(value), source.mask(value)))
        assert losses[0] < losses[1]


def test_the_largest_share_wins_and_never_an_average_of_labels():
    source = LabelMap(np.array([[[1] * 5 + [3] * 5]], np.uint8), VolumeGeometry((1, 1, 10)))
    target = VolumeGeometry((1, 1, 20), (1, 1, 0.5), (-0.25, 0, 0))
    result = resample_labels(source, target)
    np.testing.assert_array_equal(result.array.ravel(), [1] * 10 + [3] * 10)


def test_a_label_less_than_half_but_more_than_the_background_wins():
    source = np.zeros((1, 2, 2), np.uint8)
    source[0] = [[1, 0], [2, 1]]
    centre = VolumeGeometry((1, 1, 1), (1, 1, 1), (0.5, 0.5, 0.0))
    assert resample_labels(LabelMap(source, VolumeGeometry((1, 2, 2))), centre).array.item() == 1
    source[0] = [[1, 0], [2, 0]]
    assert resample_labels(LabelMap(source, VolumeGeometry((1, 2, 2))), centre).array.item() == 0


def test_a_slice_is_not_lost_between_two_slices():
    source = np.zeros((4, 3, 3), np.uint8)
    source[2] = 1
    label_map = LabelMap(source, VolumeGeometry((4, 3, 3), (1.5, 1, 1)))
    assert resample_labels(label_map, label_map.geometry.resampled((3, 1, 1))).array[1].all()


@given(
    st.tuples(*[st.integers(2, 6)] * 3),
    st.tuples(*[st.sampled_from([0.5, 1.0, 1.7])] * 3),
    st.sampled_from(["SPL", "IAR", "LSP", "PRI"]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_cropping_to_the_labels_changes_nothing(shape, spacing, codes, seed):
    """Against one whole-volume interpolation per label, without any crop."""
    rng = np.random.default_rng(seed)
    array = rng.choice([0, 0, 0, 1, 2], size=shape).astype(np.uint8)
    source = reorient(LabelMap(array, VolumeGeometry(shape, spacing)), codes)
    target = VolumeGeometry((5, 6, 7), (0.9, 1.3, 1.1), tuple(rng.uniform(-1, 1, 3)))
    shares = []
    for value in (1, 2):
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(source.mask(value)).astype("f4"))
        image.SetSpacing(source.spacing[::-1])
        image.SetOrigin(source.geometry.origin)
        image.SetDirection(np.ravel(source.geometry.direction).tolist())
        frame = SimpleITK.GetImageFromArray(np.zeros(target.shape, np.float32))
        frame.SetSpacing(target.spacing[::-1])
        frame.SetOrigin(target.origin)
        shares.append(SimpleITK.GetArrayFromImage(SimpleITK.Resample(image, frame)))
    shares = np.stack([1 - sum(shares), *shares])
    clear = np.diff(np.sort(shares, axis=0)[-2:], axis=0)[0] > 1e-4
    result = resample_labels(source, target).array
    np.testing.assert_array_equal(result[clear], np.argmax(shares, axis=0)[clear])


def test_empty_and_far_labels_give_background():
    geometry = VolumeGeometry((3, 3, 3))
    empty = LabelMap(np.zeros((3, 3, 3), np.int32), geometry, {3: "tumour"})
    target = VolumeGeometry((4, 4, 4), (1, 1, 1), (100.0, 0.0, 0.0))
    for source in (empty, LabelMap(np.ones((3, 3, 3), np.int32), geometry)):
        result = resample_labels(source, target)
        assert not result.array.any()
        assert result.array.dtype == np.int32
        assert result.geometry is target
