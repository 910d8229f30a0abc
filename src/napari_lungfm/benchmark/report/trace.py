"""From a number in a table back to its records, and from there to prompts and masks."""

from dataclasses import replace
from typing import Any

import numpy as np

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm.benchmark.report.fractions import over_seeds
from napari_lungfm.benchmark.report.scores import TUMOUR, case_scores, main_structure, unit_scores
from napari_lungfm.benchmark.report.subgroups import divisions, find_group
from napari_lungfm.benchmark.report.summary import summarise_cases
from napari_lungfm.benchmark.report.traced import Trace
from napari_lungfm.benchmark.report.traced_rows import PlannedUnits, Row, finite
from napari_lungfm.benchmark.report.traced_tables import (
    beside_another,
    beside_another_run,
    beside_the_baseline,
    beside_the_paper,
    ranked,
)
from napari_lungfm.benchmark.report.traced_values import Metric, Values, find_metric
from napari_lungfm.benchmark.store import RunFolder, costs_frame
from napari_lungfm.evaluation.prompt_protocols import is_zhu_validation
from napari_lungfm.evaluation.statistics import N_RESAMPLES

#: How values are put together → the word for it.
_TOGETHER = {"mean": "mean", "median": "median", "max": "largest", "sum": "number"}
_OF_CASES = {"score", "effort", "zhu", "paper"}


def trace(
    run: RunFolder,
    *,
    cohort: str,
    method: str,
    protocol: str,
    structure: str = TUMOUR,
    metric: str = "dice",
    subgroup: str | None = None,
    seed: int | None = None,
    against: str | None = None,
    against_run: RunFolder | None = None,
) -> Trace:
    """Find the records that a number of a report is made from.

    Parameters
    ----------
    run
        The run.
    cohort, method, protocol
        The row, named as in tables; a part of the training patients is a method of its own.
    structure
        ``lungs`` and ``avg`` too.
    metric
        A column of ``summary.csv``, such as ``dice``, ``hd95_mm_low`` or ``skill``, or of
        another table; see `traced_values.find_metric`.
    subgroup
        ``DIVISION=GROUP``, as in ``subgroups.csv``: only these cases.
    seed
        Only units of this seed.
    against
        Another method, which it is compared with over the cases that both have.
    against_run
        Another run, whose same row it is compared with over the cases that both have.

    Raises
    ------
    UsageError
        If there is no such number; the message has what there is.
    DataError
        If the row has no finished unit yet.
    """
    plan = PlannedUnits(run, cohort, seed)
    wanted = find_metric(metric, protocol)
    free = against is not None or wanted.kind == "rank"
    own = plan.protocol_of(method, protocol, free=free)
    _refuse(
        wanted,
        method=method,
        subgroup=subgroup,
        seed=seed,
        against=against,
        against_run=against_run,
    )
    group, cases = (None, None) if subgroup is None else _subgroup(run, plan, subgroup)
    every = None if wanted.kind == "weights" else own
    row = Row(plan, method, every, structure, cases)
    found = replace(_found(row, wanted), subgroup=group)
    if wanted.kind == "skill":
        return beside_the_baseline(found, row)
    if wanted.kind == "rank":
        return ranked(found, row, wanted, protocol)
    if wanted.kind == "paper":
        return beside_the_paper(found, row, wanted)
    if against_run is not None:
        return beside_another_run(found, row, wanted, against_run)
    if against is None:
        return found
    other = Row(plan, against, plan.protocol_of(against, protocol, free=True), structure, cases)
    return beside_another(found, row, other, wanted, protocol)


