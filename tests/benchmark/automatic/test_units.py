"""Automatic models as methods of a benchmark, and prompts from their masks."""

import json

import numpy as np
import pandas as pd
import pytest

from napari_lungfm import io
from napari_lungfm._core.exceptions import ConfigError, UsageError
from napari_lungfm.benchmark.config import load_config, parse_config
from napari_lungfm.benchmark.estimate import estimate_run
from napari_lungfm.benchmark.methods import MethodSpec, look_up_methods
from napari_lungfm.benchmark.report import print_table, summarise, write_report
from napari_lungfm.benchmark.report.comparisons import families
from napari_lungfm.benchmark.report.remarks import remarks
from napari_lungfm.benchmark.report.scores import case_scores, unit_scores
from napari_lungfm.benchmark.report.tables import paper_rows
from napari_lungfm.benchmark.store import costs_frame, results_frame
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Structure, VolumeGeometry
from napari_lungfm.models.automatic.trained import (
    WEIGHTS,
    SeenPatient,
    SeenPatientError,
    hash_image,
)
from napari_lungfm.models.prompts import Box, from_dict

pytest.importorskip("torch")


def test_one_run_of_the_model_scores_all_structures(run, model, tmp_path, trained, titles):
    trained(tmp_path / "net")
    found = run([{"model": "net"}], seeds=[0, 1])
    assert len(model.seen) == 2  # nothing is drawn: one seed says all
    for record in found.load():
        key = record.key
        assert (key.model, key.protocol, key.state, key.seed) == ("my-unet", "none", "trained", 0)
        assert [(s.structure, s.dice) for s in record.structures] == [
            (title, 1.0) for title in titles.values()
        ]
        assert (record.cost.n_prompts, record.cost.parameters) == (0, 7)
        assert record.cost.seconds >= 0.01
        written = io.read_label_map(found.root / record.mask_file)
        assert set(np.unique(written.array)) == {0, 1, 2, 3}
    run([{"model": "net"}], seeds=[0, 1])
    assert len(model.seen) == 2
    trained(tmp_path / "other", title="my-unet", finished="2026-02-02T00:00:00+00:00")
    run([{"model": "other"}])
    assert len(model.seen) == 2  # the same weights in another folder


def test_other_weights_are_another_model(run, model, tmp_path, trained):
    trained(tmp_path / "net")
    run([{"model": "net"}])
    description = json.loads((tmp_path / "net" / "model.json").read_text())
    description["files"][WEIGHTS] = "0" * 64
    (tmp_path / "net" / "model.json").write_text(json.dumps(description))
    run([{"model": "net"}])
    assert len(model.seen) == 4


def test_it_stands_beside_promptable_methods(run, model, tmp_path, trained):
    trained(tmp_path / "net")
    prompted = {"model": "prompt-box", "protocols": ["box-one"]}
    records = run([{"model": "net"}, prompted]).load()
    summary = summarise(records)
    rows = {(r["method"], r["protocol"]): r["cells"] for r in paper_rows(summary, "c")}
    assert [cell["text"] for cell in rows["my-unet", "none"]] == ["1.000"] * 6
    assert set(rows) == {("my-unet", "none"), ("prompt-box", "box-one")}
    scores = case_scores(unit_scores(records))
    (family,) = families(scores[scores["structure"] == "tumour"])
    assert family.pairs[["method_a", "method_b"]].to_numpy().tolist() == [["my-unet", "prompt-box"]]


def test_a_small_preset_is_marked_everywhere(run, model, tmp_path, trained):
    trained(tmp_path / "net", small=True)
    auto = {"model": "prompt-box", "protocols": ["auto-box-one:U-Net"]}
    found = run([{"model": "net", "label": "U-Net"}, auto])
    records = found.load()
    assert {r.key.method for r in records} == {"U-Net (small)", "prompt-box"}
    assert {r.key.protocol for r in records} == {"none", "auto-box-one:U-Net (small)"}
    assert set(results_frame(records)["state"]) == {"small", "zero-shot"}
    shown = [str(cell) for cell in print_table(summarise(records)).columns[1].cells]
    assert "U-Net (small)" in shown
    files = write_report(found)
    said = "U-Net (small): trained with a small preset for demonstrations"
    assert said in files.html.read_text()
    assert said in next(p for p in files.tables if p.suffix == ".tex").read_text()


def test_a_name_that_says_small_is_not_marked_twice(run, model, tmp_path, trained):
    trained(tmp_path / "net", title="unet-small", small=True)
    assert {r.key.method for r in run([{"model": "net"}]).load()} == {"unet-small"}


