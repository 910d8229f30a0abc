"""From a number in a table back to its records, and from there to prompts and masks."""

from typing import Any

import numpy as np
import pandas as pd

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm.benchmark.records import Record, StructureResult, ZhuResult
from napari_lungfm.benchmark.report.comparisons import families
from napari_lungfm.benchmark.report.scores import (
    ROW,
    TUMOUR,
    case_scores,
    main_structure,
    unit_scores,
)
from napari_lungfm.benchmark.report.subgroups import divisions, find_group
from napari_lungfm.benchmark.report.summary import baseline, skills, summarise_cases
from napari_lungfm.benchmark.report.traced import OtherRow, Trace, TracedUnit
from napari_lungfm.benchmark.report.traced_values import (
    PARTS,
    Metric,
    Values,
    find_metric,
    values_of,
)
from napari_lungfm.benchmark.store import RunFolder, costs_frame
from napari_lungfm.evaluation.prompt_protocols import NO_PROMPTS, is_zhu_validation
from napari_lungfm.evaluation.statistics import paired_comparison


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

    Raises
    ------
    UsageError
        If there is no such number; the message has what there is.
    DataError
        If the row has no finished unit yet.
    """
    plan = _Plan(run, cohort, seed)
    own = plan.protocol_of(method, protocol, free=against is not None)
    wanted = find_metric(metric, own)
    if wanted.kind == "skill" and against is not None:
        msg = "skill has its own baseline; leave --against out, or compare the dice"
        raise UsageError(msg)
    group, cases = (None, None) if subgroup is None else _subgroup(run, plan, subgroup)
    row = _Row(plan, method, own, structure, cases)
    values = row.values(wanted)
    if wanted.kind == "skill":
        return _of_skill(row, wanted, group)
    found = _found(row, wanted, values, group)
    if against is None:
        return found
    other = _Row(plan, against, plan.protocol_of(against, protocol, free=True), structure, cases)
    return _compared(found, row, other, wanted, protocol)


class _Plan:
    """The units of a cohort."""

    def __init__(self, run: RunFolder, cohort: str, seed: int | None) -> None:
        self.run = run
        self.cohort = cohort
        plan = run.read_plan()
        cohorts = list(dict.fromkeys(key.cohort for key, _ in plan))
        if cohort not in cohorts:
            msg = f"the run has no cohort '{cohort}'; there are: {', '.join(cohorts)}"
            raise UsageError(msg)
        own = [one for one in plan if one[0].cohort == cohort]
        self._units = [one for one in own if seed is None or one[0].seed == seed]
        if not self._units:
            seeds = sorted({key.seed for key, _ in own})
            msg = f"'{cohort}' has no seed {seed}; there are: {', '.join(map(str, seeds))}"
            raise UsageError(msg)

    def protocol_of(self, method: str, protocol: str, *, free: bool) -> str:
        """Return the protocol of a row; an automatic method stands beside all, if that is asked."""
        methods = list(dict.fromkeys(key.method for key, _ in self._units))
        if method not in methods:
            msg = f"the run has no method '{method}' on '{self.cohort}'; there are: "
            raise UsageError(msg + ", ".join(methods))
        names = list(dict.fromkeys(k.protocol for k, _ in self._units if k.method == method))
        if protocol in names:
            return protocol
        if free and names == [NO_PROMPTS]:
            return NO_PROMPTS
        msg = f"the run has no protocol '{protocol}' of '{method}'; there are: {', '.join(names)}"
        raise UsageError(msg)

    def records(self, method: str | None = None, protocol: str | None = None) -> list[Record]:
        """Return the finished units of a method, a protocol, or all."""
        found = (
            self.run.read_record(key, mark)
            for key, mark in self._units
            if (method is None or key.method == method)
            and (protocol is None or key.protocol == protocol)
        )
        return [record for record in found if record is not None]


class _Row:
    """One row of a table, or the part of it that a subgroup is."""

    def __init__(
        self, plan: _Plan, method: str, protocol: str, structure: str, cases: set[str] | None
    ) -> None:
        self.plan = plan
        self.method = method
        self.protocol = protocol
        self.structure = structure
        self.cases = cases
        records = plan.records(method, protocol)
        if not records:
            msg = (
                f"no unit of '{method}' under '{protocol}' on '{plan.cohort}' is finished; go on "
                "with: run"
            )
            raise DataError(msg)
        self.records = [r for r in records if cases is None or r.key.case in cases]
        if not self.records:
            msg = f"no case of the subgroup has a finished unit of '{method}' under '{protocol}'"
            raise DataError(msg)

    def values(self, metric: Metric) -> Values:
        return values_of(metric, self.records, self.structure)

    def units(self, values: Values, cases: set[str] | None = None) -> tuple[TracedUnit, ...]:
        """Return the records with their values, of all cases or some."""
        return tuple(
            self._unit(record, values.units[record.key.case, record.key.seed])
            for record in self.records
            if (record.key.case, record.key.seed) in values.units
            and (cases is None or record.key.case in cases)
        )

    def _unit(self, record: Record, value: float) -> TracedUnit:
        parts = PARTS.get(self.structure, (self.structure,))
        file = self.plan.run.record_file(record.key, record.fingerprint)
        results: tuple[StructureResult | ZhuResult, ...] = (*record.structures, *record.zhu)
        return TracedUnit(
            record.key.case,
            record.key.seed,
            record.status,
            record.error,
            _finite(value),
            file.relative_to(self.plan.run.root).as_posix(),
            record.mask_file,
            {r.structure: r.prompts for r in results if r.structure in parts},
        )


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def _found(row: _Row, metric: Metric, values: Values, group: str | None) -> Trace:
    defined = values.defined
    finite = defined[np.isfinite(defined)]
    return Trace(
        row.plan.cohort,
        row.method,
        row.protocol,
        row.structure,
        metric.name,
        _summarised(row, metric) if metric.in_summary else values.number,
        float(finite.mean()) if len(finite) else None,
        len(defined),
        len(values.each) - len(defined),
        row.units(values),
        group,
    )


def _summarised(row: _Row, metric: Metric) -> float | None:
    """Return the column of ``summary.csv`` itself."""
    cases = case_scores(unit_scores(row.records))
    summary = summarise_cases(cases, costs_frame(row.records))
    own = summary[summary["structure"] == row.structure]
    return _finite(own[metric.name].iloc[0]) if len(own) and metric.name in own else None


# ---------------------------------------------------------------------- two rows
def _of_skill(row: _Row, metric: Metric, group: str | None) -> Trace:
    """Return the records of a row and of the baseline, over the cases that both have."""
    others = row.plan.records(protocol=row.protocol)
    scores = case_scores(unit_scores(others))
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
    mean = _mean_of(mine, both)
    other = _Row(row.plan, str(base["method"].iloc[0]), row.protocol, row.structure, row.cases)
    # Under corrections the first prompts are what the baseline is worth.
    first = bool(base["first_dice"].notna().any())
    counted = Metric("dice", "score", "first_dice" if first else "dice")
    return Trace(
        row.plan.cohort,
        row.method,
        row.protocol,
        row.structure,
        metric.name,
        _finite(own["skill" if metric.name == "skill" else "skill_n"].iloc[0])
        if len(own)
        else None,
        mean,
        len(both),
        len(mine) - len(both),
        row.units(row.values(metric), both),
        group,
        OtherRow(
            other.method,
            other.protocol,
            _mean_of(theirs, both),
            other.units(other.values(counted), both),
        ),
    )


def _mean_of(values: "pd.Series[float]", cases: set[str]) -> float | None:
    found = values[values.index.isin(cases)]
    return float(found.mean()) if len(found) else None


def _compared(found: Trace, row: _Row, other: _Row, metric: Metric, protocol: str) -> Trace:
    """Return a row with another one, the cases that both have, and what tests say."""
    if metric.kind == "cost":
        msg = f"'{metric.name}' is not tested; compare a score, such as dice"
        raise UsageError(msg)
    mine, theirs = row.values(metric), other.values(metric)
    pairs = pd.DataFrame({"a": mine.each, "b": theirs.each}).dropna()
    if pairs.empty:
        msg = f"'{row.method}' and '{other.method}' have no case in common with a '{metric.name}'"
        raise DataError(msg)
    both = {str(case) for case in pairs.index}
    test = paired_comparison(pairs["a"].to_numpy(), pairs["b"].to_numpy())
    values = {name: _finite(value) for name, value in vars(test).items() if _is_number(value)}
    values["mean_difference"] = float((pairs["a"] - pairs["b"]).mean())
    values |= _corrected(found, row, other, protocol) if metric.name == "dice" else {}
    return Trace(
        **{
            **vars(found),
            "mean": float(pairs["a"].mean()),
            "n": len(pairs),
            "n_undefined": len(mine.each) - len(pairs),
            "units": row.units(mine, both),
            "other": OtherRow(
                other.method,
                other.protocol,
                float(pairs["b"].mean()),
                other.units(theirs, both),
            ),
            "comparison": values,
        }
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _corrected(found: Trace, row: _Row, other: _Row, protocol: str) -> dict[str, float | None]:
    """Return p after Holm's correction for all pairs of the table, where the report has it."""
    records = [
        *row.plan.records(protocol=protocol),
        *(row.plan.records(protocol=NO_PROMPTS) if protocol != NO_PROMPTS else []),
    ]
    cases = case_scores(unit_scores(records))
    if found.subgroup is not None or row.structure != main_structure(cases):
        return {}  # the report tests whole cohorts, and the main structure
    names = {row.method, other.method}
    for family in families(cases[cases["structure"] == row.structure]):
        pairs = family.pairs
        same = pairs["method_a"].isin(names) & pairs["method_b"].isin(names)
        if family.protocol == protocol and same.any():
            return {"p_holm": _finite(pairs.loc[same, "p_holm"].iloc[0])}
    return {}


def _subgroup(run: RunFolder, plan: _Plan, wanted: str) -> tuple[str, set[str]]:
    records = [r for r in plan.records() if not is_zhu_validation(r.key.protocol)]
    if not records:
        msg = f"no unit on '{plan.cohort}' is finished; go on with: run"
        raise DataError(msg)
    cases = case_scores(unit_scores(records))
    main = cases[cases["structure"] == main_structure(cases)]
    return find_group(divisions(run, records, main), wanted)
