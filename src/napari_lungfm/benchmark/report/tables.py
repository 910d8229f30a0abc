"""Result tables as GitHub Markdown and as LaTeX (booktabs)."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import pandas as pd

from napari_lungfm._core.files import slug
from napari_lungfm.benchmark.records import with_fallback
from napari_lungfm.benchmark.report.columns import (
    BY_KEY,
    COLUMNS,
    DASH,
    Column,
    Mark,
    interval,
    mark_frame,
    number,
)
from napari_lungfm.benchmark.report.scores import AVERAGE, LUNGS, TUMOUR, main_structure
from napari_lungfm.benchmark.report.style import BASELINES

Row = dict[str, Any]
Groups = dict[tuple[str, str], list[int]]
_PAPER_STRUCTURES = (LUNGS, TUMOUR, AVERAGE)
_PAPER_SCORES = ("iou", "dice")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def escape_markdown(text: str) -> str:
    """Return text that stands literally in a cell of a GitHub Markdown table."""
    text = _CONTROL.sub(" ", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]()#|~$!+-])", r"\\\1", text)
    # A hyphen or plus inside a word starts no list: leave names such as sam2.1-tiny readable.
    text = re.sub(r"(?<=\w)\\([-+])", r"\1", text)
    # Bare addresses become links and mentions notify people.
    return text.replace("://", ":&#8203;//").replace("@", "&#64;")


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    # After a line break "\\\\", a star or a bracket would be read as its argument.
    "[": "{[}",
    "*": "{*}",
    "−": r"$-$",
    "–": "--",
    "×": r"$\times$",
    "±": r"$\pm$",
}


def escape_tex(text: str) -> str:
    """Return text that stands literally in a LaTeX document."""
    return "".join(_TEX.get(char, char) for char in _CONTROL.sub(" ", text))


def paper_rows(summary: pd.DataFrame, cohort: str, marked: pd.DataFrame | None = None) -> list[Row]:
    """Return IoU and Dice of lungs, tumour and average, one entry per method and protocol.

    Empty without lungs. Each entry: ``method`` (`shown_method`), ``protocol``, ``skill`` (of the
    tumour), ``n`` (cases with a Dice of the tumour) and a list of ``cells`` with ``text``,
    ``interval``, ``value``, ``mark`` and ``n`` where that differs. ``marked`` is
    `columns.mark_frame` of the summary, if it is there already.
    """
    part = summary[summary["cohort"] == cohort]
    if LUNGS not in set(part["structure"]):
        return []
    marked = mark_frame(part) if marked is None else marked.loc[part.index]
    places = dict(zip(part.index, range(len(part)), strict=True))
    values, marks_of = part.to_dict("records"), marked.to_dict("records")
    rows = []
    groups = part.groupby(["protocol", "method"], sort=False).groups
    for (protocol, _), group in cast("Groups", groups).items():
        own = {str(values[places[i]]["structure"]): places[i] for i in group}
        tumour = values[own[TUMOUR]] if TUMOUR in own else {}
        n = int(tumour.get("dice_n", 0))
        cells = [
            _paper_cell(values, marks_of, own.get(structure), key, n)
            for key in _PAPER_SCORES
            for structure in _PAPER_STRUCTURES
        ]
        skill = float(tumour.get("skill", math.nan))
        shown = shown_method(next(values[place] for place in own.values()))
        row = {"method": shown, "protocol": protocol, "cells": cells, "skill": skill, "n": n}
        rows.append(row)
    return rows


def _paper_cell(
    values: list[dict[Any, Any]], marked: list[dict[Any, Any]], i: int | None, key: str, n: int
) -> Row:
    if i is None:
        return {"text": DASH, "mark": "", "value": math.nan, "interval": "", "n": None}
    value, digits = float(values[i][key]), BY_KEY[key].digits
    own = int(values[i][f"{key}_n"])
    return {
        "text": number(value, digits),
        "mark": marked[i][key],
        "value": value,
        "interval": interval(
            float(values[i][f"{key}_low"]), float(values[i][f"{key}_high"]), digits
        ),
        "n": own if own != n and math.isfinite(value) else None,
    }


def shown_method(values: Mapping[Any, Any]) -> str:
    """Return the method of a row of the summary, with the model that stood in for it."""
    return with_fallback(str(values["method"]), values.get("stood_in"))


def main_rows(summary: pd.DataFrame, cohort: str, marked: pd.DataFrame | None = None) -> list[Row]:
    """Return the main table of a cohort: one entry per method and protocol.

    Each entry has ``method`` (`shown_method`), ``protocol``, ``n``, ``n_failed``,
    ``n_undefined``, ``seconds``, ``baseline`` (it sees the prompt alone), ``incomplete`` (scored
    on fewer cases than another method under the same protocol) and ``cells`` (one per entry of
    `COLUMNS`) with ``value``, ``text``, ``interval``, ``mark`` and ``n`` where that differs from
    the n of the row.
    ``marked`` is `columns.mark_frame` of the summary, if it is there already.
    """
    part = summary[(summary["cohort"] == cohort)]
    part = part[part["structure"] == main_structure(part)]
    marked = mark_frame(part) if marked is None else marked.loc[part.index]
    rows = []
    for values, own in zip(part.to_dict("records"), marked.to_dict("records"), strict=True):
        cells = [_main_cell(values, column, own[column.key]) for column in COLUMNS]
        names = ("method", "protocol", "n", "n_failed", "n_undefined", "seconds")
        row = {name: values[name] for name in names} | {"method": shown_method(values)}
        rows.append({**row, "cells": cells, "baseline": values["model"] in BASELINES})
    most: dict[str, int] = {}
    for row in rows:
        most[row["protocol"]] = max(most.get(row["protocol"], 0), row["n"])
    for row in rows:
        row["incomplete"] = row["n"] < most[row["protocol"]]
    return rows


def _main_cell(values: dict[Any, Any], column: Column, mark: Mark) -> Row:
    key = column.key
    value, n = float(values[key]), int(values[f"{key}_n"])
    low, high = (float(values.get(f"{key}_{end}", math.nan)) for end in ("low", "high"))
    return {
        "column": column,
        "value": value,
        "text": number(value, column.digits),
        "interval": interval(low, high, column.digits),
        "mark": mark,
        "n": n if n != int(values["n"]) and math.isfinite(value) else None,
    }


def markdown(summary: pd.DataFrame, cohort: str, title: str, notes: list[str]) -> str:
    """Return the tables of one cohort as GitHub Markdown."""
    part = summary[summary["cohort"] == cohort]
    lines = [f"# {escape_markdown(cohort)}", ""]
    if title:
        lines += [escape_markdown(title), ""]
    lines += [f"Structure: {escape_markdown(main_structure(part))}. " + " ".join(notes), ""]
    heads = [c.heading.replace("|", "\\|") for c in COLUMNS]
    lines += pipe_table(
        ["Method", "Prompts by", *heads, "n", "failed", "undefined"],
        (
            [
                escape_markdown(str(row["method"])),
                escape_markdown(str(row["protocol"])),
                *(_markdown_cell(cell) for cell in row["cells"]),
                *(str(int(row[name])) for name in ("n", "n_failed", "n_undefined")),
            ]
            for row in main_rows(summary, cohort)
        ),
    )
    joint = paper_rows(summary, cohort)
    if joint:
        lines += ["", "Lungs = mean of left and right; Avg = (2·Lungs + Tumour)/3.", ""]
        names = [f"{s} {k}" for k in ("IoU ↑", "Dice ↑") for s in ("Lungs", "Tumour", "Avg")]
        lines += pipe_table(
            ["Method", "Prompts by", *names, "Skill", "n"],
            (
                [
                    escape_markdown(str(row["method"])),
                    escape_markdown(str(row["protocol"])),
                    *(_markdown_cell(cell) for cell in row["cells"]),
                    number(row["skill"], 3),
                    str(row["n"]),
                ]
                for row in joint
            ),
        )
    return "\n".join(lines) + "\n"


def pipe_table(heads: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    """Yield the lines of a GitHub Markdown table; its first two columns are text."""
    yield "| " + " | ".join(heads) + " |"
    yield "|:--|:--|" + "--:|" * (len(heads) - 2)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def markdown_mark(text: str, mark: Mark) -> str:
    """Write a value bold if it is the best, underlined if it is the second-best."""
    return {"best": f"**{text}**", "second": f"<u>{text}</u>", "": text}[mark]


def _markdown_cell(cell: Row) -> str:
    text = markdown_mark(cell["text"], cell["mark"])
    # The brackets are escaped: "[a, b](…)" would be a link.
    spread = cell["interval"].replace("[", "\\[").replace("]", "\\]")
    count = f"(n = {cell['n']})" if cell["n"] is not None else ""
    return " ".join(part for part in (text, spread, count) if part)


def latex(summary: pd.DataFrame, cohort: str, title: str, notes: list[str]) -> str:
    r"""Return the tables of one cohort as LaTeX for ``\input``; needs the package booktabs.

    Confidence intervals stand in a smaller second line under their means.
    """
    part = summary[summary["cohort"] == cohort]
    caption = f"{cohort}{': ' + title if title else ''}. Structure: {main_structure(part)}. "
    rows = main_rows(summary, cohort)
    heads = ["Method", *(_tex_heading(c) for c in COLUMNS), "$n$", "failed", "undef."]
    text = tex_table(
        escape_tex(caption + " ".join(notes)), f"{slug(cohort)}-main", heads, rows, _tex_main_row
    )
    joint = paper_rows(summary, cohort)
    if joint:
        names = [f"{s} {k}" for k in ("IoU", "Dice") for s in ("Lungs", "Tumour", "Avg.")]
        heads = ["Method", *(f"{name} $\\uparrow$" for name in names), "Skill", "$n$"]
        note = f"{cohort}. Lungs: mean of left and right; Avg.: (2 Lungs + Tumour)/3."
        label = f"{slug(cohort)}-structures"
        text += "\n" + tex_table(escape_tex(note), label, heads, joint, _tex_joint_row)
    return "% Needs \\usepackage{booktabs}.\n" + text


def _tex_heading(column: Column) -> str:
    title = column.title.replace("|ΔV|", r"$|\Delta V|$").replace("ΔV", r"$\Delta V$")
    return title + {1: r" $\uparrow$", -1: r" $\downarrow$", 0: ""}[column.better]


def tex_table(
    caption: str,
    label: str,
    heads: list[str],
    rows: list[Row],
    write_row: Callable[[Row], str],
) -> str:
    """Return a table of LaTeX; rows with a ``protocol`` are headed by it.

    Names in ``label`` are slugs, so that labels differ where the names do.
    """
    name = re.sub(r"[^A-Za-z0-9.+_-]+", "-", label)
    lines = [
        r"\begin{table*}[t]",
        r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{name}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
    ]
    protocol: object = None
    for row in rows:
        if row["protocol"] is None:
            lines += [r"\midrule"] if row is rows[0] else []
        elif row["protocol"] != protocol:
            protocol = row["protocol"]
            group = rf"\textit{{{escape_tex(str(protocol))}}}"
            lines += [r"\midrule", rf"\multicolumn{{{len(heads)}}}{{l}}{{{group}}} \\"]
        lines.append(write_row(row))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table*}", ""])


def tex_mark(text: str, mark: Mark) -> str:
    """Write a value bold if it is the best, underlined if it is the second-best."""
    text = escape_tex(text)
    return {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}", "": text}[mark]


def _tex_main_row(row: Row) -> str:
    means = [tex_mark(cell["text"], cell["mark"]) for cell in row["cells"]]
    counts = [str(int(row[name])) for name in ("n", "n_failed", "n_undefined")]
    line = " & ".join([escape_tex(str(row["method"])), *means, *counts]) + r" \\"
    spreads = []
    for cell in row["cells"]:
        count = f"n={cell['n']}" if cell["n"] is not None else ""
        text = escape_tex(" ".join(part for part in (cell["interval"], count) if part))
        spreads.append(rf"{{\tiny {text}}}" if text else "")
    if not any(spreads):
        return line
    return line + "\n" + " & ".join(["", *spreads, "", "", ""]) + r" \\[2pt]"


def _tex_joint_row(row: Row) -> str:
    cells = [tex_mark(cell["text"], cell["mark"]) for cell in row["cells"]]
    ends = [escape_tex(number(row["skill"], 3)), str(row["n"])]
    return " & ".join([escape_tex(str(row["method"])), *cells, *ends]) + r" \\"
