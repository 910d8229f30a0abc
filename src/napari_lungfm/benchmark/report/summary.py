"""Means with confidence intervals per cohort, method, prompt protocol and structure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
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
from napari_lungfm.evaluation.statistics import mean_intervals

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
        ``cohort``, ``protocol``, ``method``, ``model``, ``label``, ``state``, ``stood_in`` (the
        model that stood in for it in any of its units, if one did), ``structure``;
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
    return summarise_cases(case_scores(unit_scores(records)), costs_frame(records))


def summarise_cases(cases: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Return the same from what was read from the records already.

    Parameters
    ----------
    cases
        `scores.case_scores`.
    costs
        `store.costs_frame`.
    """
    cases = in_order(cases)
    if cases.empty:  # nothing but units of another kind
        return _nothing()
    counts = _counts(cases)
    shown = (counts["structure"] == main_structure(cases)).to_numpy()
    summary = counts.join(_means(cases, shown))
    summary = summary.merge(skills(cases, ROW), on=ROW, how="left")
    summary["skill_n"] = summary["skill_n"].fillna(0).astype(int)
    return summary.merge(_seconds(costs), on=["cohort", "protocol", "method"], how="left")


def _nothing() -> pd.DataFrame:
    counts = ["n", "n_cases", "n_units", "n_failed", "n_failed_units", "n_undefined"]
    scores = [f"{name}{end}" for name in SCORES for end in ("", "_n", "_low", "_high")]
    return pd.DataFrame(columns=[*ROW, *METHOD, *counts, *scores, "skill", "skill_n", "seconds"])


def _counts(cases: pd.DataFrame) -> pd.DataFrame:
    defined = cases["dice"].notna()
    flags = cases.assign(
        n=defined.astype(int),
        n_cases=1,
        n_failed_units=cases["n_failed"],
        n_failed=(cases["n_failed"] > 0).astype(int),
        n_undefined=(~defined & (cases["n_scored"] > 0)).astype(int),
    )
    grouped = flags.groupby(ROW, sort=False)
    # Not "first", which would take a label from another case where one is missing.
    names = cases.drop_duplicates(ROW)[[*ROW, *METHOD]].reset_index(drop=True)
    names["stood_in"] = grouped["stood_in"].first().to_numpy()  # of any case, all the same
    counts = ["n", "n_cases", "n_units", "n_failed", "n_failed_units", "n_undefined"]
    return names.join(grouped[counts].sum().reset_index(drop=True).astype(int))


def _means(cases: pd.DataFrame, shown: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """Means of every score of every row, and intervals of those that have them."""
    grouped = cases.groupby(ROW, sort=False)
    # Scores stand side by side, a column per row of the table, shorter ones padded with NaN.
    places = grouped.cumcount().to_numpy(), grouped.ngroup().to_numpy()
    shape = (int(places[0].max()) + 1, len(shown))
    columns: dict[str, Any] = {}
    for name in SCORES:
        values = np.full(shape, np.nan)
        values[places] = cases[name].to_numpy(dtype=float)
        counts = (~np.isnan(values)).sum(axis=0)
        sums = np.nansum(values, axis=0)
        columns[name] = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
        columns[f"{name}_n"] = counts.astype(int)
        if name in _WITH_INTERVAL:
            wanted = np.flatnonzero(shown | (name in _SHOWN_FOR_ALL))
            found = mean_intervals(values[:, wanted])
            for end in ("low", "high"):
                limits = np.full(len(shown), np.nan)
                limits[wanted] = found[end]
                columns[f"{name}_{end}"] = limits
    return pd.DataFrame(columns)


def skills(cases: pd.DataFrame, row: list[str]) -> pd.DataFrame:
    """Return the skill of every row over the cases that it and the baseline were scored on.

    Where a protocol has corrections, the baseline is what its first prompts are worth: those are
    the same for every method, while clicks that correct the baseline are answers to its own
    errors, and the discs that it draws at them often make it worse.

    Parameters
    ----------
    cases
        `scores.case_scores`.
    row
        Columns that tell rows apart; ``cohort``, ``protocol``, ``method`` and ``structure`` are
        among them.
    """
    same = ["cohort", "protocol", "structure", "case"]
    base = baseline(cases)[[*same, "dice"]].drop_duplicates(same)
    paired = cases[[*row, "case", "dice"]].merge(base, on=same, suffixes=("", "_base")).dropna()
    means = paired.groupby(row, sort=False, as_index=False).agg(
        dice=("dice", "mean"), base=("dice_base", "mean"), skill_n=("dice", "size")
    )
    means = means[means["base"] < 1]
    means["skill"] = (means["dice"] - means["base"]) / (1 - means["base"])
    return means[[*row, "skill", "skill_n"]]


def baseline(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the cases of the baseline that skill is counted from, with its Dice in ``dice``.

    One baseline per cohort and protocol: of several, the one without a label.

    Parameters
    ----------
    cases
        `scores.case_scores`.
    """
    group = ["cohort", "protocol"]
    base = cases[cases["model"] == SKILL_BASELINE]
    order = base["label"].notna().sort_values(kind="stable").index
    chosen = base.loc[order, [*group, "method"]].drop_duplicates(group)
    base = base.merge(chosen, on=[*group, "method"])
    return base.assign(dice=base["first_dice"].where(base["first_dice"].notna(), base["dice"]))


def _seconds(costs: pd.DataFrame) -> pd.DataFrame:
    # A unit that failed early would make its method look fast.
    fine = costs.assign(seconds=costs["alone_seconds"].where(costs["status"] == "ok").astype(float))
    keys = ["cohort", "protocol", "method"]
    return pd.DataFrame(fine.groupby(keys, sort=False, as_index=False)["seconds"].mean())
