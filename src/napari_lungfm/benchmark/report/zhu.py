"""The table of units under ``zhu-validation``, apart from all others."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from napari_lungfm.benchmark.report.columns import DASH, interval, number
from napari_lungfm.benchmark.report.scores import AVERAGE, LUNGS, TUMOUR
from napari_lungfm.benchmark.report.tables import escape_markdown
from napari_lungfm.evaluation.statistics import bootstrap_mean

#: What this table is, in the report and beside its files.
EXPLANATION = (
    "These are the scores of the validation in the published code of Medical SAM 2 (Zhu et al.), "
    "to be set beside numbers that were computed with it, and they cannot be compared with any "
    "other score of this report: every second slice is prompted from the reference, also where "
    "the structure is absent; only the first quarter of the labelled slices is scored; scores are "
    "means over slices and over five thresholds of the logits (0.1 to 0.9); and a slice that is "
    "rightly left empty counts as 1. A structure on a fraction f of these slices that scores s "
    "there gives (1 − f) + f·s at the most, and an empty prediction 1 − f."
)
HEADS = (
    ("IoU", "mean over the evaluated slices"),
    ("Dice", "mean over the evaluated slices"),
    ("f", "fraction of the evaluated slices that have the structure"),
    ("IoU where present", "s: mean over the slices that have the structure"),
    ("IoU of nothing", "what an empty prediction scores: 1 − f"),
    ("s/case", "mean seconds per case, as if run alone"),
    ("n", "cases with a score"),
    ("undefined", "cases whose evaluated slices do not have the structure"),
    ("failed", "cases with a unit that failed; not in the means"),
)
_UNIT = ["cohort", "protocol", "method", "case", "seed"]
_ROW = ["cohort", "protocol", "method"]
#: Scores of structures that may be averaged.
_LINEAR = ["iou", "dice", "share_present", "empty_iou"]
_SCORES = [*_LINEAR, "iou_present"]


def zhu_rows(units: pd.DataFrame, costs: pd.DataFrame, cohort: str) -> list[dict[str, Any]]:
    """Return the table of one cohort: one entry per method, protocol and structure.

    Seeds of a case are averaged first. "lungs" (mean of left and right) and "avg" =
    (2·lungs + tumour)/3 are added where there are lungs.

    Parameters
    ----------
    units
        `store.zhu_frame`.
    costs
        `store.costs_frame`.
    cohort
        Which cohort.

    Returns
    -------
    list of dict
        ``method``, ``protocol``, ``structure``, ``with_logits``; ``values``, a text per entry of
        `HEADS`; ``intervals`` of the first two; ``numbers`` to sort by.
    """
    own = units[units["cohort"] == cohort]
    seconds = _seconds(costs)
    rows = []
    for names, group in own.groupby(_ROW, sort=False):
        failed = group.loc[group["status"] == "failed", "case"].nunique()
        scored = group[group["structure"].notna()]
        every = with_joint(scored)
        for structure, cases in every.groupby("structure", sort=False):
            row = _row(cases, seconds.get(names, float("nan")), failed)
            rows.append(_named(names, str(structure), row))
        if scored.empty:
            rows.append(_named(names, DASH, _row(scored, float("nan"), failed)))
    return rows


def with_joint(units: pd.DataFrame) -> pd.DataFrame:
    """Return `store.zhu_frame` with rows of "lungs" and "avg" where there are lungs."""
    scored = units[units["structure"].notna()]
    return pd.concat([scored, *_joint(scored)], ignore_index=True)


def _seconds(costs: pd.DataFrame) -> dict[Any, float]:
    fine = costs[costs["status"] == "ok"]
    means = fine.groupby(_ROW)["alone_seconds"].mean()
    return {names: float(value) for names, value in means.items()}


def _joint(units: pd.DataFrame) -> list[pd.DataFrame]:
    """Rows of "lungs" and "avg" of the units that have lungs; undefined where a part is."""
    parts = {str(name): group.set_index(_UNIT) for name, group in units.groupby("structure")}
    if not {"left lung", "right lung"} <= set(parts):
        return []
    left, right = parts["left lung"][_LINEAR], parts["right lung"][_LINEAR]
    both = left.index.intersection(right.index)
    joint = {LUNGS: (left.loc[both] + right.loc[both]) / 2}
    if TUMOUR in parts:
        tumour = parts[TUMOUR][_LINEAR]
        all_three = both.intersection(tumour.index)
        joint[AVERAGE] = (2 * joint[LUNGS].loc[all_three] + tumour.loc[all_three]) / 3
    return [frame.reset_index().assign(structure=name) for name, frame in joint.items()]


def _row(units: pd.DataFrame, seconds: float, failed: int) -> dict[str, Any]:
    cases = units.reindex(columns=["case", *_SCORES]).groupby("case", sort=False)[_SCORES]
    # A case whose seeds are not all defined is not defined: the slices are the same for all.
    means = cases.mean()
    iou, dice = (bootstrap_mean(means[name].to_numpy(dtype=float)) for name in ("iou", "dice"))
    defined = means[means["iou"].notna()]
    rest = [float(defined[name].mean()) for name in ("share_present", "iou_present", "empty_iou")]
    numbers = [iou.mean, dice.mean, *rest, seconds, iou.n, len(means) - iou.n, failed]
    digits = (3, 3, 3, 3, 3, 2, 0, 0, 0)
    return {
        "values": [number(float(v), d) for v, d in zip(numbers, digits, strict=True)],
        "intervals": [interval(each.low, each.high, 3) for each in (iou, dice)],
        "numbers": numbers,
        "with_logits": not (units["with_logits"] == False).any(),  # noqa: E712
    }


def _named(names: Any, structure: str, row: dict[str, Any]) -> dict[str, Any]:
    _, protocol, method = names
    return {"method": str(method), "protocol": str(protocol), "structure": structure, **row}


def zhu_markdown(rows: list[dict[str, Any]], cohort: str) -> str:
    """Return the table of one cohort as GitHub Markdown, with its explanation."""
    lines = [f"# {escape_markdown(cohort)}: zhu-validation", "", EXPLANATION, ""]
    heads = ["Method", "Prompts by", "Structure", *(title for title, _ in HEADS)]
    lines += ["| " + " | ".join(heads) + " |", "|:--|:--|:--|" + "--:|" * len(HEADS)]
    lines += _markdown_rows(rows)
    if not all(row["with_logits"] for row in rows):
        lines += ["", "\\* " + NO_LOGITS]
    return "\n".join(lines) + "\n"


#: Note on the methods marked with a star.
NO_LOGITS = "Gives no logits: its mask stands for all thresholds."


def _markdown_rows(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        star = "" if row["with_logits"] else " \\*"
        cells = [escape_markdown(row["method"]) + star]
        cells += [escape_markdown(row[name]) for name in ("protocol", "structure")]
        spreads = [text.replace("[", "\\[").replace("]", "\\]") for text in row["intervals"]]
        spreads += [""] * (len(HEADS) - len(spreads))
        pairs = zip(row["values"], spreads, strict=True)
        cells += [" ".join(part for part in pair if part) for pair in pairs]
        yield "| " + " | ".join(cells) + " |"
