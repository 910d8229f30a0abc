"""From numbers to records, and two runs side by side."""

import json

import numpy as np
import pandas as pd
import pytest

from napari_lungfm._core.exceptions import DataError, OutputError, UsageError
from napari_lungfm.benchmark.records import Cost, InteractionResult, ZhuResult
from napari_lungfm.benchmark.report import compare_runs, trace, write_report
from napari_lungfm.evaluation.statistics import paired_comparison


def test_every_mean_of_the_main_table_can_be_traced(make_run, several):
    run = make_run(several)
    summary = write_report(run).summary
    for row in summary.itertuples():
        names = {"cohort": row.cohort, "method": row.method, "protocol": row.protocol}
        for metric in ("dice", "hd95_mm", "volume_error_ml"):
            found = trace(run, **names, structure=row.structure, metric=metric)
            assert found.mean == pytest.approx(getattr(row, metric), nan_ok=True)
            assert found.n == getattr(row, f"{metric}_n")
        for unit in found.units:
            record = json.loads((run.root / unit.record_file).read_text())
            assert record["key"]["case"] == unit.case
            assert list(unit.prompts["tumour"]) == record["structures"][0]["prompts"]


def test_seeds_are_averaged_and_undefined_cases_left_out(make_run, make_record):
    records = [
        make_record("p1", dice=0.6, seed=0),
        make_record("p1", dice=0.8, seed=1),
        make_record("p2", dice=None),
        make_record("p3", dice=0.9),
    ]
    found = trace(make_run(records), cohort="made", method="a", protocol="box-one")
    assert found.mean == pytest.approx(0.8)
    assert (found.n, found.n_undefined) == (2, 1)
    assert [unit.value for unit in found.units] == [0.6, 0.8, None, 0.9]


def test_joint_structures_name_their_parts(make_run, make_record, make_result):
    lungs = [make_result(name, value) for name, value in (("left lung", 0.8), ("right lung", 0.9))]
    one = make_record(structures=(*lungs, make_result(dice=0.5)))
    run = make_run([one])
    found = trace(run, cohort="made", method="a", protocol="box-one", structure="avg")
    assert found.mean == pytest.approx((2 * 0.85 + 0.5) / 3)
    assert list(found.units[0].prompts) == ["left lung", "right lung", "tumour"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cohort": "x"}, "no cohort 'x'; there are: made"),
        ({"method": "x"}, "no method 'x' on 'made'; there are: prompt-ellipse, a, b"),
        ({"protocol": "x"}, "no protocol 'x' of 'a'; there are: box-every-slice, box-one"),
        ({"metric": "x"}, "no score 'x'; there are: dice"),
        ({"structure": "lungs"}, "no 'dice' of 'lungs'; structures: tumour"),
    ],
)
def test_what_is_not_there_is_named(make_run, several, changes, text):
    names = {"cohort": "made", "method": "a", "protocol": "box-one"}
    with pytest.raises(UsageError) as error:
        trace(make_run(several), **(names | changes))
    assert text in str(error.value)


def test_a_row_without_results_is_named(make_run, make_record):
    missing = make_record("p2", "b").key
    run = make_run([make_record()], missing=[missing])
    with pytest.raises(DataError, match="no unit of 'b'"):
        trace(run, cohort="made", method="b", protocol="box-one")


# ---------------------------------------------------------------------- other columns
def test_every_column_of_the_summary_can_be_traced(make_run, several):
    run = make_run(several)
    summary = write_report(run).summary
    row = summary.iloc[-1]
    names = {name: row[name] for name in ("cohort", "method", "protocol", "structure")}
    text = {*names, "model", "label", "state", "stood_in"}
    for metric in [name for name in summary.columns if name not in text]:
        found = trace(run, **names, metric=metric)
        value = float("nan") if found.value is None else found.value
        assert value == pytest.approx(row[metric], nan_ok=True), metric
        assert found.units, metric