# ---------------------------------------------------------------------- structures
def test_only_what_the_model_finds_is_scored(run, model):
    model.labels = {1: "left lung", 2: "right lung"}
    records = run(
        [
            {"model": "lungs-classical"},
            {"model": "prompt-box", "protocols": ["auto-box-one:lungs-classical"]},
        ]
    ).load()
    for record in records:
        assert [s.structure for s in record.structures] == ["left lung", "right lung"]
    assert set(summarise(records)["structure"]) == {"left lung", "right lung", "lungs"}


def test_a_case_without_its_structures_has_nothing_to_score(run, model, folder, chest, grid):
    tumour = np.where(chest(9) == 3, 3, 0).astype(np.uint8)
    io.write_label_map(LabelMap(tumour, grid, LUNG_LABELS), folder / "b_m.nii.gz")
    model.labels = {1: "left lung", 2: "right lung"}
    a, b = run([{"model": "lungs-classical"}]).load()
    assert (len(a.structures), b.structures, b.status) == (2, (), "ok")
    assert "none of: left lung, right lung" in b.notes[0]
    assert len(model.seen) == 1
    assert summarise([a, b]).set_index("structure").loc["lungs", "n"] == 1


def test_a_fallback_is_said(run, model, monkeypatch):
    monkeypatch.setattr(model, "name", "lungs-classical", raising=False)
    found = run([{"model": "lungmask", "options": {"fallback": True}}])
    assert "'lungs-classical', which stood in for 'lungmask'" in found.load()[0].notes[0]
    (said,) = remarks(found.load(), "c")
    assert said.startswith("lungmask under none, 2 of 2 units: segmented by")


def test_tables_of_numbers_say_what_stood_in(run, model, monkeypatch):
    monkeypatch.setattr(model, "name", "lungs-classical", raising=False)
    prompted = {"model": "prompt-box", "protocols": ["box-one"]}
    found = run([{"model": "lungmask", "options": {"fallback": True}}, prompted])
    files = write_report(found)
    results = pd.read_csv(files.results_csv).set_index("method")
    assert set(results.loc["lungmask", "stood_in"]) == {"lungs-classical"}
    assert set(results.loc["lungmask", "note"]) == {
        "segmented by 'lungs-classical', which stood in for 'lungmask'"
    }
    assert results.loc["prompt-box", ["stood_in", "note"]].isna().all(axis=None)
    summary = pd.read_csv(files.summary_csv).set_index(["method", "structure"])
    assert summary.loc[("lungmask", "lungs"), "stood_in"] == "lungs-classical"
    assert summary.loc["prompt-box", "stood_in"].isna().all()
    (table,) = (path.read_text() for path in files.tables if path.suffix == ".md")
    assert r"| lungmask \(by lungs-classical\) |" in table
    assert '<td class="t">lungmask (by lungs-classical)</td>' in files.html.read_text()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("net", {"postprocessing": "nonsense"}, "option 'postprocessing': there is no post-pro"),
        ("medsam", {"window": "bone/flesh"}, "option 'window': there is no window 'bone/flesh'"),
        ("medsam", {"zoom": 0.5}, "option 'zoom': the zoom margin must be a factor of at least 1"),
        ("medsam", {"zoom_mm": -3.0}, "option 'zoom_mm': the smallest zoomed side must be"),
    ],
)
def test_values_of_options_are_checked_at_once(tmp_path, trained, name, options, said):
    trained(tmp_path / "net")
    spec = MethodSpec(model=name, options=options)
    with pytest.raises(UsageError, match=said):
        look_up_methods([spec], tmp_path, cohorts=["c"], targets=[Structure.TUMOUR])


def test_a_mask_on_another_grid_is_a_failure(run, model, tmp_path, trained):
    trained(tmp_path / "net")
    model.segment = lambda volume, **_: LabelMap(
        np.zeros((2, 3, 4), np.uint8), VolumeGeometry((2, 3, 4), (1.0, 1.0, 1.0))
    )
    record = run([{"model": "net"}]).load()[0]
    assert record.status == "failed"
    assert "on another grid" in record.error
    assert [s.dice for s in record.structures] == [0.0, 0.0, 0.0]


# ---------------------------------------------------------------------- patients it has seen
def test_a_patient_that_the_model_has_seen_is_refused_by_name(run, model, tmp_path, trained):
    seen = (SeenPatient(cohort="c", case="b", part="train", image="x"),)
    trained(tmp_path / "net", seen=seen)
    with pytest.raises(SeenPatientError, match=r"'my-unet' was trained on .*: 'b' of 'c';"):
        run([{"model": "prompt-box", "protocols": ["box-one"]}, {"model": "net"}])
    assert not (tmp_path / "run").exists()
    assert model.seen == []


