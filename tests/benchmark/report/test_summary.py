import math
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import DataError
from napari_lungfm.benchmark.report import print_table, summarise
from napari_lungfm.benchmark.report.columns import BY_KEY, interval, marks, number, p_value
from napari_lungfm.benchmark.report.scores import unit_scores
from napari_lungfm.evaluation.statistics import bootstrap_mean

HIGHER, LOWER, NEITHER = BY_KEY["dice"], BY_KEY["hd95_mm"], BY_KEY["n_prompts"]


def row_of(summary, **wanted):
    for name, value in wanted.items():
        summary = summary[summary[name] == value]
    assert len(summary) == 1
    return summary.iloc[0]


def test_means_and_intervals_are_those_of_the_cases(make_record):
    dice = [0.5, 0.7, 0.9, 0.95]
    records = [make_record(f"p{i}", "a", d) for i, d in enumerate(dice)]
    row = row_of(summarise(records), structure="tumour")
    assert row["dice"] == pytest.approx(np.mean(dice))
    assert row["hd95_mm"] == pytest.approx(np.mean([10 * (1 - d) for d in dice]))
    expected = bootstrap_mean(dice)
    assert (row["dice_low"], row["dice_high"]) == (expected.low, expected.high)
    assert (row["n"], row["n_units"], row["n_failed"], row["n_undefined"]) == (4, 4, 0, 0)
    assert row["volume_error_ml"] == pytest.approx(2.0)
    assert row["volume_difference_ml"] == pytest.approx(-2.0)
    assert row["slices_beyond"] == 1
    assert row["seconds"] == 2.0


def test_seeds_are_averaged_within_a_case_so_that_n_counts_patients(make_record):
    records = [
        *(make_record("p1", "a", d, seed=s) for s, d in enumerate((0.2, 0.4, 0.6))),
        make_record("p2", "a", 0.8),
    ]
    row = summarise(records).iloc[0]
    assert row["dice"] == pytest.approx((0.4 + 0.8) / 2)
    assert (row["n"], row["n_units"]) == (2, 4)


def test_skill_uses_the_ellipse_of_the_same_protocol_on_the_same_cases(make_record):
    records = [
        make_record("p1", "prompt-ellipse", 0.6),
        make_record("p2", "prompt-ellipse", 0.8),
        make_record("p3", "prompt-ellipse", 0.1),  # "a" has no p3: it must not count
        make_record("p1", "prompt-ellipse", 0.9, protocol="box-every-slice"),
        make_record("p1", "a", 0.7),
        make_record("p2", "a", 1.0),
        make_record("p1", "a", 0.95, protocol="box-every-slice"),
        make_record("p1", "a", 0.95, protocol="point-one"),
    ]
    summary = summarise(records)
    one = row_of(summary, method="a", protocol="box-one")
    assert one["skill"] == pytest.approx((0.85 - 0.7) / (1 - 0.7))
    assert one["skill_n"] == 2
    assert row_of(summary, method="a", protocol="box-every-slice")["skill"] == pytest.approx(0.5)
    without = row_of(summary, method="a", protocol="point-one")
    assert math.isnan(without["skill"])
    assert without["skill_n"] == 0
    assert row_of(summary, method="prompt-ellipse", protocol="box-one")["skill"] == 0


def test_skill_is_undefined_where_the_baseline_is_perfect(make_record):
    records = [make_record("p1", "prompt-ellipse", 1.0), make_record("p1", "a", 0.9)]
    assert summarise(records)["skill"].isna().all()


def test_lungs_and_average_follow_the_published_definition(make_record, make_result):
    parts = (
        make_result("left lung", 0.9),
        make_result("right lung", 0.98),
        make_result("tumour", 0.7),
    )
    summary = summarise([make_record(structures=parts)])
    lungs = row_of(summary, structure="lungs")
    assert lungs["dice"] == pytest.approx(0.94)
    assert row_of(summary, structure="avg")["dice"] == pytest.approx((2 * 0.94 + 0.7) / 3)
    assert math.isnan(lungs["volume_difference_ml"])
    assert list(summary["structure"]) == ["left lung", "right lung", "tumour", "lungs", "avg"]


def test_one_lung_is_the_mean_of_itself_and_average_needs_both(make_record, make_result):
    alone = make_record("p1", structures=(make_result("left lung", 0.9),))
    undefined = make_record(
        "p2", structures=(make_result("left lung", 0.8), make_result("tumour", None))
    )
    units = unit_scores([alone, undefined])
    assert units.loc[units["structure"] == "lungs", "dice"].tolist() == [0.9, 0.8]
    assert units.loc[units["structure"] == "avg", "dice"].isna().tolist() == [True]


def test_undefined_scores_are_left_out_and_counted(make_record):
    records = [make_record("p1", "a", 0.8), make_record("p2", "a", None)]
    row = summarise(records).iloc[0]
    assert row["dice"] == 0.8
    assert (row["n"], row["n_cases"], row["n_undefined"]) == (1, 2, 1)


def test_failures_count_and_a_case_that_could_not_be_read_has_no_scores(make_record):
    records = [
        make_record("p1", "a", 0.8),
        make_record("p2", "a", 0.0, status="failed", error="boom"),
        make_record("p3", "a", status="failed", error="no such file", structures=()),
    ]
    row = summarise(records).iloc[0]
    assert row["dice"] == pytest.approx(0.4)
    assert (row["n"], row["n_cases"], row["n_failed"], row["n_undefined"]) == (2, 3, 2, 0)
    assert row["hd95_mm_n"] == 1
    assert row["seconds"] == 2.0


