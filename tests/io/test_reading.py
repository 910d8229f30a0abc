import subprocess
import sys

import numpy as np
import pytest

import napari_lungfm.io as lungfm_io
from napari_lungfm._core.exceptions import DicomError, InputFileError, UsageError
from napari_lungfm.geometry import LabelMap
from napari_lungfm.io import read_volume, write_image, write_rtstruct, write_series


def test_a_file_a_folder_and_one_slice_give_the_same_volume(series, volume, tmp_path):
    write_image(volume, tmp_path / "v.nii.gz")
    for path in (tmp_path / "v.nii.gz", series, series / "slice_0004.dcm", str(series)):
        np.testing.assert_array_equal(read_volume(path).array, volume.array)


def test_a_slice_stands_for_its_own_series_in_its_own_folder(series, volume, tmp_path):
    other = volume.crop(np.s_[:3, :, :])
    write_series(other, series / "sub")
    assert read_volume(series / "slice_0001.dcm").shape[0] == 6
    for path in write_series(other, tmp_path / "x", series_uid="1.2.3"):
        path.rename(series / f"other_{path.name}")
    assert read_volume(series / "slice_0001.dcm").shape[0] == 6
    assert read_volume(series / "other_slice_0001.dcm").shape[0] == 3
    assert read_volume(series, series="1.2.3").shape[0] == 3


def test_progress_reaches_the_series(series):
    calls = []
    read_volume(series, progress=lambda *call: calls.append(call))
    assert calls[-1] == (6, 6)


def test_what_cannot_be_read(series, volume, geometry, tmp_path):
    with pytest.raises(InputFileError, match="no such file or folder"):
        read_volume(tmp_path / "none")
    (tmp_path / "readme.txt").write_text("text")
    with pytest.raises(InputFileError, match=r"readme\.txt.*not DICOM.*\.nii\.gz"):
        read_volume(tmp_path / "readme.txt")
    with pytest.raises(UsageError, match="a DICOM folder only"):
        read_volume(series / "slice_0001.dcm", series="1.2")
    label_map = LabelMap.from_mask(volume.array > 0, geometry)
    write_rtstruct(label_map, series, series / "rs")
    with pytest.raises(DicomError, match="no image but RTSTRUCT"):
        read_volume(series / "rs")
    (series / "cut").write_bytes((series / "slice_0001.dcm").read_bytes()[:140])
    with pytest.raises(DicomError, match="cut' is a damaged DICOM file"):
        read_volume(series / "cut")


def test_every_exported_name_exists():
    for name in lungfm_io.__all__:
        assert getattr(lungfm_io, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = lungfm_io.nonsense


def test_importing_the_package_loads_nothing_heavy():
    heavy = ["SimpleITK", "pydicom", "highdicom", "skimage", "torch"]
    code = f"import sys, napari_lungfm.io; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = (
        "import sys, napari_lungfm.io.dicom_writers, napari_lungfm.io.dicom_seg; "
        "print('highdicom' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
