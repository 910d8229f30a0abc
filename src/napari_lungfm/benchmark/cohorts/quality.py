"""The report on the quality of a cohort: a table for programs and a page for people."""

import base64
import csv
import io as streams
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from napari_lungfm import __version__
from napari_lungfm._core.files import slug, write_text
from napari_lungfm.benchmark.cohorts.checks import FACTS, LUNGS_ML
from napari_lungfm.benchmark.cohorts.report import CaseReport
from napari_lungfm.benchmark.cohorts.split import CohortSplit
from napari_lungfm.benchmark.report.canvas import inline_svg, plain_log, style, to_svg

CSV_FILE, HTML_FILE = "quality.csv", "quality.html"
_FIRST = ("name", "status", "part", "reason", "source", "flags", "notes")
_BARS = 24
#: Facts that the page shows, their heads and formats.
SHOWN = (
    ("tumour_ml", "tumour, mL", "{:.2f}"),
    ("contour_ml", "by contours, mL", "{:.2f}"),
    ("contour_difference", "difference", "{:+.1%}"),
    ("seg_dice", "Dice with SEG", "{:.3f}"),
    ("tumour_components", "parts", "{}"),
    ("tumour_slices", "slices with tumour", "{}"),
    ("slices", "slices", "{}"),
    ("spacing_z_mm", "z, mm", "{:.3g}"),
    ("spacing_x_mm", "x, mm", "{:.3g}"),
    ("lungs_ml", "lungs, mL", "{:.0f}"),
    ("own_lungs_dice", "Dice with own lungs", "{:.3f}"),
    ("tumour_in_lungs", "of tumour in lungs", "{:.0%}"),
)


def write_quality(
    root: Path, title: str, reports: Sequence[CaseReport], split: CohortSplit, lungs: str
) -> None:
    """Write ``quality.csv`` and ``quality.html`` (one file that needs nothing else).

    Parameters
    ----------
    root
        Folder of the cohort, with the thumbnails of the cases.
    title
        Of the cohort.
    reports
        What became of each patient.
    split
        Who is in which part.
    lungs
        Where the lungs come from.
    """
    part = {name: p for p in ("test", "train", "spare") for name in getattr(split, p)}
    write_text(root / CSV_FILE, _table(reports, part))
    write_text(root / HTML_FILE, _page(root, title, reports, part, split, lungs))


def _table(reports: Sequence[CaseReport], part: dict[str, str]) -> str:
    stream = streams.StringIO()
    writer = csv.DictWriter(stream, [*_FIRST, *FACTS], lineterminator="\n", restval="")
    writer.writeheader()
    for each in reports:
        first = {
            "name": each.name,
            "status": each.status,
            "part": part.get(each.name, ""),
            "reason": each.reason,
            "source": each.source,
            "flags": "; ".join(each.flags),
            "notes": "; ".join(each.notes),
        }
        writer.writerow(first | {k: "" if v is None else v for k, v in each.facts.items()})
    return stream.getvalue()


def _page(
    root: Path,
    title: str,
    reports: Sequence[CaseReport],
    part: dict[str, str],
    split: CohortSplit,
    lungs: str,
) -> str:
    environment = Environment(
        loader=PackageLoader("napari_lungfm.benchmark.cohorts", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    prepared = [each for each in reports if each.status == "prepared"]
    return environment.get_template("quality.html.j2").render(
        title=title,
        version=__version__,
        lungs=lungs,
        split=split,
        heads=[head for _, head, _ in SHOWN],
        cases=[_row(root, each, part.get(each.name, "")) for each in prepared],
        excluded=[each for each in reports if each.status == "excluded"],
        flagged=sum(1 for each in prepared if each.flags),
        sources=Counter(each.source for each in prepared).most_common(),
        plots=[Markup(svg) for svg in _plots(prepared)],
        lungs_range=[f"{value / 1000.0:g}" for value in LUNGS_ML],
    )


def _row(root: Path, report: CaseReport, part: str) -> dict[str, Any]:
    picture = root / "cases" / slug(report.name) / "thumbnail.jpg"
    encoded = base64.b64encode(picture.read_bytes()).decode() if picture.is_file() else ""
    values = [report.facts.get(key) for key, _, _ in SHOWN]
    cells = [
        ("", "–") if value is None else (value, form.format(value))
        for value, (_, _, form) in zip(values, SHOWN, strict=True)
    ]
    return {"report": report, "part": part, "picture": encoded, "cells": cells}


def _plots(prepared: Sequence[CaseReport]) -> list[str]:
    """Histograms as SVG to be set into the page."""
    wanted = (
        ("tumour_ml", "Tumour volume, mL", True),
        ("lungs_ml", "Volume of both lungs, mL", False),
        ("spacing_z_mm", "Distance of slices, mm", False),
    )
    plots = []
    for key, label, log in wanted:
        values = [each.facts[key] for each in prepared if each.facts.get(key)]
        if values:
            plots.append(inline_svg(_histogram(values, label, log), slug(key)))
    return plots


def _histogram(values: Sequence[float], label: str, log: bool) -> str:
    numbers = np.asarray(values, dtype=np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    room = max(0.05 * (high - low), 0.05 * abs(high))  # bars have a width where all are alike
    edges = (
        np.geomspace(low / 1.1, high * 1.1, _BARS)
        if log
        else np.linspace(low - room, high + room, _BARS)
    )
    counts, _ = np.histogram(numbers, edges)
    with style():
        figure = Figure(figsize=(4.2, 2.2))
        axis = figure.add_axes((0.12, 0.22, 0.85, 0.72))
        axis.stairs(counts, edges, fill=True, color="#56b4e9")
        if log:
            plain_log(axis)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel(label)
        axis.set_ylabel("patients")
        return to_svg(figure)
