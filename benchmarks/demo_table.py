"""Print the README's table from the summary of a demo run.

make demo
.venv/bin/python benchmarks/demo_table.py lungfm-demo/report/summary.csv
"""

import sys
from pathlib import Path

import pandas as pd

PROTOCOLS = ["box-every-slice", "box-every-3", "box-one", "point-every-slice", "point-one"]


def table(summary: pd.DataFrame) -> str:
    """Return one Markdown row per cohort and protocol: mean volume Dice of each method."""
    tumour = summary[summary["structure"] == "tumour"]
    methods = list(dict.fromkeys(tumour["method"]))
    rows = [
        "| cohort | n | prompts | " + " | ".join(f"`{m}`" for m in methods) + " |",
        "|---|--:|---|" + "--:|" * len(methods),
    ]
    for cohort in dict.fromkeys(tumour["cohort"]):
        for protocol in PROTOCOLS:
            cells = tumour[(tumour["cohort"] == cohort) & (tumour["protocol"] == protocol)]
            by_method = cells.set_index("method")
            means = " | ".join(f"{by_method.loc[m, 'dice']:.3f}" for m in methods)
            n = int(by_method["dice_n"].iloc[0])
            rows.append(f"| {cohort} | {n} | `{protocol}` | {means} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(pd.read_csv(Path(sys.argv[1]))))
