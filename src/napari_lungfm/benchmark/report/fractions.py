"""Fine-tuned models by the part of the training patients that they saw: Tables III and IV."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from napari_lungfm.benchmark.report import paper
from napari_lungfm.benchmark.report.canvas import INK, legend, panels
from napari_lungfm.benchmark.report.columns import number, p_value
from napari_lungfm.benchmark.report.style import PALETTE, Look
from napari_lungfm.benchmark.states import training_percent
from napari_lungfm.evaluation.statistics import compare_all

LEVEL = 0.05
_CURVE = ["cohort", "model", "label", "protocol"]


@dataclass(frozen=True, eq=False)
class Curve:
    """One model under one protocol at several parts of the training patients.

    Parameters
    ----------
    cohort, model, label, protocol
        What it is; the label is that of the fine-tuned methods, empty without one.
    table
        Its rows in the form of the paper's tables, by part.
    points
        A row per part of the main structure's Dice: ``percent``, ``method``, ``dice``,
        ``dice_low``, ``dice_high`` (95 % over patients), ``n``, and over seeds ``n_seeds``,
        ``seeds_sd``, ``seeds_low``, ``seeds_high`` (95 %, Student's t; NaN for one seed).
    seeds
        A row per part and seed: ``percent``, ``seed``, ``dice``.
    pairs
        `compare_all` of the parts, cases paired, with ``mean_difference``.
    """

    cohort: str
    model: str
    label: str
    protocol: str
    table: paper.Table
    points: pd.DataFrame
    seeds: pd.DataFrame
    pairs: pd.DataFrame

    @property
    def title(self) -> str:
        """Model (or label) and protocol."""
        return f"{self.label or self.model} · {self.protocol}"

    @property
    def noise(self) -> float:
        """Largest difference of two means that seeds alone make in 95 of 100 cases; NaN if unknown.

        1.96·SD·√(2/k), with the standard deviation of the k seeds' means pooled over the parts.
        """
        several = self.points[self.points["n_seeds"] > 1]
        if several.empty:
            return float("nan")
        free = several["n_seeds"] - 1
        pooled = float(np.sqrt((several["seeds_sd"] ** 2 * free).sum() / free.sum()))
        return 1.96 * pooled * float(np.sqrt(2 / several["n_seeds"].min()))

    @property
    def verdict(self) -> str:
        """Say whether differences between the parts are larger than the noise."""
        pairs = self.pairs[self.pairs["n"] > 0]
        if pairs.empty:
            return "No two parts were scored on the same cases: nothing can be compared."
        largest = pairs.iloc[int(pairs["mean_difference"].abs().argmax())]
        text = (
            f"Largest difference of two means: {number(abs(largest['mean_difference']), 3)} Dice "
            f"({largest['method_a']} and {largest['method_b']}). "
        )
        shown = pairs[pairs["p_holm"] <= LEVEL]
        text += (
            f"{len(shown)} of {len(pairs)} pairs differ significantly over {int(pairs['n'].max())} "
            f"paired cases (Wilcoxon, Holm; smallest p {p_value(float(pairs['p_holm'].min()))}). "
        )
        if np.isnan(self.noise):
            real = len(shown) > 0
            text += "With one seed nothing is known of how much repeating the training changes. "
        else:
            above = shown[shown["mean_difference"].abs() > self.noise]
            real = len(above) > 0
            text += (
                f"Means of so many seeds differ by up to {number(self.noise, 3)} by chance; "
                f"{len(above)} of the significant differences are larger. "
            )
        cases = "the spread of the cases" if np.isnan(self.noise) else "the noise"
        return text + (
            f"So differences between the parts are larger than {cases}."
            if real
            else f"So no difference between the parts is larger than {cases}."
        )


def curves(summary: pd.DataFrame, cases: pd.DataFrame, units: pd.DataFrame) -> list[Curve]:
    """Return the curves of a run: every fine-tuned model with its zero-shot row as 0 %.

    Parameters
    ----------
    summary
        `summary.summarise`.
    cases, units
        `scores.case_scores` and `scores.scores_of` of the main structure.
    """
    percent = summary["state"].map(lambda state: training_percent(str(state)))
    tuned = summary[percent.notna() & (percent > 0)].fillna({"label": ""})
    found = []
    for names, group in tuned.groupby(_CURVE, sort=False):
        cohort, model, label, protocol = (str(name) for name in names)
        methods = [str(name) for name in dict.fromkeys(group["method"])]
        zero = _zero_shot(summary, cohort, model, label, protocol)
        found.append(
            _curve(summary, cases, units, (cohort, model, label, protocol), [*zero, *methods])
        )
    return found


def _zero_shot(
    summary: pd.DataFrame, cohort: str, model: str, label: str, protocol: str
) -> list[str]:
    """Title of the same model as it was published; of several the one with the same label."""
    there = summary[
        (summary["cohort"] == cohort)
        & (summary["model"] == model)
        & (summary["protocol"] == protocol)
        & (summary["state"] == "zero-shot")
    ].fillna({"label": ""})
    order = there["label"].map({label: 0, "": 1}).fillna(2).sort_values(kind="stable")
    return [str(name) for name in there.loc[order.index, "method"].iloc[:1]]


def _curve(
    summary: pd.DataFrame,
    cases: pd.DataFrame,
    units: pd.DataFrame,
    names: tuple[str, str, str, str],
    methods: list[str],
) -> Curve:
    cohort, protocol = names[0], names[3]

    def own(frame: pd.DataFrame) -> pd.DataFrame:
        wanted = frame["cohort"].eq(cohort) & frame["protocol"].eq(protocol)
        return frame[wanted & frame["method"].isin(methods)]

    part = own(summary)
    of_method = {
        str(m): training_percent(str(s)) for m, s in zip(part["method"], part["state"], strict=True)
    }
    order = sorted(methods, key=lambda method: of_method[method] or 0.0)
    seeds = pd.DataFrame(own(units).groupby(["method", "seed"], as_index=False)["dice"].mean())
    seeds["percent"] = seeds["method"].map(of_method).astype(float)
    points = own(summary)[lambda f: f["structure"].eq(cases["structure"].iloc[0])].copy()
    points["percent"] = points["method"].map(of_method).astype(float)
    points["n"] = points["dice_n"]
    points = points.merge(over_seeds(seeds), on="method", how="left").sort_values("percent")
    keys = ["percent", "method", "dice", "dice_low", "dice_high", "n"]
    spread = ["n_seeds", "seeds_sd", "seeds_low", "seeds_high"]
    return Curve(
        *names,
        _table(part, of_method, order, names),
        points[[*keys, *spread]].reset_index(drop=True),
        seeds[["percent", "seed", "dice"]].sort_values(["percent", "seed"]).reset_index(drop=True),
        _pairs(own(cases), order, of_method),
    )


def over_seeds(seeds: pd.DataFrame) -> pd.DataFrame:
    """Return how far the fits of each method differ that only their seed tells apart.

    Parameters
    ----------
    seeds
        ``method`` and ``dice``, a row per seed.

    Returns
    -------
    DataFrame
        ``method``, ``n_seeds``, ``seeds_sd``, and ``seeds_low`` and ``seeds_high`` (95 %,
        Student's t); NaN for one seed.
    """
    rows = []
    for method, group in seeds.groupby("method", sort=False):
        values = group["dice"].dropna().to_numpy(dtype=float)
        k = len(values)
        sd = float(values.std(ddof=1)) if k > 1 else float("nan")
        half = float(stats.t.ppf(0.975, k - 1)) * sd / np.sqrt(k) if k > 1 else float("nan")
        mean = float(values.mean()) if k else float("nan")
        rows.append((method, k, sd, mean - half, mean + half))
    return pd.DataFrame(rows, columns=["method", "n_seeds", "seeds_sd", "seeds_low", "seeds_high"])


def _pairs(
    cases: pd.DataFrame, order: list[str], percents: dict[str, float | None]
) -> pd.DataFrame:
    table = cases.pivot_table(
        index="method", columns="case", values="dice", sort=False, dropna=False
    ).reindex(order)
    table.index = pd.Index([f"{percents[method] or 0:g} %" for method in order])
    pairs = compare_all(table)
    differences = [
        float((table.loc[a] - table.loc[b]).mean())
        for a, b in zip(pairs["method_a"], pairs["method_b"], strict=True)
    ]
    return pairs.assign(mean_difference=differences)


def _table(
    part: pd.DataFrame,
    percents: dict[str, float | None],
    order: list[str],
    names: tuple[str, str, str, str],
) -> paper.Table:
    cohort, model, label, protocol = names
    group = paper.paper_cohort(cohort)
    prompt = paper.PROMPTS.get(protocol)
    values = {}
    if group is not None and prompt is not None and model == paper.FRACTIONS_MODEL:
        values = paper.printed(paper.FRACTION_TABLES[group], prompt)
    ours = {row.title: row for row in paper.our_rows(part)}
    rows: list[paper.Row] = []
    for method in order:
        percent = percents[method] or 0.0
        name = f"{percent:g} %"
        cells = values.get(name, {})
        row = paper.Row(
            name,
            protocol,
            ours[method].ours,
            cells,
            name if cells else "",
            ours[method].skill,
            percent,
        )
        rows.append(row)
    there = {row.title for row in rows}
    rows += [
        paper.Row(name, "", paper=cells, paper_row=name, percent=float(name.split()[0]))
        for name, cells in values.items()
        if name not in there
    ]
    rows.sort(key=lambda row: row.percent or 0.0)
    title = paper.FRACTION_TABLES.get(group or "", "") if values else ""
    title = title or f"Training fractions of {label or model}"
    marked = tuple(replace(row) for row in paper.marked(rows))
    return paper.Table(title, cohort, prompt or protocol, marked)


def curves_frame(found: Sequence[Curve]) -> pd.DataFrame:
    """Return the points of all curves as one table."""
    columns = ["cohort", "model", "label", "protocol", "percent", "method", "dice"]
    if not found:
        return pd.DataFrame(columns=columns)
    return pd.concat(
        [
            curve.points.assign(**{name: getattr(curve, name) for name in _CURVE})[
                [*_CURVE, *curve.points.columns]
            ]
            for curve in found
        ],
        ignore_index=True,
    )


def curve_figure(found: Sequence[Curve], structure: str) -> Figure | None:
    """Dice over the part of the training patients, a panel per protocol; the paper's beside it.

    Bars are 95 % intervals over patients, small dots the means of single seeds. ``None`` without
    curves.
    """
    if not found:
        return None
    protocols = list(dict.fromkeys(curve.protocol for curve in found))
    labels = ("Training patients (%)", f"Mean Dice, {structure}")
    figure, axes = panels(protocols, labels, width=10.6, height=3.0, most=3)
    names = list(dict.fromkeys(curve.label or curve.model for curve in found))
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    printed = False
    for axis, protocol in zip(axes, protocols, strict=True):
        for curve in (c for c in found if c.protocol == protocol):
            colour, points = colours[curve.label or curve.model], curve.points
            x = points["percent"].to_numpy(dtype=float)
            y = points["dice"].to_numpy(dtype=float)
            limits = points[["dice_low", "dice_high"]].to_numpy(dtype=float).T
            bars = np.nan_to_num(np.abs(limits - y))
            axis.errorbar(x, y, bars, color=colour, marker="o", markersize=4, capsize=2)
            axis.plot(
                curve.seeds["percent"] + 1.2, curve.seeds["dice"], ".", color=colour, alpha=0.5
            )
            theirs = {
                row.percent or 0.0: row.paper[structure, "dice"].value
                for row in curve.table.rows
                if (structure, "dice") in row.paper
            }
            if theirs:
                printed = True
                axis.plot(
                    list(theirs), list(theirs.values()), "--", color=INK, marker="o",
                    markerfacecolor="none", markersize=5, linewidth=1.0,
                )  # fmt: skip
    axes[0].set_xticks([0, 25, 50, 75, 100])  # all panels share it
    entries = [(name, Look(colour, "", "o")) for name, colour in colours.items()]
    entries += [("the paper's MedSAM 2, as printed", Look(INK, "", "o"))] if printed else []
    legend(figure, entries)
    return figure
