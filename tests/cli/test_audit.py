"""``audit`` on the command line."""

import csv
import json

import pytest

from napari_lungfm.cli.app import run


def test_the_paper_is_audited_without_an_argument(capsys) -> None:
    assert run(["audit"]) == 0
    out, err = capsys.readouterr()
    assert "Lungs Dice of 0.9989 is more than 2·IoU / (1 + IoU)" in out
    assert "findings; each is a question" in err


def test_another_table_with_weights_as_json(tmp_path, capsys) -> None:
    path = tmp_path / "t.csv"
    path.write_text("row,Lungs IoU,Tumor IoU,Avg IoU\na,0.900,0.600,0.800\nb,0.900,0.600,0.700\n")
    assert run(["audit", str(path), "--weights", "Lungs=2,Tumor=1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["checks"]["average"]["tested"] == 2
    assert [finding["row"] for finding in result["findings"]] == ["b"]


@pytest.mark.parametrize("suffix", ["csv", "json", "md"])
def test_findings_are_written(tmp_path, capsys, suffix) -> None:
    path = tmp_path / f"findings.{suffix}"
    assert run(["audit", "--out", str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert "0.9989" in text
    if suffix == "csv":
        rows = list(csv.DictReader(text.splitlines()))
        assert {row["check"] for row in rows} == {
            "average",
            "dice-iou",
            "constant-difference",
            "marks",
            "repeated",
        }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "x.pdf"], "are written as"),
        (["--weights", "Lungs=2"], "those of the paper are known"),
        (["t.csv", "--weights", "Lungs=two"], "'Lungs=two' is not NAME=WEIGHT"),
        (["t.csv", "--weights", ""], "is not NAME=WEIGHT"),
        (["t.csv", "--weights", "Lungs=0"], "a weight above 0"),
        (["t.csv", "--out", "t.csv"], "would overwrite the input"),
    ],
)
def test_wrong_calls_are_told_in_one_line(tmp_path, monkeypatch, capsys, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("row,Lungs IoU\na,0.9\n")
    assert run(["audit", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert (tmp_path / "t.csv").read_text() == "row,Lungs IoU\na,0.9\n"


def test_a_terminal_without_unicode_is_served(capsys, monkeypatch) -> None:
    monkeypatch.setattr("napari_lungfm.cli.audit.shows_unicode", lambda: False)
    assert run(["audit"]) == 0
    assert capsys.readouterr().out.isascii()


def test_nothing_found_is_not_said_where_nothing_was_tested(tmp_path, capsys) -> None:
    path = tmp_path / "t.csv"
    path.write_text("row,Tumor Quality\na,0.9\nb,0.8\n", encoding="utf-8")
    assert run(["audit", str(path), "--out", str(tmp_path / "f.md")]) == 0
    err = capsys.readouterr().err
    assert "nothing was tested" in err
    assert "0 findings" not in err
    assert "warning: no metric is known in 'Tumor Quality'" in err
    written = (tmp_path / "f.md").read_text(encoding="utf-8")
    assert "Nothing was tested" in written
    assert "Warning: no metric is known" in written


def test_headings_with_units_are_tested(tmp_path, capsys) -> None:
    path = tmp_path / "t.csv"
    path.write_text("Method;Tumor Dice %;Tumor IoU (%)\na;90,1;70,2\nb;80,0;60,1\n", "utf-8")
    assert run(["audit", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["checks"]["dice-iou"] == result["checks"]["dice-iou"] | {"tested": 2, "found": 2}
    path.write_text("Method;Tumor Dice %;Tumor IoU (%)\na;80,0;70,2\n", "utf-8")
    assert run(["audit", str(path)]) == 0
    assert "0 findings in 4 places that were tested" in capsys.readouterr().err
