import copy
import shutil

import numpy as np
import pydicom
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


@pytest.fixture
def convert(bench, dicom):
    """Convert the series with one of its region files: ``convert("rtstruct", ...)``."""
    dicom.out = dicom.folder / "out"

    def call(kind, *arguments):
        path = getattr(dicom, kind)
        return bench(
            "convert", "--image", dicom.series, f"--{kind}", path, "--out", dicom.out, *arguments
        )

    return call


def written(case):
    return sorted(p.name for p in case.out.iterdir()) if case.out.exists() else None


def voxels(case, name):
    return np.count_nonzero(io.read_label_map(case.out / f"{name}.nii.gz").array)


def rename(path, names):
    """Give the regions of an RTSTRUCT or SEG other names, in the order of their numbers."""
    dataset = pydicom.dcmread(path)
    items = dataset.get("StructureSetROISequence") or dataset.get("SegmentSequence")
    keyword = "ROIName" if "ROIName" in items[0] else "SegmentLabel"
    for item, name in zip(items, names, strict=True):
        setattr(item, keyword, name)
    dataset.save_as(path)


def add_roi(path, name, number, edit):
    """Append a ROI whose contours are those of the first after ``edit(contour)``."""
    dataset = pydicom.dcmread(path)
    roi = copy.deepcopy(dataset.StructureSetROISequence[0])
    roi.ROIName, roi.ROINumber = name, number
    contours = copy.deepcopy(dataset.ROIContourSequence[0])
    contours.ReferencedROINumber = number
    for contour in contours.ContourSequence:
        edit(contour)
    dataset.StructureSetROISequence.append(roi)
    dataset.ROIContourSequence.append(contours)
    dataset.save_as(path)


def to_point(contour):
    contour.ContourGeometricType = "POINT"
    contour.ContourData, contour.NumberOfContourPoints = contour.ContourData[:3], 1


def widen(contour):
    """As an External contour that is wider than the image."""
    points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
    centre = points.mean(axis=0)
    points = centre + (points - centre) * (40, 40, 1)
    contour.ContourData = [f"{v:.6g}" for v in points.ravel()]


def blank_seg(path, number=None):
    """Clear the frames of one segment of a SEG, or of all."""
    dataset = pydicom.dcmread(path)
    frames = dataset.PerFrameFunctionalGroupsSequence
    pixels = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    size = dataset.Rows * dataset.Columns
    for i, frame in enumerate(frames):
        of = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        if number is None or of == number:
            pixels[i * size : (i + 1) * size] = 0
    dataset.PixelData = np.packbits(pixels, bitorder="little").tobytes()
    dataset.save_as(path)


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


@pytest.mark.parametrize("end", [0, -1])
@pytest.mark.parametrize("left", [0, 100])
def test_an_emptied_slice_at_either_end_is_named(bench, dicom, end, left):
    victim = sorted(dicom.series.iterdir())[end]
    victim.write_bytes(victim.read_bytes()[:left])
    result = bench("convert", "--image", dicom.series, "--out", dicom.folder / "out")
    assert result.code == 1
    assert victim.name in result.err
    assert not (dicom.folder / "out").exists()


def test_unusable_rois_are_left_out_and_named(convert, dicom):
    add_roi(dicom.rtstruct, "ISO", 7, to_point)
    add_roi(dicom.rtstruct, "External", 9, widen)
    result = convert("rtstruct", "--json")
    assert result.code == 0
    assert written(dicom) == ["GTV-1.nii.gz", "Heart.nii.gz", "image.nii.gz"]
    assert sorted(result.json["masks"]) == ["GTV-1", "Heart"]
    skipped = result.json["skipped"]
    assert [(s["name"], s["number"]) for s in skipped] == [("ISO", 7), ("External", 9)]
    assert "POINT" in skipped[0]["reason"]
    assert "outside the image" in skipped[1]["reason"]
    lines = [line for line in result.err.splitlines() if "left out" in line]
    assert len(lines) == 2
    assert "'ISO' (number 7)" in lines[0]
    assert "POINT" in lines[0]


def test_a_roi_that_was_named_is_not_left_out(convert, dicom):
    add_roi(dicom.rtstruct, "ISO", 7, to_point)
    result = convert("rtstruct", "--roi", "Heart", "--roi", "ISO")
    assert result.code == 1
    assert "POINT" in result.err
    assert written(dicom) is None


def test_only_unusable_rois(convert, dicom):
    dataset = pydicom.dcmread(dicom.rtstruct)
    for item in dataset.ROIContourSequence:
        for contour in item.ContourSequence:
            to_point(contour)
    dataset.save_as(dicom.rtstruct)
    result = convert("rtstruct", "--json")
    assert result.code == 1
    assert result.out == ""
    assert "none of the 2 ROIs" in result.err
    assert result.err.count("POINT") == 2
    assert written(dicom) is None


def test_no_roi_at_all(convert, dicom):
    dataset = pydicom.dcmread(dicom.rtstruct)
    dataset.StructureSetROISequence = dataset.ROIContourSequence = []
    dataset.save_as(dicom.rtstruct)
    result = convert("rtstruct")
    assert result.code == 1
    assert "there is no ROI in" in result.err
    assert written(dicom) is None


