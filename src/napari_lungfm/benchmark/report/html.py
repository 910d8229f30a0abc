"""The page: one file that needs nothing else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report import corrections, paper_text, zhu
from napari_lungfm.benchmark.report.absent import absent_line, absent_units
from napari_lungfm.benchmark.report.canvas import inline_svg
from napari_lungfm.benchmark.report.columns import COLUMNS, DASH, mark_frame, number, p_value
from napari_lungfm.benchmark.report.comparisons import LEVEL, Family, matrix
from napari_lungfm.benchmark.report.content import Content
from napari_lungfm.benchmark.report.fractions import Curve
from napari_lungfm.benchmark.report.header import CohortNote
from napari_lungfm.benchmark.report.overlays import WINDOWS, CaseOverlay
from napari_lungfm.benchmark.report.paper import Table
from napari_lungfm.benchmark.report.remarks import failure_kinds, remarks
from napari_lungfm.benchmark.report.scores import in_order
from napari_lungfm.benchmark.report.setup import cohort_lines, model_lines
from napari_lungfm.benchmark.report.style import REFERENCE_COLOUR, Look
from napari_lungfm.benchmark.report.subgroups import subgroup_tables
from napari_lungfm.benchmark.report.tables import main_rows, paper_rows
from napari_lungfm.benchmark.report.weights import weights_frame
from napari_lungfm.evaluation.prompt_protocols import NO_PROMPTS

Rows = Mapping[tuple[str, str], Look]
#: Pairs shown per family; all of them are in comparisons.csv.
MOST_PAIRS = 120


@dataclass(frozen=True)
class Plot:
    """A figure on the page: prefix of its ids, SVG or image, cohort, title, caption and kind."""

    name: str
    svg: str
    cohort: str
    title: str
    caption: str
    kind: str


@dataclass(frozen=True)
class Page:
    """Everything that the page shows."""

    content: Content
    families: Sequence[Family]
    plots: Sequence[Plot]
    overlays: Sequence[CaseOverlay]
    overlay_rule: str


def render(page: Page) -> str:
    """Return the page as HTML."""
    environment = Environment(
        loader=PackageLoader("napari_lungfm.benchmark.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["num"] = _number_or_dash
    environment.filters["pval"] = p_value
    template = environment.get_template("report.html.j2")
    content = page.content
    marked = mark_frame(content.summary)
    return template.render(
        header=content.header,
        columns=COLUMNS,
        level=LEVEL,
        structure=content.structure,
        cohorts=[_cohort(page, note, marked) for note in content.header.cohorts],
        models=model_lines(content.records),
        weights=weights_frame(content.records).to_dict("records"),
        cohort_lines=cohort_lines(
            content.header.cohorts, content.units, content.records, content.config_text
        ),
        paper_heads=paper_text.HEADS,
        paper_notes=paper_text.NOTES,
        paper_title=paper_text.title,
        units=[*_unit_rows(content.units, content.structure), *_absent_rows(content)],
        damaged=content.damaged,
        failures=[record for record in content.records if record.status == "failed"],
        failure_kinds=failure_kinds(content.records),
        overlay_rule=page.overlay_rule,
        rows=_row_list(content.looks),
        reference_colour=REFERENCE_COLOUR,
        config_text=content.config_text,
        command=content.command,
        seeds=sorted({record.key.seed for record in content.records}),
        dash=DASH,
        most_pairs=MOST_PAIRS,
        zhu_explanation=zhu.EXPLANATION,
        zhu_heads=zhu.HEADS,
        zhu_no_logits=zhu.NO_LOGITS,
    )


def _number_or_dash(value: Any, digits: int) -> str:
    return DASH if value is None or pd.isna(value) else number(float(value), digits)


def _cohort(page: Page, note: CohortNote, marked: pd.DataFrame) -> dict[str, Any]:
    name, content = note.name, page.content
    overlays = [overlay for overlay in page.overlays if overlay.cohort == name]
    plots = [
        {"plot": plot, "kind": plot.kind, "svg": Markup(_inline(plot))}
        for plot in page.plots
        if plot.cohort == name
    ]
    windows = dict.fromkeys(w for overlay in overlays for w in overlay.windows if overlay.slices)
    apart = ("corrections", "overlays", "fractions")
    main = main_rows(content.summary, name, marked)
    return {
        "note": note,
        "main": main,
        "unbased": _without_baseline(main),
        "joint": paper_rows(content.summary, name, marked),
        "paper": [_paper(t) for t in content.paper if t.cohort == name and t.name == "Table II"],
        "fractions": [_curve(curve) for curve in content.fractions if curve.cohort == name],
        "subgroups": subgroup_tables(content.subgroups, content.divisions, name),
        "families": [_family(f) for f in page.families if f.cohort == name],
        "plots": [plot for plot in plots if plot["kind"] not in apart],
        "corrections": [plot for plot in plots if plot["kind"] == "corrections"],
        "overlays": [plot for plot in plots if plot["kind"] == "overlays"],
        "fraction_plots": [plot for plot in plots if plot["kind"] == "fractions"],
        "effort": corrections.effort_rows(content.effort, name),
        "cases": [_overlay(overlay, content) for overlay in overlays],
        "windows": [(window, *WINDOWS[window]) for window in windows],
        "costs": _costs(content.costs, name, content.looks),
        "zhu": zhu.zhu_rows(content.zhu, content.costs, name),
        "case_notes": _case_notes(content.records, name),
        "remarks": remarks(content.records, name),
        "absent": absent_line(content.own, name, content.units),
    }


def _inline(plot: Plot) -> str:
    return plot.svg if plot.svg.startswith("<img") else inline_svg(plot.svg, plot.name)


def _without_baseline(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Protocols of prompts under which no prompt-only baseline was run."""
    protocols: dict[str, bool] = {}
    for row in rows:
        name = row["protocol"]
        protocols[name] = protocols.get(name, False) or row["baseline"]
    return [name for name, there in protocols.items() if not there and name != NO_PROMPTS]


