"""From records to tables of scores: per unit, and per case with the seeds averaged."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.store import results_frame
from napari_lungfm.evaluation.prompt_protocols import is_zhu_validation

TUMOUR, LUNGS, AVERAGE = "tumour", "lungs", "avg"
_SIDES = ("left lung", "right lung")
UNIT = ["cohort", "protocol", "method", "case", "seed"]
ROW = ["cohort", "protocol", "method", "structure"]
#: What stands behind the title of a method.
METHOD = ["model", "label", "state", "stood_in"]

#: Scores that may be averaged over structures of different size.
RATIOS = [
    "dice",
    "iou",
    "slice_dice_mean",
    "slice_iou_mean",
    "hd95_mm",
    "nsd_1mm",
    "nsd_2mm",
]
#: What "lungs" and "avg" have too: the scores of their parts, averaged.
_COMBINED = [*RATIOS, "first_dice"]
#: Every score that a table can show.
SCORES = [
    *RATIOS,
    "volume_error_ml",
    "volume_difference_ml",
    "slices_beyond",
    "volume_beyond_ml",
    "n_prompts",
]


def unit_scores(records: Sequence[Record]) -> pd.DataFrame:
    """Return `scores_of` of records."""
    return scores_of(results_frame(records), unscored(records))


def unscored(records: Iterable[Record]) -> list[Record]:
    """Return the failed units that have no scores, because their case could not be read."""
    # A unit without scores that did not fail had nothing to score (an automatic method that finds
    # none of the structures that the case has).
    return [
        record
        for record in records
        if not record.structures
        and record.status == "failed"
        and not is_zhu_validation(record.key.protocol)
    ]


def scores_of(results: pd.DataFrame, lost: Sequence[Record]) -> pd.DataFrame:
    """Return one row per unit and structure, "lungs" and "avg" included.

    - ``lungs`` is the mean of the left and right lung where the case has both, ``avg`` =
      (2·lungs + tumour)/3, as in the published tables and in `evaluation.scoring`; both only for
      scores that are ratios or distances, and undefined where any part is.
    - ``volume_error_ml`` is the absolute volume difference, ``slices_beyond`` the sum of both
      ends.
    - A failed unit without scores has a row with undefined scores, so that it is counted.
    - Units under ``zhu-validation`` have no scores of this kind and no rows.

    Parameters
    ----------
    results
        `store.results_frame`.
    lost
        `unscored` of the same records.
    """
    frame = results
    if frame.empty:
        frame = pd.DataFrame(columns=[*UNIT, *METHOD, "status", "error", "structure"])
    if lost:
        rows = [_row_without_scores(record) for record in lost]
        frame = pd.concat([frame, pd.DataFrame(rows)], ignore_index=True)
    frame = _with_derived_scores(frame)
    return pd.concat([frame, *_joint_structures(frame)], ignore_index=True)


def _row_without_scores(record: Record) -> dict[str, object]:
    return {
        **record.key.model_dump(),
        "method": record.key.method,
        "status": record.status,
        "error": record.error,
        "structure": TUMOUR,
    }


def _with_derived_scores(frame: pd.DataFrame) -> pd.DataFrame:
    needed = {
        *SCORES,
        "first_dice",
        "slices_beyond_low",
        "slices_beyond_high",
        "reference_volume_ml",
    }
    missing = sorted(needed - set(frame.columns))
    frame = frame.assign(**dict.fromkeys(missing, float("nan")))
    for name in sorted(needed):
        frame[name] = frame[name].astype(float)
    frame["volume_error_ml"] = frame["volume_difference_ml"].abs()
    frame["slices_beyond"] = frame["slices_beyond_low"] + frame["slices_beyond_high"]
    return frame


def _joint_structures(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Rows of "lungs" and "avg" of the units that have lungs."""
    if not set(_SIDES) <= set(frame["structure"]):
        return []
    kept = [*UNIT, *METHOD, "status", *_COMBINED, "n_prompts"]
    left, right, tumour = (
        frame.loc[frame["structure"] == name, kept] for name in (*_SIDES, TUMOUR)
    )
    # Sums, not means that skip undefined parts: to miss a lung must not improve the rest.
    lungs = _combine(left, right, lambda a, b: (a + b) / 2).assign(structure=LUNGS)
    average = _combine(lungs, tumour, lambda a, b: (2 * a + b) / 3).assign(structure=AVERAGE)
    return [lungs, average]


def _combine(
    first: pd.DataFrame, second: pd.DataFrame, score: Callable[[Any, Any], Any]
) -> pd.DataFrame:
    """Join two structures of the same units; NaN where either score is."""
    both = first.merge(second, on=UNIT, suffixes=("", "_other"))
    for name in _COMBINED:
        both[name] = score(both[name], both[f"{name}_other"])
    both["n_prompts"] += both["n_prompts_other"]
    return both[first.columns]


def case_scores(units: pd.DataFrame) -> pd.DataFrame:
    """Return one row per case, method, protocol and structure: seeds averaged.

    Patients, not repetitions, are what statistics may count. A score is undefined (NaN) for a
    case if it is for any of its seeds: a mean over the others would reward the seeds that found
    nothing. Columns: `ROW`, `METHOD`, ``case``, the scores, ``first_dice`` (Dice before any
    correction; NaN for protocols without them), ``reference_volume_ml``,
    ``n_units``, ``n_failed`` and ``n_scored`` (units with a record of this structure that holds
    scores).
    """
    frame = units.assign(
        failed=(units["status"] == "failed").astype(int),
        scored=(units["dice"].notna() | (units["status"] == "ok")).astype(int),
    )
    grouped = frame.groupby([*ROW, "case"], sort=False)
    result = grouped[SCORES].mean()
    result["n_units"] = grouped.size()
    for name, known in grouped[SCORES].count().items():
        result[name] = result[name].where(known == result["n_units"])
    result["first_dice"] = grouped["first_dice"].mean()
    result["reference_volume_ml"] = grouped["reference_volume_ml"].mean()
    result["n_failed"] = grouped["failed"].sum()
    result["n_scored"] = grouped["scored"].sum()
    for name in METHOD:
        result[name] = grouped[name].first()
    return result.reset_index()


def main_structure(frame: pd.DataFrame) -> str:
    """Structure that the main table shows: the tumour, or the first one if there is none."""
    names = list(dict.fromkeys(frame["structure"]))
    return TUMOUR if TUMOUR in names or not names else str(names[0])


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by cohort, protocol, method and structure, each in order of appearance."""
    keys = pd.DataFrame({name: pd.factorize(frame[name])[0] for name in ROW}, index=frame.index)
    return frame.loc[keys.sort_values(ROW, kind="stable").index].reset_index(drop=True)
