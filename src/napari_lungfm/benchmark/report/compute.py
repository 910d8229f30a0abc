"""Figure 2: Dice against multiply-accumulates per volume, and the paper's own points."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from napari_lungfm.benchmark.report import paper
from napari_lungfm.benchmark.report.canvas import INK, Margins, arrange, legend, plain_log
from napari_lungfm.benchmark.report.figures import Rows, method_entries
from napari_lungfm.benchmark.report.style import Look

#: The paper's cost, GMACs as printed in its text (section IV); the other rows of its Figure 2 are
#: given nowhere as numbers. It does not say whether per slice, patch or volume.
PAPER_GMACS = {
    "MedSAM 2 BBox": 226.0,
    "MedSAM 2 Point": 226.0,
    "nnUnet 2d": 24_062.0,
    "nnUnet 3d fullres": 59_097.0,
    "nnUnet 3d lowres": 118_194.0,
}
#: Bubbles of the legend, in millions of parameters, as in the paper's figure.
_REFERENCE_BUBBLES = (10, 50, 100)
CAPTION = (
    "Mean Dice over multiply-accumulates per volume: all passes of the networks that one whole "
    "case needs, all its structures and sliding windows included, as if run alone (log scale). The "
    "area of a bubble grows with the parameters. Dashed lines: methods without a network, which "
    "have no such cost. Hollow marks: the paper's, Dice of its Table II over the GMACs that its "
    "text prints; it does not say per what they are counted, and its figure mixes single passes "
    "with whole volumes, so their place along the axis is not comparable with ours. Of the other "
    "rows and of parameters it prints no numbers."
)


@dataclass(frozen=True)
class _Point:
    x: float
    y: float
    millions: float
    row: tuple[str, str]


def compute_points(summary: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Return cost and Dice of every method and protocol.

    Parameters
    ----------
    summary
        `summary.summarise` of one cohort and structure.
    costs
        `store.costs_frame` of the cohort.

    Returns
    -------
    DataFrame
        ``protocol``, ``method``, ``dice``, ``macs`` (mean per volume over the finished units
        whose passes were counted, NaN without any), ``parameters``.
    """
    fine = costs[costs["status"] == "ok"]
    grouped = fine.groupby(["protocol", "method"], sort=False)
    means = pd.DataFrame(
        {
            "macs": grouped["macs"].apply(lambda each: each.astype(float).mean()),
            "parameters": grouped["parameters"].apply(lambda each: each.astype(float).max()),
        }
    ).reset_index()
    return summary[["protocol", "method", "dice"]].merge(
        means, on=["protocol", "method"], how="left"
    )


def compute_figure(points: pd.DataFrame, rows: Rows, cohort: str, structure: str) -> Figure | None:
    """Draw Figure 2 of a cohort; ``None`` where no record has counted multiply-accumulates."""
    counted = points[(points["macs"] > 0) & points["dice"].notna()]
    if counted.empty:
        return None
    figure = Figure(figsize=(10.6, 4.6))
    axis = figure.subplots()
    arrange(figure, Margins(top=0.12))
    for values in counted.to_dict("records"):
        look = rows[str(values["method"]), str(values["protocol"])]
        axis.scatter(
            values["macs"] / 1e9,
            values["dice"],
            s=_area(float(np.nan_to_num(values["parameters"])) / 1e6),
            color=look.colour,
            marker=look.marker,
            alpha=0.75,
            edgecolors=INK,
            linewidths=0.5,
        )
    _lines_without_networks(axis, points, rows)
    theirs = _paper_points(cohort, structure)
    for name, (gmacs, dice) in theirs.items():
        axis.plot(gmacs, dice, "o", markerfacecolor="none", markeredgecolor=INK, markersize=7)
        right = gmacs > 1e4  # their names would run out of the figure
        axis.annotate(
            f"paper: {name}",
            (gmacs, dice),
            xytext=(-7 if right else 7, -3),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=7,
        )
    plain_log(axis)
    axis.set_ylim(-0.03, 1.05)
    axis.set_xlabel("GMACs per volume (log scale)")
    axis.set_ylabel(f"Mean Dice, {structure}")
    _size_legend(axis)
    shown = set(counted["protocol"])
    marks = {p: Look(INK, "", look.marker) for (_, p), look in rows.items() if p in shown}
    legend(figure, [*method_entries(rows, counted).items(), *marks.items()], columns=3)
    return figure


def _area(millions: float) -> float:
    return 28 + 3 * millions


def _lines_without_networks(axis: Axes, points: pd.DataFrame, rows: Rows) -> None:
    plain = points[~(points["macs"] > 0) & points["dice"].notna()]
    best = plain.sort_values("dice").groupby("method", sort=False).tail(1)
    for values in best.to_dict("records"):
        look = rows[str(values["method"]), str(values["protocol"])]
        if not look.baseline:
            continue
        axis.axhline(values["dice"], color=look.colour, linestyle="--", linewidth=0.9, zorder=1)
        axis.annotate(
            f"{values['method']} · {values['protocol']}",
            (0.004, values["dice"]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            fontsize=7,
        )


def _paper_points(cohort: str, structure: str) -> dict[str, tuple[float, float]]:
    group = paper.paper_cohort(cohort)
    if group is None:
        return {}
    values = paper.printed("Table II", group)
    return {
        name: (gmacs, values[name][structure, "dice"].value)
        for name, gmacs in PAPER_GMACS.items()
        if (structure, "dice") in values[name]
    }


def _size_legend(axis: Axes) -> None:
    handles = [
        Line2D([], [], linestyle="", marker="o", color="#9a9a9a", markersize=_area(millions) ** 0.5)
        for millions in _REFERENCE_BUBBLES
    ]
    labels = [f"{millions} M parameters" for millions in _REFERENCE_BUBBLES]
    axis.legend(handles, labels, loc="lower right", fontsize=7, labelspacing=1.9, borderpad=0.8)
