"""The paper's tables as Markdown, LaTeX and rows of a CSV file."""

import math
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from napari_lungfm._core.files import slug
from napari_lungfm.benchmark.published import Cell
from napari_lungfm.benchmark.report.columns import DASH, Mark, interval, number
from napari_lungfm.benchmark.report.paper import COLUMNS, DIGITS, OurCell, Row, Table
from napari_lungfm.benchmark.report.tables import (
    escape_markdown,
    escape_tex,
    markdown_mark,
    pipe_table,
    tex_mark,
    tex_table,
)

HEADS = [
    f"{structure} {score} ↑"
    for score in ("IoU", "Dice")
    for structure in ("Lungs", "Tumour", "Avg")
]
NOTES = (
    "This run: mean over cases with its 95 % BCa interval and n; best values bold, second-best "
    "ones underlined, computed from the values as written among methods on the largest n. Paper: "
    "as printed, its bold and underline included. Difference: this run minus the paper. Skill: of "
    "the tumour's Dice over that of the prompt-only ellipse. Prompts on every slice, drawn from "
    "the reference, stand for the paper's boxes and points."
)


def signed(value: float, *, minus: str = "−") -> str:
    """Write a difference with its sign."""
    text = number(value, DIGITS, minus=minus)
    return f"+{text}" if value > 0 and float(text.replace(minus, "-")) else text


def table_rows(tables: Iterable[Table]) -> pd.DataFrame:
    """Return one row per table, row, structure and score: our value, the paper's, the difference.

    Returns
    -------
    DataFrame
        ``table``, ``cohort``, ``group``, ``method``, ``protocol``, ``percent``, ``structure``,
        ``score``, ``value``, ``low``, ``high``, ``n``, ``mark``, ``skill``, ``paper_row``,
        ``paper``, ``paper_printed``, ``paper_mark``, ``difference``.
    """
    rows = []
    for table in tables:
        for row in table.rows:
            for place in COLUMNS:
                ours, theirs = row.ours.get(place), row.paper.get(place)
                if ours is None and theirs is None:
                    continue
                rows.append(
                    {
                        "table": table.name,
                        "cohort": table.cohort,
                        "group": table.group,
                        "method": row.title if row.ours else "",
                        "protocol": row.protocol,
                        "percent": row.percent,
                        "structure": place[0],
                        "score": place[1],
                        **_our_values(ours),
                        "skill": row.skill,
                        "paper_row": row.paper_row,
                        "paper": theirs.value if theirs else None,
                        "paper_printed": theirs.printed if theirs else "",
                        "paper_mark": theirs.mark if theirs else "",
                        "difference": row.difference(place),
                    }
                )
    names = ["table", "cohort", "group", "method", "protocol", "percent", "structure", "score"]
    names += ["value", "low", "high", "n", "mark", "skill", "paper_row", "paper"]
    names += ["paper_printed", "paper_mark", "difference"]
    return pd.DataFrame(rows, columns=names)


def _our_values(cell: OurCell | None) -> dict[str, object]:
    if cell is None:
        return {"value": None, "low": None, "high": None, "n": 0, "mark": ""}
    return {name: getattr(cell, name) for name in ("value", "low", "high", "n", "mark")}


def markdown(tables: Sequence[Table], notes: Sequence[str] = ()) -> str:
    """Return tables as GitHub Markdown, up to three lines a row."""
    lines = [NOTES, *notes]
    for table in tables:
        lines += ["", f"## {escape_markdown(title(table))}", ""]
        lines += pipe_table(
            ["Method", "Values of", *HEADS, "Skill", "n"],
            (cells for row in table.rows for cells in _markdown_lines(row)),
        )
    return "\n".join(lines) + "\n"


def title(table: Table) -> str:
    """Return the heading of a table."""
    group = "" if table.group == table.cohort else f", {table.group}"
    return f"{table.name}: {table.cohort}{group}"


def _markdown_lines(row: Row) -> Iterator[list[str]]:
    name = escape_markdown(row.shown)
    if row.protocol and row.percent is None:
        name += f" ({escape_markdown(row.protocol)})"
    if row.ours:
        cells = [_ours(row.ours.get(place)) for place in COLUMNS]
        yield [name, "this run", *cells, number(row.skill, 3), _n(row)]
        name = ""
    if row.paper:
        cells = [_theirs(row.paper.get(place)) for place in COLUMNS]
        yield [name, "paper", *cells, "", ""]
    if row.ours and row.paper:
        yield ["", "difference", *(_signed_or_dash(row, place) for place in COLUMNS), "", ""]