def _paper(table: Table) -> dict[str, Any]:
    return {"table": table, "rows": [paper_text.html_row(row) for row in table.rows]}


def _curve(curve: Curve) -> dict[str, Any]:
    return {**_paper(curve.table), "curve": curve, "points": curve.points.to_dict("records")}


def _case_notes(records: Sequence[Record], cohort: str) -> list[tuple[str, tuple[str, ...]]]:
    """Cases of a cohort whose files were read with a remark."""
    found = {r.key.case: r.case_notes for r in records if r.key.cohort == cohort and r.case_notes}
    return list(found.items())


def _family(family: Family) -> dict[str, Any]:
    pairs = family.pairs.sort_values("p_holm", kind="stable").head(MOST_PAIRS)
    ranks = family.ranks.table.reset_index(names="method")
    return {
        "protocol": family.protocol,
        "verdict": family.verdict,
        "pairs": pairs.to_dict("records"),
        "n_pairs": len(family.pairs),
        "ranks": ranks.to_dict("records"),
        "matrix": matrix(family),
        "stability": family.ranks,
    }


def _overlay(overlay: CaseOverlay, page: Content) -> dict[str, Any]:
    units = page.units[
        (page.units["cohort"] == overlay.cohort)
        & (page.units["case"] == overlay.case)
        & (page.units["structure"] == page.structure)
    ].drop_duplicates(["method", "protocol"])
    dice = {
        (str(m), str(p)): float(d)
        for m, p, d in units[["method", "protocol", "dice"]].itertuples(index=False)
    }
    protocols: dict[str, list[dict[str, Any]]] = {}
    shown = _shown_first(list(dice), page.looks)
    for i, row in enumerate(page.looks):
        if row in dice:
            entry = {"index": i, "method": row[0], "dice": dice[row], "shown": row in shown}
            entry["there"] = row in overlay.masks
            protocols.setdefault(row[1], []).append(entry)
    index = {row: i for i, row in enumerate(page.looks)}
    return {
        "overlay": overlay,
        "width": overlay.shape[1] * overlay.spacing[1],
        "height": overlay.shape[0] * overlay.spacing[0],
        "protocols": protocols,
        "index": index,
        "shown": {index[row] for row in shown},
        "volume": units["reference_volume_ml"].max() if len(units) else math.nan,
    }


def _shown_first(rows: Sequence[tuple[str, str]], looks: Rows) -> set[tuple[str, str]]:
    """Rows that are visible before anybody clicks: up to four models of the first protocol."""
    if not rows:
        return set()
    first = [row for row in rows if row[1] == rows[0][1]]
    models = [row for row in first if not looks[row].baseline] or first
    return set(models[:4])


def _row_list(looks: Rows) -> list[dict[str, Any]]:
    return [{"look": look, "method": row[0], "protocol": row[1]} for row, look in looks.items()]


_UNIT_COLUMNS = [
    "cohort", "case", "method", "protocol", "seed", "status", "error", "dice", "iou",
    "slice_dice_mean", "hd95_mm", "nsd_2mm", "volume_difference_ml", "slices_beyond",
    "reference_volume_ml", "n_prompts",
]  # fmt: skip


def _unit_rows(units: pd.DataFrame, structure: str) -> list[dict[str, Any]]:
    own = in_order(units[units["structure"] == structure])
    return [{str(k): v for k, v in row.items()} for row in own[_UNIT_COLUMNS].to_dict("records")]


def _absent_rows(content: Content) -> list[dict[str, Any]]:
    """Units on cases without the structure in their reference: named, without numbers."""
    status = f"no {content.structure} in the reference"
    return [
        dict.fromkeys(_UNIT_COLUMNS, math.nan)
        | record.key.model_dump()
        | {"method": record.key.method, "status": status, "error": None}
        for note in content.header.cohorts
        for record in absent_units(content.own, note.name, content.structure)
    ]


def _costs(costs: pd.DataFrame, cohort: str, looks: Rows) -> list[dict[str, Any]]:
    groups = dict(list(costs[costs["cohort"] == cohort].groupby(["method", "protocol"])))
    rows = []
    for method, protocol in looks:
        group = groups.get((method, protocol))
        if group is None:
            continue
        fine = group[group["status"] == "ok"]
        memory = fine["peak_rss_mb"].astype(float)
        # A unit that found its slices encoded by another one is no faster for it.
        seconds = fine["alone_seconds"].astype(float)
        rows.append(
            {
                "method": method,
                "protocol": protocol,
                "n": len(fine),
                "seconds": seconds.mean(),
                "median": seconds.median(),
                "slowest": seconds.max(),
                "encoded": (fine["slices_encoded"] + fine["slices_reused"]).astype(float).mean(),
                "reused": fine["slices_reused"].astype(float).mean(),
                "memory": memory.max(),
                "gpu_memory": fine["peak_gpu_mb"].astype(float).max(),
                "parameters": group["parameters"].astype(float).max(),
                "prompts": fine["n_prompts"].astype(float).mean(),
                "macs": fine["macs"].astype(float).mean(),
                "macs_n": int(fine["macs"].notna().sum()),
            }
        )
    return rows
