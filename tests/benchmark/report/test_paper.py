"""Tables II, III and IV: matching, marks and differences."""

import re

import pytest

from napari_lungfm.benchmark.published import read_paper
from napari_lungfm.benchmark.report import paper_text, summarise, write_report
from napari_lungfm.benchmark.report.fractions import curve_figure, curves
from napari_lungfm.benchmark.report.paper import METHODS, paper_cohort, table_two
from napari_lungfm.benchmark.report.scores import case_scores, unit_scores
from napari_lungfm.benchmark.states import fine_tuned_state

LUNGS = ("left lung", "right lung")


@pytest.fixture
def make_unit(make_record, make_result):
    """A unit with both lungs and a tumour on the cohort ``lung1``."""

    def make(case, model, tumour, state="zero-shot", protocol="none", lungs=0.9, **changes):
        one = make_record(case, model, cohort="lung1", protocol=protocol, **changes)
        key = one.key.model_copy(update={"state": state})
        structures = [make_result(name, lungs) for name in LUNGS] + [make_result(dice=tumour)]
        return one.model_copy(update={"key": key, "structures": tuple(structures)})

    return make


@pytest.fixture
def two(make_unit):
    """Some rows of Table II."""
    half = fine_tuned_state(50)
    methods = (
        ("unet-small", 0.1, "small", "none"),
        ("nnunet-3d_lowres", 0.7, "trained", "none"),
        ("medsam2-zhu", 0.85, half, "box-every-slice"),
        ("medsam2-zhu", 0.5, "zero-shot", "box-every-slice"),
        ("medsam2-zhu", 0.6, half, "box-one"),
        ("prompt-ellipse", 0.8, "zero-shot", "box-every-slice"),
    )
    return [
        make_unit(f"p{i}", model, dice + 0.01 * i, state, protocol)
        for i in range(4)
        for model, dice, state, protocol in methods
    ]


def rows_of(table):
    return {(row.title, row.protocol): row for row in table.rows}


def test_rows_stand_beside_those_of_the_paper(two):
    table = table_two(summarise(two), "lung1")
    rows = rows_of(table)
    box = rows["medsam2-zhu (fine-tuned 50 %)", "box-every-slice"]
    assert box.paper_row == "MedSAM 2 BBox"
    assert box.paper["tumour", "dice"].printed == "0.9091"
    assert box.paper["tumour", "dice"].mark == "best"
    assert box.ours["tumour", "dice"].n == 4
    assert box.ours["tumour", "dice"].mark == "best"
    assert box.difference(("tumour", "dice")) == pytest.approx(0.865 - 0.9091)
    assert box.skill == pytest.approx((0.865 - 0.815) / (1 - 0.815))
    assert rows["unet-small", "none"].paper_row == "U-Net"
    assert rows["nnunet-3d_lowres", "none"].paper_row == "nnUnet 3d lowres"
    # Another state and a baseline are no rows of the paper; one prompt is not its protocol.
    assert rows["medsam2-zhu", "box-every-slice"].paper_row == ""
    assert not rows["prompt-ellipse", "box-every-slice"].paper
    assert not any(protocol == "box-one" for _, protocol in rows)
    # All eight rows are there, those that the run has not got with the printed values alone.
    assert {row.paper_row for row in table.rows} - {""} == {method.row for method in METHODS}
    missing = rows["DeepLabV3", ""]
    assert not missing.ours
    assert missing.difference(("avg", "iou")) is None


def test_every_cell_of_the_paper_is_in_the_tables(two):
    frame = paper_text.table_rows([table_two(summarise(two), "lung1")])
    printed = {c.printed for c in read_paper().cells if (c.table, c.group) == ("Table II", "Lung1")}
    assert set(frame.loc[frame["paper_row"] != "", "paper_printed"]) == printed
    both = frame.dropna(subset=["value", "paper"])
    assert both["difference"].tolist() == pytest.approx((both["value"] - both["paper"]).tolist())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("lung1", "Lung1"), ("NSCLC-Radiomics", "Lung1"), ("Task06_Lung", "Task06"), ("real", None)],
)
def test_cohorts_are_known_by_name(name, expected):
    assert paper_cohort(name) == expected


