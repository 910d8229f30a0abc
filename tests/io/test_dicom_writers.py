import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian
from scipy.spatial.transform import Rotation

from napari_lungfm._core.exceptions import DataError, GeometryError, OutputError
from napari_lungfm._core.seeding import generator
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry, reorient
from napari_lungfm.io import (
    list_rois,
    list_segments,
    read_rtstruct,
    read_seg,
    read_series,
    write_rtstruct,
    write_seg,
    write_series,
)


def test_series_files_say_what_they_are(volume, tmp_path):
    paths = write_series(
        volume,
        tmp_path / "new" / "ct",
        patient_id="P9",
        description="phantom",
        study_uid="1.2.1",
        series_uid="1.2.2",
        frame_of_reference_uid="1.2.3",
    )
    assert [p.name for p in paths] == [f"slice_{i:04d}.dcm" for i in range(1, 7)]
    first = pydicom.dcmread(paths[0])
    assert first.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (first.Modality, first.PatientID, first.SeriesDescription) == ("CT", "P9", "phantom")
    assert (first.StudyInstanceUID, first.SeriesInstanceUID) == ("1.2.1", "1.2.2")
    assert first.FrameOfReferenceUID == "1.2.3"
    assert len({pydicom.dcmread(p).SOPInstanceUID for p in paths}) == 6


def test_simpleitk_reads_the_same_volume(volume, tmp_path):
    paths = write_series(volume, tmp_path / "ct")
    theirs = sitk.ReadImage([str(p) for p in paths])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs), volume.array)
    np.testing.assert_allclose(theirs.GetOrigin(), volume.geometry.origin)
    np.testing.assert_allclose(theirs.GetSpacing(), volume.spacing[::-1])


