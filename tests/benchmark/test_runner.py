import errno
import json
import os

import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm._core.exceptions import OutputError
from napari_lungfm.benchmark import runner
from napari_lungfm.benchmark.previews import Preview
from napari_lungfm.benchmark.runner import run_benchmark
from napari_lungfm.benchmark.store import results_frame
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
    do_unit = runner._do_unit

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return do_unit(*arguments)

    monkeypatch.setattr(runner, "_do_unit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(out="cut")
    monkeypatch.setattr(runner, "_do_unit", do_unit)
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
    segment = runner.segment_object

    def fail_on_large(model, volume, *arguments, **options):
        if model.name == "prompt-box" and (volume.array > -500).sum() > 2000:
            msg = "no luck\ntoday"
            raise RuntimeError(msg)
        return segment(model, volume, *arguments, **options)

    monkeypatch.setattr(runner, "segment_object", fail_on_large)
    folder, events = run()
    (bad,) = [r for r in folder.load() if r.status == "failed"]
    assert (bad.key.case, bad.key.model) == ("large", "prompt-box")
    assert bad.error == "RuntimeError: no luck today"
    assert bad.structures[0].dice == 0.0
    assert bad.structures[0].hd95_mm is None
    assert events[-1].failed == 1
    monkeypatch.setattr(runner, "segment_object", segment)
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

    monkeypatch.setattr(runner.io, "write_label_map", full, raising=False)
    with pytest.raises(OutputError, match="disk is full"):
        run()
    monkeypatch.setattr(runner.io, "write_label_map", write, raising=False)
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
    assert errno.ENOTDIR
