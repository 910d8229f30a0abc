"""The plots of a report."""

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from napari_lungfm.benchmark.records import Record, StructureResult
from napari_lungfm.benchmark.report.canvas import INK, Margins, arrange, legend, panels, plain_log
from napari_lungfm.benchmark.report.scores import TUMOUR
from napari_lungfm.benchmark.report.style import Look, looks

Rows = dict[tuple[str, str], Look]
#: Bins of the position along the structure, from its first slice (0) to its last (1).
POSITION_BINS = 11
#: More points than this are drawn as pixels inside the SVG, which stays small that way.
_MANY_POINTS = 3000
#: A legend of more entries than this is split into methods and protocols.
_MANY_ENTRIES = 15


def row_looks(summary: pd.DataFrame) -> Rows:
    """Give every (method, protocol) of a run its look, the same in all figures."""
    pairs = summary[["method", "protocol"]].drop_duplicates()
    models = dict(zip(summary["method"], summary["model"], strict=True))
    return looks([(str(m), str(p)) for m, p in pairs.itertuples(index=False)], models)


def dice_by_method(cases: pd.DataFrame, summary: pd.DataFrame, rows: Rows) -> Figure:
    """Dice of every case as a strip, with mean and 95 % interval, one band per protocol.

    Parameters
    ----------
    cases
        `scores.case_scores` of one cohort and structure.
    summary
        `summarise` of the same.
    rows
        The looks.
    """
    order = [(str(m), str(p)) for m, p in summary[["method", "protocol"]].itertuples(index=False)]
    protocols = list(dict.fromkeys(p for _, p in order))
    sizes = [sum(p == name for _, p in order) for name in protocols]
    gap = Margins().between_rows
    height = 0.9 + 0.25 * len(order) + gap * (len(protocols) - 1)
    figure = Figure(figsize=(10.6, height))
    axes = figure.subplots(
        len(protocols), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": sizes}
    ).flat
    longest = max((len(method) for method, _ in order), default=0)
    arrange(figure, Margins(left=0.3 + 0.072 * longest), rows=len(protocols))
    cases_of, means = by_row(cases), by_row(summary)
    for axis, protocol in zip(axes, protocols, strict=True):
        own = [row for row in order if row[1] == protocol]
        _strips(axis, own, cases_of, means, rows)
        axis.set_yticks(range(len(own)), [m for m, _ in own], parse_math=False)
        axis.set_ylim(len(own) - 0.5, -0.5)
        axis.set_title(protocol, parse_math=False)
        axis.grid(visible=False, axis="y")
    axes[0].set_xlim(-0.02, 1.02)  # all panels share it
    axes[len(protocols) - 1].set_xlabel("Dice (dots: cases; diamond and bar: mean, 95 % CI)")
    return figure


def _strips(
    axis: Any,
    order: list[tuple[str, str]],
    cases: dict[tuple[str, str], pd.DataFrame],
    summary: dict[tuple[str, str], pd.DataFrame],
    rows: Rows,
) -> None:
    """Draw the methods of a panel: one collection each of dots, bars and diamonds."""
    dots, colours = [], []
    for y, row in enumerate(order):
        dice = cases[row]["dice"].dropna().to_numpy(dtype=float)
        # Dots spread by their rank, not by chance: the figure is the same every time.
        spread = (np.arange(len(dice)) * 0.618034 % 1 - 0.5) * 0.5
        dots.append(np.stack([dice, y + spread], axis=1))
        colours += [rows[row].colour] * len(dice)
    points = np.concatenate(dots)
    many = len(points) > _MANY_POINTS
    axis.scatter(*points.T, s=11, c=colours, alpha=0.65, linewidths=0, rasterized=many, zorder=2)
    values = pd.concat([summary[row].iloc[:1] for row in order])
    places = np.arange(len(order))
    axis.hlines(places, values["dice_low"], values["dice_high"], colors=INK, linewidth=1.6)
    looks_of = [rows[row].colour for row in order]
    axis.scatter(
        values["dice"], places, s=30, marker="D", c=looks_of, edgecolors=INK, linewidths=0.9,
        zorder=4,
    )  # fmt: skip


