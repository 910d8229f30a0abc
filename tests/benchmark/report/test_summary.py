import math
from dataclasses import fields
from io import BytesIO, StringIO, TextIOWrapper

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import DataError
from napari_lungfm.benchmark.report import print_table, summarise
from napari_lungfm.benchmark.report.columns import BY_KEY, interval, marks, number, p_value
from napari_lungfm.benchmark.report.scores import unit_scores
from napari_lungfm.evaluation.scoring import AVERAGED_FIELDS, StructureScores, aggregate_scores
from napari_lungfm.evaluation.statistics import bootstrap_mean
from napari_lungfm.geometry import Structure

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
    assert (row["dice_low"], row["dice_high"]) == pytest.approx((expected.low, expected.high))
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


def test_lungs_need_both_lungs_and_average_a_tumour_too(make_record, make_result):
    left, right = make_result("left lung", 0.9), make_result("right lung", 0.8)
    units = unit_scores(
        [
            make_record("p1", structures=(left, make_result("tumour", 0.5))),
            make_record("p2", structures=(left, right)),
            make_record("p3", structures=(left, right, make_result("tumour", None))),
        ]
    )
    lungs, average = (units[units["structure"] == name] for name in ("lungs", "avg"))
    assert lungs["case"].tolist() == ["p2", "p3"]
    assert lungs["dice"].tolist() == pytest.approx([0.85, 0.85])
    assert average["case"].tolist() == ["p3"]
    assert average["dice"].isna().all()


def test_to_miss_a_lung_never_improves_the_joint_distance(make_record, make_result):
    parts = [make_result(n, 0.8, hd95_mm=2.0) for n in ("left lung", "right lung", "tumour")]
    missed = [make_result("left lung", 0.0, hd95_mm=None), *parts[1:]]
    summary = summarise([make_record("p1", structures=parts), make_record("p2", structures=missed)])
    for name in ("lungs", "avg"):
        row = row_of(summary, structure=name)
        assert (row["hd95_mm"], row["hd95_mm_n"], row["dice_n"]) == (2.0, 1, 2)
    units = unit_scores([make_record("p2", structures=missed)])
    joint = units.loc[units["structure"].isin(["lungs", "avg"]), "hd95_mm"]
    assert joint.isna().tolist() == [True, True]


def score_of(values):
    """A `StructureScores` from the record of a structure."""
    known = {name: getattr(values, name) for name in AVERAGED_FIELDS}
    blank = {f.name: 0 for f in fields(StructureScores)} | {"slice_dice": {}}
    return StructureScores(**blank | {k: math.nan if v is None else v for k, v in known.items()})


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=3, max_size=3))
def test_joint_structures_are_those_of_the_scoring(make_record, make_result, dice):
    names = ("left lung", "right lung", "tumour")
    parts = [make_result(name, d) for name, d in zip(names, dice, strict=True)]
    expected = aggregate_scores(
        {Structure.from_title(part.structure): score_of(part) for part in parts}
    )
    units = unit_scores([make_record(structures=tuple(parts))]).set_index("structure")
    for name, values in expected.items():
        for score, value in values.items():
            assert units.loc[name, score] == pytest.approx(value, nan_ok=True)


def test_a_case_is_undefined_where_one_of_its_seeds_is(make_record, make_result):
    found, missed = make_result(dice=0.8, hd95_mm=2.0), make_result(dice=0.0, hd95_mm=None)
    records = [
        make_record("p1", structures=(found,), seed=0),
        make_record("p1", structures=(missed,), seed=1),
        make_record("p2", structures=(make_result(dice=0.6, hd95_mm=4.0),)),
    ]
    row = summarise(records).iloc[0]
    assert row["dice"] == pytest.approx((0.4 + 0.6) / 2)
    assert (row["hd95_mm"], row["hd95_mm_n"], row["n"]) == (4.0, 1, 2)