def _refuse(
    metric: Metric,
    *,
    method: str,
    subgroup: str | None,
    seed: int | None,
    against: str | None,
    against_run: RunFolder | None,
) -> None:
    """Refuse what no table has."""
    msg = ""
    tested = against is not None or against_run is not None
    if against is not None and against == method:
        msg = f"--against '{against}' is the same method as --method; give another one"
    elif against is not None and against_run is not None:
        msg = "--against is a method of this run, --against-run another run: give one of them"
    elif tested and metric.kind == "skill":
        msg = "skill has its own baseline; leave --against out, or compare the dice"
    elif tested and (metric.kind != "score" or metric.end or metric.by_unit):
        msg = f"'{metric.name}' is not tested; compare a score, such as dice"
    elif (tested or metric.kind in ("rank", "paper")) and subgroup is not None:
        msg = "subgroups are not compared in any table; leave --subgroup out"
    elif (tested or metric.kind in ("rank", "paper", "seeds")) and seed is not None:
        msg = "tests, ranks and the paper's tables are of all seeds; leave --seed out"
    if msg:
        raise UsageError(msg)


def _found(row: Row, metric: Metric) -> Trace:
    values = row.values(metric)
    defined = values.defined
    known = defined[np.isfinite(defined)]
    failed = _failed(row, values)
    return Trace(
        row.plan.cohort,
        row.method,
        row.protocol,
        row.structure,
        metric.name,
        _value(row, metric, values),
        float(known.mean()) if len(known) else None,
        len(defined),
        len(values.each) - len(defined) - failed,
        failed,
        row.units(values),
        origin=_origin(metric, values),
    )


def _failed(row: Row, values: Values) -> int:
    """Count what has no value because it failed."""
    lost = values.each[values.each.isna()]
    failed = [record.key for record in row.records if record.status == "failed"]
    if values.of == "cases":
        without = {(k.case) for k in failed if np.isnan(values.units.get((k.case, k.seed), np.nan))}
        return len(without & set(lost.index))
    if values.of == "units":
        return min(len(failed), len(lost))
    return 0


def _value(row: Row, metric: Metric, values: Values) -> float | None:
    if metric.in_summary:
        return _summarised(row, metric)
    if metric.kind == "seeds":
        fits = values.each.rename("dice").to_frame().assign(method=row.method)
        return finite(over_seeds(fits).at[0, metric.name])
    counts = {
        "n_undefined": lambda: len(values.each) - len(values.defined),
        "n_failed": lambda: len({r.key.case for r in row.records if r.status == "failed"}),
    }
    if metric.end in counts:
        return float(counts[metric.end]())
    return values.estimate(metric.end) if metric.end else values.number


def _summarised(row: Row, metric: Metric) -> float | None:
    """Return the column of ``summary.csv`` itself."""
    cases = case_scores(unit_scores(row.records))
    summary = summarise_cases(cases, costs_frame(row.records))
    own = summary[summary["structure"] == row.structure]
    return finite(own[metric.name].iloc[0]) if len(own) and metric.name in own else None


def _origin(metric: Metric, values: Values) -> str:
    """Say how the number comes from the values; rows beside others say more."""
    n, of = len(values.defined), values.of
    if metric.kind == "weights":
        return f"units, under any protocol, whose record names a file of weights, of {n}"
    if metric.kind == "seeds":
        return f"from the mean Dice over the cases of each of {n} seeds; limits by Student's t"
    if metric.end in ("low", "high"):
        return (
            f"{metric.end} limit of the 95 % BCa interval of the mean over {n} {of}, {N_RESAMPLES} "
            "bootstrap samples, seed 0"
        )
    if metric.end:
        return f"a count over {len(values.each)} {of}"
    seeds = ", seeds of a case averaged first" if metric.kind in _OF_CASES else ""
    return f"{_TOGETHER[values.together]} over {n} {of}{seeds}"


def _subgroup(run: RunFolder, plan: PlannedUnits, wanted: str) -> tuple[str, set[str]]:
    records = [r for r in plan.records() if not is_zhu_validation(r.key.protocol)]
    if not records:
        msg = f"no unit on '{plan.cohort}' is finished; go on with: run"
        raise DataError(msg)
    cases: Any = case_scores(unit_scores(records))
    main = cases[cases["structure"] == main_structure(cases)]
    return find_group(divisions(run, records, main), wanted)
