import shutil

import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm.geometry import LabelMap


@pytest.fixture
def dicom(case):
    """The case as a DICOM series with an RTSTRUCT and a SEG of two regions."""
    series = case.folder / "dicom"
    io.write_series(io.read_volume(case.image), series)
    array = case.inside.astype(np.uint8)
    array[:3, 5:20, 5:10] = 2
    labels = LabelMap(array, case.geometry, {1: "GTV-1", 2: "Heart"})
    case.series, case.labels = series, labels
    case.rtstruct, case.seg = case.folder / "rs.dcm", case.folder / "seg.dcm"
    io.write_rtstruct(labels, series, case.rtstruct)
    io.write_seg(labels, series, case.seg)
    return case


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
def test_image_and_every_region(bench, dicom, kind):
    out = dicom.folder / "out"
    result = bench(
        "convert",
        "--image",
        dicom.series,
        f"--{kind}",
        getattr(dicom, kind),
        "--out",
        out,
        "--json",
    )
    assert result.code == 0
    assert sorted(p.name for p in out.iterdir()) == ["GTV-1.nii.gz", "Heart.nii.gz", "image.nii.gz"]
    original, image = io.read_volume(dicom.image), io.read_volume(out / "image.nii.gz")
    assert image.array.dtype == np.int16
    assert np.array_equal(image.array, original.array)
    assert image.geometry.is_close(original.geometry)
    for value, name in dicom.labels.labels.items():
        mask = io.read_label_map(out / f"{name}.nii.gz")
        assert np.array_equal(mask.array == 1, dicom.labels.array == value)
        assert result.json["masks"][name]["voxels"] == np.count_nonzero(mask.array)


def test_one_region_by_name(bench, dicom):
    out = dicom.folder / "out"
    arguments = ["convert", "--image", dicom.series, "--rtstruct", dicom.rtstruct, "--out", out]
    assert bench(*arguments, "--roi", "Heart").code == 0
    assert sorted(p.name for p in out.iterdir()) == ["Heart.nii.gz", "image.nii.gz"]


def test_an_unknown_region_lists_those_present(bench, dicom):
    out = dicom.folder / "out"
    result = bench(
        "convert", "--image", dicom.series, "--rtstruct", dicom.rtstruct, "--roi", "GTV-9",
        "--out", out,
    )  # fmt: skip
    assert result.code == 2
    assert "GTV-9" in result.err
    assert "GTV-1" in result.err
    assert "Heart" in result.err
    assert not out.exists()


def test_a_folder_without_dicom(bench, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("nothing here")
    result = bench("convert", "--image", empty, "--out", tmp_path / "out")
    assert result.code == 1
    assert str(empty) in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_truncated_slice_is_named(bench, dicom):
    victim = sorted(dicom.series.iterdir())[4]
    victim.write_bytes(victim.read_bytes()[:-2000])
    result = bench("convert", "--image", dicom.series, "--out", dicom.folder / "out")
    assert result.code == 1
    assert victim.name in result.err
    assert "Traceback" not in result.err
    assert not (dicom.folder / "out").exists()


def test_a_missing_slice_is_told_by_position(bench, dicom):
    sorted(dicom.series.iterdir())[7].unlink()
    result = bench("convert", "--image", dicom.series, "--out", dicom.folder / "out")
    assert result.code == 1
    assert "mm" in result.err
    assert not (dicom.folder / "out").exists()


def test_several_series_are_listed_for_choice(bench, dicom):
    second = dicom.folder / "second"
    io.write_series(io.read_volume(dicom.image), second, description="second", series_uid="1.2.3.4")
    shutil.copytree(second, dicom.series / "sub")
    out = dicom.folder / "out"
    result = bench("convert", "--image", dicom.series, "--out", out)
    assert result.code == 2
    assert "1.2.3.4" in result.err
    assert "second" in result.err
    assert bench("convert", "--image", dicom.series, "--series", "1.2.3.4", "--out", out).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rtstruct", "a", "--seg", "b"], "not both"),
        (["--roi", "x"], "--rtstruct or --seg"),
    ],
)
def test_conflicting_options(bench, case, arguments, message):
    result = bench("convert", "--image", case.image, "--out", case.folder / "o", *arguments)
    assert result.code == 2
    assert message in result.err


@pytest.mark.real_data
def test_the_ibsi_case_is_exact(bench, real_data, tmp_path):
    root = real_data / "ibsi_lung"
    rtstruct = root / "dicom" / "mask" / "DCM_RS_00060.dcm"
    result = bench(
        "convert", "--image", root / "dicom" / "image", "--rtstruct", rtstruct,
        "--roi", "GTV-1", "--out", tmp_path,
    )  # fmt: skip
    assert result.code == 0
    published = io.read_volume(root / "nifti" / "image" / "phantom.nii.gz")
    assert np.array_equal(io.read_volume(tmp_path / "image.nii.gz").array, published.array)
    truth = root / "nifti" / "mask" / "mask.nii.gz"
    scored = bench("evaluate", "--pred", tmp_path / "GTV-1.nii.gz", "--truth", truth, "--json")
    assert scored.json["scores"]["mask"]["dice"] == 1.0
