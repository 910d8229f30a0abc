import gzip
import os
import resource
import signal

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_lungfm._core.exceptions import (
    DataError,
    GeometryError,
    InputFileError,
    OutputError,
    UsageError,
)
from napari_lungfm._core.seeding import generator
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry
from napari_lungfm.io.images import (
    WRITE_SUFFIXES,
    from_sitk,
    read_image,
    read_label_map,
    to_sitk,
    write_image,
    write_label_map,
)


def write_sitk(array, path, direction=None, **options):
    image = sitk.GetImageFromArray(array, **options)
    if direction is not None:
        image.SetDirection(np.ravel(direction).tolist())
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("suffix", WRITE_SUFFIXES)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    mirrored=st.booleans(),
    swapped=st.booleans(),
    spacing=st.tuples(*[st.floats(0.2, 6.0)] * 3),
    origin=st.tuples(*[st.floats(-900.0, 900.0)] * 3),
)
def test_voxels_and_grid_survive(
    tmp_path_factory, suffix, seed, mirrored, swapped, spacing, origin
):
    rng = generator("images", seed)
    direction = Rotation.random(random_state=seed).as_matrix()
    if swapped:
        direction = np.round(np.eye(3)[rng.permutation(3)])
    direction = direction * (1.0, 1.0, -1.0 if mirrored else 1.0)
    grid = VolumeGeometry((4, 3, 5), spacing, origin, direction.tolist())
    volume = Volume(rng.integers(-1000, 3000, grid.shape).astype(np.int16), grid)
    path = tmp_path_factory.mktemp("images") / f"volume{suffix}"
    write_image(volume, path)
    back = read_image(path)
    assert back.array.dtype == np.int16
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.geometry.difference(grid, 1e-3) is None


