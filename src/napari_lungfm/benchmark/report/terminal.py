"""The main table in the terminal."""

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from napari_lungfm.benchmark.report.columns import DASH, number
from napari_lungfm.benchmark.report.tables import Row, main_rows

_SHOWN = ("dice", "slice_dice_mean", "hd95_mm", "skill")
_HEADS = ("Dice ↑ [95 % CI]", "Slice Dice ↑", "HD95 mm ↓", "Skill ↑", "s/case", "n")
_STYLES = {"best": "bold", "second": "underline", "": ""}
_ASCII = str.maketrans({"−": "-", DASH: "-", "↑": "(+)", "↓": "(-)"})


def print_table(summary: pd.DataFrame, *, ascii_only: bool = False) -> Table:
    """Return the main table in short form, to be printed with ``rich``.

    Parameters
    ----------
    summary
        What `summarise` returned.
    ascii_only
        For consoles that cannot show more: lines, arrows and signs are drawn with ASCII, and
        other characters in names are written as escapes.

    Returns
    -------
    rich.table.Table
        Cohort, method, protocol, Dice with its interval, slice Dice, HD95, skill, seconds per
        case and n, the number of cases, with that of cases with a failed unit. Best values are
        bold and second-best ones underlined, as in the report.
    """

    def text(value: object, style: str = "") -> Text:
        return Text(_to_ascii(str(value)) if ascii_only else str(value), style=style)

    table = Table(
        header_style="bold", pad_edge=False, box=box.ASCII if ascii_only else box.HEAVY_HEAD
    )
    # Folded, not cut off with an ellipsis: half a number is a wrong number.
    for name in ("Cohort", "Method", "Prompts by"):
        table.add_column(name, overflow="fold")
    for name in _HEADS:
        table.add_column(text(name), justify="right", overflow="fold")
    for cohort in dict.fromkeys(summary["cohort"]):
        previous = None
        for row in main_rows(summary, cohort):
            if previous not in (None, row["protocol"]):
                table.add_section()
            previous = row["protocol"]
            names = [text(v) for v in (cohort, row["method"], row["protocol"])]
            shown = [
                Text.assemble(*(text(*part) for part in _parts(cell)))
                for cell in row["cells"]
                if cell["column"].key in _SHOWN
            ]
            table.add_row(*names, *shown, text(number(float(row["seconds"]), 2)), text(_n(row)))
        table.add_section()
    return table


def _parts(cell: Row) -> list[tuple[str, str]]:
    """Value and interval of a cell, with their styles."""
    parts = [(cell["text"], _STYLES[cell["mark"]])]
    if cell["column"].key == "dice" and cell["interval"]:
        parts.append((f" {cell['interval']}", ""))
    return parts


def _n(row: Row) -> str:
    failed = f" ({int(row['n_failed'])} failed)" if row["n_failed"] else ""
    return f"{int(row['n'])}{failed}"


def _to_ascii(text: str) -> str:
    # Escapes, not question marks: names that differ stay different.
    return text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")
