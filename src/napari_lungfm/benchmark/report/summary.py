"""Means with confidence intervals per cohort, method, prompt protocol and structure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from napari_lungfm._core.exceptions import DataError
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report.scores import (
    METHOD,
    ROW,
    SCORES,
    case_scores,
    in_order,
    main_structure,
    unit_scores,
)
from napari_lungfm.benchmark.store import costs_frame
from napari_lungfm.evaluation.statistics import bootstrap_mean

#: The prompt-only baseline that skill is counted from (the inscribed ellipse or its ellipsoid).
SKILL_BASELINE = "prompt-ellipse"
#: Scores that come with a confidence interval in the tables.
_WITH_INTERVAL = set(SCORES) - {"n_prompts", "slice_iou_mean", "volume_beyond_ml"}
#: Those of the structures beside the main one: bootstrap samples are what takes the time.
_SHOWN_FOR_ALL = {"dice", "iou"}


def summarise(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row per cohort, prompt protocol, method and structure.

    Seeds of a case are averaged first, so that n counts patients (and a case is undefined where
    any of its seeds is). Rows come in the order of the
    plan, grouped by cohort and protocol. "lungs" (mean of left and right) and "avg" =
    (2·lungs + tumour)/3 are added where there are lungs.

    Parameters
    ----------
    records
        Finished and failed units, in plan order.

    Returns
    -------
    DataFrame
        ``cohort``, ``protocol``, ``method``, ``model``, ``label``, ``state``, ``structure``;
        ``n`` (cases with a defined Dice), ``n_cases``, ``n_units``, ``n_failed`` (cases with a
        failed unit), ``n_failed_units``, ``n_undefined`` (cases that were scored and have no
        Dice: reference and prediction are empty); for each score its mean, ``_low`` and
        ``_high`` (95 % BCa interval over patients, NaN for fewer than two; for structures other
        than the main one only of Dice and IoU) and ``_n``;
        ``skill`` and ``skill_n``; ``seconds`` (mean per finished unit, as if it had been run
        alone). Units under ``zhu-validation`` are not in it: they have no such scores.

    Raises
    ------
    DataError
        If there is no record at all.
    """
    if not records:
        msg = "there is no finished unit to summarise; start or go on with: run"
        raise DataError(msg)
    cases = in_order(case_scores(unit_scores(records)))
    main = main_structure(cases)
    rows = [
        _summary_row(dict(zip(ROW, names, strict=True)), group, main)
        for names, group in cases.groupby(ROW, sort=False)
    ]
    if not rows:  # nothing but units of another kind
        return _nothing()
    summary = pd.DataFrame(rows)
    summary = summary.merge(_skills(cases), on=ROW, how="left")
    summary["skill_n"] = summary["skill_n"].fillna(0).astype(int)
    return summary.merge(_seconds(records), on=["cohort", "protocol", "method"], how="left")


def _nothing() -> pd.DataFrame:
    counts = ["n", "n_cases", "n_units", "n_failed", "n_failed_units", "n_undefined"]
    scores = [f"{name}{end}" for name in SCORES for end in ("", "_n", "_low", "_high")]
    return pd.DataFrame(columns=[*ROW, *METHOD, *counts, *scores, "skill", "skill_n", "seconds"])


def _summary_row(row: dict[str, Any], group: pd.DataFrame, main: str) -> dict[str, Any]:
    defined = group["dice"].notna()
    row |= {name: group[name].iloc[0] for name in METHOD}
    row["n"] = int(defined.sum())
    row["n_cases"] = len(group)
    row["n_units"] = int(group["n_units"].sum())
    row["n_failed"] = int((group["n_failed"] > 0).sum())
    row["n_failed_units"] = int(group["n_failed"].sum())
    row["n_undefined"] = int((~defined & (group["n_scored"] > 0)).sum())
    intervals = _WITH_INTERVAL if row["structure"] == main else _SHOWN_FOR_ALL
    for name in SCORES:
        values = group[name].to_numpy(dtype=float)
        if name in intervals:
            estimate = bootstrap_mean(values)
            row[name], row[f"{name}_n"] = estimate.mean, estimate.n
            row[f"{name}_low"], row[f"{name}_high"] = estimate.low, estimate.high
        else:
            values = values[np.isfinite(values)]
            row[name] = float(values.mean()) if len(values) else np.nan
            row[f"{name}_n"] = len(values)
    return row


def _skills(cases: pd.DataFrame) -> pd.DataFrame:
    """Skill of every row over the cases that both it and the baseline were scored on."""
    same = ["cohort", "protocol", "structure", "case"]
    base = _baseline(cases)[[*same, "dice"]]
    paired = cases[[*ROW, "case", "dice"]].merge(base, on=same, suffixes=("", "_base")).dropna()
    means = paired.groupby(ROW, sort=False, as_index=False).agg(
        dice=("dice", "mean"), base=("dice_base", "mean"), skill_n=("dice", "size")
    )
    means = means[means["base"] < 1]
    means["skill"] = (means["dice"] - means["base"]) / (1 - means["base"])
    return means[[*ROW, "skill", "skill_n"]]


def _baseline(cases: pd.DataFrame) -> pd.DataFrame:
    """Cases of one baseline per cohort and protocol: of several, the one without a label."""
    group = ["cohort", "protocol"]
    base = cases[cases["model"] == SKILL_BASELINE]
    order = base["label"].notna().sort_values(kind="stable").index
    chosen = base.loc[order, [*group, "method"]].drop_duplicates(group)
    return base.merge(chosen, on=[*group, "method"])


def _seconds(records: Sequence[Record]) -> pd.DataFrame:
    costs = costs_frame(records)
    # A unit that failed early would make its method look fast.
    costs["seconds"] = costs["alone_seconds"].where(costs["status"] == "ok").astype(float)
    keys = ["cohort", "protocol", "method"]
    return pd.DataFrame(costs.groupby(keys, sort=False, as_index=False)["seconds"].mean())