def test_cohorts_that_the_paper_has_not_get_no_such_table(make_record):
    assert table_two(summarise([make_record()]), "made") is None


@pytest.fixture
def tuned(make_unit):
    """Zero-shot and two parts, two seeds each; the second part is better on every case."""
    return [
        make_unit(f"p{i}", "medsam2-zhu", dice + 0.01 * i + 0.002 * seed, state, "box-every-slice",
                  seed=seed)
        for i in range(8)
        for seed in (0, 1)
        for state, dice in (
            ("zero-shot", 0.5), (fine_tuned_state(25), 0.6), (fine_tuned_state(100), 0.7),
        )
    ]  # fmt: skip


def curves_of(records):
    units = unit_scores(records)
    tumour = units[units["structure"] == "tumour"]
    return curves(summarise(records), case_scores(tumour), tumour)


def test_a_curve_has_the_zero_shot_row_and_the_papers_parts(tuned):
    (curve,) = curves_of(tuned)
    assert curve.points["percent"].tolist() == [0.0, 25.0, 100.0]
    assert curve.points["dice"].tolist() == pytest.approx([0.536, 0.636, 0.736])
    assert curve.points["n"].tolist() == [8, 8, 8]
    assert curve.points["n_seeds"].tolist() == [2, 2, 2]
    assert curve.points["seeds_sd"].tolist() == pytest.approx([0.002 / 2**0.5] * 3)
    assert [row.title for row in curve.table.rows] == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    assert curve.table.name == "Table III"
    assert curve.table.group == "bounding box"
    full = curve.table.rows[-1]
    assert full.paper["tumour", "dice"].printed == "0.8563"
    assert full.ours["tumour", "dice"].mark == "best"
    assert not curve.table.rows[2].ours
    # Pooled SD of the seeds' means, two seeds: 1.96·SD·√(2/2).
    assert curve.noise == pytest.approx(1.96 * 0.002 / 2**0.5)
    assert "larger than the noise" in curve.verdict
    assert "no difference" not in curve.verdict
    assert curve_figure([curve], "tumour") is not None


def test_equal_parts_are_said_to_be_noise(make_unit):
    records = [
        make_unit(f"p{i}", "lungfm-s", 0.6 + 0.01 * ((i + seed * (1 + part)) % 5), state, "box-one",
                  seed=seed)
        for i in range(8)
        for seed in (0, 1)
        for part, state in enumerate(("zero-shot", fine_tuned_state(50)))
    ]  # fmt: skip
    (curve,) = curves_of(records)
    assert "So no difference between the parts is larger than the noise" in curve.verdict
    assert not curve.table.has_paper
    assert curve.table.name == f"Training fractions of {curve.label or curve.model}"


def test_one_seed_says_nothing_of_repetitions(tuned):
    (curve,) = curves_of([record for record in tuned if record.key.seed == 0])
    assert "With one seed nothing is known" in curve.verdict


def test_without_fine_tunings_there_are_no_curves(make_record):
    assert curves_of([make_record()]) == []
    assert curve_figure([], "tumour") is None


def test_report_has_the_tables_in_every_format(make_run, two, tuned):
    records = [*tuned, *(r for r in two if r.key.state == "small" or "ellipse" in r.key.model)]
    files = write_report(make_run(records))
    text = (files.folder / "tables" / "lung1--paper.md").read_text(encoding="utf-8")
    assert "## Table II: lung1, Lung1" in text
    assert "## Table III: lung1, bounding box" in text
    assert "larger than the noise" in text
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line[:1] == "|"}
    assert len(widths) == 1
    tex = (files.folder / "tables" / "lung1--paper.tex").read_text(encoding="utf-8")
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    page = files.html.read_text(encoding="utf-8")
    assert "paper <strong>0.9091</strong>" in page
    assert "Training fractions" in page
    assert (files.folder / "figures" / "lung1--fractions.png").is_file()
    assert files.paper_csv.is_file()