def _signed_or_dash(row: Row, place: tuple[str, str]) -> str:
    difference = row.difference(place)
    return DASH if difference is None else signed(difference)


def _n(row: Row) -> str:
    counts = sorted({cell.n for cell in row.ours.values()})
    return " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"


def _ours(cell: OurCell | None) -> str:
    if cell is None:
        return DASH
    spread = interval(cell.low, cell.high, DIGITS).replace("[", "\\[").replace("]", "\\]")
    return f"{markdown_mark(number(cell.value, DIGITS), cell.mark)} {spread}".strip()


def _theirs(cell: Cell | None) -> str:
    return DASH if cell is None else markdown_mark(cell.printed, cell.mark)


def latex(tables: Sequence[Table]) -> str:
    r"""Return tables as LaTeX for ``\input``; needs the package booktabs."""
    parts = ["% Needs \\usepackage{booktabs}."]
    heads = ["Method", "", *(head.replace("↑", r"$\uparrow$") for head in HEADS), "Skill", "$n$"]
    for table in tables:
        rows = [{"protocol": None, "row": row} for row in table.rows]
        caption = escape_tex(f"{title(table)}. {NOTES}")
        label = f"{slug(table.cohort)}-{table.name}-{slug(table.group)}"
        parts.append(tex_table(caption, label, heads, rows, lambda each: _tex_lines(each["row"])))
    return "\n".join(parts)


def _tex_lines(row: Row) -> str:
    lines = []
    name = escape_tex(row.shown)
    if row.protocol and row.percent is None:
        name += f" ({escape_tex(row.protocol)})"
    if row.ours:
        cells = [_tex_cell(row.ours.get(place)) for place in COLUMNS]
        spreads = [_tex_spread(row.ours.get(place)) for place in COLUMNS]
        skill = escape_tex(number(row.skill, 3))
        lines.append(" & ".join([name, "this run", *cells, skill, _n(row)]) + r" \\")
        lines.append(" & ".join(["", "", *spreads, "", ""]) + r" \\")
        name = ""
    if row.paper:
        cells = [_tex_printed(row.paper.get(place)) for place in COLUMNS]
        lines.append(" & ".join([name, "paper", *cells, "", ""]) + r" \\")
    if row.ours and row.paper:
        cells = [escape_tex(_signed_or_dash(row, place)) for place in COLUMNS]
        lines.append(" & ".join(["", "difference", *cells, "", ""]) + r" \\[2pt]")
    return "\n".join(lines)


def _tex_cell(cell: OurCell | None) -> str:
    return escape_tex(DASH) if cell is None else tex_mark(number(cell.value, DIGITS), cell.mark)


def _tex_spread(cell: OurCell | None) -> str:
    text = "" if cell is None else interval(cell.low, cell.high, DIGITS)
    return rf"{{\tiny {escape_tex(text)}}}" if text else ""


def _tex_printed(cell: Cell | None) -> str:
    return escape_tex(DASH) if cell is None else tex_mark(cell.printed, cell.mark)


def html_row(row: Row) -> dict[str, object]:
    """Return a row as the page's template wants it."""
    cells = []
    for place in COLUMNS:
        ours, theirs = row.ours.get(place), row.paper.get(place)
        difference = row.difference(place)
        mark: Mark = ours.mark if ours else ""
        cells.append(
            {
                "value": ours.value if ours else math.nan,
                "text": number(ours.value, DIGITS) if ours else DASH,
                "interval": interval(ours.low, ours.high, DIGITS) if ours else "",
                "mark": mark,
                "n": None,
                "printed": theirs.printed if theirs else "",
                "printed_mark": theirs.mark if theirs else "",
                "difference": signed(difference) if difference is not None else "",
            }
        )
    return {
        "method": row.shown,
        "protocol": row.protocol,
        "paper_only": not row.ours,
        "paper_row": row.paper_row,
        "cells": cells,
        "skill": row.skill,
        "n": _n(row) if row.ours else DASH,
    }
