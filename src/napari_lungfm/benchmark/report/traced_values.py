"""The values behind a number of a report, unit by unit: scores, costs, effort, validations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report import corrections, zhu
from napari_lungfm.benchmark.report.scores import AVERAGE, LUNGS, SCORES, TUMOUR, unit_scores
from napari_lungfm.benchmark.store import costs_frame, zhu_frame
from napari_lungfm.evaluation.corrections import DICE_TARGETS
from napari_lungfm.evaluation.prompt_protocols import is_zhu_validation
from napari_lungfm.evaluation.statistics import mean_intervals

Kind: TypeAlias = Literal[
    "score", "skill", "cost", "effort", "zhu", "rank", "seeds", "weights", "paper"
]
Key: TypeAlias = tuple[str, int]

#: Structure of a table → the structures of the records that it is made from.
PARTS = {
    LUNGS: ("left lung", "right lung"),
    AVERAGE: ("left lung", "right lung", TUMOUR),
}
#: Columns of ``results.csv`` that are no scores of a table.
_RESULTS = ("volume_ml", "reference_volume_ml", "n_reference_slices")
#: What a table says of costs → the column of ``costs.csv``, and how units are put together.
_COSTS = {
    "seconds": ("alone_seconds", "mean"),  # as in summary.csv
    "alone_seconds": ("alone_seconds", "mean"),
    "measured_seconds": ("seconds", "mean"),
    "saved_seconds": ("saved_seconds", "mean"),
    "automatic_seconds": ("automatic_seconds", "mean"),
    "slices_encoded": ("slices_encoded", "mean"),
    "slices_reused": ("slices_reused", "mean"),
    "macs": ("macs", "mean"),
    "gmacs": ("macs", "mean"),
    "parameters": ("parameters", "max"),
    "peak_rss_mb": ("peak_rss_mb", "max"),
    "peak_gpu_mb": ("peak_gpu_mb", "max"),
    "tries": ("tries", "max"),
}
#: Effort → the column of `corrections.case_effort`, and how cases are put together.
_EFFORT = {
    "first_dice": ("dice_1", "mean"),
    "effort_area": ("area", "mean"),
    **{f"interactions_to_{t:.2f}": (f"needed_{t:.2f}", "median") for t in DICE_TARGETS},
    **{f"reached_{t:.2f}": (f"reached_{t:.2f}", "mean") for t in DICE_TARGETS},
}
_AFTER = "dice_after_"
_ZHU = (
    "iou", "dice", "n_slices", "n_present", "iou_present", "dice_present", "iou_absent",
    "share_present", "empty_iou", "n_prompts",
)  # fmt: skip
#: Columns of ``ranks.csv``.
RANKS = (
    "mean", "rank", "mean_rank", "rank_low", "rank_high", "p_best", "tau_mean", "tau_low",
    "tau_high",
)  # fmt: skip
#: Columns of ``fractions.csv`` over the fits of a training, which differ by their seed.
SEEDS = ("n_seeds", "seeds_sd", "seeds_low", "seeds_high")
#: Columns of ``summary.csv`` that count; the units of the Dice are those that are counted.
_COUNTS = ("n", "n_cases", "n_units", "n_failed", "n_failed_units", "n_undefined")
_ZHU_COUNTS = ("n", "n_undefined", "n_failed")
_ENDS = ("_low", "_high", "_n")
#: Tables of units → the kind of their columns, each of which can be asked for by its own name.
_TABLES: dict[str, Kind] = {"results.": "score", "costs.": "cost", "zhu.": "zhu"}
_PAPER = "paper."


@dataclass(frozen=True)
class Metric:
    """What is asked for.

    Parameters
    ----------
    name
        As it was asked for.
    kind
        Where its values come from.
    column
        Its values, by their name there.
    end
        ``"low"``, ``"high"`` or ``"n"`` where not the mean is asked for; a count by its name.
    by_unit
        Whether it is a column of a table of units, by its name there.
    """

    name: str
    kind: Kind
    column: str
    end: str = ""
    by_unit: bool = False

    @property
    def in_summary(self) -> bool:
        """Whether ``summary.csv`` has a column of this name."""
        return self.kind == "score" and self.column not in _RESULTS and not self.by_unit


def find_metric(name: str, protocol: str) -> Metric:
    """Return what a column is made from.

    Parameters
    ----------
    name
        A column of ``summary.csv`` or of another table; those of tables of units also as
        ``results.COLUMN``, ``costs.COLUMN`` and ``zhu.COLUMN``.
    protocol
        Of the row.

    Raises
    ------
    UsageError
        If there is no such column; the message has those that there are.
    """
    validation = is_zhu_validation(protocol)
    found = _of_units(name) or _plain(name, validation=validation)
    found = found or _counted(name, validation=validation)
    if found is not None:
        return found
    if validation:
        raise UsageError(_unknown(name, [*_ZHU, *_COSTS, *_ZHU_COUNTS], f" under '{protocol}'"))
    known = [*SCORES, "skill", *_RESULTS, *_EFFORT, f"{_AFTER}1", *_COSTS, *RANKS, *SEEDS]
    raise UsageError(_unknown(name, [*known, "weights", "paper.dice", *_COUNTS], ""))


def _of_units(name: str) -> Metric | None:
    for table, kind in _TABLES.items():
        if name.startswith(table):
            return Metric(name, kind, name.removeprefix(table), by_unit=True)
    if name in (f"{_PAPER}dice", f"{_PAPER}iou"):
        return Metric(name, "paper", name.removeprefix(_PAPER))
    return None


def _plain(name: str, *, validation: bool) -> Metric | None:
    after = name.startswith(_AFTER) and name.removeprefix(_AFTER).isdigit()
    kinds: dict[Kind, bool] = {
        "cost": name in _COSTS,
        "weights": name == "weights",
        "zhu": validation and name in _ZHU,
        "effort": not validation and (name in _EFFORT or after),
        "score": not validation and name in (*SCORES, *_RESULTS),
        "rank": not validation and name in RANKS,
        "seeds": not validation and name in SEEDS,
        "skill": not validation and name in ("skill", "skill_n"),
    }
    kind = next((kind for kind, fits in kinds.items() if fits), None)
    if kind == "skill":
        return Metric(name, kind, "skill", "n" if name == "skill_n" else "")
    return None if kind is None else Metric(name, kind, name)


def _counted(name: str, *, validation: bool) -> Metric | None:
    """Return ends of intervals and counts."""
    if validation and name in _ZHU_COUNTS:
        return Metric(name, "zhu", "iou", name)
    if not validation and name in _COUNTS:
        return Metric(name, "score", "dice", name)
    for end in (end for end in _ENDS if name.endswith(end)):
        found = _plain(name.removesuffix(end), validation=validation)
        if found is not None and _has_interval(found):
            return Metric(name, found.kind, found.column, end.removeprefix("_"))
    return None


def _has_interval(metric: Metric) -> bool:
    if metric.kind == "zhu":
        return metric.column in ("iou", "dice")
    if metric.kind == "effort":
        return metric.column.startswith(_AFTER)
    return metric.kind == "score" and metric.column in SCORES


def _unknown(name: str, known: Sequence[str], where: str) -> str:
    ends = "" if where else "; scores also with _low, _high and _n"
    more = "; columns of tables of units as results.COLUMN, costs.COLUMN or zhu.COLUMN"
    return f"there is no score '{name}'{where}; there are: {', '.join(known)}{ends}{more}"


@dataclass(frozen=True, eq=False)
class Values:
    """The values of a row.

    Parameters
    ----------
    units
        Case and seed → value; NaN where it is undefined.
    each
        What the number is made from: a value per case, of costs one per unit; NaN where it is
        undefined.
    together
        How: ``"mean"``, ``"median"`` or ``"max"``.
    of
        What there is one value of: ``"cases"``, ``"units"`` or ``"seeds"``.
    """

    units: dict[Key, float]
    each: pd.Series
    together: str = "mean"
    of: str = "cases"

    @property
    def defined(self) -> "pd.Series[float]":
        """What goes into the number."""
        return self.each.dropna()

    @property
    def number(self) -> float | None:
        """The number; ``None`` where it is undefined or infinite."""
        found = self.defined
        value = float(found.agg(self.together)) if len(found) else np.nan
        return value if np.isfinite(value) else None

    def estimate(self, end: str) -> float | None:
        """Return an end of the interval of the mean, or the number of values in it."""
        found = float(mean_intervals(self.each.to_numpy(dtype=float)).iloc[0][end])
        return found if np.isfinite(found) else None


def values_of(metric: Metric, records: Sequence[Record], structure: str) -> Values:
    """Return the values of one method under one protocol on one cohort.

    Parameters
    ----------
    metric
        What is asked for.
    records
        Its records.
    structure
        ``lungs`` and ``avg`` too; of costs it does not matter.

    Raises
    ------
    UsageError
        If the records have no such value of this structure.
    """
    find: dict[Kind, Callable[[Metric, Sequence[Record], str], Values]] = {
        "score": _scores,
        "skill": _scores,
        "rank": _scores,
        "paper": _scores,
        "seeds": _fits,
        "cost": _costs,
        "weights": _weights,
        "effort": _efforts,
        "zhu": _validations,
    }
    return find[metric.kind](metric, records, structure)


def _scores(metric: Metric, records: Sequence[Record], structure: str) -> Values:
    column = "dice" if metric.kind in ("skill", "rank") else metric.column
    units = unit_scores(records)
    own = units[units["structure"] == structure]
    if own.empty or column not in own or (structure in PARTS and own[column].isna().all()):
        raise UsageError(_no_value(column, structure, units["structure"]))
    return _by_unit(own, column)


def _by_unit(own: pd.DataFrame, column: str) -> Values:
    """Seeds of a case are averaged; a case is undefined where any of them is."""
    values = _numbers(own[column])
    keys = zip(own["case"].astype(str), own["seed"].astype(int), strict=True)
    each = pd.Series(values).groupby(own["case"].to_numpy(), sort=False).mean()
    undefined = pd.Series(np.isnan(values)).groupby(own["case"].to_numpy(), sort=False).any()
    return Values(dict(zip(keys, values, strict=True)), each.mask(undefined))


def _numbers(column: "pd.Series[float]") -> npt.NDArray[np.float64]:
    try:
        return np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError):
        msg = f"'{column.name}' holds text, which is in the record as it is in the table"
        raise UsageError(msg) from None


def _no_value(column: str, structure: str, named: "pd.Series[str]") -> str:
    listed = ", ".join(str(name) for name in dict.fromkeys(named.dropna()))
    return f"these records have no '{column}' of '{structure}'; structures: {listed}"


def _fits(metric: Metric, records: Sequence[Record], structure: str) -> Values:
    """Return a value per seed: the mean Dice over the cases."""
    units = unit_scores(records)
    own = units[units["structure"] == structure]
    if own.empty:
        raise UsageError(_no_value("dice", structure, units["structure"]))
    return Values(_by_unit(own, "dice").units, own.groupby("seed")["dice"].mean(), of="seeds")


def _costs(metric: Metric, records: Sequence[Record], structure: str) -> Values:
    plain = (metric.column, "mean")
    column, together = plain if metric.by_unit else _COSTS.get(metric.column, plain)
    costs = costs_frame(records).assign(tries=[float(record.tries) for record in records])
    if column not in costs:
        numbers = costs.select_dtypes("number").columns
        msg = f"costs.csv has no column '{column}'; of numbers it has: {', '.join(numbers)}"
        raise UsageError(msg)
    values = pd.Series(_numbers(costs[column]))
    values = values / 1e9 if metric.column == "gmacs" else values
    keys = list(zip(costs["case"].astype(str), costs["seed"].astype(int), strict=True))
    # A unit that failed early would make its method look cheap.
    each = values if column == "tries" else values.where(costs["status"] == "ok")
    return Values(dict(zip(keys, values, strict=True)), each, together, "units")


def _weights(metric: Metric, records: Sequence[Record], structure: str) -> Values:
    """Return a one for each unit that names its weights: ``weights.csv`` counts them."""
    named = [float(bool(record.weights)) for record in records]
    keys = [(record.key.case, record.key.seed) for record in records]
    return Values(dict(zip(keys, named, strict=True)), pd.Series(named), "sum", "units")


def _efforts(metric: Metric, records: Sequence[Record], structure: str) -> Values:
    after = metric.column.startswith(_AFTER)
    column, together = (
        (f"dice_{metric.column.removeprefix(_AFTER)}", "mean") if after else _EFFORT[metric.column]
    )
    units = {
        (record.key.case, record.key.seed): corrections.case_effort([record], structure)
        for record in records
    }
    cases = corrections.case_effort(records, structure)
    if cases.empty or column not in cases:
        msg = (
            f"these records have no '{metric.column}' of '{structure}': it is of protocols with "
            "corrections, and of no more than there are"
        )
        raise UsageError(msg)
    each = cases.set_index("case")[column].astype(float)
    values = {
        key: float(frame[column].iloc[0]) if len(frame) else np.nan for key, frame in units.items()
    }
    return Values(values, each, together)


def _validations(metric: Metric, records: Sequence[Record], structure: str) -> Values:
    units = zhu.with_joint(zhu_frame(records))
    own = units[units["structure"] == structure]
    there = metric.column in own and not (structure in PARTS and own[metric.column].isna().all())
    lost = {(r.key.case, r.key.seed): np.nan for r in records if r.status == "failed"}
    if (own.empty and not lost) or not there:
        raise UsageError(_no_value(metric.column, structure, units["structure"]))
    found = _by_unit(own, metric.column)
    # Failed units are in no mean, but they are records of the row.
    return Values({**lost, **found.units}, found.each)
