"""Every number in every table that a report writes is traced to what the table has."""

import re

import numpy as np
import pandas as pd
import pytest

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm.benchmark.records import Cost, InteractionResult, UnitKey, ZhuResult
from napari_lungfm.benchmark.report import compare_runs, trace, write_report

#: Columns that say which row it is, and texts.
NAMES = {
    "cohort", "protocol", "method", "method_a", "method_b", "structure", "case", "seed", "percent",
    "interaction", "jitter_px", "mark", "model", "label", "stood_in", "error", "note",
}  # fmt: skip
WEIGHTS = {"weights.pt": "c" * 64}
METHODS = (
    ("prompt-ellipse", "zero-shot", 1),
    ("medsam2-zhu", "zero-shot", 1),
    ("medsam2-zhu", "fine-tuned 25 %", 2),
    ("medsam2-zhu", "fine-tuned 50 %", 2),
    ("unet", "trained", 1),
)
PROTOCOLS = (
    "box-every-slice", "box-one", "box-one+jitter-2", "box-one+corrections-2", "zhu-validation",
)  # fmt: skip


def make_records(make_record, make_result, rng):
    """Records of a study with something in every table."""

    def zhu_of(name):
        return ZhuResult(
            structure=name, iou=rng.uniform(0.3, 0.9), dice=rng.uniform(0.4, 0.9), n_slices=6,
            n_present=4, iou_present=0.5, dice_present=0.6, iou_absent=0.9, with_logits=True,
        )  # fmt: skip

    def scored(name, protocol):
        dice = rng.uniform(0.3, 0.95, 3)
        looks = [InteractionResult(n_prompts=i + 1, dice=d, seconds=1.0)
                 for i, d in enumerate(dice)] if "corrections" in protocol else []  # fmt: skip
        return make_result(
            name, dice[-1], interactions=tuple(looks), volume_ml=rng.uniform(1, 9),
            hd95_mm=rng.uniform(1, 9), volume_difference_ml=rng.uniform(-3, 3),
        )  # fmt: skip

    records = []
    for model, state, seeds in METHODS:
        protocols = ("none",) if model == "unet" else PROTOCOLS
        for protocol, seed, i in ((p, s, i) for p in protocols for s in range(seeds)
                                  for i in range(5)):  # fmt: skip
            structures = ("left lung", "right lung", "tumour")
            zhu = protocol == "zhu-validation"
            lost = model == "medsam2-zhu" and i == 4 and seed == 0
            records.append(
                make_record(
                    key=UnitKey(
                        cohort="lung1",
                        case=f"p{i}",
                        model=model,
                        state=state,
                        protocol=protocol,
                        seed=seed,
                    ),
                    structures=()
                    if zhu or lost
                    else tuple(scored(name, protocol) for name in structures),
                    zhu=tuple(map(zhu_of, structures)) if zhu and not lost else (),
                    status="failed" if lost else "ok",
                    error="out of memory" if lost else None,
                    tries=2 if lost else 1,
                    weights={} if model == "prompt-ellipse" else WEIGHTS,
                    case_attributes={"tumour_kind": "solid" if i < 3 else "cavity", "age": 50 + i},
                    cost=Cost(
                        seconds=rng.uniform(1, 9),
                        saved_seconds=0.5,
                        peak_rss_mb=100.0 + i,
                        peak_gpu_mb=50.0,
                        n_prompts=3,
                        parameters=7,
                        slices_encoded=4,
                        slices_reused=1,
                        macs=10**9 + i,
                    ),
                )
            )
    return records


@pytest.fixture(scope="module")
def study(tmp_path_factory, write, make_record, make_result):
    """Two runs of one study and the report of the first."""
    root = tmp_path_factory.mktemp("study")
    runs = [
        write(root / name, make_records(make_record, make_result, np.random.default_rng(seed)))
        for seed, name in enumerate(("one", "two"))
    ]
    return runs, write_report(runs[0], overlay_cases=0).folder, root


