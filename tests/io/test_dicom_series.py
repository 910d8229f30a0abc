import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid
from scipy.spatial.transform import Rotation

from napari_lungfm._core.exceptions import DicomError, InputFileError, UsageError
from napari_lungfm._core.seeding import generator
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry, match_geometry
from napari_lungfm.io import (
    find_segmentations,
    find_series,
    read_image,
    read_label_map,
    read_series,
    write_series,
)


@pytest.mark.real_data
def test_ibsi_hu_are_those_of_the_nifti(real_data):
    volume = read_series(real_data / "ibsi_lung" / "dicom" / "image")
    nifti = read_image(real_data / "ibsi_lung" / "nifti" / "image" / "phantom.nii.gz")
    assert volume.array.dtype == nifti.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, nifti.array)
    assert volume.geometry.difference(nifti.geometry) is None
    assert volume.metadata["patient_id"] == "1"
    assert volume.metadata["notes"] == []


@pytest.mark.real_data
def test_acil_dicom_is_its_nrrd(real_data):
    volume = read_series(real_data / "acil_thorax" / "dicom")
    nrrd = read_image(real_data / "acil_thorax" / "ct-64.nrrd")
    np.testing.assert_array_equal(volume.array, nrrd.array)
    assert volume.geometry.difference(nrrd.geometry) is None
    lungs = read_label_map(real_data / "acil_thorax" / "wholeLung-64.nrrd")
    litres = np.count_nonzero(lungs.array) * lungs.geometry.voxel_volume_ml / 1000
    assert litres == pytest.approx(4.55, abs=0.01)
    assert volume.array[lungs.mask(1)].mean() < -700


@pytest.mark.real_data
def test_files_without_modality_are_read_and_noted(real_data):
    volume = read_series(real_data / "lungmask_slices")
    assert volume.shape == (2, 512, 512)
    assert volume.spacing == (1.0, 0.625, 0.625)
    assert volume.metadata["modality"] == ""
    assert any("no Modality" in note for note in volume.metadata["notes"])
    first = pydicom.dcmread(real_data / "lungmask_slices" / "0.dcm").pixel_array
    np.testing.assert_array_equal(volume.array[0], first)


@pytest.mark.real_data
def test_real_folders_are_listed(real_data):
    found = {s.uid: s for s in find_series(real_data)}
    assert sorted(s.n_files for s in found.values()) == [2, 60, 79]
    (contours,) = find_segmentations(real_data)
    assert contours.kind == "RTSTRUCT"
    assert contours.path.name == "DCM_RS_00060.dcm"
    volume = read_series(real_data / "ibsi_lung")
    assert contours.frame_of_reference_uid == volume.metadata["frame_of_reference_uid"]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    mirrored=st.booleans(),
    swapped=st.booleans(),
    slices=st.integers(2, 5),
    spacing=st.tuples(*[st.floats(0.2, 6.0)] * 3),
    origin=st.tuples(*[st.floats(-900.0, 900.0)] * 3),
)
def test_any_orientation_round_trips(
    tmp_path_factory, seed, mirrored, swapped, slices, spacing, origin
):
    rng = generator("series", seed)
    direction = Rotation.random(random_state=seed).as_matrix()
    if swapped:
        direction = np.round(np.eye(3)[rng.permutation(3)])
    direction = direction * (1.0, 1.0, -1.0 if mirrored else 1.0)
    grid = VolumeGeometry((slices, 3, 4), spacing, origin, direction.tolist())
    array = rng.integers(-(2**15), 2**15, grid.shape).astype(np.int16)
    folder = tmp_path_factory.mktemp("series")
    write_series(Volume(array, grid), folder / "ct")
    back = read_series(folder / "ct")
    assert np.linalg.det(back.geometry.direction) == pytest.approx(1.0)
    placed = match_geometry(LabelMap(back.array, back.geometry), grid, tolerance=1e-3)
    np.testing.assert_array_equal(placed.array, array)


def test_order_comes_from_positions_alone(series, volume, edit, tmp_path):
    uids = read_series(series).metadata["sop_instance_uids"]
    edit(series, lambda i, ds: setattr(ds, "InstanceNumber", (i * 5) % 6))
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    for i, path in enumerate(sorted(series.iterdir())):
        shutil.copy(path, shuffled / f"{(i * 5 + 3) % 6}")  # and without .dcm
    back = read_series(shuffled)
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.geometry.is_close(volume.geometry, 1e-6)
    assert back.metadata["sop_instance_uids"] == uids


def test_metadata(series, edit):
    def window(_, ds):
        ds.WindowCenter, ds.WindowWidth = [40, -600], [400, 1500]
        ds.StudyDate = "20200131"

    edit(series, window)
    metadata = read_series(series).metadata
    first = pydicom.dcmread(min(series.glob("*.dcm")))
    assert metadata["patient_id"] == "P1"
    assert metadata["series_description"] == "thin"
    assert metadata["modality"] == "CT"
    assert (metadata["window_centre"], metadata["window_width"]) == (40.0, 400.0)
    assert metadata["series_uid"] == first.SeriesInstanceUID
    assert metadata["study_uid"] == first.StudyInstanceUID
    assert metadata["frame_of_reference_uid"] == first.FrameOfReferenceUID
    assert metadata["sop_instance_uids"][0] == first.SOPInstanceUID
    assert metadata["study_date"] == "20200131"