def test_and_by_its_image_under_any_name(run, model, tmp_path, folder, trained):
    ct = io.read_volume(folder / "a.nii.gz")
    seen = (SeenPatient(cohort="o", case="z", part="validation", image=hash_image(ct)),)
    trained(tmp_path / "net", seen=seen)
    with pytest.raises(SeenPatientError, match=r"'a' of 'c' \(there 'z' of 'o'\)"):
        run([{"model": "net"}])
    trained(tmp_path / "strange", seen=(seen[0].model_copy(update={"image": "x"}),))
    run([{"model": "strange"}])
    kept = json.loads((tmp_path / "run" / "images.json").read_text())["images"]
    assert hash_image(ct) in kept.values()


def test_a_dry_run_refuses_what_it_knows_by_name(run, tmp_path, trained, monkeypatch):
    from napari_lungfm.benchmark import seen

    monkeypatch.setattr(seen, "hash_image", None)  # to call it would raise
    named = SeenPatient(cohort="c", case="b", part="train", image="x")
    trained(tmp_path / "net", seen=(named,))
    with pytest.raises(SeenPatientError, match=r"trained on .*: 'b' of 'c';"):
        run([{"model": "net"}], do=estimate_run)
    trained(tmp_path / "other", seen=(named.model_copy(update={"case": "z"}),))
    run([{"model": "other"}], do=estimate_run)
    assert not (tmp_path / "run").exists()


def test_images_are_read_once_for_that(run, model, tmp_path, monkeypatch, trained):
    from napari_lungfm.benchmark import seen

    trained(tmp_path / "blank")  # it has seen nobody: there is nothing to look for
    run([{"model": "blank"}], out="blank")
    assert not (tmp_path / "blank" / "images.json").exists()
    somebody = SeenPatient(cohort="o", case="z", part="train", image="x")
    trained(tmp_path / "net", seen=(somebody,))
    run([{"model": "net"}])
    monkeypatch.setattr(seen, "hash_image", None)  # to call it would raise
    run([{"model": "net"}])
    (tmp_path / "run" / "images.json").write_text("{")
    with pytest.raises(TypeError):
        run([{"model": "net"}])


# ---------------------------------------------------------------------- prompts from its masks
AUTO = ["auto-box-every-slice:my-unet", "auto-box-one:my-unet", "auto-point-one:my-unet"]


def _by_protocol(records, name="a"):
    return {r.key.protocol: r for r in records if r.key.case == name}


def test_prompts_come_from_the_automatic_mask(run, model, tmp_path, chest, trained):
    trained(tmp_path / "net")
    model.change = lambda array: np.roll(array, 3, axis=2)
    methods = [
        {"model": "prompt-ellipse", "protocols": AUTO},
        {"model": "prompt-box", "protocols": AUTO},
        {"model": "net"},
    ]
    found = run(methods, structures=["tumour"])
    records = found.load()
    assert len(model.seen) == 2  # once per case, for all six units that draw from it
    own = _by_protocol([r for r in records if r.key.model in ("prompt-box", "my-unet")])
    moved = np.roll(chest(6), 3, axis=2) == 3
    boxes = [from_dict(p) for p in own[AUTO[0]].structures[0].prompts]
    assert boxes == [Box.around(moved[z], z) for z in (2, 3, 4)]
    automatic = own["none"]
    assert own[AUTO[0]].structures[0].dice == automatic.structures[0].dice < 1
    for name in AUTO:
        cost = own[name].cost
        assert cost.automatic_seconds == automatic.cost.seconds >= 0.01
        assert cost.alone_seconds == cost.seconds + cost.automatic_seconds
    costs = costs_frame(records).set_index(["case", "method", "protocol"])
    assert costs.loc[("a", "prompt-box", AUTO[1]), "alone_seconds"] >= 0.01
    assert set(summarise(records)["protocol"]) == {"none", *AUTO}


def test_the_automatic_mask_of_an_earlier_call_serves(run, model, tmp_path, trained):
    trained(tmp_path / "net")
    prompted = {"model": "prompt-box", "protocols": AUTO[:1]}
    first = run([{"model": "net"}, prompted])
    before = results_frame(first.load())
    for record in first.load():
        if record.key.model == "prompt-box":
            first.record_file(record.key, record.fingerprint).unlink()
    again = run([{"model": "net"}, prompted])
    assert len(model.seen) == 2
    assert results_frame(again.load()).equals(before)


