"""The values behind a number of a report, unit by unit: scores, costs, effort, validations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report import corrections, zhu
from napari_lungfm.benchmark.report.scores import AVERAGE, LUNGS, SCORES, TUMOUR, unit_scores
from napari_lungfm.benchmark.store import costs_frame, zhu_frame
from napari_lungfm.evaluation.corrections import DICE_TARGETS
from napari_lungfm.evaluation.prompt_protocols import is_zhu_validation

Kind: TypeAlias = Literal["score", "skill", "cost", "effort", "zhu"]
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
}
#: Effort → the column of `corrections.case_effort`, and how cases are put together.
_EFFORT = {
    "first_dice": ("dice_1", "mean"),
    "effort_area": ("area", "mean"),
    **{f"interactions_to_{t:.2f}": (f"needed_{t:.2f}", "median") for t in DICE_TARGETS},
    **{f"reached_{t:.2f}": (f"reached_{t:.2f}", "mean") for t in DICE_TARGETS},
}
_AFTER = "dice_after_"
_ZHU = ("iou", "dice", "iou_present", "dice_present", "iou_absent", "share_present", "empty_iou")
#: Columns of ``summary.csv`` that count; the units of the Dice are those that are counted.
_COUNTS = ("n", "n_cases", "n_units", "n_failed", "n_failed_units", "n_undefined")
_ENDS = ("_low", "_high", "_n")


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
    """

    name: str
    kind: Kind
    column: str

    @property
    def in_summary(self) -> bool:
        """Whether ``summary.csv`` has a column of this name."""
        return self.kind in ("score", "skill") and self.column not in _RESULTS


def find_metric(name: str, protocol: str) -> Metric:
    """Return what a column is made from.

    Parameters
    ----------
    name
        A column of ``summary.csv``, ``costs.csv``, ``results.csv`` or ``zhu-validation.csv``.
    protocol
        Of the row.

    Raises
    ------
    UsageError
        If there is no such column; the message has those that there are.
    """
    validation = is_zhu_validation(protocol)
    found = _metric(name, validation=validation)
    if found is not None:
        return found
    if validation:
        raise UsageError(_unknown(name, [*_ZHU, *_COSTS], f" under '{protocol}'"))
    known = [*SCORES, "skill", *_RESULTS, *_EFFORT, f"{_AFTER}1", *_COSTS, *_COUNTS]
    raise UsageError(_unknown(name, known, ""))


def _metric(name: str, *, validation: bool) -> Metric | None:
    after = name.startswith(_AFTER) and name.removeprefix(_AFTER).isdigit()
    kinds: dict[Kind, bool] = {
        "cost": name in _COSTS,
        "zhu": validation and name in _ZHU,
        "effort": not validation and (name in _EFFORT or after),
        "score": not validation and name in (*SCORES, *_RESULTS),
    }
    for kind, fits in kinds.items():
        if fits:
            return Metric(name, kind, name)
    if validation:
        return None
    if name in ("skill", "skill_n"):
        return Metric(name, "skill", "skill")
    ends = [name.removesuffix(end) for end in _ENDS if name.endswith(end)]
    column = "dice" if name in _COUNTS else next((each for each in ends if each in SCORES), None)
    return None if column is None else Metric(name, "score", column)


def _unknown(name: str, known: Sequence[str], where: str) -> str:
    ends = "" if where else "; scores also with _low, _high and _n"
    return f"there is no score '{name}'{where}; there are: {', '.join(known)}{ends}"


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
    """

    units: dict[Key, float]
    each: pd.Series
    together: str = "mean"

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
        "cost": _costs,
        "effort": _efforts,
        "zhu": _validations,
    }
    return find[metric.kind](metric, records, structure)


def _scores(metric: Metric, records: Sequence[Record], structure: str) -> Values:
    column = "dice" if metric.kind == "skill" else metric.column
    units = unit_scores(records)
    own = units[units["structure"] == structure]
    if own.empty or column not in own or (structure in PARTS and own[column].isna().all()):
        raise UsageError(_no_value(column, structure, units["structure"]))
    return _by_unit(own, column)


def _by_unit(own: pd.DataFrame, column: str) -> Values:
    """Seeds of a case are averaged; a case is undefined where any of them is."""
    values = own[column].astype(float).to_numpy()
    keys = zip(own["case"].astype(str), own["seed"].astype(int), strict=True)
    each = pd.Series(values).groupby(own["case"].to_numpy(), sort=False).mean()
    undefined = pd.Series(np.isnan(values)).groupby(own["case"].to_numpy(), sort=False).any()
    return Values(dict(zip(keys, values, strict=True)), each.mask(undefined))


def _no_value(column: str, structure: str, named: "pd.Series[str]") -> str:
    listed = ", ".join(str(name) for name in dict.fromkeys(named.dropna()))
    return f"these records have no '{column}' of '{structure}'; structures: {listed}"


def _costs(metric: Metric, records: Sequence[Record], structure: str) -> Values:
    column, together = _COSTS[metric.column]
    costs = costs_frame(records)
    # A unit that failed early would make its method look cheap.
    values = costs[column].where(costs["status"] == "ok").astype(float)
    values = values / 1e9 if metric.column == "gmacs" else values
    keys = list(zip(costs["case"].astype(str), costs["seed"].astype(int), strict=True))
    return Values(dict(zip(keys, values, strict=True)), pd.Series(values.to_numpy()), together)


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
    if own.empty or (structure in PARTS and own[metric.column].isna().all()):
        raise UsageError(_no_value(metric.column, structure, units["structure"]))
    return _by_unit(own, metric.column)
