"""Result tables as GitHub Markdown and as LaTeX (booktabs)."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

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

Row = dict[str, Any]
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


def paper_rows(summary: pd.DataFrame, cohort: str) -> list[Row]:
    """Return IoU and Dice of lungs, tumour and average, one entry per method and protocol.

    Empty without lungs. Each entry: ``method``, ``protocol`` and a list of ``cells`` with
    ``text`` and ``mark``.
    """
    part = summary[summary["cohort"] == cohort]
    if LUNGS not in set(part["structure"]):
        return []
    marked = mark_frame(part)
    rows = []
    for (protocol, method), group in part.groupby(["protocol", "method"], sort=False):
        index = {str(part.loc[i, "structure"]): i for i in group.index}
        cells = [
            _paper_cell(part, marked, index.get(structure), key)
            for key in _PAPER_SCORES
            for structure in _PAPER_STRUCTURES
        ]
        rows.append({"method": method, "protocol": protocol, "cells": cells})
    return rows


def _paper_cell(part: pd.DataFrame, marked: pd.DataFrame, i: Any, key: str) -> Row:
    if i is None:
        return {"text": DASH, "mark": "", "value": math.nan}
    value = float(part.loc[i, key])
    return {
        "text": number(value, BY_KEY[key].digits),
        "mark": marked.loc[i, key],
        "value": value,
    }


def main_rows(summary: pd.DataFrame, cohort: str) -> list[Row]:
    """Return the main table of a cohort: one entry per method and protocol.

    Each entry has ``method``, ``protocol``, ``n``, ``n_failed``, ``n_undefined``, ``seconds``
    ``incomplete`` (scored on fewer cases than another method under the same protocol) and
    ``cells`` (one per entry of `COLUMNS`) with ``value``, ``text``, ``interval``, ``mark``
    and ``n`` where that differs from the n of the row.
    """
    part = summary[(summary["cohort"] == cohort)]
    part = part[part["structure"] == main_structure(part)]
    marked = mark_frame(part)
    rows = []
    for (_, values), own in zip(part.iterrows(), marked.to_dict("records"), strict=True):
        cells = [_main_cell(values, column, own[column.key]) for column in COLUMNS]
        names = ("method", "protocol", "n", "n_failed", "n_undefined", "seconds")
        rows.append({**{name: values[name] for name in names}, "cells": cells})
    for row in rows:
        rivals = (r["n"] for r in rows if r["protocol"] == row["protocol"])
        row["incomplete"] = row["n"] < max(rivals)
    return rows


def _main_cell(values: "pd.Series[Any]", column: Column, mark: Mark) -> Row:
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
    lines += _pipe_table(
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
        lines += _pipe_table(
            ["Method", "Prompts by", *names],
            (
                [
                    escape_markdown(str(row["method"])),
                    escape_markdown(str(row["protocol"])),
                    *(_markdown_mark(cell["text"], cell["mark"]) for cell in row["cells"]),
                ]
                for row in joint
            ),
        )
    return "\n".join(lines) + "\n"


def _pipe_table(heads: list[str], rows: Any) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|:--|:--|" + "--:|" * (len(heads) - 2)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _markdown_mark(text: str, mark: Mark) -> str:
    return {"best": f"**{text}**", "second": f"<u>{text}</u>", "": text}[mark]


def _markdown_cell(cell: Row) -> str:
    text = _markdown_mark(cell["text"], cell["mark"])
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
    text = _tex_table(
        escape_tex(caption + " ".join(notes)), f"{cohort}-main", heads, rows, _tex_main_row
    )
    joint = paper_rows(summary, cohort)
    if joint:
        names = [f"{s} {k}" for k in ("IoU", "Dice") for s in ("Lungs", "Tumour", "Avg.")]
        heads = ["Method", *(f"{name} $\\uparrow$" for name in names)]
        note = f"{cohort}. Lungs: mean of left and right; Avg.: (2 Lungs + Tumour)/3."
        label = f"{cohort}-structures"
        text += "\n" + _tex_table(escape_tex(note), label, heads, joint, _tex_joint_row)
    return "% Needs \\usepackage{booktabs}.\n" + text


def _tex_heading(column: Column) -> str:
    title = column.title.replace("|ΔV|", r"$|\Delta V|$").replace("ΔV", r"$\Delta V$")
    return title + {1: r" $\uparrow$", -1: r" $\downarrow$", 0: ""}[column.better]


def _tex_table(
    caption: str,
    label: str,
    heads: list[str],
    rows: list[Row],
    write_row: Callable[[Row], str],
) -> str:
    name = re.sub(r"[^A-Za-z0-9-]+", "-", label).strip("-")
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
        if row["protocol"] != protocol:
            protocol = row["protocol"]
            group = rf"\textit{{{escape_tex(str(protocol))}}}"
            lines += [r"\midrule", rf"\multicolumn{{{len(heads)}}}{{l}}{{{group}}} \\"]
        lines.append(write_row(row))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table*}", ""])


def _tex_mark(text: str, mark: Mark) -> str:
    text = escape_tex(text)
    return {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}", "": text}[mark]


def _tex_main_row(row: Row) -> str:
    means = [_tex_mark(cell["text"], cell["mark"]) for cell in row["cells"]]
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
    cells = [_tex_mark(cell["text"], cell["mark"]) for cell in row["cells"]]
    return " & ".join([escape_tex(str(row["method"])), *cells]) + r" \\"
