"""The main table in the terminal."""

import pandas as pd
from rich.table import Table
from rich.text import Text

from napari_lungfm.benchmark.report.columns import number
from napari_lungfm.benchmark.report.tables import main_rows

_SHOWN = ("dice", "slice_dice_mean", "hd95_mm", "skill")
_STYLES = {"best": "bold", "second": "underline", "": ""}


def print_table(summary: pd.DataFrame) -> Table:
    """Return the main table in short form, to be printed with ``rich``.

    Parameters
    ----------
    summary
        What `summarise` returned.

    Returns
    -------
    rich.table.Table
        Cohort, method, protocol, Dice with its interval, slice Dice, HD95, skill, seconds per
        case and n. Best values are bold and second-best ones underlined, as in the report.
    """
    table = Table(header_style="bold", pad_edge=False)
    for name in ("Cohort", "Method", "Prompts by"):
        table.add_column(name, overflow="fold")
    for name in ("Dice ↑ [95 % CI]", "Slice Dice ↑", "HD95 mm ↓", "Skill ↑", "s/case", "n"):
        table.add_column(name, justify="right")
    for cohort in dict.fromkeys(summary["cohort"]):
        previous = None
        for row in main_rows(summary, cohort):
            if previous not in (None, row["protocol"]):
                table.add_section()
            previous = row["protocol"]
            cells = [c for c in row["cells"] if c["column"].key in _SHOWN]
            shown = []
            for cell in cells:
                text = Text(cell["text"], style=_STYLES[cell["mark"]])
                if cell["column"].key == "dice" and cell["interval"]:
                    text = Text.assemble(text, f" {cell['interval']}")
                shown.append(text)
            seconds = float(row["seconds"])
            pace = number(seconds, 2)
            failed = f" ({int(row['n_failed'])} failed)" if row["n_failed"] else ""
            names = [Text(str(v)) for v in (cohort, row["method"], row["protocol"])]
            table.add_row(*names, *shown, pace, f"{int(row['n'])}{failed}")
        table.add_section()
    return table