def test_failed_counts_cases_not_units(make_record):
    records = [
        make_record(f"p{i}", "a", 0.0 if i else 0.8, seed=seed, status="failed" if i else "ok")
        for i in range(3)
        for seed in range(2)
    ]
    row = summarise(records).iloc[0]
    assert (row["n"], row["n_failed"], row["n_failed_units"], row["n_units"]) == (3, 2, 4, 6)


def test_skill_knows_the_baseline_by_its_model(make_record):
    records = [
        make_record("p1", "prompt-ellipse", 0.1, label="ellipse, wide"),
        make_record("p1", "prompt-ellipse", 0.5),
        make_record("p2", "prompt-ellipse", 0.1, label="ellipse, wide"),
        make_record("p1", "x", 0.9, label="prompt-ellipse of mine"),
        make_record("p1", "a", 0.75),
        make_record("p2", "a", 0.75),
        make_record("p1", "prompt-ellipse", 0.8, cohort="real", label="only"),
        make_record("p1", "a", 0.9, cohort="real"),
    ]
    summary = summarise(records)
    one = row_of(summary, method="a", cohort="made")
    assert (one["skill"], one["skill_n"]) == (pytest.approx(0.5), 1)  # never two baselines mixed
    assert row_of(summary, method="a", cohort="real")["skill"] == pytest.approx(0.5)
    assert row_of(summary, label="only")["model"] == "prompt-ellipse"
    assert len(summary) == 6


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


def test_where_the_best_is_nothing_nothing_is_marked():
    assert marks([0.0, 0.0002, 0.0], [3] * 3, HIGHER) == ["", "", ""]
    assert marks([0.0, -0.4], [3] * 2, BY_KEY["skill"]) == ["", ""]
    assert marks([0.0, 3.0], [3] * 2, LOWER) == ["best", "second"]


def test_a_method_scored_on_fewer_cases_is_never_marked():
    assert marks([0.99, 0.7, 0.8], [3, 5, 5], HIGHER) == ["", "second", "best"]
    # HD95 is undefined where a method found nothing: it must not win by that.
    assert marks([1.0, 4.0, 5.0], [4, 5, 5], LOWER) == ["", "best", "second"]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.sampled_from([HIGHER, LOWER]))
def test_marked_values_are_the_extremes(values, column):
    found = marks(values, [4] * len(values), column)
    shown = [round(v, column.digits) for v in values]
    extreme = max(shown) if column is HIGHER else min(shown)
    if column is HIGHER and extreme == 0:
        assert found == [""] * len(shown)
        return
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


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("width", [50, 200])
def test_terminal_table_fits_narrow_encodings(make_record, encoding, width):
    from rich.console import Console

    records = [
        make_record(f"p{i}", model, value, label=label)
        for i in (1, 2)
        for model, label, value in (
            ("prompt-ellipse", None, 0.9),
            ("m", "\u03b1 \u2192", 0.8 + 0.05 * i),
            ("n", "\u03b2", None),
        )
    ]
    stream = TextIOWrapper(BytesIO(), encoding=encoding)
    console = Console(width=width, file=stream, force_terminal=True)
    console.print(print_table(summarise(records), ascii_only=True))
    stream.flush()
    text = stream.buffer.getvalue().decode("ascii")
    if width == 200:
        assert "-0.250" in text  # skill of the first: (0.875 - 0.9) / (1 - 0.9)
        assert "HD95 mm (-)" in text
        assert "\\u03b1 (" not in text
        assert "\\u03b1" in text
        assert "\\u03b2" in text
    assert "..." not in text


def test_terminal_table_keeps_its_signs_elsewhere(make_record):
    from rich.console import Console

    records = [make_record("p1", "prompt-ellipse", 0.9), make_record("p1", "a", 0.8)]
    console = Console(width=200, record=True, file=StringIO())
    console.print(print_table(summarise(records)))
    text = console.export_text()
    assert "\u22121.000" in text
    assert "HD95 mm \u2193" in text