def rows_of(folder, name, most=3):
    """Some rows of a table, with the columns that hold numbers."""
    table = pd.read_csv(folder / name)
    assert len(table), f"{name} has no rows, which tests nothing"
    columns = [c for c in table.select_dtypes("number").columns if c not in NAMES]
    assert columns, name
    step = max(1, len(table) // most)
    return [(row, columns) for _, row in table.iloc[::step].iterrows()]


def traced(run, row, **asked):
    names = {name: str(row[name]) for name in ("cohort", "method", "protocol") if name in row}
    return trace(run, **(names | asked))


def value_of(run, row, **asked):
    """The number as traced; what tables have where it is said that there is none."""
    try:
        return traced(run, row, **asked).value
    except (DataError, UsageError) as error:
        if not re.match("no prompt-only baseline|these records have no", str(error)):
            raise
        return 0 if asked["metric"].endswith("_n") else None


def same(value, expected):
    missing = float("nan") if value is None else value
    return missing == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


def test_summary(study):
    (run, _), folder, _ = study
    for row, columns in rows_of(folder, "summary.csv"):
        for column in columns:
            found = value_of(run, row, structure=row["structure"], metric=column)
            assert same(found, row[column]), (column, dict(row))


@pytest.mark.parametrize("name", ["fractions.csv", "subgroups.csv", "jitter.csv", "prompts.csv"])
def test_tables_of_the_main_structure(study, name):
    (run, _), folder, _ = study
    for row, columns in rows_of(folder, name):
        asked = {}
        if name == "subgroups.csv":
            asked["subgroup"] = f"{row['division']}={row['group']}"
        if name == "jitter.csv" and row["jitter_px"]:
            asked["protocol"] = f"{row['protocol']}+jitter-{row['jitter_px']}"
        for column in columns:
            metric = {"n": "dice_n", "prompts": "n_prompts"}.get(column, column)
            found = value_of(run, row, metric=metric, **asked)
            assert same(found, row[column]), (column, dict(row))


def test_corrections(study):
    (run, _), folder, _ = study
    for row, columns in rows_of(folder, "corrections.csv"):
        after = f"dice_after_{row['interaction']}"
        for column in columns:
            metric = f"{after}_n" if column == "n" else column.replace("dice", after)
            assert same(traced(run, row, metric=metric).value, row[column]), column


def test_ranks(study):
    (run, _), folder, _ = study
    table = pd.read_csv(folder / "ranks.csv")
    for row, columns in rows_of(folder, "ranks.csv", most=2):
        family = table[table["protocol"] == row["protocol"]].set_index("method")
        for column in columns:
            metric = "mean" if column == "n_cases" else column
            found = traced(run, row, metric=metric)
            value = found.n if column == "n_cases" else found.value
            assert same(value, row[column]), column
        assert {other.method for other in found.others} == set(family.index) - {row["method"]}
        for other in found.others:
            assert same(other.mean, family.loc[other.method, "mean"])
            # The records lead to the numbers: what is ranked is their mean.
            by_case = pd.DataFrame([vars(u) for u in other.units]).groupby("case")["value"].mean()
            assert (len(by_case), by_case.mean()) == (found.n, pytest.approx(other.mean))
        found = traced(run, row, metric="tau_low")
        assert "in 9999 bootstrap samples of the cases, seed 0: 5 methods" in found.origin


def test_comparisons(study):
    (run, _), folder, _ = study
    for row, columns in rows_of(folder, "comparisons.csv", most=4):
        asked = {"method": row["method_a"], "against": row["method_b"]}
        found = traced(run, row, **asked)
        for column in columns:
            assert same(found.comparison[column], row[column]), column


def test_units_of_tables(study):
    (run, _), folder, _ = study
    for name in ("results.csv", "costs.csv", "zhu-validation.csv", "failures.csv"):
        table = name.removesuffix(".csv").removesuffix("-validation")
        for row, columns in rows_of(folder, name):
            for column in columns:
                metric = "tries" if column == "tries" else f"{table}.{column}"
                structure = row.get("structure", "tumour")
                if not isinstance(structure, str):  # a failed unit of a validation
                    continue
                found = traced(run, row, metric=metric, structure=structure)
                unit = next(
                    u for u in found.units if (u.case, u.seed) == (row["case"], row["seed"])
                )
                assert same(unit.value, row[column]), (name, column)


def test_the_table_of_validations(study):
    (run, _), folder, _ = study
    text = (folder / "tables" / "lung1--zhu-validation.md").read_text(encoding="utf-8")
    row = {"cohort": "lung1", "method": "prompt-ellipse", "protocol": "zhu-validation"}
    values = {m: traced(run, row, metric=m).value for m in ("iou", "iou_low", "iou_high", "n")}
    start = f"| prompt-ellipse | zhu-validation | tumour | {values['iou']:.3f} "
    assert start + f"\\[{values['iou_low']:.3f}, {values['iou_high']:.3f}\\] |" in text
    assert values["n"] == 5
    row["method"] = "medsam2-zhu"
    failed = traced(run, row, metric="n_failed")
    assert failed.value == 1
    assert [unit.error for unit in failed.units].count("out of memory") == 1


def test_weights(study):
    (run, _), folder, _ = study
    for row, columns in rows_of(folder, "weights.csv"):
        assert columns == ["units"]
        protocol = "none" if row["method"] == "unet" else "box-one"
        found = traced(run, row, metric="weights", protocol=protocol)
        assert found.value == row["units"] == len(found.units)
        assert {unit.weights[row["file"]] for unit in found.units} == {row["sha256"]}


def test_the_paper_beside_it(study):
    (run, _), folder, _ = study
    table = pd.read_csv(folder / "paper.csv")
    fractions = pd.read_csv(folder / "fractions.csv").drop_duplicates("percent")
    fractions = fractions.set_index("percent")["method"]
    both = table[table["value"].notna() & table["paper"].notna()]
    assert {"Table II", "Table III"} <= set(both["table"])
    for _, row in both.iloc[::11].iterrows():
        of_part = row["table"] == "Table III"
        method = fractions[row["percent"]] if of_part else row["method"]
        asked = {"method": method, "structure": row["structure"]}
        found = traced(run, row, metric=f"paper.{row['score']}", **asked)
        assert same(found.value, row["value"])
        for name in ("low", "high", "paper", "difference"):
            assert same(found.comparison[name], row[name]), name
        assert found.n == row["n"]
        assert same(value_of(run, row, metric="skill", method=method), row["skill"])
    with pytest.raises(UsageError, match="no dice of 'left lung' beside this row"):
        traced(run, row, metric="paper.dice", method=method, structure="left lung")


def test_two_runs(study):
    (one, two), _, root = study
    files = compare_runs(one, two, root / "both")
    assert set(files.table["structure"]) >= {"tumour", "lungs", "left lung"}
    for row, columns in rows_of(files.folder, "comparison.csv", most=3):
        asked = {"structure": row["structure"], "metric": row["metric"], "against_run": two}
        found = traced(one, row, **asked)
        for column in columns:
            assert same(found.comparison[column], row[column]), column
        other = found.others[0]
        assert (found.mean, other.mean) == (pytest.approx(row["a"]), pytest.approx(row["b"]))
        assert other.run == str(two.root)
        assert all((two.root / unit.record_file).is_file() for unit in other.units)
    with pytest.raises(UsageError, match="two runs are compared by dice, iou, hd95_mm, nsd_2mm"):
        traced(one, row, metric="nsd_1mm", against_run=two)


ROW = {"cohort": "lung1", "method": "medsam2-zhu", "protocol": "box-one"}


def test_parts_of_the_training_patients_have_a_test_of_their_own(study):
    (run, _), _, _ = study
    found = trace(
        run, **(ROW | {"method": "medsam2-zhu (fine-tuned 25 %)"}),
        against="medsam2-zhu (fine-tuned 50 %)",
    )  # fmt: skip
    p = found.comparison
    assert p["p_value"] <= p["p_holm_of_training_parts"] <= p["p_holm"] <= 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"against": "unet", "metric": "hd95_mm"}, "only the dice of 'tumour' is tested"),
        ({"against": "unet", "structure": "lungs"}, "only the dice of 'tumour' is tested"),
        ({"metric": "tau_mean", "structure": "lungs"}, "ranks by the dice of 'tumour'"),
        ({"metric": "p_best", "method": "unet", "protocol": "none"}, "beside every other protocol"),
        ({"against": "unet", "subgroup": "kind=solid"}, "subgroups are not compared"),
        ({"metric": "p_best", "seed": 0}, "of all seeds; leave --seed out"),
        ({"against": "unet", "seed": 0}, "of all seeds; leave --seed out"),
        ({"metric": "costs.cpu"}, "'cpu' holds text"),
        ({"metric": "costs.x"}, "costs.csv has no column 'x'"),
        ({"metric": "results.x"}, "no 'x' of 'tumour'"),
    ],
)
def test_what_no_table_has_is_refused(study, asked, said):
    (run, _), _, _ = study
    with pytest.raises(UsageError) as error:
        trace(run, **(ROW | asked))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_another_run_without_the_row_is_refused(study, write, make_record, tmp_path):
    (run, _), _, _ = study
    other = write(tmp_path / "other", [make_record(cohort="lung1")])
    with pytest.raises(DataError, match="no case of this row in common"):
        trace(run, **ROW, against_run=other)
    with pytest.raises(UsageError, match="give one of them"):
        trace(run, **ROW, against="unet", against_run=other)