@pytest.mark.parametrize("name", ["auto-box-one:my-unet", "auto-point-one+corrections-2:my-unet"])
def test_an_empty_automatic_mask_prompts_nothing(run, model, tmp_path, name, trained):
    trained(tmp_path / "net")
    model.change = lambda array: np.where(array == 3, 0, array)
    found = run([{"model": "net"}, {"model": "prompt-box", "protocols": [name]}])
    record = _by_protocol(found.load())[name]
    tumour = next(s for s in record.structures if s.structure == "tumour")
    assert record.status == "ok"
    assert (tumour.dice, tumour.prompts, tumour.interactions) == (0.0, (), ())
    assert tumour.note == "nothing to prompt: 'my-unet' found no tumour; the prediction is empty"
    assert all(s.note is None and s.prompts for s in record.structures if s is not tumour)
    frame = results_frame(found.load()).set_index(["protocol", "case", "structure"])
    assert frame.loc[(name, "a", "tumour"), "n_prompts"] == 0
    assert "found no tumour" in frame.loc[(name, "a", "tumour"), "note"]
    (said,) = remarks(found.load(), "c")
    assert said.startswith(f"prompt-box under {name}, 2 of 2 units: nothing to prompt")


def test_corrections_are_those_of_a_user_who_knows_the_reference(
    run, model, tmp_path, chest, trained
):
    trained(tmp_path / "net")
    model.change = lambda array: np.roll(array, 3, axis=2)
    name = "auto-box-one+corrections-2:my-unet"
    methods = [{"model": "net"}, {"model": "classical", "protocols": [name]}]
    record = _by_protocol(run(methods, structures=["tumour"]).load())[name]
    (tumour,) = record.structures
    assert 1 <= len(tumour.interactions) <= 3
    clicks = [from_dict(p) for p in tumour.prompts[1:]]
    wrong = chest(6) == 3
    assert all(click.positive == wrong[click.z, click.y, click.x] for click in clicks)


def test_without_an_automatic_mask_the_unit_fails_and_is_tried_again(run, model, tmp_path, trained):
    trained(tmp_path / "net")
    good = model.segment

    def fail(volume, **_):
        raise MemoryError

    model.segment = fail
    methods = [{"model": "net"}, {"model": "prompt-box", "protocols": AUTO[:1]}]
    own = _by_protocol(run(methods).load())
    assert own["none"].error == "MemoryError: no message"
    assert "'my-unet' gave no mask of this case (MemoryError" in own[AUTO[0]].error
    assert [s.dice for s in own[AUTO[0]].structures] == [0.0] * 3
    model.segment = good
    assert all(r.status == "ok" for r in run(methods).load())


# ---------------------------------------------------------------------- configurations
@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([{"model": "lungs-classical", "protocols": ["box-one"]}], "takes no prompts: leave"),
        ([{"model": "prompt-box", "protocols": ["none"]}], "'none' is for automatic models"),
        ([{"model": "prompt-box"}], "list the prompt protocols"),
        ([{"protocols": ["box-one"]}], "either a model or a configuration to train"),
        ([{"model": "lungs-classical", "train": "unet-small"}], "either a model or"),
        ([{"model": "lungs-classical", "trained_on": "c"}], "goes with train"),
        ([{"model": "lungs-classical", "cohorts": ["d"]}], "no cohort 'd', only c"),
        ([{"model": "lungs-classical", "cohorts": []}], "scored on no cohort"),
        ([{"model": "lungs-classical"}] * 2, "more than once as method"),
        ([{"model": "lungs-classical", "options": {"x": 1}}], "no option 'x'"),
        ([{"model": "lungmask", "options": {"lobes": True}}], "finds nothing that can be scored"),
        ([{"train": "unet-smal"}], "no configuration 'unet-smal'"),
        ([{"model": "unet:nobody"}], "no trained 'unet:nobody'"),
        (
            [{"model": "prompt-box", "protocols": ["auto-box-one:unet"]},
             {"model": "lungs-classical"}],
            "'unet' is no automatic method of this configuration; there: lungs-classical",
        ),
        (
            [{"model": "prompt-box", "protocols": ["box-one"], "label": "x"},
             {"model": "lungs-classical", "label": "x"}],
            "name of an automatic and of a promptable",
        ),
    ],
)  # fmt: skip
def test_wrong_methods_are_explained(run, methods, message, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))
    with pytest.raises(ConfigError, match=message) as caught:
        run(methods)
    assert "\n" not in str(caught.value)


def test_a_run_about_other_structures_is_refused(run):
    with pytest.raises(ConfigError, match="finds left lung, right lung; the run is about: tumour"):
        run([{"model": "lungs-classical"}], structures=["tumour"])


def test_folders_count_from_the_configuration(folder, tmp_path, case, trained):
    trained(tmp_path / "models" / "unet")
    file = tmp_path / "c.yaml"
    cohort = {"kind": "files", "name": "c", "root": str(folder), "cases": [case("a")]}
    file.write_text(
        json.dumps({"name": "t", "cohorts": [cohort], "methods": [{"model": "models/unet"}]})
    )
    (method,) = load_config(file).look_up(tmp_path)
    assert (method.model, method.runs) == ("my-unet", str(tmp_path / "models" / "unet"))
    with pytest.raises(ConfigError, match="no model 'models/unet'"):
        parse_config(json.loads(file.read_text()))
