"""Groups of cases, prompting, cost and the choice of examples."""

import numpy as np
import pytest

from napari_lungfm.benchmark.previews import Preview
from napari_lungfm.benchmark.records import Cost
from napari_lungfm.benchmark.report import summarise, write_report
from napari_lungfm.benchmark.report.compute import compute_figure, compute_points
from napari_lungfm.benchmark.report.figure_one import choose, columns
from napari_lungfm.benchmark.report.figures import row_looks
from napari_lungfm.benchmark.report.header import CohortNote
from napari_lungfm.benchmark.report.prompting import jitter_points, prompt_points
from napari_lungfm.benchmark.report.scores import case_scores, unit_scores
from napari_lungfm.benchmark.report.setup import cohort_lines, model_lines
from napari_lungfm.benchmark.report.subgroups import (
    CONTACT,
    SIZE,
    Division,
    divisions,
    size_group,
    subgroup_scores,
    subgroup_tables,
    touches_edge,
)
from napari_lungfm.benchmark.store import RunFolder, costs_frame


@pytest.fixture
def sized(make_record, make_result):
    """Six cases of three sizes, half of them on the pleura, under a model and the ellipse."""
    return [
        make_record(
            f"p{i}", model, protocol="box-one",
            structures=(make_result(dice=dice + 0.05 * i, reference_volume_ml=volume),),
            case_attributes={"pleural_contact": i % 2 == 0, "site": "left", "note": i},
        )
        for i, volume in enumerate((1.0, 2.0, 30.0, 40.0, 300.0, 400.0))
        for model, dice in (("a", 0.6), ("prompt-ellipse", 0.4))
    ]  # fmt: skip


def cases_of(records):
    cases = case_scores(unit_scores(records))
    return cases[cases["structure"] == "tumour"]


@pytest.mark.parametrize(
    ("diameter", "group"), [(29.9, "≤ 30 mm"), (30.1, "30 to 50 mm"), (50.1, "> 50 mm")]
)
def test_size_groups_end_at_their_diameters(diameter, group):
    assert size_group(np.pi / 6 * diameter**3 / 1000) == group


def test_cases_are_divided_by_what_is_known_of_them(make_run, sized):
    run = make_run(sized)
    found = divisions(run, sized, cases_of(sized))
    # One site is no division, and a number is no group.
    assert [division.title for division in found] == [SIZE, "contact with the pleura"]
    assert found[0].names == ["≤ 30 mm", "30 to 50 mm", "> 50 mm"]
    assert found[1].groups == {f"p{i}": "yes" if i % 2 == 0 else "no" for i in range(6)}


def test_scores_of_groups_are_means_of_their_cases(make_run, sized):
    cases = cases_of(sized)
    found = divisions(make_run(sized), sized, cases)
    scores = subgroup_scores(cases, found)
    row = scores[(scores["group"] == "no") & (scores["method"] == "a")].iloc[0]
    assert row["n"] == 3
    assert row["dice"] == pytest.approx(0.6 + 0.05 * 3)
    assert row["dice_low"] < row["dice"] < row["dice_high"]
    base = 0.4 + 0.05 * 3
    assert row["skill"] == pytest.approx((row["dice"] - base) / (1 - base))
    table = subgroup_tables(scores, found, "made")[1]
    assert table["groups"] == [("no", 3), ("yes", 3)]
    assert table["rows"][0]["cells"][0]["dice"] == pytest.approx(row["dice"])


def test_nothing_to_divide_gives_nothing(make_run, make_record):
    records = [make_record()]
    assert divisions(make_run(records), records, cases_of(records)) == []
    assert subgroup_scores(cases_of(records), []).empty


@pytest.mark.parametrize(("outside", "expected"), [(1, False), (0, True)])
def test_contact_is_seen_on_the_slices_of_previews(tmp_path, outside, expected):
    run = RunFolder.create(tmp_path / "run")
    labels = np.full((1, 12, 12), 1, dtype=np.uint8)
    labels[:, :, 8:] = outside
    labels[:, 4:8, 4:8] = 3
    preview = Preview(
        (0,), 0, (0, 12), (0, 12), np.zeros((1, 12, 12), np.int16), labels, (1.0, 1.0, 1.0)
    )
    preview.save(run.preview_file("c", "p"))
    assert touches_edge(run, "c", "p") is expected
    assert touches_edge(run, "c", "lost") is None


# ---------------------------------------------------------------------- prompts
def test_jitter_is_set_beside_the_exact_hand(make_record):
    protocols = {
        "box-one": 0.8,
        "box-one+jitter-5": 0.7,
        "box-one+jitter-10": 0.5,
        "point-one": 0.4,
    }
    records = [make_record("p1", "a", d, protocol=p) for p, d in protocols.items()]
    points = jitter_points(summarise(records))
    assert points["protocol"].unique().tolist() == ["box-one"]
    assert points["jitter_px"].tolist() == [0, 5, 10]
    assert points["dice"].tolist() == [0.8, 0.7, 0.5]