def test_progress_counts_slices(series):
    calls = []
    read_series(series, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 6) for i in range(1, 7)]


def test_files_without_preamble_and_strangers_in_the_folder(series, volume):
    for path in series.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.preamble = None
        dataset.save_as(
            path.with_suffix(""),
            implicit_vr=True,
            little_endian=True,
            enforce_file_format=False,
            overwrite=True,
        )
        assert path.with_suffix("").read_bytes()[128:132] != b"DICM"
        path.unlink()
    (series / "notes.txt").write_text("not DICOM")
    (series / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (series / "zeros").write_bytes(b"\x08\x00" + b"\0" * 300)
    (series / "README").write_text("Thin slices.\n")
    for name in (".gitkeep", "export.log", "Thumbs.db"):
        (series / name).touch()
    (series / "._slice_0001.dcm").write_bytes(b"\0\5\x16\7" + b"\0" * 300)  # of macOS
    np.testing.assert_array_equal(read_series(series).array, volume.array)


def test_several_series_must_be_chosen(series, volume, edit, tmp_path):
    other = Volume(volume.array[:4] + 1, volume.geometry.crop(np.s_[:4, :, :]))
    write_series(other, tmp_path / "deep" / "er", description="thick", series_uid="1.2.3.4")
    (info,) = find_series(series)
    assert (info.modality, info.description, info.n_files) == ("CT", "thin", 6)
    assert (info.patient_id, info.study_date) == ("P1", "")
    with pytest.raises(UsageError, match=r"2 image series") as caught:
        read_series(tmp_path)
    for fact in (info.uid, "1.2.3.4", "'thin'", "'thick'", "6 files", "4 files", "CT"):
        assert fact in str(caught.value)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(read_series(tmp_path, series="1.2.3.4").array, other.array)
    np.testing.assert_array_equal(read_series(tmp_path, series=info.uid).array, volume.array)
    prefix = info.uid[:-3]
    np.testing.assert_array_equal(read_series(tmp_path, series=prefix).array, volume.array)
    with pytest.raises(UsageError, match=r"'1\.2' fits 2 of"):
        read_series(tmp_path, series="1.2")
    with pytest.raises(UsageError, match="'9' fits none of"):
        read_series(tmp_path, series="9")
    longer = other.crop(np.s_[:3, :, :])
    write_series(longer, tmp_path / "longer", series_uid="1.2.3.4.5")
    assert read_series(tmp_path, series="1.2.3.4").shape == (4, 17, 20)  # exact beats prefix


def test_localizers_are_left_out_and_noted(series, volume, edit):
    extra = pydicom.dcmread(series / "slice_0001.dcm")
    extra.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    extra.SOPInstanceUID = generate_uid()
    extra.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    extra.save_as(series / "scout.dcm")
    back = read_series(series)
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.metadata["notes"] == ["1 localizer images of the series were left out"]
    edit(series, lambda _, ds: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    with pytest.raises(DicomError, match="only localizers"):
        read_series(series)


def test_one_slice_needs_a_thickness(series, volume, edit):
    for path in sorted(series.glob("*.dcm"))[1:]:
        path.unlink()
    back = read_series(series)
    assert back.spacing == volume.spacing
    assert any("one slice" in n and "2.5 mm" in n for n in back.metadata["notes"])
    edit(series, lambda _, ds: delattr(ds, "SliceThickness"))
    with pytest.raises(DicomError, match=r"one slice.*slice_0001.dcm.*no SliceThickness"):
        read_series(series)


def test_other_modalities_are_read_and_noted(series, edit):
    edit(series, lambda _, ds: setattr(ds, "Modality", "MR"))
    assert "the modality is MR, so the values are not HU" in read_series(series).metadata["notes"]


def test_missing_folder_and_no_dicom(tmp_path):
    with pytest.raises(InputFileError, match="no such folder"):
        read_series(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputFileError, match="it is a file"):
        find_series(tmp_path / "a.txt")
    assert find_series(tmp_path) == []
    with pytest.raises(DicomError, match=r"no DICOM files in '.*' and its sub-folders"):
        read_series(tmp_path)


@pytest.mark.real_data
def test_a_folder_of_contours_only_is_no_series(real_data):
    with pytest.raises(DicomError, match="no image series, only RTSTRUCT"):
        read_series(real_data / "ibsi_lung" / "dicom" / "mask")


def test_a_damaged_header_is_named(series):
    path = series / "slice_0003.dcm"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DicomError, match=r"slice_0003.dcm"):
        read_series(series)
    path.write_bytes(path.read_bytes()[:140])
    with pytest.raises(DicomError, match=r"slice_0003.dcm.*damaged"):
        read_series(series)


def renamed(folder, suffix):
    """Give every slice another suffix; the paths in order."""
    return [p.rename(p.with_suffix(suffix)) for p in sorted(folder.glob("*.dcm"))]


@pytest.mark.parametrize("suffix", [".dcm", ".IMA", "", ".17", ".img"])
@pytest.mark.parametrize("end", [0, -1])
@pytest.mark.parametrize(
    ("left", "reason"),
    [(b"", "it is empty"), (b"\0" * 100, "after 100 bytes"), (b"\0" * 9000, "begin like DICOM")],
    ids=["empty", "cut-off", "blank"],
)
def test_a_lost_slice_at_either_end_is_named(series, suffix, end, left, reason):
    victim = renamed(series, suffix)[end]
    victim.write_bytes(left)
    with pytest.raises(DicomError, match=rf"{victim.name}' is a damaged.*{reason}"):
        read_series(series)


def test_a_folder_of_empty_slices_is_damaged_and_not_without_dicom(tmp_path):
    (tmp_path / "a.dcm").touch()
    (tmp_path / "b.dcm").touch()
    with pytest.raises(DicomError, match=r"a\.dcm.*it is empty \(2 such files\)"):
        read_series(tmp_path)


def test_any_content_under_a_dicom_name_is_looked_at(series):
    (series / "page.dcm").write_text("<html>the archive wants a password</html>" * 9)
    with pytest.raises(DicomError, match=r"page\.dcm.*does not begin like DICOM"):
        read_series(series)


def test_a_slice_without_preamble_that_is_cut_off_is_named(series):
    victim = max(series.glob("*.dcm"))
    victim.write_bytes(bytes.fromhex("08000500 43530A00") + b"ISO_IR 192")
    with pytest.raises(DicomError, match=rf"{victim.name}.*no SeriesInstanceUID"):
        read_series(series)


def test_a_link_to_a_slice_that_is_gone_is_named(series, tmp_path):
    victim = max(series.glob("*.dcm"))
    kept = victim.rename(tmp_path / "kept")
    victim.symlink_to(kept)
    assert read_series(series).shape[0] == 6
    kept.unlink()
    with pytest.raises(DicomError, match=rf"{victim.name}.*link to a file that is not there"):
        read_series(series)


@pytest.mark.parametrize("name", ["deep", "deep/er"])
def test_a_sub_folder_that_may_not_be_listed_is_named(series, tmp_path, monkeypatch, name):
    closed = tmp_path / name
    closed.mkdir(parents=True)
    original = os.scandir

    def forbidden(place):
        if Path(place) == closed:
            raise PermissionError(13, "Permission denied", str(place))
        return original(place)

    monkeypatch.setattr(os, "scandir", forbidden)
    for look in (read_series, find_series, find_segmentations):
        with pytest.raises(InputFileError, match=rf"folder '{closed}': Permission denied"):
            look(tmp_path)
    assert read_series(series).shape[0] == 6


def test_a_folder_that_may_be_listed_only_is_named(series, monkeypatch):
    original = Path.stat

    def forbidden(self, **kwargs):
        if self.name == "slice_0006.dcm":
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, **kwargs)

    monkeypatch.setattr(Path, "stat", forbidden)
    with pytest.raises(InputFileError, match=r"slice_0006\.dcm': Permission denied"):
        read_series(series)