@pytest.mark.parametrize("suffix", WRITE_SUFFIXES)
def test_writing_twice_gives_the_same_bytes(volume, tmp_path, suffix):
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        write_image(volume, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.real_data
@pytest.mark.parametrize("case", ["000001", "000009"])
def test_axis_swapped_real_case_round_trips(real_data, tmp_path, case):
    volume = read_image(real_data / "deeplesion" / f"{case}_ct.nii.gz")
    np.testing.assert_allclose(volume.geometry.direction, [[0, 1, 0], [1, 0, 0], [0, 0, -1]])
    for suffix in WRITE_SUFFIXES:
        write_image(volume, tmp_path / f"v{suffix}")
        back = read_image(tmp_path / f"v{suffix}")
        np.testing.assert_array_equal(back.array, volume.array)
        assert back.geometry.is_close(volume.geometry)


@pytest.mark.real_data
def test_simpleitk_agrees_on_where_voxels_lie(real_data):
    path = real_data / "deeplesion" / "000009_lesion.nii.gz"
    ours, theirs = read_label_map(path), sitk.ReadImage(str(path))
    z, y, x = 3, 50, 20
    np.testing.assert_allclose(
        ours.geometry.index_to_world((z, y, x)), theirs.TransformIndexToPhysicalPoint((x, y, z))
    )
    assert ours.array[z, y, x] == theirs[x, y, z]


def test_floats_are_kept_as_float32_and_whole_floats_become_int16(geometry, tmp_path):
    whole = np.full(geometry.shape, -5.0)
    write_sitk(whole, tmp_path / "whole.nii")
    assert read_image(tmp_path / "whole.nii").array.dtype == np.int16
    whole[1, 2, 3] = 0.5
    write_sitk(whole, tmp_path / "half.nrrd")
    half = read_image(tmp_path / "half.nrrd")
    assert half.array.dtype == np.float32
    assert half.array[1, 2, 3] == 0.5
    write_sitk(np.full(geometry.shape, 40_000, np.uint16), tmp_path / "big.nrrd")
    big = read_image(tmp_path / "big.nrrd")
    assert big.array.dtype == np.float32
    assert (big.array == 40_000).all()


@pytest.mark.parametrize("suffix", WRITE_SUFFIXES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_is_refused_with_count_and_place(geometry, tmp_path, suffix, dtype):
    array = np.zeros(geometry.shape, np.float32)
    array[2, 3, 4], array[4, 0, 0] = np.nan, np.inf
    write_sitk(array.astype(dtype), tmp_path / f"nan{suffix}")
    for read in (read_image, read_label_map):
        with pytest.raises(DataError, match=r"nan.* 2 voxels .*\(2, 3, 4\)"):
            read(tmp_path / f"nan{suffix}")


def test_other_dimensions_are_refused(tmp_path):
    write_sitk(np.zeros((4, 5), np.int16), tmp_path / "flat.nii")
    with pytest.raises(DataError, match=r"flat.nii.*2D.*5 x 4"):
        read_image(tmp_path / "flat.nii")
    write_sitk(np.zeros((2, 3, 4, 5), np.int16), tmp_path / "time.nrrd", isVector=False)
    with pytest.raises(DataError, match=r"time.nrrd.*4D.*5 x 4 x 3 x 2"):
        read_image(tmp_path / "time.nrrd")
    write_sitk(np.zeros((3, 4, 5, 2), np.float32), tmp_path / "rgb.mha", isVector=True)
    for read in (read_image, read_label_map):
        with pytest.raises(DataError, match=r"rgb.mha.*2 components"):
            read(tmp_path / "rgb.mha")


@pytest.mark.parametrize("suffix", WRITE_SUFFIXES)
@pytest.mark.parametrize("part", [0.9, 0.5, 0.02, 0.0])
def test_truncated_files_give_one_clean_line(volume, tmp_path, capfd, suffix, part):
    path = tmp_path / f"cut{suffix}"
    write_image(volume, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(InputFileError, match="cut") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_corrupted_compressed_nifti_is_refused(volume, tmp_path):
    path = tmp_path / "bad.nii.gz"
    write_image(volume, path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with pytest.raises(InputFileError, match=r"bad.nii.gz"):
        read_image(path)
    path.write_bytes(gzip.compress(gzip.compress(b"no image")))
    with pytest.raises(InputFileError, match=r"bad.nii.gz"):
        read_image(path)


def test_stderr_of_others_survives_a_good_read(volume, tmp_path, capfd):
    write_image(volume, tmp_path / "v.mha")
    read_image(tmp_path / "v.mha")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(InputFileError):
        read_image(tmp_path / "missing.mha")
    os.write(2, b"still here")
    assert "still here" in capfd.readouterr().err


def test_nan_is_found_in_big_endian_files(tmp_path):
    nib = pytest.importorskip("nibabel")
    array = np.ones((4, 5, 6), np.float32)  # nibabel's arrays are (x, y, z)
    for value, refused in [(1.0, False), (np.nan, True)]:
        array[1, 2, 3] = value
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(np.float32)
        nib.save(nib.Nifti1Image(array, np.eye(4), header), tmp_path / "big.nii.gz")
        if refused:
            with pytest.raises(DataError, match=r"1 voxels .*\(3, 2, 1\)"):
                read_image(tmp_path / "big.nii.gz")
        else:
            assert (read_image(tmp_path / "big.nii.gz").array == 1).all()


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(InputFileError, match="no such file"):
        read_image(tmp_path / "none.nii")
    with pytest.raises(InputFileError, match="it is a folder"):
        read_image(tmp_path)
    (tmp_path / "scan.img").write_bytes(b"x")
    with pytest.raises(InputFileError, match=r"scan.img.*\.nii\.gz.*\.mhd"):
        read_image(tmp_path / "scan.img")
    (tmp_path / "lost.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\n"
        "ElementDataFile = lost.raw\n"
    )
    with pytest.raises(InputFileError, match=r"lost.mhd.*data file is missing"):
        read_image(tmp_path / "lost.mhd")


def test_shear_is_refused_and_rounding_put_right(geometry, tmp_path):
    array = np.zeros(geometry.shape, np.int16)
    sheared = np.array([[1, np.sin(np.radians(10)), 0], [0, np.cos(np.radians(10)), 0], [0, 0, 1]])
    write_sitk(array, tmp_path / "sheared.nrrd", sheared)
    with pytest.raises(GeometryError, match=r"sheared.nrrd.*80.00 degrees"):
        read_image(tmp_path / "sheared.nrrd")
    rounded = np.round(Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix(), 4)
    write_sitk(array, tmp_path / "rounded.nrrd", rounded)
    direction = np.asarray(read_image(tmp_path / "rounded.nrrd").geometry.direction)
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(direction, rounded, atol=1e-4)


def test_sheared_nifti_is_named_as_sheared(tmp_path):
    nib = pytest.importorskip("nibabel")
    affine = np.eye(4)
    affine[0, 1] = 0.2
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "sheared.nii")
    with pytest.raises(GeometryError, match=r"sheared.nii.*sheared"):
        read_image(tmp_path / "sheared.nii")


def test_label_names_default_to_the_structures_that_occur(geometry, tmp_path):
    array = np.zeros(geometry.shape, np.float64)
    array[0, 0, 0], array[1, 1, 1] = 1, 3
    write_sitk(array, tmp_path / "labels.nii.gz")
    label_map = read_label_map(tmp_path / "labels.nii.gz")
    assert label_map.array.dtype == np.uint8
    assert label_map.labels == {1: "left lung", 3: "tumour"}
    assert label_map.present() == (1, 3)
    named = read_label_map(tmp_path / "labels.nii.gz", {1: "lesion"})
    assert named.labels == {1: "lesion"}


def test_fractional_and_negative_labels_are_refused(geometry, tmp_path):
    array = np.zeros(geometry.shape, np.float32)
    array[3, 2, 1] = 0.25
    write_sitk(array, tmp_path / "soft.nii")
    with pytest.raises(DataError, match=r"soft.nii.*1 voxels.*0.25 at .*\(3, 2, 1\)"):
        read_label_map(tmp_path / "soft.nii")
    write_sitk((array * -8).astype(np.int16), tmp_path / "negative.nii")
    with pytest.raises(DataError, match=r"negative.nii.*-2"):
        read_label_map(tmp_path / "negative.nii")


@pytest.mark.parametrize(
    ("highest", "kind"), [(3, "8-bit unsigned"), (300, "16-bit unsigned"), (70_000, "32-bit uns")]
)
def test_labels_are_written_in_the_smallest_type(geometry, tmp_path, highest, kind):
    array = np.zeros(geometry.shape, np.int64)
    array[1, 2, 3] = highest
    write_label_map(LabelMap(array, geometry), tmp_path / "m.nrrd")
    assert sitk.ReadImage(str(tmp_path / "m.nrrd")).GetPixelIDTypeAsString().startswith(kind)
    np.testing.assert_array_equal(read_label_map(tmp_path / "m.nrrd").array, array)


@pytest.mark.parametrize("name", ["a.img", "a.mhd", "a.nhdr", "a"])
def test_unknown_formats_are_not_written(volume, tmp_path, name):
    with pytest.raises(UsageError, match=r"\.nii\.gz, \.nii, \.nrrd, \.mha"):
        write_image(volume, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", WRITE_SUFFIXES)
def test_a_full_disk_leaves_the_old_file(volume, geometry, tmp_path, capfd, suffix):
    path = tmp_path / f"v{suffix}"
    write_image(volume, path)
    before = path.read_bytes()
    noise = generator("full disk").integers(-1000, 1000, (20, 30, 40)).astype(np.int16)
    big = Volume(noise, VolumeGeometry(noise.shape))
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old_limit[1]))
        with pytest.raises(OutputError, match="cannot write"):
            write_image(big, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert capfd.readouterr() == ("", "")


def test_sitk_images_keep_the_grid(volume):
    image = to_sitk(volume)
    assert image.GetSize() == (20, 17, 6)
    assert image.GetSpacing() == (0.7, 0.8, 2.5)
    back = from_sitk(image, metadata={"a": 1})
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.geometry.is_close(volume.geometry, 1e-9)
    assert back.metadata == {"a": 1}


def test_views_and_odd_types_can_be_converted(geometry):
    array = np.arange(2040, dtype=">i2").reshape(20, 17, 6).transpose(2, 1, 0)[::-1]
    np.testing.assert_array_equal(from_sitk(to_sitk(Volume(array, geometry))).array, array)
    mask = np.zeros(geometry.shape, bool)
    mask[1] = True
    np.testing.assert_array_equal(from_sitk(to_sitk(Volume(mask, geometry))).array, mask)
