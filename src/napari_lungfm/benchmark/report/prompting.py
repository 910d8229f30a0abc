"""What prompts cost and how exact they must be: Dice over prompts, and over jitter."""

import re

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from napari_lungfm.benchmark.report.canvas import legend, panels, plain_log
from napari_lungfm.benchmark.report.figures import Rows, method_entries
from napari_lungfm.evaluation.prompt_protocols import NO_PROMPTS

_JITTER = re.compile(r"^(.*?)\+jitter-(\d+)(.*)$")
#: Protocols of one kind of prompt, which differ in how many there are.
_FAMILIES = {
    "boxes": re.compile(r"box-(one|every-\d+|every-slice)"),
    "points": re.compile(r"point-(one|every-slice)"),
}


def jitter_points(summary: pd.DataFrame) -> pd.DataFrame:
    """Return what an inexact hand costs.

    Parameters
    ----------
    summary
        `summary.summarise` of the main structure.

    Returns
    -------
    DataFrame
        ``cohort``, ``protocol`` (without jitter), ``jitter_px`` (0 for the exact hand),
        ``method``, ``dice``, ``dice_low``, ``dice_high``, ``n``. Only protocols that were run
        with some jitter.
    """
    parts = [_JITTER.match(str(name)) for name in summary["protocol"]]
    points = summary.assign(
        jitter_px=[int(part[2]) if part else 0 for part in parts],
        protocol=[part[1] + part[3] if part else str(name)
                  for part, name in zip(parts, summary["protocol"], strict=True)],
        n=summary["dice_n"],
    )  # fmt: skip
    keys = ["cohort", "protocol", "jitter_px", "method", "dice", "dice_low", "dice_high", "n"]
    moved = points.loc[points["jitter_px"] > 0, ["cohort", "protocol", "method"]]
    wanted = points.merge(moved.drop_duplicates(), on=["cohort", "protocol", "method"])
    return wanted[keys].sort_values(["cohort", "protocol", "method", "jitter_px"], kind="stable")


def prompt_points(summary: pd.DataFrame) -> pd.DataFrame:
    """Return Dice by the mean number of prompts, for kinds of prompts that vary in number.

    Returns
    -------
    DataFrame
        ``cohort``, ``family`` (boxes or points), ``protocol``, ``method``, ``prompts``,
        ``dice``, ``dice_low``, ``dice_high``, ``n``.
    """
    names = summary["protocol"].astype(str)
    family = names.map(
        lambda name: next((f for f, form in _FAMILIES.items() if form.fullmatch(name)), "")
    )
    points = summary.assign(family=family, prompts=summary["n_prompts"], n=summary["dice_n"])
    points = points[(points["family"] != "") & (points["protocol"] != NO_PROMPTS)]
    several = points.groupby(["cohort", "family"])["protocol"].transform("nunique") > 1
    keys = ["cohort", "family", "protocol", "method", "prompts"]
    return points.loc[several, [*keys, "dice", "dice_low", "dice_high", "n"]].sort_values(
        ["cohort", "family", "method", "prompts"], kind="stable"
    )


def jitter_figure(points: pd.DataFrame, rows: Rows) -> Figure | None:
    """Mean Dice over the jitter in pixels, a panel per protocol; bands are 95 % CIs."""
    if points.empty:
        return None
    figure = _curves(points, "protocol", "jitter_px", "Jitter of the prompts (px)", rows)
    figure.axes[0].xaxis.set_major_locator(FixedLocator(sorted(set(points["jitter_px"].tolist()))))
    return figure


def prompt_figure(points: pd.DataFrame, rows: Rows) -> Figure | None:
    """Mean Dice over the mean number of prompts (log scale), a panel for boxes and for points."""
    if points.empty:
        return None
    return _curves(points, "family", "prompts", "Prompts per case (log scale)", rows)


def _curves(points: pd.DataFrame, panel: str, x: str, label: str, rows: Rows) -> Figure:
    names = [str(name) for name in dict.fromkeys(points[panel])]
    figure, axes = panels(names, (label, "Mean Dice"), width=10.6, height=2.9, most=3)
    entries = method_entries(rows, points)
    for axis, name in zip(axes, names, strict=True):
        for method, own in points[points[panel] == name].groupby("method", sort=False):
            look = entries[str(method)]
            place = own[x].to_numpy(dtype=float)
            low, high = (own[f"dice_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
            axis.fill_between(place, low, high, color=look.colour, alpha=0.12, linewidth=0)
            axis.plot(
                place,
                own["dice"].to_numpy(dtype=float),
                color=look.colour,
                marker="o",
                markersize=3.5,
                linewidth=1.3,
            )
    axes[0].set_ylim(-0.03, 1.03)  # all panels share their axes
    if x == "prompts":
        plain_log(axes[0])
    legend(figure, list(entries.items()))
    return figure
