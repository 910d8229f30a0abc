import json
import os

import numpy as np
import pytest

from napari_lungfm import LungFMError, io
from napari_lungfm._core.exceptions import OutputError, UsageError
from napari_lungfm.benchmark import case_work, plan, units
from napari_lungfm.benchmark.previews import Preview
from napari_lungfm.benchmark.runner import run_benchmark
from napari_lungfm.benchmark.store import results_frame
from napari_lungfm.geometry import reorient
from napari_lungfm.models.prompts import Box, from_dict


@pytest.fixture
def run(make_config, tmp_path):
    """Run a configuration; the folder and the events."""

    def call(config=None, out="run", **changes):
        events = []
        config = config or make_config(**changes)
        folder = run_benchmark(config, tmp_path / out, base=tmp_path, listener=events.append)
        return folder, events

    return call


def _done(events):
    return [event.text for event in events if event.kind == "unit"]


def test_every_unit_gets_a_record_a_mask_and_a_preview(run):
    folder, events = run()
    records = folder.load()
    assert len(records) == 6
    assert events[-1].done == events[-1].total == 6
    frame = results_frame(records)
    assert (frame["status"] == "ok").all()
    ellipse = frame[(frame["model"] == "prompt-ellipse") & (frame["protocol"] == "box-every-slice")]
    assert (ellipse["dice"] > 0.95).all()  # the cases are ellipsoids
    assert frame["case_size"].tolist() == ["small"] * 3 + ["large"] * 3
    for record in records:
        mask = io.read_label_map(folder.root / record.mask_file)
        (result,) = record.structures
        voxels = np.count_nonzero(mask.array == 3)
        assert result.volume_ml == pytest.approx(voxels * mask.geometry.voxel_volume_ml)
        assert [slice_.z for slice_ in result.slices] == sorted(s.z for s in result.slices)
    preview = Preview.load(folder.preview_file("c", "large"))
    assert preview.largest in preview.slices
    assert (preview.reference == 3).any(axis=(1, 2)).all()


def test_prompts_in_the_record_replay_to_the_same_mask(run, cases):
    from napari_lungfm.inference import segment_object
    from napari_lungfm.models.registry import create_model

    folder, _ = run()
    record = next(r for r in folder.load() if r.key.protocol == "box-one" and r.key.case == "large")
    prompts = [from_dict(p) for p in record.structures[0].prompts]
    assert [type(p) for p in prompts] == [Box]
    again = segment_object(
        create_model("prompt-ellipse"), io.read_volume(cases / "large.nii.gz"), prompts
    )
    stored = io.read_label_map(folder.root / record.mask_file)
    assert np.array_equal(again.array, stored.array)


def test_a_finished_run_does_nothing_again(run):
    folder, _ = run()
    stamps = {p: p.stat().st_mtime_ns for p in folder.records.iterdir()}
    _, events = run()
    assert _done(events) == []
    assert {p: p.stat().st_mtime_ns for p in folder.records.iterdir()} == stamps


