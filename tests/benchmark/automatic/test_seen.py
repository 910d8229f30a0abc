from dataclasses import replace
from pathlib import Path

import pytest

from napari_lungfm.benchmark.methods import Method, MethodSpec, look_up_methods
from napari_lungfm.benchmark.seen import ImageHashes, refuse_seen
from napari_lungfm.datasets.cases import Cohort
from napari_lungfm.datasets.phantom_cohort import PhantomCaseSource, PhantomCohort
from napari_lungfm.geometry import Structure
from napari_lungfm.models.automatic.trained import SeenPatient, SeenPatientError

COARSE = {
    "n_test": 2,
    "n_train": 2,
    "shape": (4, 24, 24),
    "spacings": ((20.0, 15.0, 15.0),),
    "whole_chest": True,
}


@pytest.fixture
def made(monkeypatch):
    """The phantoms that were made."""
    names, make = [], PhantomCaseSource.load

    def load(self):
        names.append(self.name)
        return make(self)

    monkeypatch.setattr(PhantomCaseSource, "load", load)
    return names


def to_train(*cohorts: Cohort) -> Method:
    spec = MethodSpec.model_validate({"train": "unet-small"})
    names = [cohort.name for cohort in cohorts]
    return look_up_methods([spec], Path(), cohorts=names, targets=tuple(Structure))[0]


def phantoms(**more) -> Cohort:
    return PhantomCohort.model_validate({"name": "p", **COARSE, **more}).build(Path())


def test_phantoms_of_other_patients_are_told_apart_unmade(made, tmp_path):
    cohort = phantoms()
    refuse_seen([to_train(cohort)], [cohort], ImageHashes(tmp_path / "images.json"))
    assert made == []


def test_phantoms_of_one_patient_are_made_and_compared(made, tmp_path):
    cohort = phantoms()
    first, second = cohort.train
    twin = PhantomCaseSource("twin", first.spec)
    moved = replace(second.spec, spacing=(20.0, 16.0, 15.0))
    another_scan = PhantomCaseSource("another scan", moved)
    both = Cohort("p", "", test=(twin, another_scan, *cohort.test), train=cohort.train)
    with pytest.raises(SeenPatientError, match=r"scored on: 'twin' of 'p' \('train-000") as caught:
        refuse_seen([to_train(both)], [both], ImageHashes(tmp_path / "images.json"))
    assert "another scan" not in str(caught.value)
    # The twin is known by its specification.
    assert sorted(made) == ["another scan", first.name, second.name]


def test_what_was_looked_at_before_a_training_is_not_made_after_it(made, tmp_path, trained):
    cohort, images = phantoms(), ImageHashes(tmp_path / "images.json")

    def after_training_on(case: str) -> Method:
        seen = SeenPatient(cohort="p", case=case, part="train", image="x")
        description = trained(tmp_path / "net", seen=(seen,))
        return to_train(cohort).after_training(tmp_path / "net", description)

    refuse_seen([after_training_on(cohort.train[0].name)], [cohort], images)
    name = cohort.test[0].name
    with pytest.raises(SeenPatientError, match=f"was trained on .*: '{name}' of 'p'"):
        refuse_seen([after_training_on(name)], [cohort], images)
    assert made == []
