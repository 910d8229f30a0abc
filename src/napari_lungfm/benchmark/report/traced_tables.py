"""Numbers that are made from more than one row: skill, ranks, tests, the paper's tables."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report.compare import METRICS, compare_units
from napari_lungfm.benchmark.report.comparisons import Family, families
from napari_lungfm.benchmark.report.fractions import Curve, curves
from napari_lungfm.benchmark.report.paper import Table, table_two
from napari_lungfm.benchmark.report.scores import ROW, case_scores, unit_scores
from napari_lungfm.benchmark.report.summary import baseline, skills, summarise_cases
from napari_lungfm.benchmark.report.traced import OtherRow, Trace
from napari_lungfm.benchmark.report.traced_rows import PlannedUnits, Row, finite
from napari_lungfm.benchmark.report.traced_values import Metric
from napari_lungfm.benchmark.states import training_percent
from napari_lungfm.benchmark.store import RunFolder, costs_frame
from napari_lungfm.evaluation.statistics import N_RESAMPLES, paired_comparison

_DICE = Metric("dice", "score", "dice")


def beside_the_baseline(found: Trace, row: Row) -> Trace:
    """Return a skill with the records of both rows, over the cases that both have.

    Raises
    ------
    DataError
        If there is no baseline.
    """
    scores = case_scores(unit_scores(row.plan.records(protocol=row.protocol)))
    scores = scores[scores["structure"] == row.structure]
    scores = scores if row.cases is None else scores[scores["case"].isin(row.cases)]
    base = baseline(scores)
    if base.empty:
        msg = f"no prompt-only baseline was run under '{row.protocol}', so there is no skill"
        raise DataError(msg)
    skill = skills(scores, ROW)
    own = skill[skill["method"] == row.method]
    mine = scores[scores["method"] == row.method].set_index("case")["dice"].dropna()
    theirs = base.drop_duplicates("case").set_index("case")["dice"].dropna()
    both = set(mine.index) & set(theirs.index)
    # Under corrections the first prompts are what the baseline is worth.
    first = bool(base["first_dice"].notna().any())
    counted = Metric("dice", "score", "first_dice" if first else "dice")
    other = Row(row.plan, str(base["method"].iloc[0]), row.protocol, row.structure, row.cases)
    name = "skill_n" if found.metric == "skill_n" else "skill"
    return replace(
        found,
        value=finite(own[name].iloc[0]) if len(own) else None,
        mean=_mean_of(mine, both),
        n=len(both),
        n_undefined=len(mine) - len(both),
        n_failed=0,
        units=row.units(row.values(_DICE), both),
        others=(_other(other, counted, _mean_of(theirs, both), both),),
        origin="(mean − mean of the baseline) / (1 − mean of the baseline), over the same cases",
    )


def ranked(found: Trace, row: Row, metric: Metric, protocol: str) -> Trace:
    """Return a number of ``ranks.csv`` with the records of all methods that are ranked.

    Raises
    ------
    UsageError
        If ``ranks.csv`` has no such number.
    """
    family = _family(row, protocol)
    if family is None:
        msg = (
            f"ranks.csv has ranks by the dice of '{row.plan.main_structure()}' and of two methods "
            f"or more under one protocol; it has none of '{row.structure}' under '{protocol}'"
        )
        raise UsageError(msg)
    ranks, both = family.ranks, set(family.ranked)
    of_method = ranks.table.loc[row.method]
    tau = metric.column.startswith("tau_")
    return replace(
        found,
        value=finite(getattr(ranks, metric.column) if tau else of_method[metric.column]),
        mean=finite(of_method["mean"]),
        n=ranks.n_cases,
        n_undefined=ranks.n_undefined,
        n_failed=0,
        units=row.units(row.values(_DICE), both),
        others=tuple(
            _other(other, _DICE, finite(ranks.table.at[other.method, "mean"]), both)
            for other in _rows_beside(row, [str(name) for name in ranks.table.index], protocol)
        ),
        origin=_how_ranked(family, metric.column),
    )


def _how_ranked(family: Family, column: str) -> str:
    among = (
        f"{len(family.ranks.table)} methods by their mean Dice over the {family.ranks.n_cases} "
        "cases that all have"
    )
    if column in ("mean", "rank"):
        return f"{among}; in the data themselves, not resampled"
    what = {
        "mean_rank": "mean rank",
        "rank_low": "2.5 % quantile of the rank",
        "rank_high": "97.5 % quantile of the rank",
        "p_best": "share of first places, shared ones in equal parts,",
        "tau_mean": "mean of Kendall's tau-b with the order in the data",
        "tau_low": "2.5 % quantile of Kendall's tau-b with the order in the data",
        "tau_high": "97.5 % quantile of Kendall's tau-b with the order in the data",
    }[column]
    return f"{what} in {N_RESAMPLES} bootstrap samples of the cases, seed 0: {among}"


def beside_another(found: Trace, row: Row, other: Row, metric: Metric, protocol: str) -> Trace:
    """Return a row with another one, the cases that both have, and what tests say.

    Raises
    ------
    UsageError
        If no table has such a test.
    DataError
        If they have no case in common.
    """
    family = _family(row, protocol) if metric.column == "dice" else None
    names = {row.method, other.method}
    pairs = [] if family is None else family.pairs.to_dict("records")
    own = next((p for p in pairs if {p["method_a"], p["method_b"]} == names), None)
    if own is None:
        main = row.plan.main_structure()
        msg = (
            f"within a run only the dice of '{main}' is tested between two methods, not the "
            f"'{metric.name}' of '{row.structure}' of these; other scores and structures are "
            "between two runs: --against-run FOLDER"
        )
        raise UsageError(msg)
    mine, theirs = row.values(metric), other.values(metric)
    shared = pd.DataFrame({"a": mine.each, "b": theirs.each}).dropna()
    if shared.empty:
        msg = f"'{row.method}' and '{other.method}' have no case in common with a '{metric.name}'"
        raise DataError(msg)
    both = {str(case) for case in shared.index}
    test = paired_comparison(shared["a"].to_numpy(), shared["b"].to_numpy())
    values = {name: finite(value) for name, value in vars(test).items()}
    values["mean_difference"] = float((shared["a"] - shared["b"]).mean())
    for name in ("p_holm", "smallest_possible_p_holm", "n_undefined"):
        values[name] = finite(own[name])
    return replace(
        found,
        mean=float(shared["a"].mean()),
        n=len(shared),
        n_undefined=len(mine.each) - len(shared),
        n_failed=0,
        units=row.units(mine, both),
        others=(_other(other, metric, float(shared["b"].mean()), both),),
        comparison=values | _of_parts(row, other),
        origin=(
            f"{row.method} minus {other.method}, case by case: Wilcoxon's signed-rank test, "
            f"two-sided and exact; Holm's correction for the {len(pairs)} pairs under '{protocol}'"
        ),
    )


def _of_parts(row: Row, other: Row) -> dict[str, float | None]:
    """Return what the table of training fractions says of two parts of it."""
    for curve in _curves(row):
        points = curve.points.set_index("method")["percent"]
        if {row.method, other.method} <= set(points.index):
            names = {f"{points[each]:g} %" for each in (row.method, other.method)}
            for pair in curve.pairs.to_dict("records"):
                if {pair["method_a"], pair["method_b"]} == names:
                    return {"p_holm_of_training_parts": finite(pair["p_holm"])}
    return {}


def beside_another_run(found: Trace, row: Row, metric: Metric, other: RunFolder) -> Trace:
    """Return a row of the comparison of two runs, with the records of either.

    Raises
    ------
    UsageError
        If that comparison has no such score.
    DataError
        If the runs have no case of this row in common.
    """
    if metric.column not in METRICS:
        msg = f"two runs are compared by {', '.join(METRICS)}, not by '{metric.name}'"
        raise UsageError(msg)
    table = compare_units(*(unit_scores(run.load()) for run in (row.plan.run, other)))
    wanted = (row.plan.cohort, row.protocol, row.method, row.structure, metric.column)
    own = table[table[[*ROW, "metric"]].apply(tuple, axis=1) == wanted] if len(table) else table
    if own.empty:
        msg = f"'{other.root}' has no case of this row in common with '{row.plan.run.root}'"
        raise DataError(msg)
    line = own.iloc[0]
    theirs = Row(PlannedUnits(other, row.plan.cohort, None), row.method, row.protocol,
                 row.structure)  # fmt: skip
    in_both = set(row.values(metric).units) & set(theirs.values(metric).units)
    row, theirs = (each.only(in_both) for each in (row, theirs))
    values = [each.values(metric) for each in (row, theirs)]
    shared = pd.DataFrame({"a": values[0].each, "b": values[1].each}).dropna()
    both = {str(case) for case in shared.index}
    numbers = own.columns.difference([*ROW, "metric"], sort=False)
    second = _other(theirs, metric, float(line["b"]), both)
    return replace(
        found,
        value=float(line["a"]),
        mean=float(line["a"]),
        n=int(line["n"]),
        n_undefined=int(line["n_undefined"]),
        n_failed=0,
        units=row.units(values[0], both),
        others=(replace(second, run=str(other.root)),),
        comparison={str(name): finite(line[name]) for name in numbers},
        origin=(
            "B minus A, case by case over the units that both runs have, "
            f"{int(line['n_left_out'])} left out: 95 % BCa interval of the mean difference "
            f"({N_RESAMPLES} bootstrap samples, seed 0), Wilcoxon's signed-rank test; Holm's "
            f"correction for all {int((table['metric'] == metric.column).sum())} rows of the score"
        ),
    )


def beside_the_paper(found: Trace, row: Row, metric: Metric) -> Trace:
    """Return a cell of the paper's tables: the paper's value and the difference.

    Raises
    ------
    UsageError
        If the paper has no such cell.
    """
    place = (row.structure, metric.column)
    percent = training_percent(row.records[0].key.state)
    for table in _paper_tables(row):
        for line in table.rows:
            part = line.percent is not None and line.percent == percent
            same = line.protocol == row.protocol and (part or line.title == row.method)
            difference = line.difference(place) if same else None
            if difference is not None:
                cell, printed = line.ours[place], line.paper[place].value
                return replace(
                    found,
                    value=cell.value,
                    comparison={"low": finite(cell.low), "high": finite(cell.high),
                                "paper": printed, "difference": difference},
                    origin=f"{found.origin}; beside '{line.paper_row}' of the paper's {table.name}",
                )  # fmt: skip
    msg = f"the paper has no {metric.column} of '{row.structure}' beside this row"
    raise UsageError(msg)


def _paper_tables(row: Row) -> list[Table]:
    cases, summary = _summary(row.records)
    second = table_two(summary, row.plan.cohort) if len(cases) else None
    return [*([second] if second else []), *(curve.table for curve in _curves(row))]


def _curves(row: Row) -> list[Curve]:
    """Return the training fractions of a row's model."""
    states = (record.key.state for record in row.records)
    if all(training_percent(state) is None for state in states):
        return []
    model = row.records[0].key.model
    records = [r for r in row.plan.records(protocol=row.protocol) if r.key.model == model]
    cases, summary = _summary(records)
    units = unit_scores(records)
    main = row.plan.main_structure()
    found = [frame[frame["structure"] == main] for frame in (cases, units)]
    return curves(summary, *found) if len(found[0]) else []


