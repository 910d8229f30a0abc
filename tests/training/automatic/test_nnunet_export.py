import json

import numpy as np
import pytest

pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

from napari_lungfm import io
from napari_lungfm.datasets.cases import Case, Cohort
from napari_lungfm.geometry import Structure, axis_codes, reorient, to_axial
from napari_lungfm.training.automatic.cohort_check import CohortError
from napari_lungfm.training.automatic.nnunet.export import (
    dataset_name,
    export_cohort,
    remove_other_cases,
    write_dataset,
)
from napari_lungfm.training.automatic.split import split_cases

ALL = tuple(Structure)


def test_the_layout_is_nnunets(make_cohort, tmp_path):
    cohort = make_cohort("a", "b/1", "c", "d")
    cases = export_cohort(cohort, tmp_path, ALL)
    split = split_cases(cases, 0.25, seed=0)
    write_dataset(tmp_path, split, ALL)
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert description["labels"] == {
        "background": 0, "left lung": 1, "right lung": 2, "tumour": 3,
    }  # fmt: skip
    assert description["channel_names"] == {"0": "CT"}  # HU are clipped and scaled by the planner
    assert description["numTraining"] == 4
    for case in description["dataset"].values():
        assert all((tmp_path / file).is_file() for file in (*case["images"], case["label"]))
        assert case["images"][0].endswith("_0000.nii.gz")
    (fold,) = json.loads((tmp_path / "splits_final.json").read_text())
    assert len(fold["val"]) == 1
    assert sorted(fold["train"] + fold["val"]) == sorted(c.identifier for c in cases)
    assert not set(fold["train"]) & set(fold["val"])
    assert "/" not in "".join(c.identifier for c in cases)
    case = cohort.train[0].load()
    image = io.read_volume(tmp_path / "imagesTr" / "a_0000.nii.gz")
    assert np.array_equal(image.array, case.volume.array)
    assert image.array.dtype == np.int16


def test_without_validation_cases_nnunet_watches_the_training_cases(make_cohort, tmp_path):
    cases = export_cohort(make_cohort("a", "b"), tmp_path, ALL)
    write_dataset(tmp_path, split_cases(cases, 0.0, seed=0), ALL)
    (fold,) = json.loads((tmp_path / "splits_final.json").read_text())
    assert fold == {"train": ["a", "b"], "val": ["a", "b"]}


def test_two_cases_are_enough_for_a_split(make_cohort, tmp_path):
    """nnU-Net's own split needs five."""
    cases = export_cohort(make_cohort("a", "b"), tmp_path, ALL)
    split = split_cases(cases, 0.2, seed=0)
    assert (len(split.train), len(split.validation)) == (1, 1)


class Turned:
    """A case whose axes are stored in another order."""

    def __init__(self, source, codes):
        self._source, self._codes, self.name = source, codes, f"{source.name}-{codes}"

    def fingerprint(self):
        return self.name

    def inputs(self):
        return ()

    def load(self):
        case = self._source.load()
        return Case(
            self.name, reorient(case.volume, self._codes), reorient(case.reference, self._codes)
        )


def test_swapped_axes_are_exported_as_axial_slices(make_cohort, tmp_path):
    source = make_cohort("a").train[0]
    cohort = Cohort("clinic", "", test=(), train=(source, Turned(source, "RIA")))
    straight, turned = export_cohort(cohort, tmp_path, ALL)
    assert straight.image == turned.image  # one patient, by content
    images = [
        io.read_volume(tmp_path / "imagesTr" / f"{c.identifier}_0000.nii.gz")
        for c in (straight, turned)
    ]
    labels = [
        io.read_label_map(tmp_path / "labelsTr" / f"{c.identifier}.nii.gz")
        for c in (straight, turned)
    ]
    for one, other in (images, labels):
        assert np.array_equal(one.array, to_axial(other).array)
        assert axis_codes(other.geometry)[0] == "S"
    assert images[1].geometry.difference(labels[1].geometry) is None


def test_classes_are_in_the_order_of_the_configuration(make_cohort, tmp_path):
    export_cohort(make_cohort("a", "b"), tmp_path, (Structure.TUMOUR, Structure.RIGHT_LUNG))
    labels = io.read_label_map(tmp_path / "labelsTr" / "a.nii.gz").array
    truth = make_cohort("a").train[0].load().reference.array
    assert np.array_equal(labels == 1, truth == 3)
    assert np.array_equal(labels == 2, truth == 2)
    assert labels.max() == 2


def test_cases_are_written_once_and_anew_when_they_change(make_cohort, tmp_path):
    cohort = make_cohort("a", "b")
    first = export_cohort(cohort, tmp_path, ALL)
    assert export_cohort(cohort, tmp_path, ALL) == first
    assert [source.loaded for source in cohort.train] == [1, 1]
    changed = make_cohort("a", "b", a={"shift": 2})
    again = export_cohort(changed, tmp_path, ALL)
    assert again[0].image != first[0].image
    assert changed.train[1].loaded == 0
    truth = changed.train[0].load().reference.array
    assert np.array_equal(io.read_label_map(tmp_path / "labelsTr" / "a.nii.gz").array, truth)


def test_cases_that_cannot_be_learnt_from_are_named(make_cohort, tmp_path):
    wrong = {"b": {"without": (3,)}, "d": {"error": CohortError("case 'd': the values [9]")}}
    with pytest.raises(CohortError, match=r"2 of 4 cases.*'b'.*no tumour.*'d'.*\[9\]"):
        export_cohort(make_cohort(*"abcd", **wrong), tmp_path, ALL)


def test_what_was_exported_before_is_removed(make_cohort, tmp_path):
    for name, cases in (("Dataset501_old", "xy"), ("Dataset501_now", "abc")):
        exported = export_cohort(make_cohort(*cases), tmp_path / name, ALL)
        write_dataset(tmp_path / name, split_cases(exported, 0.0, seed=0), ALL)
    (tmp_path / "Dataset501_now" / "imagesTr" / "mine.txt").write_text("")
    remove_other_cases(tmp_path, "Dataset501_now", exported[:2])
    assert [path.name for path in tmp_path.iterdir()] == ["Dataset501_now"]
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        *(f"{c}{end}" for c in "ab" for end in (".json", ".nii.gz", "_0000.nii.gz")),
        "dataset.json", "splits_final.json", "mine.txt",
    }  # fmt: skip


def test_names_of_cohorts_become_names_of_folders():
    assert dataset_name("Task06 lung/2").startswith("Dataset501_Task06-lung-2")
    assert "/" not in dataset_name("Task06 lung/2")
