"""``report`` of one run and of two, and ``trace``."""

import json

import pytest


@pytest.fixture
def run(bench, case, tmp_path):
    def make(name, *, model="prompt-ellipse"):
        file = case.folder / f"{name}.yaml"
        file.write_text(
            f"""
name: {name}
cohorts:
  - kind: files
    name: c
    root: {case.folder}
    cases: [{{name: a, image: {case.image.name}, mask: {case.mask.name}}}]
methods:
  - {{model: {model}, protocols: [box-one, box-every-slice]}}
"""
        )
        result = bench("run", file, "--out", tmp_path / name)
        assert result.code == 0, result.err
        return tmp_path / name

    return make


def test_a_number_is_traced_to_its_record_its_mask_and_its_prompts(bench, run):
    out = run("one")
    row = ["--cohort", "c", "--method", "prompt-ellipse", "--protocol", "box-one"]
    shown = bench("trace", out, *row)
    assert shown.code == 0, shown.err
    found = bench("trace", out, *row, "--json").json
    unit = found["units"][0]
    assert f"{found['mean']:.4f} (n = 1, 0 undefined)" in shown.out.splitlines()[0]
    assert f"    record  {unit['record_file']}" in shown.out.splitlines()
    record = json.loads((out / unit["record_file"]).read_text())
    assert record["structures"][0]["dice"] == unit["value"]
    assert record["structures"][0]["prompts"] == unit["prompts"]["tumour"]
    assert (out / unit["mask_file"]).is_file()
    wrong = bench("trace", out, *row[:-1], "box-two")
    assert wrong.code == 2
    assert "there are: box-one, box-every-slice" in wrong.err


def test_a_trace_says_how_the_number_arises_and_names_other_rows(bench, run):
    out, other = run("one"), run("two")
    row = ["--cohort", "c", "--method", "prompt-ellipse", "--protocol", "box-one"]
    shown = bench("trace", out, *row, "--against-run", other)
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[1].startswith(
        "how: B minus A, case by case over the units that both runs have, 0 left"
    )
    assert "difference: 0.0000" in lines
    assert f"  prompt-ellipse in {other}: a (seed 0): " in shown.out
    alone = bench("trace", out, *row, "--metric", "p_best")
    assert (alone.code, len(alone.err.strip().splitlines())) == (2, 1)
    assert "two methods or more" in alone.err
    tested = bench("trace", out, *row, "--against", "prompt-ellipse", "--metric", "iou")
    assert tested.code == 2
    assert "'prompt-ellipse' is the same method as --method" in tested.err


def test_two_runs_are_compared_on_their_common_cases(bench, run, tmp_path):
    first, second = run("one"), run("two")
    assert bench("report", first, second).code == 2
    result = bench("report", first, second, "--out", tmp_path / "both", "--json")
    assert result.code == 0, result.err
    rows = {row["protocol"]: row for row in result.json["comparison"]}
    assert set(rows) == {"box-one", "box-every-slice"}
    assert (tmp_path / "both" / "report.html").is_file()
    assert result.json["only_in_one"] == []
    shown = bench("report", first, second, "--out", tmp_path / "both")
    assert "box-every-slice" in shown.out
    assert "0 units are in one run alone" in shown.err
    nothing = bench("report", first, run("other", model="prompt-box"), "--out", tmp_path / "x")
    assert nothing.code == 1
    assert "no case in common" in nothing.err
    assert not (tmp_path / "x").exists()
    masks = bench("report", first, second, "--out", tmp_path / "x", "--overlay-cases", "3")
    assert masks.code == 2


def test_a_report_says_how_the_run_ended(bench, run):
    out = run("one")
    result = bench("report", out, "--json")
    assert result.code == 0
    assert result.json["units"] == {"planned": 2, "finished": 2, "failed": 0}
    assert result.json["report"] == str(out / "report" / "report.html")
