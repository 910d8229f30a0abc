"""Units under ``zhu-validation`` in the report: there, and nowhere else."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from napari_lungfm.benchmark.records import Cost, Record, ZhuResult
from napari_lungfm.benchmark.report import summarise, write_report
from napari_lungfm.benchmark.report.example import example_command
from napari_lungfm.benchmark.report.zhu import EXPLANATION, zhu_rows
from napari_lungfm.benchmark.runner import run_benchmark
from napari_lungfm.benchmark.store import costs_frame, results_frame, zhu_frame


def zhu_result(structure="tumour", s=0.5, f=0.2, **changes):
    """Scores of a structure on a fraction ``f`` of ten slices, with IoU ``s`` there."""
    n = round(10 * f)
    values = {
        "structure": structure,
        "iou": (1 - f) + f * s if n else None,
        "dice": (1 - f) + f * 2 * s / (1 + s) if n else None,
        "n_slices": 10,
        "n_present": n,
        "iou_present": s if n else None,
        "dice_present": 2 * s / (1 + s) if n else None,
        "iou_absent": 1.0,
        "with_logits": True,
    }
    return ZhuResult(**(values | changes))


@pytest.fixture
def make_zhu(make_record):
    def make(case="p1", model="a", results=None, **changes):
        results = (zhu_result(),) if results is None else results
        given = {"protocol": "zhu-validation", "structures": (), "zhu": results}
        return make_record(case, model, **(given | changes))

    return make


def test_it_changes_nothing_of_the_rest(make_run, make_zhu, several):
    """The same report with and without such units, but for their own files and the costs."""
    extra = [make_zhu(f"p{i}", model) for i in range(3) for model in ("a", "b")]
    plain = write_report(make_run(several, name="plain"))
    mixed = write_report(make_run([*several, *extra], name="mixed"))
    files = {p.relative_to(plain.folder) for p in plain.folder.rglob("*") if p.is_file()}
    more = {p.relative_to(mixed.folder) for p in mixed.folder.rglob("*") if p.is_file()}
    assert {p.as_posix() for p in more - files} == {"tables/made--zhu-validation.md"}
    different = {
        p.as_posix()
        for p in files
        if (plain.folder / p).read_bytes() != (mixed.folder / p).read_bytes()
    }
    assert different == {
        "report.html",
        "costs.csv",
        "zhu-validation.csv",
        ".napari-lungfm-report",
    }
    assert summarise([*several, *extra]).equals(summarise(several))


def test_rows_are_means_over_cases(make_zhu):
    records = [
        make_zhu("p1", results=(zhu_result(s=0.4, f=0.2),)),
        make_zhu("p2", results=(zhu_result(s=0.6, f=0.4),)),
        make_zhu("p3", results=(zhu_result(f=0.0),)),
        make_zhu("p4", results=(), status="failed", error="no luck"),
    ]
    (row,) = zhu_rows(zhu_frame(records), costs_frame(records), "made")
    assert (row["method"], row["protocol"], row["structure"]) == ("a", "zhu-validation", "tumour")
    iou, _, f, s, nothing, seconds, *counts = row["numbers"]
    assert iou == pytest.approx((0.88 + 0.84) / 2)
    assert (f, s, nothing) == pytest.approx((0.3, 0.5, 0.7))
    assert seconds == 2.0
    assert counts == [2, 1, 1]  # scored, undefined, failed
    assert row["intervals"][0].startswith("[0.8")


def test_seeds_are_averaged_per_case(make_zhu):
    records = [
        make_zhu("p1", seed=seed, results=(zhu_result(s=s),)) for seed, s in ((0, 0.2), (1, 0.4))
    ]
    records.append(make_zhu("p2", results=(zhu_result(s=0.9),)))
    (row,) = zhu_rows(zhu_frame(records), costs_frame(records), "made")
    assert row["numbers"][3] == pytest.approx((0.3 + 0.9) / 2)
    assert row["numbers"][6] == 2


def test_lungs_and_average(make_zhu):
    parts = (
        zhu_result("left lung", 0.8, 0.9),
        zhu_result("right lung", 0.6, 1.0),
        zhu_result("tumour", 0.5, 0.2),
    )
    without = (*parts[:2], zhu_result(f=0.0))
    records = [make_zhu("p1", results=parts), make_zhu("p2", results=without)]
    rows = zhu_rows(zhu_frame(records), costs_frame(records), "made")
    found = {row["structure"]: row["numbers"] for row in rows}
    left, right, tumour = (part.iou for part in parts)
    assert found["lungs"][0] == pytest.approx((left + right) / 2)
    assert found["avg"][0] == pytest.approx((left + right + tumour) / 3)
    assert math.isnan(found["avg"][3])  # no s of several structures
    assert [found[name][6] for name in ("lungs", "avg", "tumour")] == [2, 1, 1]
    assert [found[name][7] for name in ("lungs", "avg", "tumour")] == [0, 1, 1]


def test_a_method_that_always_failed_has_a_row(make_zhu):
    records = [make_zhu(f"p{i}", results=(), status="failed", error="x") for i in range(2)]
    (row,) = zhu_rows(zhu_frame(records), costs_frame(records), "made")
    assert row["structure"] == "–"
    assert row["numbers"][6:] == [0, 0, 2]


def test_the_page_and_the_table_say_what_it_is(make_run, make_record, make_zhu):
    silent = (zhu_result(with_logits=False),)
    records = [make_record(), make_zhu(), make_zhu(model="b", results=silent)]
    files = write_report(make_run(records))
    text = " ".join(files.html.read_text(encoding="utf-8").split())
    assert "cannot be compared with any other score" in EXPLANATION
    assert EXPLANATION in text
    table = text[text.index("<h3>Validation of Medical SAM 2") :]
    table = table[: table.index("</table>")]
    assert re.findall(r'<td class="t">([ab](?: \*)?)</td>', table) == ["a", "b *"]
    assert ">0.900<" in table
    assert "stands for all thresholds" in text
    (markdown,) = [p for p in files.tables if p.name.endswith("--zhu-validation.md")]
    lines = markdown.read_text(encoding="utf-8")
    assert EXPLANATION in lines
    assert "| b \\* | zhu-validation | tumour | 0.900" in lines
    assert "zhu-validation" not in (files.folder / "tables" / "made.md").read_text()
    frame = pd.read_csv(files.zhu_csv)
    assert frame["iou"].tolist() == pytest.approx([0.9, 0.9])
    assert frame["empty_iou"].tolist() == pytest.approx([0.8, 0.8])
    assert "zhu-validation" not in set(pd.read_csv(files.results_csv)["protocol"])


def test_a_run_of_nothing_else_has_a_report(make_run, make_zhu):
    records = [make_zhu("p1"), make_zhu("p2")]
    summary = summarise(records)
    assert summary.empty
    assert {"cohort", "protocol", "method", "dice", "dice_low", "seconds"} <= set(summary.columns)
    files = write_report(make_run(records, images=True))
    text = files.html.read_text(encoding="utf-8")
    assert "Validation of Medical SAM 2" in text
    assert "No unit of this cohort is finished" not in text
    assert pd.read_csv(files.zhu_csv)["iou"].tolist() == pytest.approx([0.9, 0.9])


def test_without_such_units_the_report_has_no_such_table(report):
    assert "Validation of Medical SAM 2" not in report.html.read_text(encoding="utf-8")
    assert pd.read_csv(report.zhu_csv).empty
    assert not [p for p in report.tables if "zhu" in p.name]


def test_records_come_back_and_older_ones_can_be_read(make_zhu, make_record):
    record = make_zhu()
    assert Record.model_validate_json(record.model_dump_json()) == record
    old = make_record().model_dump(mode="json")
    del old["zhu"]
    for name in ("slices_encoded", "slices_reused", "saved_seconds"):
        del old["cost"][name]
    again = Record.model_validate(old)
    assert again.zhu == ()
    assert again.cost == Cost(seconds=2.0, peak_rss_mb=100.0, n_prompts=1, parameters=1_000_000)
    assert again.cost.alone_seconds == 2.0


# ---------------------------------------------------------------------- from a run
def test_a_run_keeps_it_apart(cases, make_config, tmp_path):
    protocols = ["box-every-slice", "zhu-validation", "zhu-validation-points"]
    methods = [{"model": "prompt-ellipse", "protocols": protocols}]
    folder = run_benchmark(make_config(methods=methods), tmp_path / "run", base=tmp_path)
    records = folder.load()
    assert [r.status for r in records] == ["ok"] * 6
    for record in records:
        assert bool(record.zhu) is record.key.protocol.startswith("zhu")
        assert bool(record.structures) is not bool(record.zhu)
    assert set(results_frame(records)["protocol"]) == {"box-every-slice"}
    frame = zhu_frame(records)
    assert set(frame["protocol"]) == set(protocols[1:])
    for record in records:
        for result in record.zhu:
            f = result.n_present / result.n_slices
            parts = np.mean([s.iou for s in result.slices])
            assert result.iou == pytest.approx(parts)
            absent = result.iou_absent if result.iou_absent is not None else 0.0
            assert result.iou == pytest.approx((1 - f) * absent + f * result.iou_present)
            assert len(result.prompts) == -(-result.n_slices // 2)
            assert record.cost.n_prompts == len(result.prompts)
    files = write_report(folder)
    assert "zhu-validation-points" in files.html.read_text(encoding="utf-8")


def test_clicks_of_the_baseline_have_the_mean_radius(cases, make_config, tmp_path):
    values = make_config().model_dump(mode="json")
    values["cohorts"][0]["cases"][0]["part"] = "train"
    methods = [{"model": "prompt-ellipse", "protocols": ["zhu-validation-points"]}]
    config = make_config(cohorts=values["cohorts"], methods=methods)
    (record,) = run_benchmark(config, tmp_path / "run", base=tmp_path).load()
    assert record.options["point_radius_mm"] == pytest.approx(6.3, abs=0.3)


def test_a_failed_validation_has_no_score(cases, make_config, tmp_path, monkeypatch):
    from napari_lungfm.benchmark import units

    def fail(*arguments):
        raise RuntimeError("no luck")

    monkeypatch.setattr(units, "validate", fail)
    methods = [{"model": "prompt-ellipse", "protocols": ["zhu-validation"]}]
    folder = run_benchmark(make_config(methods=methods), tmp_path / "run", base=tmp_path)
    assert [(r.status, r.zhu) for r in folder.load()] == [("failed", ())] * 2
    assert zhu_frame(folder.load())["iou"].isna().tolist() == [True, True]


# ---------------------------------------------------------------------- beside it
def test_corrected_units_are_no_example(make_record, make_result):
    look = {"n_prompts": 1, "dice": 0.5, "seconds": 1.0}
    corrected = make_result(interactions=(look, look | {"n_prompts": 2}))
    content = make_result(
        interactions=(look,), prompts=({"kind": "box", "z": 3, "box": [1, 2, 3, 4]},) * 2
    )
    first = make_record(
        "p1", structures=(corrected,), mask_file="m", protocol="box-one+corrections-2"
    )
    other = make_record(
        "p2", structures=(content,), mask_file="m", protocol="box-one+corrections-2"
    )
    assert example_command([first]) is None
    assert "--image p2.nii.gz" in example_command([first, other])


def test_notes_of_cases_are_shown(make_run, make_record):
    noted = make_record("p2", case_notes=("slice 7 is missing & was filled",))
    records = [make_record("p1"), noted, make_record("p2", "b", case_notes=noted.case_notes)]
    text = write_report(make_run(records)).html.read_text(encoding="utf-8")
    assert "Notes on 1 case, from reading the files" in text
    assert text.count("<dt>p2</dt><dd>slice 7 is missing &amp; was filled</dd>") == 1
    plain = write_report(make_run([make_record()], name="plain"))
    assert "from reading the files" not in plain.html.read_text(encoding="utf-8")
