import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import DataError, GeometryError
from napari_lungfm.geometry import (
    LabelMap,
    Structure,
    Volume,
    VolumeGeometry,
    axis_codes,
    reorient,
)
from napari_lungfm.preprocessing import (
    Preprocessed,
    clip_and_scale,
    crop_or_pad,
    paper_preprocessing,
)

CODES = ["SPL", "IPL", "SAR", "LSP", "RIA", "PLS", "AIL"]


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def ball(shape, spacing, radius_mm):
    geometry = VolumeGeometry(shape, spacing, (-40.0, 12.0, 3.0))
    grid = np.indices(shape, dtype=float)
    steps = [(g - (n - 1) / 2) * s for g, n, s in zip(grid, shape, spacing, strict=True)]
    return LabelMap.from_mask(sum(s * s for s in steps) <= radius_mm**2, geometry)


@pytest.mark.parametrize("codes", CODES)
def test_the_paper_s_steps_on_any_orientation(codes):
    rng = np.random.default_rng(0)
    geometry = VolumeGeometry((20, 30, 34), (1.5, 0.9, 0.9), (5.0, 6.0, 7.0))
    stored = Volume(rng.integers(-1200, 1200, geometry.shape).astype(np.int16), geometry)
    axial = paper_preprocessing(stored)
    assert axial.volume.spacing == (3.0, 1.0, 1.0)
    assert axial.volume.shape == (10, 27, 31)
    assert axial.volume.array.dtype == np.float32
    assert 0 <= axial.volume.array.min() < axial.volume.array.max() <= 1
    turned = paper_preprocessing(reorient(stored, codes))
    assert axis_codes(turned.volume.geometry) == "SPL"
    assert turned.volume.geometry.is_close(axial.volume.geometry)
    np.testing.assert_allclose(turned.volume.array, axial.volume.array, atol=1e-5)


def test_a_ct_with_the_wanted_spacing_is_not_interpolated(small_ct, monkeypatch):
    def refuse(*_args, **_kwargs):
        pytest.fail("nothing needs resampling")

    for name in ("resample_labels", "resample_volume"):
        monkeypatch.setattr(f"napari_lungfm.preprocessing.pipeline.{name}", refuse)
    prepared = paper_preprocessing(small_ct, tuple(reorient(small_ct, "SPL").spacing))
    expected = clip_and_scale(reorient(small_ct, "SPL").array)
    np.testing.assert_array_equal(prepared.volume.array, expected)
    labels = np.random.default_rng(0).integers(0, 4, prepared.volume.shape).astype(np.uint8)
    back = prepared.to_source(LabelMap(labels, prepared.volume.geometry))
    assert back.geometry is small_ct.geometry
    again = prepared.from_source(back)
    np.testing.assert_array_equal(again.array, labels)


@given(
    st.sampled_from(CODES),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_flips_permutations_crops_and_pads_are_undone_exactly(codes, shape, seed):
    rng = np.random.default_rng(seed)
    source = VolumeGeometry((5, 6, 4), (2.0, 0.7, 0.9), (1.0, 2.0, 3.0))
    stored = LabelMap(rng.integers(0, 4, source.shape).astype(np.uint8), source, {3: "tumour"})
    seen = crop_or_pad(reorient(stored, codes), shape)
    prepared = Preprocessed(Volume(np.zeros(shape, np.float32), seen.geometry), source)
    back = prepared.to_source(seen)
    kept = prepared.to_source(LabelMap(np.ones(shape, np.uint8), seen.geometry)).array == 1
    np.testing.assert_array_equal(back.array[kept], stored.array[kept])
    assert not back.array[~kept].any()
    per_axis = np.minimum(np.array(reorient(stored, codes).shape), shape)
    assert kept.sum() == per_axis.prod()


@pytest.mark.parametrize("radius", [8.0, 15.0, 25.0])
@pytest.mark.parametrize("spacing", [(3.0, 0.98, 0.98), (3.0, 0.8, 0.8), (2.5, 0.9, 0.9)])
def test_there_and_back_keeps_a_ball(radius, spacing):
    shape = (round(80 / spacing[0]), round(80 / spacing[1]), round(70 / spacing[2]))
    truth = ball(shape, spacing, radius)
    prepared = paper_preprocessing(Volume(np.zeros(shape, np.int16), truth.geometry))
    there = prepared.from_source(truth)
    assert there.geometry is prepared.volume.geometry
    back = prepared.to_source(there)
    assert back.geometry.is_close(truth.geometry)
    assert dice(back.mask(3), truth.mask(3)) >= (0.97 if radius > 10 else 0.95)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("ibsi_lung/nifti/mask/mask.nii.gz", "SPL"),
        ("ibsi_lung/nifti/mask/mask.nii.gz", "RIA"),
        ("acil_thorax/wholeLung-64.nrrd", "IPL"),
    ],
)
def test_there_and_back_keeps_a_real_mask(read_labels, name, codes):
    truth = reorient(read_labels(name), codes)
    prepared = paper_preprocessing(Volume(np.zeros(truth.shape, np.int16), truth.geometry))
    back = prepared.to_source(prepared.from_source(truth))
    assert dice(back.mask(3), truth.mask(3)) >= 0.99


def test_a_mask_becomes_the_tumour_and_must_fit(small_ct):
    prepared = paper_preprocessing(small_ct)
    mask = np.ones(prepared.volume.shape, bool)
    back = prepared.to_source(mask)
    assert back.present() == (int(Structure.TUMOUR),)
    assert back.labels == {3: "tumour"}
    assert (back.array == 3).mean() > 0.9
    with pytest.raises(GeometryError, match="prepared image"):
        prepared.to_source(mask[1:])
    with pytest.raises(DataError, match="boolean"):
        prepared.to_source(mask.astype(np.uint8))


def test_nan_is_refused(small_ct):
    voxels = small_ct.array.astype(np.float32)
    voxels[2, 3, 4] = np.nan
    with pytest.raises(DataError, match="NaN"):
        paper_preprocessing(Volume(voxels, small_ct.geometry))


def test_the_stored_image_is_left_alone(small_ct):
    before = small_ct.array.copy()
    paper_preprocessing(small_ct)
    np.testing.assert_array_equal(small_ct.array, before)