def _summary(records: Sequence[Record]) -> tuple[pd.DataFrame, pd.DataFrame]:
    cases = case_scores(unit_scores(records))
    return cases, summarise_cases(cases, costs_frame(records))


def _family(row: Row, protocol: str) -> Family | None:
    """Return the methods that a table compares with a row; none of other structures.

    Raises
    ------
    UsageError
        If automatic methods are compared elsewhere.
    """
    if not row.plan.compares(protocol):
        msg = (
            f"automatic methods are compared beside every other protocol of '{row.plan.cohort}': "
            "give one of these as --protocol"
        )
        raise UsageError(msg)
    if row.structure != row.plan.main_structure():
        return None
    cases: Any = case_scores(unit_scores(row.plan.beside(protocol)))
    found = families(cases[cases["structure"] == row.structure])
    return next((f for f in found if f.protocol == protocol), None)


def _rows_beside(row: Row, methods: Sequence[str], protocol: str) -> list[Row]:
    """Return the rows of the other methods."""
    plan = row.plan
    return [
        Row(plan, method, plan.protocol_of(method, protocol, free=True), row.structure)
        for method in methods
        if method != row.method
    ]


def _other(row: Row, metric: Metric, mean: float | None, cases: set[str]) -> OtherRow:
    units = row.units(row.values(metric), cases)
    return OtherRow(row.method, row.protocol, mean, units)


def _mean_of(values: "pd.Series[float]", cases: set[str]) -> float | None:
    found = values[values.index.isin(cases)]
    return float(found.mean()) if len(found) else None
