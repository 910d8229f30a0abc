import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import InputFileError
from napari_lungfm._core.files import slug
from napari_lungfm.benchmark.records import Cost, Record, StructureResult, UnitKey
from napari_lungfm.benchmark.store import RunFolder, costs_frame, results_frame, unit_name


def record(case="a", dice=0.5, **changes):
    key = UnitKey(cohort="c", case=case, model="m", protocol="box-one", seed=0)
    result = StructureResult(
        structure="tumour",
        dice=dice,
        iou=None,
        hd95_mm=3.0,
        nsd_1mm=0.1,
        nsd_2mm=0.2,
        volume_ml=1.0,
        reference_volume_ml=2.0,
        volume_difference_ml=-1.0,
        slice_dice_mean=0.4,
        slice_iou_mean=0.3,
        n_reference_slices=5,
        slices_beyond_low=0,
        slices_beyond_high=1,
        volume_beyond_ml=0.1,
        prompts=({"kind": "stop", "z": 1},),
    )
    values = {
        "key": key,
        "fingerprint": "f" * 32,
        "status": "ok",
        "structures": (result,),
        "case_hash": "h",
        "case_shape": (1, 2, 3),
        "case_spacing_mm": (1.0, 2.0, 3.0),
        "case_attributes": {"kind": "round"},
        "mask_file": None,
        "cost": Cost(seconds=1.5, peak_rss_mb=None, n_prompts=1, parameters=0),
        "versions": {},
        "hardware": {"cpu": "abacus"},
        "finished": "2026-01-01T00:00:00+00:00",
    }
    return Record(**(values | changes))


@pytest.fixture
def folder(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write_plan("name: x\n", [(record(c).key, "f" * 32) for c in "abc"])
    return run


def test_records_come_back_in_plan_order(folder):
    for case in "ca":
        folder.write_record(record(case))
    assert [r.key.case for r in folder.load()] == ["a", "c"]
    assert folder.load()[0] == record("a")


def test_a_damaged_record_counts_as_not_finished(folder):
    folder.write_record(record("a"))
    path = folder.record_file(record("a").key, "f" * 32)
    path.write_text(path.read_text()[:100])
    assert folder.load() == []


def test_a_record_of_a_newer_version_is_not_misread(folder):
    folder.write_record(record("a"))
    path = folder.record_file(record("a").key, "f" * 32)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    assert folder.load() == []


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputFileError, match="not the folder of a run"):
        RunFolder.open(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(InputFileError, match="cannot be read"):
        RunFolder.open(tmp_path).read_plan()


def test_the_results_table_has_scores_and_no_times():
    frame = results_frame([record("a"), record("b", dice=None)])
    assert frame["case"].tolist() == ["a", "b"]
    assert frame["dice"].dtype == np.float64
    assert np.isnan(frame["dice"][1])
    assert frame["iou"].isna().all()
    assert frame["case_kind"].tolist() == ["round", "round"]
    assert frame["n_prompts"].tolist() == [1, 1]
    assert not {"seconds", "finished", "peak_rss_mb"} & set(frame.columns)


def test_the_costs_table_has_the_times():
    frame = costs_frame([record("a")])
    assert frame.loc[0, "seconds"] == 1.5
    assert frame.loc[0, "cpu"] == "abacus"
    assert np.isnan(frame.loc[0, "peak_rss_mb"])


@given(st.text(max_size=80), st.text(max_size=80))
def test_slugs_are_safe_and_different(a, b):
    for text in (slug(a), slug(b)):
        assert text
        assert len(text) <= 60
        assert all(c.isascii() and (c.isalnum() or c in "._+-") for c in text)
        assert not text.startswith(".")
    if a != b:
        assert slug(a) != slug(b)


def test_unit_names_tell_units_apart():
    key = record().key
    other = key.model_copy(update={"protocol": "point-one"})
    assert unit_name(key, "f" * 32) != unit_name(other, "f" * 32)
    assert unit_name(key, "f" * 32) != unit_name(key, "e" * 32)
