import os

import numpy as np
import pytest
from pydantic import ValidationError

from napari_lungfm import LungFMWarning, io
from napari_lungfm._core.exceptions import DataError, GeometryError, InputFileError
from napari_lungfm.datasets.file_cohort import FileCase, FileCohort
from napari_lungfm.geometry import LabelMap, Structure, Volume, VolumeGeometry, axis_codes, reorient

SHAPE = (6, 7, 8)
GRID = VolumeGeometry(SHAPE, (3.0, 1.0, 1.0), (5.0, -3.0, 20.0))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    io.write_image(
        Volume(rng.integers(-1000, 400, SHAPE).astype(np.int16), GRID), tmp_path / "i.nii.gz"
    )
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:4, 2:5, 3:6] = 1
    mask[2, 3, 4] = 2
    io.write_label_map(LabelMap(mask, GRID), tmp_path / "m.nii.gz")
    return tmp_path


def _cohort(**case):
    return FileCohort(name="c", cases=[{"name": "a", "image": "i.nii.gz", **case}])


def _load(folder, **case):
    return _cohort(**case).build(folder).test[0].load()


def test_values_become_structures(folder):
    case = _load(folder, mask="m.nii.gz", values={1: "left lung", 2: "tumor"})
    assert case.structures == (Structure.LEFT_LUNG, Structure.TUMOUR)
    assert np.count_nonzero(case.reference.array == Structure.LEFT_LUNG) == 26
    assert case.reference.array[2, 3, 4] == Structure.TUMOUR


def test_a_value_without_a_structure_is_refused(folder):
    with pytest.raises(DataError, match=r"case 'a'.*values \[2\]"):
        _load(folder, mask="m.nii.gz", values={1: "tumour"})


def test_the_mask_is_matched_by_place_not_by_shape(folder):
    labels = io.read_label_map(folder / "m.nii.gz")
    io.write_label_map(reorient(labels, "IAR"), folder / "turned.nii.gz")
    values = {1: "tumour", 2: "tumour"}
    plain = _load(folder, mask="m.nii.gz", values=values)
    turned = _load(folder, mask="turned.nii.gz", values=values)
    assert np.array_equal(plain.reference.array, turned.reference.array)
    assert axis_codes(turned.reference.geometry) == axis_codes(GRID)


def test_an_image_with_sagittal_slices_is_turned(folder):
    volume, labels = io.read_volume(folder / "i.nii.gz"), io.read_label_map(folder / "m.nii.gz")
    io.write_image(reorient(volume, "LPS"), folder / "sagittal.nii.gz")
    io.write_label_map(reorient(labels, "LPS"), folder / "sagittal_m.nii.gz")
    values = {1: "tumour", 2: "tumour"}
    cohort = FileCohort(
        name="c",
        cases=[
            {"name": "s", "image": "sagittal.nii.gz", "mask": "sagittal_m.nii.gz", "values": values}
        ],
    )
    case = cohort.build(folder).test[0].load()
    assert axis_codes(case.volume.geometry) == "SPL"
    assert np.array_equal(case.volume.array, volume.array)
    assert np.array_equal(case.reference.array != 0, labels.array != 0)


def test_the_mask_of_another_image_is_refused(folder):
    other = LabelMap(np.ones(SHAPE, np.uint8), VolumeGeometry(SHAPE, (3.0, 1.0, 1.2)))
    io.write_label_map(other, folder / "other.nii.gz")
    with pytest.raises(GeometryError, match="case 'a': the mask is not on the voxel grid"):
        _load(folder, mask="other.nii.gz")


def test_an_empty_reference_is_refused(folder):
    io.write_label_map(LabelMap(np.zeros(SHAPE, np.uint8), GRID), folder / "empty.nii.gz")
    with pytest.raises(DataError, match="case 'a': the reference is empty"):
        _load(folder, mask="empty.nii.gz")


