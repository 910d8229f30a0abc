"""Every stack that is no regular grid is refused, and the message says where and why."""

import shutil

import numpy as np
import pydicom
import pytest

from napari_lungfm._core.exceptions import DicomError
from napari_lungfm.io import read_series


def move(ds, offset):
    ds.ImagePositionPatient = [
        float(a) + b for a, b in zip(ds.ImagePositionPatient, offset, strict=True)
    ]


def test_a_missing_slice_is_placed(series):
    (series / "slice_0003.dcm").unlink()
    with pytest.raises(DicomError, match="missing") as caught:
        read_series(series)
    for fact in ("2.50 mm", "-698.25 to -693.25 mm", "slice_0002", "slice_0004", "5.00 mm apart"):
        assert fact in str(caught.value)


@pytest.mark.parametrize("gone", [[1], [4], [1, 3], [2, 3, 4]])
def test_any_missing_inner_slice_is_noticed(series, gone):
    for i in gone:
        (series / f"slice_{i + 1:04d}.dcm").unlink()
    if len(gone) == 3:  # three slices at 0, 1 and 5
        with pytest.raises(DicomError, match=r"gaps from|drifts"):
            read_series(series)
        return
    with pytest.raises(DicomError, match="gaps from"):
        read_series(series)


def test_uneven_distances_are_refused(series, edit):
    edit(series, lambda i, ds: move(ds, (0, 0, 0.1 * i**2)))
    with pytest.raises(DicomError, match=r"2\.\d+ to 3\.\d+ mm|gaps from"):
        read_series(series)


def test_slightly_rounded_positions_are_accepted_and_noted(series, edit, geometry):
    edit(series, lambda i, ds: move(ds, (0, 0, 0.05 * (-1) ** i)))
    volume = read_series(series)
    assert volume.spacing[0] == pytest.approx(2.5, abs=0.05)
    assert any("uneven" in note for note in volume.metadata["notes"])
    edit(series, lambda i, ds: move(ds, (0, 0, -0.0495 * (-1) ** i)))
    assert read_series(series).metadata["notes"] == []


def test_duplicate_positions_name_both_files(series):
    copy = pydicom.dcmread(series / "slice_0004.dcm")
    copy.SOPInstanceUID += ".1"
    copy.save_as(series / "phase2.dcm")
    with pytest.raises(DicomError, match=r"more than once.*-693.25 mm") as caught:
        read_series(series)
    assert "phase2.dcm" in str(caught.value)
    assert "slice_0004.dcm" in str(caught.value)
    shutil.copy(series / "slice_0004.dcm", series / "phase2.dcm")
    with pytest.raises(DicomError, match="the same image twice"):
        read_series(series)


def test_two_whole_acquisitions_in_one_series_are_refused(series):
    for path in sorted(series.glob("*.dcm")):
        copy = pydicom.dcmread(path)
        copy.SOPInstanceUID += ".1"
        copy.save_as(series / f"b_{path.name}")
    with pytest.raises(DicomError, match="6 slice positions occur more than once"):
        read_series(series)


@pytest.mark.parametrize("angle", [0.5, 12.0, -25.0])
def test_gantry_tilt_is_named(series, edit, angle):
    # The scanner tilts the slices but moves the table along z.
    a = np.radians(angle)
    cosines = [1, 0, 0, 0, float(np.cos(a)), float(np.sin(a))]
    edit(series, lambda _, ds: setattr(ds, "ImageOrientationPatient", cosines))
    edit(series, lambda _, ds: setattr(ds, "PixelSpacing", [0.2, 0.2]))
    with pytest.raises(DicomError, match=rf"gantry tilt of {abs(angle):.2f} degrees"):
        read_series(series)


def test_a_tilt_tag_without_shear_is_noted(series, edit):
    edit(series, lambda _, ds: setattr(ds, "GantryDetectorTilt", "10"))
    assert any("GantryDetectorTilt" in n for n in read_series(series).metadata["notes"])


def test_a_slice_moved_sideways_is_named(series, edit):
    edit(series, lambda i, ds: move(ds, (3.0 if i == 3 else 0.0, 0, 0)))
    with pytest.raises(DicomError, match=r"slice_0004.dcm.*sideways by 3.00 mm"):
        read_series(series)


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("PixelSpacing", [0.9, 0.9], r"pixel spacings.*\[0.8, 0.7\].*\[0.9, 0.9\]"),
        ("ImageOrientationPatient", [0, 1, 0, 1, 0, 0], "orientations"),
        ("Rows", 4, r"sizes.*\[17, 20\].*\[4, 20\]"),
    ],
)
def test_mixed_slices_are_refused(series, edit, keyword, value, words):
    edit(series, lambda i, ds: setattr(ds, keyword, value) if i == 2 else None)
    with pytest.raises(DicomError, match=words) as caught:
        read_series(series)
    assert "slice_0001.dcm" in str(caught.value)
    assert "slice_0003.dcm" in str(caught.value)


@pytest.mark.parametrize(
    "keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
)
def test_missing_geometry_is_named(series, edit, keyword):
    edit(series, lambda i, ds: delattr(ds, keyword) if i == 4 else None)
    with pytest.raises(DicomError, match=rf"slice_0005.dcm.*{keyword}"):
        read_series(series)


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("ImagePositionPatient", [1, 2], "must be 3 finite numbers"),
        ("PixelSpacing", [0, 0.7], "must be positive"),
        ("ImageOrientationPatient", [1, 0, 0, 0.5, 0.8, 0], "not valid"),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0], "not valid"),
        ("RescaleSlope", "0", "RescaleSlope"),
    ],
)
def test_impossible_values_are_refused(series, edit, keyword, value, words):
    edit(series, lambda _, ds: setattr(ds, keyword, value))
    with pytest.raises(DicomError, match=words):
        read_series(series)


def test_rounded_cosines_are_made_orthonormal(series, edit):
    a = np.radians(30)
    cosines = [round(float(v), 4) for v in (np.cos(a), np.sin(a), 0, -np.sin(a), np.cos(a), 0)]
    edit(series, lambda _, ds: setattr(ds, "ImageOrientationPatient", cosines))
    direction = np.asarray(read_series(series).geometry.direction)
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-12)