def test_an_interrupted_run_goes_on_and_ends_the_same(run, monkeypatch):
    whole, _ = run(out="whole")
    calls = []
    do_unit = case_work.do_unit

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return do_unit(*arguments)

    monkeypatch.setattr(case_work, "do_unit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(out="cut")
    monkeypatch.setattr(case_work, "do_unit", do_unit)
    cut, events = run(out="cut")
    assert len(_done(events)) == 4
    assert results_frame(cut.load()).equals(results_frame(whole.load()))


def test_changed_inputs_are_done_anew(run, cases):
    run()
    os.utime(cases / "small_m.nii.gz", ns=(1, 1))
    _, events = run()
    assert len(_done(events)) == 3
    _, events = run(structures=["tumour", "left lung"])
    assert len(_done(events)) == 6


def test_a_damaged_record_is_done_anew(run):
    folder, _ = run()
    victim = sorted(folder.records.iterdir())[0]
    victim.write_text("{")
    _, events = run()
    assert len(_done(events)) == 1


def test_a_failing_model_scores_as_empty_and_is_tried_again(run, monkeypatch):
    simulate = units.simulate

    def fail_on_large(model, volume, *arguments, **options):
        if model.name == "prompt-box" and (volume.array > -500).sum() > 2000:
            msg = "no luck\ntoday"
            raise RuntimeError(msg)
        return simulate(model, volume, *arguments, **options)

    monkeypatch.setattr(units, "simulate", fail_on_large)
    folder, events = run()
    (bad,) = [r for r in folder.load() if r.status == "failed"]
    assert (bad.key.case, bad.key.model) == ("large", "prompt-box")
    assert bad.error == "RuntimeError: no luck today"
    assert bad.structures[0].dice == 0.0
    assert bad.structures[0].hd95_mm is None
    assert events[-1].failed == 1
    monkeypatch.setattr(units, "simulate", simulate)
    folder, events = run()
    assert len(_done(events)) == 1
    assert all(r.status == "ok" for r in folder.load())


def test_a_case_that_cannot_be_read_fails_alone(run, cases):
    (cases / "small.nii.gz").write_bytes(b"not an image")
    folder, _ = run()
    by_case = {}
    for record in folder.load():
        by_case.setdefault(record.key.case, []).append(record)
    assert all(r.status == "failed" and "case 'small'" in r.error for r in by_case["small"])
    assert all(r.status == "ok" for r in by_case["large"])


def test_a_full_disk_ends_the_run_and_keeps_what_is_finished(run, monkeypatch):
    write = io.write_label_map
    calls = []

    def full(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise OutputError("cannot write: the disk is full")
        return write(*arguments)

    monkeypatch.setattr(case_work.io, "write_label_map", full, raising=False)
    with pytest.raises(OutputError, match="disk is full"):
        run()
    monkeypatch.setattr(case_work.io, "write_label_map", write, raising=False)
    _, events = run()
    assert len(_done(events)) == 4


def test_every_method_sees_the_same_user(run):
    methods = [
        {"model": m, "protocols": ["point-every-slice+jitter-4"]}
        for m in ("prompt-ellipse", "prompt-box")
    ]
    folder, _ = run(methods=methods, seeds=[0, 1])
    prompts = {}
    for record in folder.load():
        key = (record.key.case, record.key.seed)
        prompts.setdefault(key, []).append(record.structures[0].prompts)
    assert all(first == second for first, second in prompts.values())
    assert prompts["small", 0] != prompts["small", 1]


def test_the_training_part_decides_the_sphere_of_clicks(run, make_config):
    values = json.loads(make_config().model_dump_json())
    values["cohorts"][0]["cases"][0]["part"] = "train"
    values["methods"] = [{"model": "prompt-ellipse", "protocols": ["point-one"]}]
    folder, _ = run(**{k: values[k] for k in ("cohorts", "methods")})
    (record,) = folder.load()
    volume_mm3 = 4 / 3 * np.pi * 6 * 6 * 7
    assert record.options["point_radius_mm"] == pytest.approx(
        (3 * volume_mm3 / (4 * np.pi)) ** (1 / 3), rel=0.05
    )


def test_an_output_that_is_a_file_is_refused(run, tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        run()


def test_corrections_are_recorded_and_tabled(run):
    methods = [
        {"model": "classical", "protocols": ["point-one", "point-one+corrections-2"]},
    ]
    folder, _ = run(methods=methods)
    frame = results_frame(folder.load()).set_index(["case", "protocol"])
    plain, corrected = (frame.loc[("large", p)] for p in ("point-one", "point-one+corrections-2"))
    assert np.isnan(plain["effort_area"])
    assert corrected["first_dice"] <= 1.0
    assert 0.0 < corrected["effort_area"] <= 1.0
    record = next(r for r in folder.load() if r.key.protocol.endswith("-2"))
    (result,) = record.structures
    assert len(result.interactions) == len(result.prompts) <= 3
    assert result.interactions[-1].dice == pytest.approx(result.dice)


def test_an_output_inside_a_case_is_refused(make_config, tmp_path, cases):
    values = json.loads(make_config().model_dump_json())
    values["cohorts"][0]["cases"][0]["image"] = "."
    config = make_config(cohorts=values["cohorts"])
    with pytest.raises(UsageError, match=r"lies inside .* from which case 'small' is read"):
        run_benchmark(config, cases / "run", base=tmp_path)
    assert not (cases / "run").exists()


def test_a_case_without_the_structures_fails_and_says_what_it_has(run):
    folder, events = run(structures=["left lung"])
    assert events[-1].failed == 6
    record = folder.load()[0]
    assert record.error == "case 'small': the reference has tumour, but none of: left lung"
    assert record.structures == ()


def test_missing_and_damaged_previews_are_made_anew(run):
    folder, _ = run()
    folder.preview_file("c", "small").unlink()
    folder.preview_file("c", "large").write_bytes(b"PK\x03\x04 nothing")
    _, events = run()
    assert _done(events) == []
    for case in ("small", "large"):
        assert Preview.load(folder.preview_file("c", case)).hu.size


def test_slice_scores_do_not_depend_on_the_order_in_the_file(run, cases):
    """The same case upside down: slice numbers in records are those of each file."""
    upright, _ = run(out="upright")
    for name in ("small", "large"):
        for suffix in ("", "_m"):
            path = cases / f"{name}{suffix}.nii.gz"
            if suffix:
                io.write_label_map(reorient(io.read_label_map(path), "IPL"), path)
            else:
                io.write_image(reorient(io.read_volume(path), "IPL"), path)
    turned, _ = run(out="turned")
    for one, other in zip(upright.load(), turned.load(), strict=True):
        if one.key.protocol != "box-every-slice":
            continue  # of two slices of equal area the first in the file is prompted
        (a,), (b,) = one.structures, other.structures
        assert a.dice == b.dice
        depth = one.case_shape[0]
        assert [(s.z, s.dice) for s in a.slices] == [
            (depth - 1 - s.z, s.dice) for s in reversed(b.slices)
        ]


def test_a_label_stands_in_tables_and_the_model_in_records(run):
    methods = [{"model": "prompt-box", "label": "my box", "protocols": ["box-one"]}]
    folder, _ = run(methods=methods)
    frame = results_frame(folder.load())
    assert set(frame["model"]) == {"prompt-box"}
    assert set(frame["method"]) == {"my box"}


def test_other_code_does_the_units_anew(run, monkeypatch):
    run()
    monkeypatch.setattr(plan, "source_hash", lambda: "another")
    _, events = run()
    assert len(_done(events)) == 6


def test_missing_weights_are_found_before_anything_is_done(run, monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))
    methods = [{"model": "medsam2-ma", "protocols": ["box-one"]}]
    with pytest.raises(LungFMError, match="models fetch medsam2-ma"):
        run(methods=methods)
    assert not (tmp_path / "run").exists()