def test_missing_files_of_training_cases_are_found_before_anything_is_read(folder):
    with pytest.raises(InputFileError, match=r"case 'a': there is no file or folder .*gone"):
        _cohort(mask="gone.nii.gz", part="train").build(folder)


@pytest.mark.parametrize("ask", ["inputs", "fingerprint", "load"])
def test_missing_files_of_test_cases_are_found_when_one_is_asked_for(folder, ask):
    """A training, which reads no test case, is not refused for them."""
    (source,) = _cohort(mask="gone.nii.gz").build(folder).test
    with pytest.raises(InputFileError, match=r"case 'a': there is no file or folder .*gone"):
        getattr(source, ask)()


def test_values_can_be_ignored_but_not_forgotten(folder):
    case = _load(folder, mask="m.nii.gz", values={1: "tumour", 2: "ignore"})
    assert np.count_nonzero(case.reference.array) == 26
    assert case.reference.array[2, 3, 4] == 0
    with pytest.raises(DataError, match=r"values \[1\].*give it as 'ignore'"):
        _load(folder, mask="m.nii.gz", values={2: "tumour"})


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({}, "exactly one of mask, rtstruct and seg; given: none"),
        ({"mask": "m", "seg": "s"}, "given: mask and seg"),
        ({"mask": "m", "values": {1: "liver"}}, "there is no structure 'liver'"),
        ({"mask": "m", "colour": "red"}, "colour"),
    ],
)
def test_wrong_specifications(case, message):
    with pytest.raises(ValidationError, match=message):
        FileCase.model_validate({"name": "a", "image": "i", **case})


def test_the_fingerprint_follows_the_files(folder):
    source = _cohort(mask="m.nii.gz", values={1: "tumour", 2: "tumour"}).build(folder).test[0]
    before = source.fingerprint()
    assert before == source.fingerprint()
    os.utime(folder / "m.nii.gz", ns=(1, 1))
    assert source.fingerprint() != before


def test_mean_radius_of_the_training_part(folder):
    case = {"image": "i.nii.gz", "mask": "m.nii.gz", "values": {1: "tumour", 2: "tumour"}}
    cohort = FileCohort(
        name="c", cases=[{"name": "a", **case}, {"name": "b", "part": "train", **case}]
    ).build(folder)
    volume_mm3 = 27 * 3.0
    assert cohort.measure_radius() == pytest.approx((3 * volume_mm3 / (4 * np.pi)) ** (1 / 3))
    assert [s.name for s in cohort.test] == ["a"]


def test_a_damaged_training_case_is_left_out_with_a_warning(folder):
    (folder / "bad.nii.gz").write_bytes(b"nothing")
    case = {"mask": "m.nii.gz", "values": {1: "tumour", 2: "tumour"}, "part": "train"}
    cohort = FileCohort(
        name="c",
        cases=[
            {"name": "good", "image": "i.nii.gz", **case},
            {"name": "bad", "image": "bad.nii.gz", **case},
            {"name": "test", "image": "i.nii.gz", **case, "part": "test"},
        ],
    ).build(folder)
    with pytest.warns(LungFMWarning, match="left out of the mean tumour size: case 'bad'"):
        radius = cohort.measure_radius()
    assert radius == pytest.approx((3 * 81.0 / (4 * np.pi)) ** (1 / 3))


@pytest.mark.real_data
def test_contours_equal_the_published_mask(real_data):
    root = real_data / "ibsi_lung"
    rtstruct = {"image": "dicom/image", "rtstruct": "dicom/mask/DCM_RS_00060.dcm"}
    nifti = {"image": "nifti/image/phantom.nii.gz", "mask": "nifti/mask/mask.nii.gz"}
    cohort = FileCohort(name="c", cases=[{"name": "d", **rtstruct}, {"name": "n", **nifti}])
    dicom, published = (source.load() for source in cohort.build(root).test)
    assert np.array_equal(dicom.volume.array, published.volume.array)
    assert np.array_equal(dicom.reference.array, published.reference.array)
    assert np.count_nonzero(dicom.reference.array == Structure.TUMOUR) == 125_256
