import numpy as np
import pytest

pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

from napari_lungfm._core.exceptions import GeometryError, LungFMWarning
from napari_lungfm.datasets.cases import Cohort
from napari_lungfm.datasets.file_cohort import FileCohort
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Structure, VolumeGeometry
from napari_lungfm.models.automatic.slice_network import InputSpec
from napari_lungfm.training.automatic.cohort_check import (
    CohortError,
    labels_as_classes,
    load_for_training,
)
from napari_lungfm.training.automatic.overlap import refuse_test_images
from napari_lungfm.training.automatic.prepared import prepare_cohort, scaled

ALL = tuple(Structure)
INPUTS = InputSpec(size=(32, 32))


def _prepare(cohort, folder, **changes):
    return prepare_cohort(cohort, folder, **{"inputs": INPUTS, "structures": ALL, **changes})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"without": (3,)}, r"case 'b': the reference has no tumour, only left lung, right lung"),
        ({"without": (1, 2)}, r"case 'b': the reference has no left lung and no right lung"),
        ({"error": GeometryError("the mask is not on the voxel grid")}, r"case 'b': the mask is"),
        ({"grid": VolumeGeometry((2, 40, 44), (3.0, 1.0, 1.0))}, r"case 'b': only 2 slices"),
    ],
)
def test_cases_that_cannot_be_learnt_from_are_named(make_cohort, tmp_path, wrong, message):
    with pytest.raises(CohortError, match=message) as caught:
        _prepare(make_cohort("a", "b", "c", b=wrong), tmp_path)
    assert "'clinic'" in str(caught.value)
    assert "1 of 3 cases" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_that_are_no_hu_are_told_by_case(make_cohort, tmp_path):
    scaled_to_8_bit = {"change": lambda hu: ((hu + 1000) / 8).clip(0, 255).astype(np.int16)}
    with pytest.warns(
        LungFMWarning, match=r"case 'b': values from 15 to 139: .* does not look like HU"
    ):
        assert len(_prepare(make_cohort("a", "b", b=scaled_to_8_bit), tmp_path)) == 2
    constant = {"change": lambda hu: np.full_like(hu, -1000)}
    with pytest.raises(CohortError, match="1 of 2 cases: case 'b': all values are -1000"):
        _prepare(make_cohort("a", "b", b=constant), tmp_path / "other")


def test_a_test_image_is_not_trained_on_under_another_name(make_cohort, tmp_path):
    """A copy is found by its length and then by what is in it; others are not even read."""
    from napari_lungfm import io

    def case(name, content, part):
        made = make_cohort(content).train[0].load()
        io.write_image(made.volume, tmp_path / f"{name}.mha")  # not packed: all are as long
        io.write_label_map(made.reference, tmp_path / f"{name}-labels.mha")
        mask = {"mask": f"{name}-labels.mha", "values": dict(LUNG_LABELS)}
        return {"name": name, "image": f"{name}.mha", "part": part, **mask}

    cases = [case("a", "a", "train"), case("b", "b", "train"), case("t", "t", "test")]
    run = tmp_path / "run"

    def build(listed):
        return FileCohort.model_validate({"name": "files", "cases": listed}).build(tmp_path)

    def check(listed):
        cohort = build(listed)
        refuse_test_images(cohort, _prepare(cohort, run / "prepared"), run)

    check(cases)
    copied = case("u", "b", "test")
    with pytest.raises(CohortError, match=r"'b' \(the same CT as test case 'u'\)"):
        check([*cases, copied])
    (tmp_path / "t.mha").write_bytes((tmp_path / "t.mha").read_bytes()[:-1])
    check(cases)  # of another length, and so not read: it could not be


def test_all_bad_cases_are_named_at_once(make_cohort, tmp_path):
    wrong = {name: {"without": (3,)} for name in "bd"}
    with pytest.raises(CohortError, match=r"2 of 4 cases.*'b'.*'d'"):
        _prepare(make_cohort(*"abcd", **wrong), tmp_path)


