"""Print docs/lungfm_s.md's tables from the results of a run.

.venv/bin/napari-lungfm-bench run benchmarks/lungfm_s.yaml --out OUT
.venv/bin/napari-lungfm-bench report OUT
.venv/bin/python benchmarks/lungfm_s_table.py OUT/report/results.csv
"""

import sys
from pathlib import Path

import pandas as pd


def table(results: pd.DataFrame, rows: list[str]) -> str:
    """Return mean volume Dice per row and protocol, one column per method, in Markdown."""
    methods = list(dict.fromkeys(results["method"]))
    head = ["| " + " | ".join([*rows, *(f"`{m}`" for m in methods)]) + " |"]
    head.append("|" + "---|" * len(rows) + "--:|" * len(methods))
    for keys, part in results.groupby(rows, sort=False):
        means = part.groupby("method")["dice"].mean()
        cells = " | ".join(f"{means[m]:.3f}" for m in methods)
        head.append("| " + " | ".join(str(key) for key in keys) + f" | {cells} |")
    return "\n".join(head)


if __name__ == "__main__":
    results = pd.read_csv(Path(sys.argv[1]))
    print(table(results, ["cohort", "protocol"]), end="\n\n")
    print(table(results[results["cohort"] == "real"], ["case", "protocol"]))