def test_prompts_are_counted_within_their_kind(make_record, make_result):
    box = {"kind": "box", "z": 5, "box": [8, 9, 20, 25]}
    records = [
        make_record("p1", "a", protocol=p, structures=(make_result(dice=d, prompts=(box,) * n),))
        for p, d, n in (("box-every-slice", 0.9, 7), ("box-one", 0.7, 1), ("point-one", 0.5, 1))
    ]
    points = prompt_points(summarise(records))
    assert points["protocol"].tolist() == ["box-one", "box-every-slice"]
    assert points["prompts"].tolist() == [1.0, 7.0]


# ---------------------------------------------------------------------- cost
def test_figure_two_is_drawn_from_counted_macs_beside_the_papers(make_record):
    cost = Cost(seconds=1.0, peak_rss_mb=None, n_prompts=1, parameters=10**7)
    counted = cost.model_copy(update={"macs": 3 * 10**11})
    records = [
        make_record("p1", "a", cohort="lung1", cost=counted),
        make_record("p2", "a", cohort="lung1", cost=counted.model_copy(update={"macs": 10**11})),
        make_record("p1", "prompt-ellipse", cohort="lung1", cost=cost),
    ]
    summary, costs = summarise(records), costs_frame(records)
    points = compute_points(summary, costs).set_index("method")
    assert points.loc["a", "macs"] == pytest.approx(2e11)
    assert np.isnan(points.loc["prompt-ellipse", "macs"])
    figure = compute_figure(points.reset_index(), row_looks(summary), "lung1", "tumour")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "paper: MedSAM 2 BBox" in texts
    assert "prompt-ellipse · box-one" in texts
    assert len(texts) == 6
    nothing = compute_points(summary, costs.assign(macs=float("nan")))
    assert compute_figure(nothing, row_looks(summary), "lung1", "tumour") is None


# ---------------------------------------------------------------------- examples
def test_examples_are_chosen_by_rule(sized):
    cases, looks = cases_of(sized), row_looks(summarise(sized))
    pleura = Division("made", "contact with the pleura", {"p0": "yes", "p2": "yes", "p5": "yes"})
    roles = choose(cases, [pleura], looks)
    assert roles == {
        "p2": ("median", "pleural"),
        "p5": ("best", "large"),
        "p0": ("worst", "small"),
    }
    assert choose(cases, [Division("made", CONTACT, {"p3": "touches"})], looks)["p3"] == (
        "pleural",
    )


def test_columns_are_automatic_methods_and_one_protocol():
    rows = [("u", "none"), ("prompt-box", "box-one"), ("a", "box-one"), ("a", "point-one")]
    looks = {row: type("L", (), {"baseline": row[0] == "prompt-box"})() for row in rows}
    assert columns(looks, dict.fromkeys(rows), 9) == rows[:3]
    assert columns(looks, dict.fromkeys(rows), 2) == [rows[0], rows[2]]


# ---------------------------------------------------------------------- setup
def test_models_are_listed_with_what_they_may_have_seen(make_record):
    records = [make_record(model=name) for name in ("medsam", "prompt-box", "unknown")]
    trained = make_record(model="unet", protocol="none")
    key = trained.key.model_copy(update={"state": "trained"})
    lines = {
        line.model: line
        for line in model_lines([*records, trained.model_copy(update={"key": key})])
    }
    assert lines["medsam"].zero_shot
    assert lines["medsam"].prompts
    assert lines["medsam"].training == "as published"
    assert lines["medsam"].leakage
    assert lines["prompt-box"].training == "none"
    assert lines["unknown"].leakage == "not stated"
    assert not lines["unet"].prompts
    assert lines["unet"].training == "scratch"


def test_cohorts_are_described_by_their_cases(make_record):
    records = [
        make_record("p1", cohort="lung1"),
        make_record("p2", cohort="lung1", case_spacing_mm=(5.0, 0.7, 0.7)),
    ]
    config = "cohorts:\n- kind: files\n  name: lung1\n  cases: [{part: train}, {part: test}, {}]\n"
    note = CohortNote("lung1", "", synthetic=False, n_cases=2, n_planned=58)
    (line,) = cohort_lines([note], unit_scores(records), records, config)
    assert line["test"] == "58"
    assert line["train"] == "1"
    assert line["paper"] == "304 (246 train, 58 test)"
    assert line["spacing"].startswith("3.00 to 5.00 × ")
    assert line["tumour"] == "10.0 (10.0 to 10.0)"
    assert line["lungs"] == "–"


def test_page_has_the_new_parts(make_run, sized):
    files = write_report(make_run(sized))
    page = files.html.read_text(encoding="utf-8")
    for text in ("Table I:", "Significance matrix", "contact with the pleura", "GMACs/volume"):
        assert text in page
    for name in ("subgroups", "ranks", "jitter", "prompts", "fractions", "failures", "paper"):
        assert (files.folder / f"{name}.csv").is_file()