@pytest.mark.parametrize("names", [(), ("a",)])
def test_one_case_is_not_enough_and_none_is_read(make_cohort, tmp_path, names):
    cohort = make_cohort(*names)
    with pytest.raises(CohortError, match="only case 'a'" if names else "no case"):
        _prepare(cohort, tmp_path)
    assert not any(source.loaded for source in cohort.train)


def test_files_with_other_values_or_grids_are_named(tmp_path, make_cohort):
    """From files, as cohorts are given: a value without a meaning, an image of another grid."""
    from napari_lungfm import io

    good = make_cohort("x").train[0].load()
    io.write_image(good.volume, tmp_path / "ct.nii.gz")
    strange = good.reference.array.copy()
    strange[0, 0, 0] = 9
    io.write_label_map(LabelMap(strange, good.volume.geometry), tmp_path / "value.nii.gz")
    other = VolumeGeometry(good.volume.shape, (3.0, 1.0, 1.0), (0.4, 0.0, 0.0))
    io.write_label_map(LabelMap(good.reference.array, other), tmp_path / "grid.nii.gz")
    cases = [
        {"name": n, "image": "ct.nii.gz", "mask": f"{n}.nii.gz", "values": dict(LUNG_LABELS)}
        | {"part": "train"}
        for n in ("value", "grid")
    ]
    cohort = FileCohort.model_validate({"name": "files", "cases": cases}).build(tmp_path)
    with pytest.raises(CohortError, match=r"case 'value'.*\[9\].*case 'grid'.*not on the voxel"):
        _prepare(cohort, tmp_path / "prepared")


class Halves:
    """Calls everything left of the middle the right lung."""

    name = "halves"

    def segment(self, volume):
        array = np.ones(volume.shape, np.uint8)
        array[..., : volume.shape[2] // 2] = 2
        return LabelMap(array, volume.geometry, LUNG_LABELS)


def test_missing_lungs_can_be_completed_and_the_tumour_wins(make_cohort):
    cohort = make_cohort("a", a={"without": (1, 2)})
    case = load_for_training(cohort.train[0], ALL, Halves())
    assert case.structures == ALL
    truth = cohort.train[0].load().reference.array
    assert np.array_equal(case.reference.array == 3, truth == 3)
    assert case.attributes["lungs"] == "halves"
    whole = load_for_training(make_cohort("b").train[0], ALL, Halves())
    assert "lungs" not in whole.attributes  # what a reference has is never replaced


def test_prepared_cases_are_what_the_network_sees(make_cohort, tmp_path):
    cohort = make_cohort("a", "b")
    first = _prepare(cohort, tmp_path)
    case = cohort.train[0].load()
    wanted = (np.clip(case.volume.array, -1000, 1000) + 1000) / 2000
    assert np.abs(scaled(first[0].images) - wanted).max() < 1e-5
    assert np.array_equal(first[0].classes, case.reference.array)
    assert first[0].slices_of[3] == (1, 2, 3)
    before = [source.loaded for source in cohort.train]
    again = _prepare(cohort, tmp_path)
    assert again == first
    assert [source.loaded for source in cohort.train] == before  # they are not read a second time
    _prepare(cohort, tmp_path, inputs=InputSpec(spacing=(3.0, 2.0, 2.0), size=(32, 32)))
    assert cohort.train[0].loaded > before[0]


def test_a_tumour_that_vanishes_on_the_new_grid_is_named(make_cohort, tmp_path):
    with pytest.raises(CohortError, match=r"case 'a': .*tumour vanished.* 60 x 30 x 30 mm"):
        _prepare(make_cohort("a", "b"), tmp_path, inputs=InputSpec(spacing=(60.0, 30.0, 30.0)))


def test_classes_follow_the_order_of_the_configuration():
    grid = VolumeGeometry((1, 1, 4))
    labels = LabelMap(np.array([[[0, 1, 2, 3]]], np.uint8), grid, LUNG_LABELS)
    assert labels_as_classes(labels, (Structure.TUMOUR, Structure.LEFT_LUNG)).tolist() == [
        [[0, 2, 0, 1]]
    ]


def test_a_cohort_without_training_part_says_what_to_do():
    with pytest.raises(CohortError, match="part: train"):
        _prepare(Cohort("empty", "", test=()), "unused")