def test_all_unreadable_gives_rows_without_numbers(make_record):
    records = [make_record(c, "a", status="failed", structures=()) for c in ("p1", "p2")]
    row = summarise(records).iloc[0]
    assert (row["n"], row["n_failed"]) == (0, 2)
    assert math.isnan(row["dice"])
    assert math.isnan(row["seconds"])


def test_one_case_has_a_mean_but_no_interval(make_record):
    row = summarise([make_record()]).iloc[0]
    assert row["dice"] == 0.8
    assert math.isnan(row["dice_low"])
    assert math.isnan(row["dice_high"])


def test_rows_come_in_the_order_of_the_plan(make_record):
    records = [
        make_record(case, model, protocol=protocol)
        for case in ("p1", "p2")
        for model in ("z", "prompt-box", "a")
        for protocol in ("point-one", "box-one")
    ]
    summary = summarise(records)
    assert list(zip(summary["protocol"], summary["method"], strict=True)) == [
        (p, m) for p in ("point-one", "box-one") for m in ("z", "prompt-box", "a")
    ]


def test_nothing_to_summarise_is_an_error():
    with pytest.raises(DataError, match="no finished unit"):
        summarise([])


# ---------------------------------------------------------------------- marks
@pytest.mark.parametrize(
    ("values", "column", "expected"),
    [
        ([0.7, 0.9, 0.8], HIGHER, ["", "best", "second"]),
        ([7.0, 9.0, 8.0], LOWER, ["best", "", "second"]),
        ([7.0, 9.0, 8.0], NEITHER, ["", "", ""]),
        # Equal as written: both are best, and the next value is second.
        ([0.9001, 0.9004, 0.8, 0.7], HIGHER, ["best", "best", "second", ""]),
        ([0.9, 0.8, 0.80049], HIGHER, ["best", "second", "second"]),
        ([0.9, math.nan], HIGHER, ["", ""]),
        ([math.nan, math.nan], HIGHER, ["", ""]),
        ([0.9], HIGHER, [""]),
        ([math.nan, 0.2, 0.3], HIGHER, ["", "second", "best"]),
    ],
)
def test_marks(values, column, expected):
    assert marks(values, [5] * len(values), column) == expected


def test_a_method_scored_on_fewer_cases_is_never_marked():
    assert marks([0.99, 0.7, 0.8], [3, 5, 5], HIGHER) == ["", "second", "best"]
    # HD95 is undefined where a method found nothing: it must not win by that.
    assert marks([1.0, 4.0, 5.0], [4, 5, 5], LOWER) == ["", "best", "second"]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.sampled_from([HIGHER, LOWER]))
def test_marked_values_are_the_extremes(values, column):
    found = marks(values, [4] * len(values), column)
    shown = [round(v, column.digits) for v in values]
    extreme = max(shown) if column is HIGHER else min(shown)
    assert [mark == "best" for mark in found] == [value == extreme for value in shown]


def test_marks_stay_within_cohort_and_protocol(make_record):
    from napari_lungfm.benchmark.report.columns import mark_frame

    records = [
        make_record("p1", "a", 0.9, protocol="box-every-slice"),
        make_record("p1", "b", 0.8, protocol="box-every-slice"),
        make_record("p1", "a", 0.5),
        make_record("p1", "b", 0.6),
        make_record("q1", "a", 0.1, cohort="real"),
        make_record("q1", "b", 0.2, cohort="real"),
    ]
    summary = summarise(records)
    found = dict(
        zip(
            zip(summary["cohort"], summary["protocol"], summary["method"], strict=True),
            mark_frame(summary)["dice"],
            strict=True,
        )
    )
    best = {key for key, mark in found.items() if mark == "best"}
    assert best == {
        ("made", "box-every-slice", "a"),
        ("made", "box-one", "b"),
        ("real", "box-one", "b"),
    }


# ---------------------------------------------------------------------- writing of numbers
def test_numbers_as_written():
    assert number(0.9, 3) == "0.900"
    assert number(-1.25, 1) == "−1.2"
    assert number(-0.0001, 2) == "0.00"
    assert number(math.nan, 2) == "–"
    assert number(math.inf, 2) == "–"
    assert interval(0.1, 0.25, 2) == "[0.10, 0.25]"
    assert interval(math.nan, 0.25, 2) == ""
    assert [p_value(p) for p in (0.0004, 0.0414, 1.0, math.nan)] == [
        "< 0.001",
        "0.041",
        "1.000",
        "–",
    ]


# ---------------------------------------------------------------------- terminal
def test_terminal_table_shows_names_literally_and_all_rows(make_record):
    from rich.console import Console

    records = [
        make_record("p1", "[red]model[/red]", 0.9),
        make_record("p2", "[red]model[/red]", 0.8),
        make_record("p1", "b", 0.1, status="failed"),
    ]
    console = Console(width=200, record=True, file=StringIO())
    console.print(print_table(summarise(records)))
    text = console.export_text()
    assert "[red]model[/red]" in text
    assert "0.850 [" in text
    assert "1 (1 failed)" in text