def test_empty_segments_are_left_out_and_named(convert, dicom):
    blank_seg(dicom.seg, number=2)
    result = convert("seg", "--json")
    assert result.code == 0
    assert written(dicom) == ["GTV-1.nii.gz", "image.nii.gz"]
    (skipped,) = result.json["skipped"]
    assert (skipped["name"], skipped["number"]) == ("Heart", 2)
    assert "is empty" in skipped["reason"]
    assert "left out 'Heart' (number 2)" in result.err
    assert convert("seg", "--roi", "Heart").code == 1
    dicom.out = dicom.folder / "second"
    blank_seg(dicom.seg)
    result = convert("seg")
    assert result.code == 1
    assert "none of the 2 segments" in result.err
    assert written(dicom) is None


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
@pytest.mark.parametrize("names", [("GTV-1", "GTV-1"), ("GTV-1", "gtv-1")])
def test_names_alike_get_files_of_their_own(convert, dicom, kind, names):
    rename(getattr(dicom, kind), names)
    first, second = (np.count_nonzero(dicom.labels.array == v) for v in (1, 2))
    assert first != second
    result = convert(kind, "--json")
    assert result.code == 0
    files = [f"{name}.nii.gz" for name in (names[0], f"{names[1]}-2")]
    assert written(dicom) == sorted([*files, "image.nii.gz"])
    assert voxels(dicom, names[0]) == first
    assert voxels(dicom, f"{names[1]}-2") == second
    masks = sorted(result.json["masks"].values(), key=lambda m: m["number"])
    assert [(m["number"], m["voxels"]) for m in masks] == [(1, first), (2, second)]
    assert [m["file"] for m in masks] == [str(dicom.out / f) for f in files]


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
def test_a_region_by_number(convert, dicom, kind):
    rename(getattr(dicom, kind), ("GTV-1", "GTV-1"))
    result = convert(kind, "--roi", "GTV-1")
    assert result.code == 2
    assert f"2 {'ROI' if kind == 'rtstruct' else kind + 'ment'}s fit 'GTV-1'" in result.err
    assert "'GTV-1' (number 1), 'GTV-1' (number 2); --roi takes a name, or '#NUMBER'" in result.err
    assert convert(kind, "--roi", "1").code == 2
    assert "number 9" in convert(kind, "--roi", "#9").err
    assert written(dicom) is None
    assert convert(kind, "--roi", "#2", "--roi", "#2").code == 0
    assert written(dicom) == ["GTV-1-2.nii.gz", "image.nii.gz"]  # as when all are converted
    assert voxels(dicom, "GTV-1-2") == np.count_nonzero(dicom.labels.array == 2)


def test_no_region_gets_the_file_name_of_another(convert, dicom):
    rename(dicom.rtstruct, ("GTV", "gtv"))
    add_roi(dicom.rtstruct, "GTV-2", 3, lambda _: None)
    add_roi(dicom.rtstruct, "Image", 4, lambda _: None)
    result = convert("rtstruct", "--json")
    files = {m["number"]: m["file"] for m in result.json["masks"].values()}
    stems = {1: "GTV", 2: "gtv-3", 3: "GTV-2", 4: "roi-Image"}
    assert files == {n: str(dicom.out / f"{stem}.nii.gz") for n, stem in stems.items()}


def test_the_help_names_numbers(bench):
    assert "#NUMBER" in bench("convert", "--help").out


def test_the_input_image_is_not_overwritten(bench, case):
    before = case.image.read_bytes()
    result = bench("convert", "--image", case.image, "--out", case.folder)
    assert result.code == 2
    assert "overwrite the input" in result.err
    link = case.folder / "link"
    link.symlink_to(case.folder)
    assert bench("convert", "--image", case.image, "--out", link).code == 2
    assert case.image.read_bytes() == before


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
@pytest.mark.parametrize("name", ["image", "Heart"])
def test_the_region_file_is_not_overwritten(convert, dicom, kind, name):
    original = getattr(dicom, kind)
    dicom.out.mkdir()
    setattr(dicom, kind, original.rename(dicom.out / f"{name}.nii.gz"))
    before = getattr(dicom, kind).read_bytes()
    result = convert(kind)
    assert result.code == 2
    assert "overwrite the input" in result.err
    assert getattr(dicom, kind).read_bytes() == before
    assert written(dicom) == [f"{name}.nii.gz"]
    assert convert(kind, "--roi", "GTV-1").code == (2 if name == "image" else 0)


@pytest.mark.parametrize("out", [".", "sub", "sub/deeper", "../ct-link/sub"])
def test_nothing_is_written_into_the_dicom_folder(bench, dicom, out):
    (dicom.series.parent / "ct-link").symlink_to(dicom.series)
    before = sorted(dicom.series.rglob("*"))
    result = bench("convert", "--image", dicom.series, "--out", dicom.series / out)
    assert result.code == 2
    assert "in the DICOM folder" in result.err
    assert sorted(dicom.series.rglob("*")) == before


def test_nothing_is_written_beside_the_slice_that_was_given(bench, dicom):
    image = min(dicom.series.iterdir())
    result = bench("convert", "--image", image, "--out", dicom.series)
    assert result.code == 2
    assert "in the DICOM folder" in result.err
    assert bench("convert", "--image", image, "--out", dicom.series / "out").code == 0


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
