"""The columns of the result tables: what they mean, which way is better, how they are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

#: Sign that a typographer sets for undefined or unknown values.
DASH = "–"

Mark = Literal["best", "second", ""]


@dataclass(frozen=True)
class Column:
    """One measured column.

    Parameters
    ----------
    key
        Column of the summary frame.
    title
        Heading.
    better
        +1 = higher is better, -1 = lower is better, 0 = neither (never marked).
    digits
        Decimals shown; ranks are those of the shown values, so that equal figures get equal
        marks.
    meaning
        One sentence for the reader of the report.
    """

    key: str
    title: str
    better: Literal[-1, 0, 1]
    digits: int
    meaning: str

    @property
    def heading(self) -> str:
        """Title with the arrow of the better direction."""
        return self.title + {1: " ↑", -1: " ↓", 0: ""}[self.better]


#: The measured columns of the main table, in order.
COLUMNS: tuple[Column, ...] = (
    Column("dice", "Dice", 1, 3, "Volume Dice: 2·TP / (2·TP + FP + FN) over the whole volume."),
    Column("iou", "IoU", 1, 3, "Volume IoU (Jaccard): TP / (TP + FP + FN)."),
    Column(
        "slice_dice_mean",
        "Slice Dice",
        1,
        3,
        "Mean of the Dice of single slices. It is another quantity than the volume Dice, and "
        "publications mix the two up.",
    ),
    Column(
        "hd95_mm",
        "HD95 mm",
        -1,
        2,
        "95th percentile of the distance between the surfaces, in mm; undefined when either "
        "mask is empty.",
    ),
    Column("nsd_1mm", "NSD@1", 1, 3, "Share of the surfaces that agree within 1 mm."),
    Column("nsd_2mm", "NSD@2", 1, 3, "Share of the surfaces that agree within 2 mm."),
    Column("volume_error_ml", "|ΔV| mL", -1, 2, "Absolute volume difference, in mL."),
    Column(
        "volume_difference_ml",
        "ΔV mL",
        0,
        2,
        "Signed volume difference (prediction − reference): positive = too large on average.",
    ),
    Column(
        "slices_beyond",
        "Beyond",
        -1,
        1,
        "Slices wrongly added beyond the two ends of the structure.",
    ),
    Column("n_prompts", "Prompts", 0, 1, "Prompts (boxes and clicks) the simulated user gave."),
    Column(
        "skill",
        "Skill",
        1,
        3,
        "(Dice − Dice of the prompt-only ellipse) / (1 − Dice of the prompt-only ellipse), from "
        "the means over the same cases under the same prompts: 0 = the image added nothing to "
        "the prompt, 1 = perfect, negative = worse than drawing an ellipse. Where prompts are "
        "corrected, the ellipse of the first ones.",
    ),
)
BY_KEY = {column.key: column for column in COLUMNS}


def marks(values: Sequence[float], counts: Sequence[int], column: Column) -> list[Mark]:
    """Say which values are best and second best.

    Only methods that were scored on as many cases as the most complete one take part; else a
    method that failed on the hard cases, or has not reached them yet, would win. Values that are
    written alike rank alike, and second best is the next different value. Where higher is better
    and the best is written as 0, nothing is marked: nobody found anything, or gained anything.

    Parameters
    ----------
    values
        Means; NaN = undefined.
    counts
        Cases behind each mean.
    column
        Gives direction and decimals.
    """
    most = max(counts, default=0)
    shown = [
        round(value, column.digits) if math.isfinite(value) and n == most else math.nan
        for value, n in zip(values, counts, strict=True)
    ]
    known = [value for value in shown if not math.isnan(value)]
    if column.better == 0 or len(known) < 2:
        return [""] * len(shown)
    ranked = sorted(set(known), reverse=column.better > 0)
    if column.better > 0 and ranked[0] == 0:
        return [""] * len(shown)
    names: dict[float, Mark] = dict(zip(ranked[:2], ("best", "second"), strict=False))
    return [names.get(value, "") for value in shown]


def mark_frame(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the marks of a summary, same rows, one column per entry of `COLUMNS`.

    Methods compete with those of the same cohort, prompt protocol and structure.
    """
    keys = [column.key for column in COLUMNS]
    table = np.full((len(summary), len(keys)), "", dtype=object)
    values = summary[keys].to_numpy(dtype=float)
    counts = summary[[f"{key}_n" for key in keys]].to_numpy(dtype=int)
    groups = summary.groupby(["cohort", "protocol", "structure"], sort=False).indices
    for rows in groups.values():
        for i, column in enumerate(COLUMNS):
            table[rows, i] = marks(values[rows, i].tolist(), counts[rows, i].tolist(), column)
    return pd.DataFrame(table, index=summary.index, columns=keys)


def number(value: float, digits: int, *, minus: str = "−") -> str:
    """Write a number with fixed decimals; undefined as a dash, never as minus zero."""
    if not math.isfinite(value):
        return DASH
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", minus)


def interval(low: float, high: float, digits: int, *, minus: str = "−") -> str:
    """Write a confidence interval, or nothing where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{number(low, digits, minus=minus)}, {number(high, digits, minus=minus)}]"


def p_value(value: float) -> str:
    """Write a p value as journals do: three decimals, very small ones as a bound."""
    if not math.isfinite(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
