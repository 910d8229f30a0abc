import numpy as np
import pydicom
import pytest

from napari_lungfm._core.exceptions import (
    DicomError,
    GeometryError,
    InputFileError,
    LungFMWarning,
    UsageError,
)
from napari_lungfm.geometry import LabelMap, VolumeGeometry
from napari_lungfm.io import SegmentInfo, list_segments, read_seg, read_series, write_seg

NAMES = {1: "Lung-Left", 3: "GTV-1"}


@pytest.fixture
def label_map(geometry):
    array = np.zeros(geometry.shape, np.uint8)
    array[0:5, 1:16, 1:10] = 1
    array[2:4, 3:8, 4:9] = 3
    return LabelMap(array, geometry)


@pytest.fixture
def seg(label_map, series, tmp_path):
    write_seg(label_map, series, tmp_path / "seg.dcm", NAMES)
    return tmp_path / "seg.dcm"


def test_segments_come_back_by_name_case_and_number(seg, label_map):
    assert list_segments(seg) == [SegmentInfo("Lung-Left", 1, 5), SegmentInfo("GTV-1", 2, 2)]
    for wanted in ("GTV-1", "gtv-1", 2):
        back = read_seg(seg, label_map.geometry, wanted)
        np.testing.assert_array_equal(back.mask("tumour"), label_map.mask(3))
        assert back.array.dtype == np.uint8
    lung = read_seg(seg, label_map.geometry, "Lung-Left", label=1)
    np.testing.assert_array_equal(lung.array, label_map.array == 1)
    assert lung.labels == {1: "left lung"}
    assert read_seg(seg, label_map.geometry, 1, label=8).labels == {8: "Lung-Left"}


def test_frames_are_placed_by_position_on_any_turn_of_the_grid(seg, label_map):
    grid = label_map.geometry
    flip = np.diag([-1.0, 1.0, -1.0, 1.0])
    flip[0, 3], flip[2, 3] = grid.shape[0] - 1, grid.shape[2] - 1
    turned = VolumeGeometry.from_affine(grid.shape, grid.affine @ flip)
    back = read_seg(seg, turned, "GTV-1")
    np.testing.assert_array_equal(back.mask(3)[::-1, :, ::-1], label_map.mask(3))


def test_a_single_plane(label_map, series, tmp_path):
    array = np.zeros_like(label_map.array)
    array[4, 2:9, 3:5] = 3
    write_seg(LabelMap(array, label_map.geometry), series, tmp_path / "one.dcm")
    back = read_seg(tmp_path / "one.dcm", label_map.geometry, 1)
    np.testing.assert_array_equal(back.array, array)


def test_planes_apart_from_each_other(label_map, series, tmp_path):
    array = np.zeros_like(label_map.array)
    array[[0, 3, 5], 2:9, 3:5] = 3
    write_seg(LabelMap(array, label_map.geometry), series, tmp_path / "apart.dcm")
    back = read_seg(tmp_path / "apart.dcm", label_map.geometry, 1)
    np.testing.assert_array_equal(back.array, array)


def test_an_unknown_segment_lists_those_present(seg, geometry):
    with pytest.raises(
        UsageError, match=r"no segment 'tumour'.*'Lung-Left' \(number 1\), 'GTV-1' \(number 2\)"
    ):
        read_seg(seg, geometry, "tumour")


def test_another_frame_of_reference_is_refused(seg, geometry, series):
    uid = read_series(series).metadata["frame_of_reference_uid"]
    read_seg(seg, geometry, 1, frame_of_reference_uid=uid)
    with pytest.raises(DicomError, match=r"another frame of reference.*\(1\.2\)"):
        read_seg(seg, geometry, 1, frame_of_reference_uid="1.2")


def test_another_grid_is_refused(seg, geometry):
    z, y, x = geometry.spacing
    other = VolumeGeometry(geometry.shape, (z, y, x * 1.1), geometry.origin)
    with pytest.raises(GeometryError, match=r"'GTV-1' of .* does not fit the image.*0\.77"):
        read_seg(seg, other, "GTV-1")
    with pytest.raises(GeometryError, match="outside the image"):
        read_seg(seg, geometry.crop(np.s_[0:3, :, :]), "GTV-1")


def test_fractions_are_cut_at_one_half_with_a_warning(seg, series, label_map, tmp_path):
    import highdicom as hd

    images = [pydicom.dcmread(p) for p in sorted(series.glob("*.dcm"))]
    fractions = np.zeros(label_map.shape, np.float32)
    fractions[2, 3:8, 4:9] = 0.3
    fractions[2, 4:7, 4:9] = 0.7
    description = hd.seg.SegmentDescription(
        1, "soft", *[hd.sr.CodedConcept("85756007", "SCT", "Tissue")] * 2, "MANUAL"
    )
    hd.seg.Segmentation(
        images, fractions, "FRACTIONAL", [description], "1.2.3", 1, "1.2.4", 1, "a", "b", "c", "d"
    ).save_as(tmp_path / "soft.dcm")
    with pytest.warns(LungFMWarning, match="'soft'.*fractions"):
        back = read_seg(tmp_path / "soft.dcm", label_map.geometry, "soft")
    np.testing.assert_array_equal(back.mask(3), fractions >= 0.5)


def test_empty_truncated_and_foreign_files(seg, series, geometry, tmp_path):
    with pytest.raises(InputFileError, match="no such file"):
        list_segments(tmp_path / "none.dcm")
    with pytest.raises(DicomError, match="not a DICOM SEG but CT"):
        list_segments(series / "slice_0001.dcm")
    dataset = pydicom.dcmread(seg)
    dataset.PixelData = b"\0" * len(dataset.PixelData)
    dataset.save_as(tmp_path / "empty.dcm")
    with pytest.raises(DicomError, match=r"'GTV-1' of .*is empty"):
        read_seg(tmp_path / "empty.dcm", geometry, "GTV-1")
    seg.write_bytes(seg.read_bytes()[:-100])
    with pytest.raises(DicomError, match=r"seg\.dcm"):
        read_seg(seg, geometry, "GTV-1")