def test_skill_shows_both_rows(make_run, several):
    run = make_run(several)
    found = trace(run, cohort="made", method="a", protocol="box-one", metric="skill")
    assert (found.others[0].method, found.others[0].protocol) == ("prompt-ellipse", "box-one")
    assert (found.mean, found.others[0].mean) == (pytest.approx(0.82), pytest.approx(0.62))
    assert found.value == pytest.approx((0.82 - 0.62) / (1 - 0.62))
    assert [unit.case for unit in found.others[0].units] == [unit.case for unit in found.units]
    assert len({unit.record_file for unit in (*found.units, *found.others[0].units)}) == 6


def corrected(make_record, make_result, model, dice):
    """A record of a protocol with two corrections."""
    looks = [InteractionResult(n_prompts=i + 1, dice=d, seconds=1.0) for i, d in enumerate(dice)]
    result = make_result(dice=dice[-1], interactions=tuple(looks))
    return make_record("p1", model, structures=(result,), protocol="box-one+corrections-2")


def test_effort_and_skill_under_corrections(make_run, make_record, make_result):
    base = corrected(make_record, make_result, "prompt-ellipse", [0.6, 0.3, 0.2])
    own = corrected(make_record, make_result, "a", [0.7, 0.82, 0.86])
    run = make_run([base, own])
    names = {"cohort": "made", "method": "a", "protocol": "box-one+corrections-2"}
    # What the baseline makes of clicks at its own errors must not flatter anybody.
    skill = trace(run, **names, metric="skill")
    assert skill.value == pytest.approx((0.86 - 0.6) / (1 - 0.6))
    assert skill.others[0].units[0].value == pytest.approx(0.6)
    values = {
        name: trace(run, **names, metric=name).value
        for name in ("first_dice", "dice_after_2", "interactions_to_0.85", "interactions_to_0.90")
    }
    assert values == {
        "first_dice": pytest.approx(0.7),
        "dice_after_2": pytest.approx(0.82),
        "interactions_to_0.85": 3.0,
        "interactions_to_0.90": None,
    }
    assert trace(run, **names, metric="effort_area").value == pytest.approx(0.8, abs=0.01)
    with pytest.raises(UsageError, match="no more than there are"):
        trace(run, **names, metric="dice_after_4")


def test_costs_are_of_units(make_run, make_record):
    costs = [
        Cost(seconds=s, peak_rss_mb=m, peak_gpu_mb=g, n_prompts=1, parameters=9, macs=n)
        for s, m, g, n in ((1.0, 50.0, None, 4 * 10**9), (3.0, 70.0, 8.0, None))
    ]
    run = make_run([make_record(f"p{i}", cost=cost) for i, cost in enumerate(costs)])
    names = {"cohort": "made", "method": "a", "protocol": "box-one"}
    expected = {"seconds": 2.0, "peak_rss_mb": 70.0, "peak_gpu_mb": 8.0, "gmacs": 4.0}
    for metric, value in expected.items():
        assert trace(run, **names, metric=metric).value == value
    macs = trace(run, **names, metric="macs")
    assert (macs.n, macs.n_undefined) == (1, 1)


def test_a_validation_is_traced_apart(make_run, make_record):
    zhu = ZhuResult(
        structure="tumour", iou=0.6, dice=0.7, n_slices=4, n_present=3, iou_present=0.5,
        dice_present=0.6, iou_absent=0.9, with_logits=True, prompts=({"kind": "box"},),
    )  # fmt: skip
    record = make_record(structures=(), zhu=(zhu,), protocol="zhu-validation")
    names = {"cohort": "made", "method": "a", "protocol": "zhu-validation"}
    run = make_run([record])
    found = trace(run, **names, metric="iou")
    assert (found.value, found.units[0].prompts) == (0.6, {"tumour": ({"kind": "box"},)})
    assert trace(run, **names, metric="empty_iou").value == pytest.approx(0.25)
    assert trace(run, **names, metric="seconds").value == 2.0
    with pytest.raises(UsageError, match="no score 'hd95_mm' under 'zhu-validation'"):
        trace(run, **names, metric="hd95_mm")