def by_row(frame: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Split a frame into the lines of each (method, protocol)."""
    return {
        (str(m), str(p)): own for (m, p), own in frame.groupby(["method", "protocol"], sort=False)
    }


def dice_by_volume(cases: pd.DataFrame, rows: Rows) -> Figure | None:
    """Dice over the reference volume of the structure (log scale), one panel per protocol.

    ``None`` where no case has both.
    """
    cases = cases[cases["dice"].notna() & (cases["reference_volume_ml"] > 0)]
    if cases.empty:
        return None
    protocols = [str(p) for p in dict.fromkeys(cases["protocol"])]
    labels = ("Volume of the reference (mL, log scale)", "Dice")
    figure, axes = panels(protocols, labels, width=10.6, height=2.6, most=3)
    many = len(cases) > _MANY_POINTS
    cases_of = by_row(cases)
    for axis, protocol in zip(axes, protocols, strict=True):
        for row in rows_of(rows, protocol, cases):
            own = cases_of[row]
            look = rows[row]
            axis.plot(
                own["reference_volume_ml"].to_numpy(dtype=float),
                own["dice"].to_numpy(dtype=float),
                linestyle="",
                marker=look.marker,
                markersize=4,
                markeredgewidth=0,
                alpha=0.75,
                color=look.colour,
                rasterized=many,
            )
    axes[0].set_ylim(-0.03, 1.03)  # all panels share their axes
    plain_log(axes[0])
    legend(figure, list(method_entries(rows, cases).items()))
    return figure


def slice_profile(records: Iterable[Record], structure: str) -> pd.DataFrame:
    """Return the mean slice Dice along the structure; see `SliceProfiles.frame`."""
    profiles = SliceProfiles()
    for record in records:
        profiles.add(record)
    return profiles.frame(structure)


class SliceProfiles:
    """Gathers Dice along the structures, record by record, so that no slices need be kept.

    The position runs from 0 (first slice of the reference) to 1 (last slice) and falls into
    `POSITION_BINS` bins. Once a tumour was seen, other structures are left out: it is the one
    that reports show.
    """

    def __init__(self) -> None:
        self._units: dict[str, list[tuple[str, str, str, str]]] = {}
        self._sums: dict[str, list[Any]] = {}

    def add(self, record: Record) -> None:
        """Count the slices of a record."""
        key = record.key
        for result in record.structures:
            if result.structure != TUMOUR and TUMOUR in self._units:
                continue
            bins, dice = _positions(result)
            sums = np.bincount(bins, weights=dice, minlength=POSITION_BINS)
            counts = np.bincount(bins, minlength=POSITION_BINS)
            unit = (key.cohort, key.protocol, key.method, key.case)
            self._units.setdefault(result.structure, []).append(unit)
            self._sums.setdefault(result.structure, []).append(np.stack([sums, counts]))

    def frame(self, structure: str) -> pd.DataFrame:
        """Return the means of a structure.

        Each case counts once per bin; wrongly added slices beyond the ends are left out (they
        are counted in the tables).

        Returns
        -------
        DataFrame
            ``cohort``, ``protocol``, ``method``, ``bin``, ``dice``.
        """
        keys = ["cohort", "protocol", "method", "bin"]
        units = pd.DataFrame(self._units.get(structure, []), columns=[*keys[:3], "case"])
        if units.empty:
            return pd.DataFrame(columns=[*keys, "dice"])
        # One row per unit and bin: sums of Dice and numbers of slices.
        flat = np.stack(self._sums[structure])
        rows = units.loc[units.index.repeat(POSITION_BINS)].reset_index(drop=True)
        rows["bin"] = np.tile(np.arange(POSITION_BINS), len(units))
        rows["sum"], rows["count"] = flat[:, 0].ravel(), flat[:, 1].ravel()
        cases = rows.groupby([*keys, "case"], sort=False, as_index=False)[["sum", "count"]].sum()
        cases = cases[cases["count"] > 0]
        cases["dice"] = cases["sum"] / cases["count"]
        return pd.DataFrame(cases.groupby(keys, sort=False, as_index=False)["dice"].mean())


def _positions(result: StructureResult) -> tuple[Any, Any]:
    """Bin and Dice of the slices between the ends of the reference."""
    pairs = [(s["z"], s["dice"]) if isinstance(s, dict) else (s.z, s.dice) for s in result.slices]
    table = np.array(sorted(pairs), dtype=float).reshape(-1, 2)
    last = len(table) - result.slices_beyond_high
    # Slices are listed where either mask is: those beyond the ends are the outermost ones.
    z, dice = table[result.slices_beyond_low : last].T
    if len(z) < 2:
        return np.full(len(z), (POSITION_BINS - 1) // 2), dice
    share = (z - z[0]) / (z[-1] - z[0])
    return np.rint(share * (POSITION_BINS - 1)).astype(int), dice


def dice_along_axis(profile: pd.DataFrame, rows: Rows) -> Figure:
    """Mean slice Dice along the structure, one panel per protocol."""
    protocols = [str(p) for p in dict.fromkeys(profile["protocol"])]
    labels = ("Slice of the reference", "Slice Dice")
    figure, axes = panels(protocols, labels, width=10.6, height=2.6, most=3)
    profile_of = by_row(profile)
    for axis, protocol in zip(axes, protocols, strict=True):
        for row in rows_of(rows, protocol, profile):
            own = profile_of[row].sort_values("bin")
            look = rows[row]
            axis.plot(
                own["bin"].to_numpy(dtype=float) / (POSITION_BINS - 1),
                own["dice"].to_numpy(dtype=float),
                color=look.colour,
                marker=look.marker,
                markersize=3.5,
                linewidth=1.3,
            )
    axes[0].set_ylim(-0.03, 1.03)
    axes[0].set_xticks([0, 0.5, 1], ["first", "middle", "last"])
    legend(figure, list(method_entries(rows, profile).items()))
    return figure


def cost(summary: pd.DataFrame, parameters: dict[str, float], rows: Rows) -> Figure | None:
    """Mean Dice over seconds per case; the area of a bubble grows with the parameters."""
    known = summary.dropna(subset=["seconds", "dice"])
    known = known[known["seconds"] > 0]
    if known.empty:
        return None
    figure = Figure(figsize=(10.6, 3.6))
    axis = figure.subplots()
    arrange(figure, Margins(top=0.12))
    for values in known.itertuples(index=False):
        row = (str(values.method), str(values.protocol))
        millions = parameters.get(row[0], 0.0) / 1e6
        axis.scatter(
            float(cast("float", values.seconds)),
            float(cast("float", values.dice)),
            s=28 + 3 * millions,
            color=rows[row].colour,
            marker=rows[row].marker,
            alpha=0.8,
            edgecolors=INK,
            linewidths=0.5,
        )
    plain_log(axis)
    axis.set_xlabel("Seconds per case (log scale)")
    axis.set_ylabel("Mean Dice")
    shown = {(str(v.method), str(v.protocol)) for v in known.itertuples(index=False)}
    entries = [(f"{m} · {p}", look) for (m, p), look in rows.items() if (m, p) in shown]
    if len(entries) > _MANY_ENTRIES:
        # Colour stands for the method and the mark for the protocol.
        marks = {p: Look(INK, "", look.marker) for (_, p), look in rows.items()}
        entries = [*method_entries(rows, known).items(), *marks.items()]
    legend(figure, entries, columns=3)
    return figure


def is_row(frame: pd.DataFrame, row: tuple[str, str]) -> "pd.Series[bool]":
    """Say which lines of a frame belong to a (method, protocol)."""
    return (frame["method"] == row[0]) & (frame["protocol"] == row[1])


def rows_of(rows: Rows, protocol: str, frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Rows of a panel, baselines first so that models are drawn over them."""
    there = set(zip(frame["method"], frame["protocol"], strict=True))
    own = [row for row in rows if row[1] == protocol and row in there]
    return sorted(own, key=lambda row: not rows[row].baseline)


def method_entries(rows: Rows, frame: pd.DataFrame) -> dict[str, Look]:
    """Return the legend: every method of a frame once, in its colour."""
    there = set(frame["method"])
    entries: dict[str, Look] = {}
    for (method, _), look in rows.items():
        if method in there:
            entries.setdefault(method, Look(look.colour, "", "o"))
    return entries
