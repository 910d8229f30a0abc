import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.geometry import Structure

SMALL = {"shape": (12, 48, 48), "spacings": [(3.0, 1.2, 1.2), (5.0, 1.0, 1.0)]}


def _cohort(**changes):
    values = {"name": "p", "n_test": 4, "n_train": 3, "kinds": ["solid-round", "part-solid"]}
    return PhantomCohort.model_validate({**values, **SMALL, **changes}).build(Path())


def test_kinds_and_spacings_are_dealt_out_in_turn():
    cohort = _cohort()
    assert [s.name for s in cohort.test] == [
        "test-000-solid-round",
        "test-001-part-solid",
        "test-002-solid-round",
        "test-003-part-solid",
    ]
    assert [s.spec.spacing for s in cohort.test][:2] == [(3.0, 1.2, 1.2), (5.0, 1.0, 1.0)]
    assert len(cohort.train) == 3


def test_no_two_cases_are_the_same_patient():
    cohort = _cohort()
    sources = (*cohort.test, *cohort.train)
    assert len({s.spec.seed for s in sources}) == len(sources)
    assert len({s.fingerprint() for s in sources}) == len(sources)
    assert _cohort(seed=1).test[0].fingerprint() != cohort.test[0].fingerprint()
    assert _cohort().test[0].fingerprint() == cohort.test[0].fingerprint()


def test_diameters_stay_in_range_and_give_the_mean_radius():
    cohort = _cohort(diameters_mm=(20, 30), n_train=50)
    diameters = [s.diameter_mm for s in cohort.train]
    assert all(20 <= d <= 30 for d in diameters)
    assert cohort.measure_radius() == pytest.approx(np.mean(diameters) / 2)
    assert _cohort(n_train=0).measure_radius() is None


def test_a_case_is_generated_with_its_attributes():
    cohort = _cohort(diameters_mm=(18, 20))
    case = cohort.test[0].load()
    assert case.volume.shape == (12, 48, 48)
    assert case.volume.array.dtype == np.int16
    assert Structure.TUMOUR in case.structures
    assert case.attributes["tumour_kind"] == "solid-round"
    assert case.attributes["synthetic"] is True
    inside = np.argwhere(case.reference.array == Structure.TUMOUR)
    middle = case.reference.geometry.index_to_world(inside.mean(axis=0))
    recorded = [case.attributes[f"tumour_{axis}_mm"] for axis in "xyz"]
    assert recorded == pytest.approx(middle, abs=2.0)
    # The sphere of the drawn diameter, within what voxels of 3 mm can show.
    voxels = np.count_nonzero(case.reference.array == Structure.TUMOUR)
    volume = voxels * case.reference.geometry.voxel_volume_ml
    expected = math.pi / 6 * cohort.test[0].diameter_mm ** 3 / 1000
    assert volume == pytest.approx(expected, rel=0.1)
    again = cohort.test[0].load()
    assert np.array_equal(again.volume.array, case.volume.array)


def test_a_whole_chest_has_both_lungs():
    chest = {"shape": (20, 64, 80), "spacings": [(15.0, 5.5, 5.0)], "diameters_mm": (40, 50)}
    case = _cohort(whole_chest=True, **chest).test[0].load()
    assert case.structures == (Structure.LEFT_LUNG, Structure.RIGHT_LUNG, Structure.TUMOUR)
    right_ml, left_ml = (
        np.count_nonzero(case.reference.array == s) * case.reference.geometry.voxel_volume_ml
        for s in (Structure.RIGHT_LUNG, Structure.LEFT_LUNG)
    )
    assert 1000 < left_ml < right_ml < 5000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ["blob"]}, "no tumour kind 'blob'"),
        ({"diameters_mm": (30, 20)}, "20 is smaller than 30"),
        ({"diameters_mm": (1, 20)}, "between 3 and 150 mm"),
        ({"noise_hu": (9, 1)}, "noise_hu"),
        ({"noise_hu": (-5, 3)}, "noise_hu: -5 is negative"),
        ({"shape": (0, 5, 5)}, "shape"),
        ({"spacings": [(1.0, 1.0, -1.0)]}, "spacing"),
        ({"n_test": 0}, "n_test"),
    ],
)
def test_wrong_cohorts_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        _cohort(**changes)
