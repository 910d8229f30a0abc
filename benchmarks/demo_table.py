"""Print the README's tables from the summary of a demo run.

make demo
.venv/bin/python benchmarks/demo_table.py lungfm-demo/report/summary.csv
"""

import sys
from pathlib import Path

import pandas as pd

#: Protocols of the tumour's table, one row each.
PROTOCOLS = ["box-every-slice", "box-every-3", "box-one", "point-every-slice", "point-one"]
#: Those of the table of structures: the paper's, none at all, and prompts from automatic masks.
PAPER = ("none", "point-every-slice", "box-every-slice", "auto-")
STRUCTURES = ("lungs", "tumour", "avg")


def by_structure(summary: pd.DataFrame) -> str:
    """Return the paper's Table II in miniature: IoU and Dice of lungs, tumour and average."""
    wanted = summary[summary["protocol"].str.startswith(PAPER)]
    cohorts = set(wanted.loc[wanted["structure"] == "lungs", "cohort"])
    names = [f"{title} {score}" for score in ("IoU", "Dice") for title in STRUCTURES]
    rows = [
        "| cohort | n | method | prompts | " + " | ".join(names) + " |",
        "|---|--:|---|---|" + "--:|" * len(names),
    ]
    keys = ["cohort", "method", "protocol"]
    for (cohort, method, protocol), cells in wanted.groupby(keys, sort=False):
        if cohort in cohorts:
            found = cells.set_index("structure")
            means = " | ".join(
                _cell(found, title, score) for score in ("iou", "dice") for title in STRUCTURES
            )
            n = int(found["n"].max())
            rows.append(f"| {cohort} | {n} | `{method}` | `{protocol}` | {means} |")
    return "\n".join(rows)


def by_protocol(summary: pd.DataFrame) -> str:
    """Return one row per cohort and protocol: mean Dice of the tumour by each method."""
    tumour = summary[(summary["structure"] == "tumour") & summary["protocol"].isin(PROTOCOLS)]
    methods = list(dict.fromkeys(tumour["method"]))
    rows = [
        "| cohort | n | prompts | " + " | ".join(f"`{m}`" for m in methods) + " |",
        "|---|--:|---|" + "--:|" * len(methods),
    ]
    for cohort in dict.fromkeys(tumour["cohort"]):
        for protocol in PROTOCOLS:
            cells = tumour[(tumour["cohort"] == cohort) & (tumour["protocol"] == protocol)]
            found = cells.set_index("method")
            means = " | ".join(_cell(found, method, "dice") for method in methods)
            n = int(found["dice_n"].max())
            rows.append(f"| {cohort} | {n} | `{protocol}` | {means} |")
    return "\n".join(rows)


def _cell(found: pd.DataFrame, row: str, score: str) -> str:
    value = found[score].get(row)
    return "–" if value is None or pd.isna(value) else f"{value:.3f}"


if __name__ == "__main__":
    summary = pd.read_csv(Path(sys.argv[1]))
    print(by_structure(summary), end="\n\n")
    print(by_protocol(summary))
