"""Multiply-accumulates of units."""

import pytest

from napari_lungfm.benchmark.config import parse_config
from napari_lungfm.benchmark.runner import run_benchmark
from napari_lungfm.models.registry import model_card

pytest.importorskip("torch")

COHORT = {
    "kind": "phantom",
    "name": "c",
    "n_test": 2,
    "shape": [8, 48, 48],
    "spacings": [[6.0, 2.0, 2.0]],
    "diameters_mm": [20, 24],
    "kinds": ["solid-round"],
}
METHODS = [
    {"model": "lungfm-s", "protocols": ["box-one", "box-every-slice"]},
    {"model": "prompt-box", "protocols": ["box-one"]},
]


def run(tmp_path, **changes):
    values = {"name": "t", "seeds": [0, 1], "cohorts": [COHORT], "methods": METHODS} | changes
    return run_benchmark(parse_config(values), tmp_path, base=tmp_path).load()


def untimed(record):
    return [each.model_copy(update={"interactions": ()}) for each in record.structures]


def test_the_first_case_is_counted_under_every_method_and_protocol(tmp_path):
    records = run(tmp_path)
    counted = {
        (r.key.case, r.key.method, r.key.protocol, r.key.seed): r.cost.macs
        for r in records
        if r.cost.macs is not None
    }
    first = min(r.key.case for r in records)
    assert set(counted) == {
        (first, "lungfm-s", "box-one", 0),
        (first, "lungfm-s", "box-every-slice", 0),
    }
    # A look of LungFM-S is the same work whatever it is of: the counts are whole looks.
    looks = {key[2]: macs for key, macs in counted.items()}
    slices = next(
        s.n_reference_slices
        for r in records
        if r.key.case == first and r.key.protocol == "box-every-slice"
        for s in r.structures
    )
    one = looks["box-every-slice"] / slices
    assert looks["box-one"] % one == 0
    assert one > model_card("lungfm-s").parameters  # each weight is used at many pixels


def test_counting_changes_no_score_and_can_be_left_out(tmp_path):
    counted = run(tmp_path / "a")
    plain = run(tmp_path / "b", count_macs=False)
    assert all(record.cost.macs is None for record in plain)
    assert [untimed(r) for r in plain] == [untimed(r) for r in counted]
    assert [r.fingerprint for r in plain] == [r.fingerprint for r in counted]
    assert [r.cost.slices_encoded for r in plain] == [r.cost.slices_encoded for r in counted]
