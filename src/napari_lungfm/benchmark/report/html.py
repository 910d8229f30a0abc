"""The page: one file that needs nothing else."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report import corrections, zhu
from napari_lungfm.benchmark.report.canvas import inline_svg
from napari_lungfm.benchmark.report.columns import COLUMNS, DASH, number, p_value
from napari_lungfm.benchmark.report.comparisons import LEVEL, Family
from napari_lungfm.benchmark.report.header import CohortNote, Header
from napari_lungfm.benchmark.report.overlays import WINDOWS, CaseOverlay
from napari_lungfm.benchmark.report.remarks import remarks
from napari_lungfm.benchmark.report.scores import in_order
from napari_lungfm.benchmark.report.style import BASELINES, REFERENCE_COLOUR, Look
from napari_lungfm.benchmark.report.tables import main_rows, paper_rows
from napari_lungfm.evaluation.prompt_protocols import parse_protocol

Rows = Mapping[tuple[str, str], Look]
#: Pairs shown per family; all of them are in comparisons.csv.
MOST_PAIRS = 120


@dataclass(frozen=True)
class Plot:
    """A figure on the page: prefix of its ids, SVG, cohort, title, caption and kind."""

    name: str
    svg: str
    cohort: str
    title: str
    caption: str
    kind: str


@dataclass(frozen=True)
class Page:
    """Everything that the page shows."""

    header: Header
    summary: pd.DataFrame
    units: pd.DataFrame
    structure: str
    costs: pd.DataFrame
    families: Sequence[Family]
    plots: Sequence[Plot]
    overlays: Sequence[CaseOverlay]
    overlay_rule: str
    records: Sequence[Record]
    looks: Rows
    config_text: str
    effort: pd.DataFrame
    zhu: pd.DataFrame


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
    return template.render(
        header=page.header,
        columns=COLUMNS,
        level=LEVEL,
        structure=page.structure,
        cohorts=[_cohort(page, note) for note in page.header.cohorts],
        units=_unit_rows(page.units, page.structure),
        failures=[record for record in page.records if record.status == "failed"],
        overlay_rule=page.overlay_rule,
        rows=_row_list(page.looks),
        reference_colour=REFERENCE_COLOUR,
        config_text=page.config_text,
        command=example_command(page.records),
        seeds=sorted({record.key.seed for record in page.records}),
        dash=DASH,
        most_pairs=MOST_PAIRS,
        zhu_explanation=zhu.EXPLANATION,
        zhu_heads=zhu.HEADS,
        zhu_no_logits=zhu.NO_LOGITS,
    )


def _number_or_dash(value: Any, digits: int) -> str:
    return DASH if value is None or pd.isna(value) else number(float(value), digits)


def _cohort(page: Page, note: CohortNote) -> dict[str, Any]:
    name = note.name
    overlays = [overlay for overlay in page.overlays if overlay.cohort == name]
    plots = [
        {"plot": plot, "kind": plot.kind, "svg": Markup(inline_svg(plot.svg, plot.name))}
        for plot in page.plots
        if plot.cohort == name
    ]
    windows = dict.fromkeys(w for overlay in overlays for w in overlay.windows if overlay.slices)
    return {
        "note": note,
        "main": main_rows(page.summary, name),
        "joint": paper_rows(page.summary, name),
        "families": [_family(f) for f in page.families if f.cohort == name],
        "plots": [plot for plot in plots if plot["kind"] != "corrections"],
        "corrections": [plot for plot in plots if plot["kind"] == "corrections"],
        "effort": corrections.effort_rows(page.effort, name),
        "overlays": [_overlay(overlay, page) for overlay in overlays],
        "windows": [(window, *WINDOWS[window]) for window in windows],
        "costs": _costs(page.costs, name, page.looks),
        "zhu": zhu.zhu_rows(page.zhu, page.costs, name),
        "case_notes": _case_notes(page.records, name),
        "remarks": remarks(page.records, name),
    }


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
        "stability": family.ranks,
    }


def _overlay(overlay: CaseOverlay, page: Page) -> dict[str, Any]:
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


def _unit_rows(units: pd.DataFrame, structure: str) -> list[dict[str, Any]]:
    own = in_order(units[units["structure"] == structure])
    names = [
        "cohort", "case", "method", "protocol", "seed", "status", "error", "dice", "iou",
        "slice_dice_mean", "hd95_mm", "nsd_2mm", "volume_difference_ml", "slices_beyond",
        "reference_volume_ml", "n_prompts",
    ]  # fmt: skip
    return [{str(k): v for k, v in row.items()} for row in own[names].to_dict("records")]


def _costs(costs: pd.DataFrame, cohort: str, looks: Rows) -> list[dict[str, Any]]:
    own = costs[costs["cohort"] == cohort]
    rows = []
    for method, protocol in looks:
        group = own[(own["method"] == method) & (own["protocol"] == protocol)]
        if group.empty:
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
                "parameters": group["parameters"].astype(float).max(),
                "prompts": fine["n_prompts"].astype(float).mean(),
            }
        )
    return rows


def example_command(records: Sequence[Record]) -> str | None:
    """Return the command that segments one recorded unit again from its prompts.

    The unit is the one with the fewest prompts, of a model that sees the image if there is one;
    ``None`` if none can be written as a command. `segment` gives all prompts at once, so that a
    unit whose user looked and corrected is none that it repeats.
    """
    best: tuple[tuple[bool, int], str] | None = None
    for record in records:
        for result in record.structures:
            corrected = len(result.interactions) > 1
            if record.status == "ok" and result.prompts and record.mask_file and not corrected:
                words = _prompt_words(result.prompts)
                rank = (record.key.model in BASELINES, len(words or ()))
                if words is not None and (best is None or rank < best[0]):
                    best = (rank, _command(record, words))
    return best[1] if best else None


def _prompt_words(prompts: Sequence[Mapping[str, Any]]) -> list[str] | None:
    words: list[str] = []
    for prompt in prompts:
        match prompt.get("kind"):
            case "box":
                words += ["--box", ",".join(map(str, (prompt["z"], *prompt["box"])))]
            case "click":
                sign = "+" if prompt.get("positive", True) else "-"
                words += ["--click", ",".join(map(str, (prompt["z"], *prompt["point"], sign)))]
            case "stop":
                words += ["--stop", str(prompt["z"])]
            case _:
                return None
    return words


def _command(record: Record, words: list[str]) -> str:
    key = record.key
    command = ["napari-lungfm-bench", "segment", "--image", f"{key.case}.nii.gz"]
    command += ["--model", key.model, *words]
    for name, value in record.options.items():
        command += ["--option", f"{name}={value}"]
    try:
        fills = parse_protocol(key.protocol).fill
    except UsageError:
        fills = True
    command += [] if fills else ["--no-propagate"]
    return shlex.join([*command, "--out", "again.nii.gz"])