def test_a_file_that_may_not_be_opened_is_named(series, monkeypatch):
    original = Path.open

    def forbidden(self, *args, **kwargs):
        if self.name == "slice_0006.dcm":
            raise PermissionError(13, "Permission denied")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(InputFileError, match=r"slice_0006\.dcm.*Permission denied"):
        read_series(series)


def test_enhanced_multiframe_ct(series, volume):
    legacy = pytest.importorskip("highdicom.legacy")
    slices = [pydicom.dcmread(p) for p in sorted(series.glob("*.dcm"))]
    for dataset in slices:
        dataset.StudyDate, dataset.StudyTime = "20200101", "120000"
        dataset.ContentDate = dataset.AcquisitionDate = "20200101"
        dataset.ContentTime = dataset.AcquisitionTime = "120000"
        dataset.PatientPosition = "HFS"
        dataset.ManufacturerModelName = dataset.DeviceSerialNumber = "x"
        dataset.RescaleIntercept = "-24"
    enhanced = legacy.LegacyConvertedEnhancedCTImage(slices, generate_uid(), 2, generate_uid(), 1)
    for path in series.glob("*.dcm"):
        path.unlink()
    enhanced.save_as(series / "enhanced.dcm")
    calls = []
    back = read_series(series, progress=lambda *c: calls.append(c))
    assert back.array.dtype == np.int16
    np.testing.assert_array_equal(back.array, volume.array - 24)
    assert back.geometry.is_close(volume.geometry, 1e-6)
    assert calls == [(6, 6)]
    enhanced.SOPInstanceUID = generate_uid()
    enhanced.save_as(series / "again.dcm")
    with pytest.raises(DicomError, match="several frames"):
        read_series(series)
