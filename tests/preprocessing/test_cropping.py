import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import GeometryError, UsageError
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry, lattice_offset, match_geometry
from napari_lungfm.preprocessing import crop_or_pad, place_on

SHAPE = st.tuples(*[st.integers(1, 7)] * 3)


def image_of(shape):
    geometry = VolumeGeometry(shape, (3.0, 0.7, 0.8), (5.0, -6.0, 7.0))
    return Volume(np.arange(1, np.prod(shape) + 1, dtype=np.int16).reshape(shape), geometry)


@given(SHAPE, SHAPE)
def test_every_kept_voxel_stays_where_it_was(shape, wanted):
    image = image_of(shape)
    result = crop_or_pad(image, wanted, fill=-1)
    assert result.shape == wanted
    assert result.array.dtype == image.array.dtype
    kept = np.argwhere(result.array != -1)
    assert len(kept) == np.prod(np.minimum(shape, wanted))
    place = image.geometry.world_to_index(result.geometry.index_to_world(kept))
    np.testing.assert_allclose(place, np.rint(place), atol=1e-6)
    values = image.array[tuple(np.rint(place).astype(int).T)]
    np.testing.assert_array_equal(result.array[tuple(kept.T)], values)
    centre = (np.array(wanted) - 1) / 2
    shift = image.geometry.world_to_index(result.geometry.index_to_world(centre))
    assert np.abs(shift - (np.array(shape) - 1) / 2).max() <= 0.5 + 1e-6


@given(SHAPE, SHAPE)
def test_place_on_undoes_it(shape, wanted):
    image = image_of(shape)
    there = crop_or_pad(image, wanted, fill=-1)
    back = place_on(there, image.geometry, fill=-1)
    same = back.array != -1
    assert back.geometry is image.geometry
    np.testing.assert_array_equal(back.array[same], image.array[same])
    if all(w >= n for n, w in zip(shape, wanted, strict=True)):
        assert same.all()
    # Cropping what was padded to its old shape is the identity, without knowing the old place.
    padded = crop_or_pad(image, [n + w for n, w in zip(shape, wanted, strict=True)], fill=-1)
    again = crop_or_pad(padded, shape)
    np.testing.assert_array_equal(again.array, image.array)
    assert again.geometry.is_close(image.geometry)


def test_labels_in_the_padding_are_dropped_here_and_refused_by_match_geometry():
    image = image_of((3, 4, 5))
    padded = crop_or_pad(image, (5, 6, 7))
    labels = LabelMap(np.ones(padded.shape, np.uint8), padded.geometry, {1: "left lung"})
    back = place_on(labels, image.geometry)
    assert back.array.all()
    assert back.labels == labels.labels
    with pytest.raises(GeometryError, match="outside the image"):
        match_geometry(labels, image.geometry)


def test_grids_that_do_not_overlap_give_only_fill():
    image = image_of((3, 4, 5))
    far = VolumeGeometry((2, 2, 2), image.spacing, (5.0 + 0.8 * 50, -6.0, 7.0 - 3 * 9))
    assert lattice_offset(image.geometry, far) == (9, 0, -50)
    assert (place_on(image, far, fill=7).array == 7).all()


def test_other_lattices_and_shapes_are_refused():
    image = image_of((3, 4, 5))
    for other in (
        VolumeGeometry((3, 4, 5), (3.0, 0.7, 0.7), image.geometry.origin),
        VolumeGeometry((3, 4, 5), image.spacing, (5.4, -6.0, 7.0)),
        VolumeGeometry((3, 4, 5), image.spacing, (5.0, -6.0, 7.0), np.diag([1.0, -1.0, 1.0])),
    ):
        assert lattice_offset(image.geometry, other) is None
        with pytest.raises(GeometryError, match="resample instead"):
            place_on(image, other)
    for bad in ((0, 1, 1), (3, 4)):
        with pytest.raises(UsageError):
            crop_or_pad(image, bad)
