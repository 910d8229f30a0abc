"""What corrections bought: Dice after each interaction of a simulated user who corrects."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report.canvas import legend, panels
from napari_lungfm.benchmark.report.figures import Rows, is_row, method_entries, rows_of
from napari_lungfm.benchmark.report.scores import TUMOUR
from napari_lungfm.evaluation.corrections import DICE_TARGETS, effort
from napari_lungfm.evaluation.prompt_protocols import parse_protocol
from napari_lungfm.evaluation.statistics import mean_intervals

_ROW = ["cohort", "protocol", "method"]
_CASE = [*_ROW, "case"]


def case_effort(records: Sequence[Record], structure: str = TUMOUR) -> pd.DataFrame:
    """Return what interactions bought, one row per case, method and protocol with corrections.

    A unit that failed counts as an empty prediction after every interaction, as in the scores;
    a unit whose case could not be read is left out. Seeds are averaged; of the interactions
    needed, the median is taken.

    Returns
    -------
    DataFrame
        ``cohort``, ``protocol``, ``method``, ``case``; ``dice_1``, ``dice_2``, ... (after the
        first prompts and after each correction), ``area``; for each target ``reached_0.80`` (0
        or 1, a share over seeds) and ``needed_0.80`` (interactions; infinite if not reached).
        Empty where no protocol has corrections.
    """
    rows = []
    for record in records:
        allowed = _allowed(record.key.protocol)
        for result in record.structures if allowed else ():
            if result.structure == structure and result.dice is not None:
                looks = [look.dice for look in result.interactions]
                failed = record.status == "failed" or not looks
                rows.append(_unit_row(record, [0.0] if failed else looks, allowed))
    if not rows:
        return pd.DataFrame(columns=_CASE)
    grouped = pd.DataFrame(rows).groupby(_CASE, sort=False)
    cases = grouped.mean()
    for target in DICE_TARGETS:
        cases[_needed(target)] = grouped[_needed(target)].median()
    cases = cases.reset_index()
    # A plan goes through the protocols of a method in turn; tables are grouped by protocol.
    order = cases[_ROW].apply(lambda column: pd.factorize(column)[0])
    return cases.loc[order.sort_values(_ROW, kind="stable").index].reset_index(drop=True)


def _allowed(protocol: str) -> int:
    try:
        return parse_protocol(protocol).corrections
    except UsageError:  # automatic methods take no prompts; their protocol is only a name
        return 0


def _unit_row(record: Record, dice: Sequence[float], allowed: int) -> dict[str, Any]:
    found = effort(dice, allowed)
    row: dict[str, Any] = {name: getattr(record.key, name) for name in _CASE}
    row |= {f"dice_{i}": value for i, value in enumerate(found.dice, 1)}
    row["area"] = found.area
    for target, needed in found.to_reach.items():
        row[_reached(target)] = float(needed is not None)
        row[_needed(target)] = np.inf if needed is None else float(needed)
    return row


def _reached(target: float) -> str:
    return f"reached_{target:.2f}"


def _needed(target: float) -> str:
    return f"needed_{target:.2f}"


def curves(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the mean Dice after each interaction with its 95 % interval.

    Parameters
    ----------
    cases
        What `case_effort` returned.

    Returns
    -------
    DataFrame
        ``cohort``, ``protocol``, ``method``, ``interaction`` (1 = the first prompts), ``dice``,
        ``dice_low``, ``dice_high``, ``n`` (cases).
    """
    rows: list[dict[str, Any]] = []
    for names, group in cases.groupby(_ROW, sort=False):
        looks = [c for c in group.columns if c.startswith("dice_")]
        found = mean_intervals(group[looks].to_numpy(dtype=float))
        for name, one in zip(looks, found.itertuples(index=False), strict=True):
            if one.n:
                limits = {"dice": one.mean, "dice_low": one.low, "dice_high": one.high, "n": one.n}
                row = dict(zip(_ROW, names, strict=True))
                rows.append({**row, "interaction": int(name[5:]), **limits})
    return pd.DataFrame(rows, columns=[*_ROW, "interaction", "dice", "dice_low", "dice_high", "n"])


def effort_rows(cases: pd.DataFrame, cohort: str) -> list[dict[str, Any]]:
    """Return the table of one cohort: one entry per method and protocol with corrections.

    Each has ``method``, ``protocol``, ``n`` (cases), the means ``first``, ``last`` and ``area``,
    and ``targets``: per Dice target the ``share`` of cases that reached it and the median
    ``needed`` interactions over all cases, infinite where less than half of them reached it.
    ``allowed`` is the number of interactions there could be.
    """
    rows = []
    own = cases[cases["cohort"] == cohort]
    for (protocol, method), group in own.groupby(_ROW[1:], sort=False):
        allowed = _allowed(str(protocol)) + 1
        targets = [
            {
                "target": target,
                "share": float(group[_reached(target)].mean()),
                "needed": float(group[_needed(target)].median()),
            }
            for target in DICE_TARGETS
        ]
        means = {
            name: float(group[column].mean())
            for name, column in (("first", "dice_1"), ("last", f"dice_{allowed}"), ("area", "area"))
        }
        row = {"method": method, "protocol": protocol, "n": len(group), "allowed": allowed}
        rows.append({**row, **means, "targets": targets})
    return rows


def curve_figure(curve: pd.DataFrame, rows: Rows) -> Figure:
    """Mean Dice over the number of interactions, one panel per protocol; bands are 95 % CIs."""
    protocols = [str(p) for p in dict.fromkeys(curve["protocol"])]
    labels = ("Interactions (1 = first prompts)", "Mean Dice")
    figure, axes = panels(protocols, labels, width=10.6, height=2.8, most=3)
    for axis, protocol in zip(axes, protocols, strict=True):
        for row in rows_of(rows, protocol, curve):
            own = curve[is_row(curve, row)].sort_values("interaction")
            x = own["interaction"].to_numpy(dtype=float)
            low, mean, high = (
                own[name].to_numpy(dtype=float) for name in ("dice_low", "dice", "dice_high")
            )
            look = rows[row]
            axis.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
            axis.plot(x, mean, color=look.colour, marker=look.marker, markersize=3.5, linewidth=1.3)
    axes[0].set_ylim(-0.03, 1.03)  # all panels share their axes
    axes[0].set_xticks(range(1, int(curve["interaction"].max()) + 1))
    legend(figure, list(method_entries(rows, curve).items()))
    return figure