def test_series_are_reproducible_and_uids_depend_on_the_content(volume, tmp_path):
    first, second = (write_series(volume, tmp_path / name) for name in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    other = write_series(Volume(volume.array + 1, volume.geometry), tmp_path / "c")
    assert (
        pydicom.dcmread(other[0]).SeriesInstanceUID != pydicom.dcmread(first[0]).SeriesInstanceUID
    )


def test_series_refuses_what_it_cannot_store(volume, geometry, tmp_path):
    for value in (0.5, 40_000.0, -40_000.0):
        array = np.zeros(geometry.shape)
        array[1, 1, 1] = value
        with pytest.raises(DataError, match=f"{value:g}"):
            write_series(Volume(array, geometry), tmp_path / "ct")
    with pytest.raises(DataError, match="NaN"):
        write_series(Volume(np.full(geometry.shape, np.nan), geometry), tmp_path / "ct")
    assert list(tmp_path.iterdir()) == []


def test_series_never_touches_a_folder_with_content(volume, tmp_path):
    (tmp_path / "ct").mkdir()
    write_series(volume, tmp_path / "ct")  # an empty folder is fine
    before = sorted(p.name for p in (tmp_path / "ct").iterdir())
    with pytest.raises(OutputError, match="exists already"):
        write_series(volume, tmp_path / "ct")
    assert sorted(p.name for p in (tmp_path / "ct").iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["ct"]


def test_a_failing_series_leaves_nothing(volume, tmp_path, monkeypatch):
    calls = []

    def full_disk(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return original(self, *args, **kwargs)

    original = pydicom.Dataset.save_as
    monkeypatch.setattr(pydicom.Dataset, "save_as", full_disk)
    with pytest.raises(OutputError, match="the disk is full"):
        write_series(volume, tmp_path / "ct")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    density=st.floats(0.05, 0.95),
    mirrored=st.booleans(),
    spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3),
    origin=st.tuples(*[st.floats(-900.0, 900.0)] * 3),
)
def test_rtstruct_and_seg_give_random_masks_back(
    tmp_path_factory, seed, density, mirrored, spacing, origin
):
    """Noise has every hole, island and touching corner there is."""
    rng = generator("writers", seed)
    direction = Rotation.random(random_state=seed).as_matrix()
    direction = direction * (1.0, 1.0, -1.0 if mirrored else 1.0)
    grid = VolumeGeometry((3, 8, 9), spacing, origin, direction.tolist())
    array = (rng.random(grid.shape) < density) * np.uint8(3)
    array[:, 4, 4] = 3  # every slice is used
    folder = tmp_path_factory.mktemp("writers")
    write_series(Volume(np.zeros(grid.shape, np.int16), grid), folder / "ct")
    label_map = LabelMap(array, grid, {3: "tumour"})
    write_rtstruct(label_map, folder / "ct", folder / "rs.dcm")
    np.testing.assert_array_equal(read_rtstruct(folder / "rs.dcm", grid, "tumour").array, array)
    write_seg(label_map, folder / "ct", folder / "seg.dcm")
    np.testing.assert_array_equal(read_seg(folder / "seg.dcm", grid, "tumour").array, array)


def test_labels_on_a_part_of_the_grid_in_another_order(series, geometry, tmp_path):
    array = np.zeros(geometry.shape, np.uint8)
    array[1:4, 5:11, 6:9] = 3
    whole = LabelMap(array, geometry, {3: "tumour"})
    part = reorient(whole.crop(np.s_[1:5, 3:15, 2:18]), "LIA")
    write_rtstruct(part, series, tmp_path / "rs.dcm")
    write_seg(part, series, tmp_path / "seg.dcm")
    back = read_rtstruct(tmp_path / "rs.dcm", geometry, "tumour")
    np.testing.assert_array_equal(back.array, array)
    back = read_seg(tmp_path / "seg.dcm", geometry, "tumour")
    np.testing.assert_array_equal(back.array, array)


@pytest.mark.real_data
def test_real_masks_round_trip(real_data, tmp_path):
    source = real_data / "ibsi_lung"
    geometry = read_series(source).geometry
    tumour = read_rtstruct(source / "dicom" / "mask" / "DCM_RS_00060.dcm", geometry, "GTV-1")
    write_rtstruct(tumour, source, tmp_path / "rs.dcm", {3: "GTV-1"})
    write_seg(tumour, source, tmp_path / "seg.dcm", {3: "GTV-1"}, algorithm="model")
    for back in (
        read_rtstruct(tmp_path / "rs.dcm", geometry, "GTV-1"),
        read_seg(tmp_path / "seg.dcm", geometry, "GTV-1"),
    ):
        assert np.count_nonzero(back.array) == 125_256
        np.testing.assert_array_equal(back.array, tumour.array)


@pytest.mark.real_data
def test_files_with_hardly_any_elements_can_be_referenced(real_data, tmp_path):
    source = real_data / "lungmask_slices"
    volume = read_series(source)
    label_map = LabelMap.from_mask(volume.array > 0, volume.geometry)
    write_seg(label_map, source, tmp_path / "seg.dcm")
    back = read_seg(tmp_path / "seg.dcm", volume.geometry, "tumour")
    np.testing.assert_array_equal(back.array, label_map.array)


def test_rtstruct_refers_to_the_series(series, geometry, tmp_path):
    array = np.zeros(geometry.shape, np.uint8)
    array[2, 3:6, 4:7] = 3
    array[4, 3:6, 4:7] = 1
    label_map = LabelMap(array, geometry, {3: "tumour", 2: "not there"})
    write_rtstruct(label_map, series, tmp_path / "rs.dcm")
    assert [r.name for r in list_rois(tmp_path / "rs.dcm")] == ["label 1", "tumour"]
    metadata = read_series(series).metadata
    dataset = pydicom.dcmread(tmp_path / "rs.dcm")
    assert dataset.StudyInstanceUID == metadata["study_uid"]
    assert dataset.PatientID == "P1"
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == metadata["frame_of_reference_uid"]
    (referenced,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == metadata["series_uid"]
    (contour,) = dataset.ROIContourSequence[1].ContourSequence
    used = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
    assert used == metadata["sop_instance_uids"][2]
    assert max(len(str(v)) for v in contour.ContourData) <= 16


def test_seg_says_who_made_it(series, geometry, tmp_path):
    array = np.zeros(geometry.shape, np.uint8)
    array[2, 3:6, 4:7] = 3
    array[4, 3:6, 4:7] = 12
    label_map = LabelMap(array, geometry, {3: "tumour"})
    write_seg(label_map, series, tmp_path / "hand.dcm")
    write_seg(label_map, series, tmp_path / "model.dcm", algorithm="medsam")
    assert [s.name for s in list_segments(tmp_path / "hand.dcm")] == ["tumour", "label 12"]
    hand, model = (
        pydicom.dcmread(tmp_path / f"{n}.dcm").SegmentSequence for n in ("hand", "model")
    )
    assert hand[0].SegmentAlgorithmType == "MANUAL"
    assert model[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert model[0].SegmentAlgorithmName == "medsam"
    assert hand[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Neoplasm"


@pytest.mark.parametrize("write", [write_rtstruct, write_seg])
def test_what_cannot_be_written_leaves_nothing(series, geometry, tmp_path, write):
    empty = LabelMap(np.zeros(geometry.shape, np.uint8), geometry)
    with pytest.raises(DataError, match="no labelled voxel"):
        write(empty, series, tmp_path / "out" / "x.dcm")
    array = np.zeros(geometry.shape, np.uint8)
    array[0] = 3
    with pytest.raises(DataError, match=r"no voxel with the label 5 \('five'\)"):
        write(LabelMap(array, geometry), series, tmp_path / "out" / "x.dcm", {5: "five"})
    elsewhere = VolumeGeometry(geometry.shape, geometry.spacing, (0.33, 0.2, 0.1))
    with pytest.raises(GeometryError):
        write(LabelMap(array, elsewhere), series, tmp_path / "out" / "x.dcm")
    assert not (tmp_path / "out").exists()
    with pytest.raises(OutputError, match="it is a folder"):
        write(LabelMap(array, geometry), series, tmp_path)