def test_a_subgroup_is_a_part_of_the_cases(make_run, make_record):
    kinds = {"p0": "solid", "p1": "solid", "p2": "cavity"}
    records = [
        make_record(case, model, dice, case_attributes={"tumour_kind": kind})
        for model, shift in (("prompt-ellipse", -0.2), ("a", 0.0))
        for (case, kind), dice in zip(kinds.items(), (0.8 + shift, 0.9 + shift, 0.5), strict=True)
    ]
    run = make_run(records)
    subgroups = pd.read_csv(write_report(run).folder / "subgroups.csv")
    row = subgroups[(subgroups["group"] == "solid") & (subgroups["method"] == "a")].iloc[0]
    names = {"cohort": "made", "method": "a", "protocol": "box-one"}
    for group in ("kind=solid", "tumour_kind=sol"):
        found = trace(run, **names, subgroup=group)
        assert (found.value, found.n) == (pytest.approx(row["dice"]), 2)
        assert found.subgroup == "kind of tumour: solid"
    assert [unit.case for unit in found.units] == ["p0", "p1"]
    skill = trace(run, **names, subgroup="kind=solid", metric="skill")
    assert skill.value == pytest.approx(row["skill"])
    for wrong, said in (
        ("solid", "write DIVISION=GROUP"),
        ("stage=II", "none of: 'kind of tumour'"),
        ("kind=x", "none of: 'cavity', 'solid'"),
    ):
        with pytest.raises(UsageError, match=said):
            trace(run, **names, subgroup=wrong)


def test_a_p_value_lists_its_pairs(make_run, make_record):
    rng = np.random.default_rng(5)
    dice = {name: rng.uniform(0.3, 0.9, 8) for name in ("a", "b", "u")}
    records = [
        make_record(f"p{i}", name, value, protocol="none" if name == "u" else "box-one")
        for name, values in dice.items()
        for i, value in enumerate(values)
    ]
    run = make_run(records[:-1])  # one is missing of u
    table = pd.read_csv(write_report(run).comparisons_csv)
    for other, n in (("b", 8), ("u", 7)):
        pair = table[(table["method_a"] == "a") & (table["method_b"] == other)].iloc[0]
        found = trace(run, cohort="made", method="a", protocol="box-one", against=other)
        assert (found.n, len(found.units), len(found.others[0].units)) == (n, n, n)
        for name in ("p_value", "p_holm", "median_difference", "effect_size"):
            assert found.comparison[name] == pytest.approx(pair[name])
        difference = (dice["a"] - dice[other])[:n].mean()
        assert found.comparison["mean_difference"] == pytest.approx(difference)
    assert found.others[0].protocol == "none"
    with pytest.raises(UsageError, match="is not tested"):
        trace(run, cohort="made", method="a", protocol="box-one", against="b", metric="seconds")


def test_one_seed_alone(make_run, make_record):
    run = make_run([make_record(dice=d, seed=s) for s, d in ((0, 0.6), (1, 0.8))])
    names = {"cohort": "made", "method": "a", "protocol": "box-one"}
    assert trace(run, **names, seed=1).value == 0.8
    with pytest.raises(UsageError, match="no seed 7; there are: 0, 1"):
        trace(run, **names, seed=7)


# ---------------------------------------------------------------------- weights
def test_weights_are_in_the_report_and_differences_are_told(make_run, make_record, tmp_path):
    marks = {"first": "a" * 64, "second": "b" * 64}
    runs = [
        make_run(
            [
                make_record(weights={"medsam": mark}, config_hash="c"),
                make_record(model="prompt-box"),
                make_record(model="old", weights={"x": mark} if name == "first" else {}),
            ],
            name=name,
        )
        for name, mark in marks.items()
    ]
    files = write_report(runs[0])
    table = pd.read_csv(files.folder / "weights.csv")
    assert table[["method", "file", "sha256", "units"]].to_numpy().tolist() == [
        ["a", "medsam", marks["first"], 1],
        ["old", "x", marks["first"], 1],
    ]
    assert marks["first"] in files.html.read_text(encoding="utf-8")
    text = compare_runs(*runs, tmp_path / "out").html.read_text(encoding="utf-8")
    said = f"Different weights of a on made: medsam (sha256 {'a' * 12} in A, {'b' * 12} in B)."
    assert said in text
    assert text.count("Different weights") == 1


# ---------------------------------------------------------------------- two runs
ASKED = {"cohort": "made", "method": "a", "protocol": "box-one"}


@pytest.fixture
def pair(make_run, make_record):
    rng = np.random.default_rng(3)
    a, b = rng.uniform(0.4, 0.9, (2, 9))
    first = [make_record(f"p{i}", "a", value) for i, value in enumerate(a)]
    second = [make_record(f"p{i}", "a", value) for i, value in enumerate(b[:7])]
    second.append(make_record("p1", "only b", 0.5))
    return make_run(first, name="first"), make_run(second, name="second"), a, b


def test_runs_are_compared_on_the_cases_that_both_have(pair, tmp_path):
    first, second, a, b = pair
    files = compare_runs(first, second, tmp_path / "out")
    row = files.table[files.table["metric"] == "dice"].iloc[0]
    test = paired_comparison(b[:7], a[:7])
    assert row["n"] == 7
    assert row["difference"] == pytest.approx((b[:7] - a[:7]).mean())
    assert row["low"] < row["difference"] < row["high"]
    assert row["p_value"] == pytest.approx(test.p_value)
    assert row["p_holm"] == pytest.approx(test.p_value)
    assert files.only.groupby("run").size().to_dict() == {"A": 2, "B": 1}
    read = pd.read_csv(files.csv)
    assert read["difference"].tolist() == pytest.approx(files.table["difference"].tolist())
    assert "2 of them only in A" in files.markdown.read_text(encoding="utf-8")
    page = files.html.read_text(encoding="utf-8")
    assert 'data-for="differences"' in page
    assert "http" not in page.replace("http-equiv", "")


def test_failed_units_are_not_called_undefined(make_run, make_record):
    lost = make_record("p2", "a", structures=(), status="failed", error="unreadable")
    empty = make_record("p1", "a", None)
    run = make_run([make_record("p0", "a"), empty, lost])
    found = trace(run, **ASKED)
    assert (found.n, found.n_undefined, found.n_failed) == (1, 1, 1)
    costs = trace(run, **ASKED, metric="seconds")
    assert (costs.n, costs.n_undefined, costs.n_failed) == (2, 0, 1)
    with pytest.raises(UsageError, match="'a' is the same method as --method"):
        trace(run, **ASKED, against="a")


def test_runs_are_paired_by_unit_and_not_by_case_alone(make_run, make_record, tmp_path):
    """A seed that one run alone has must not show as a difference."""
    every = [
        make_record(f"p{i}", "a", 0.5 + 0.05 * i + 0.1 * seed, seed=seed)
        for i in range(5)
        for seed in (0, 1)
    ]
    first = make_run(every, name="first")
    second = make_run([r for r in every if r.key.seed == 0 or r.key.case == "p0"], name="second")
    files = compare_runs(first, second, tmp_path / "out")
    assert (files.table["difference"] == 0).all()
    assert set(files.table["n"]) == {5}
    assert set(files.table["n_left_out"]) == {4}
    heads, _, line = files.markdown.read_text(encoding="utf-8").splitlines()[-6:][:3]
    cells = dict(zip(heads.split(" | "), line.split(" | "), strict=True))
    assert (cells["n"], cells["left out"]) == ("5", "4")
    found = trace(first, **ASKED, against_run=second)
    assert found.comparison["difference"] == 0
    assert found.comparison["n_left_out"] == 4
    units = [(u.case, u.seed) for u in found.units]
    assert units == [(u.case, u.seed) for u in found.others[0].units]
    assert len(units) == 6
    assert "4 left out" in found.origin


def test_a_comparison_replaces_only_a_comparison(pair, tmp_path):
    first, second, *_ = pair
    compare_runs(first, second, tmp_path / "out")
    compare_runs(first, second, tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="no report wrote"):
        compare_runs(first, second, tmp_path / "out")


def test_runs_without_a_common_case_are_refused(make_run, make_record, tmp_path):
    runs = [make_run([make_record(cohort=name)], name=name) for name in ("made", "real")]
    with pytest.raises(DataError, match="no case in common"):
        compare_runs(*runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
