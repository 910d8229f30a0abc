"""Draw the validation curves of the training of LungFM-S.

.venv/bin/python benchmarks/lungfm_s_curve.py benchmarks/results/lungfm_s
"""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd

KINDS = ("prompt", "click", "walk", "correction", "presence")


def curve(parts: list[pd.DataFrame]) -> plt.Figure:
    """Return the curves of the parts, one after the other."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    begin = 0
    for number, part in enumerate(parts):
        axes.set_prop_cycle(None)
        for kind in KINDS:
            column = f"validation/{kind}"
            label = kind if number == len(parts) - 1 else None
            (line,) = axes.plot([], [], label=label)
            if column in part:
                line.set_data(begin + part["step"], part[column])
        axes.axvline(begin, color="0.8", zorder=0)
        begin += int(part["step"].iloc[-1])
    axes.relim()
    axes.autoscale_view()
    axes.set(
        xlabel="optimiser steps", ylabel="mean Dice per slice; share told rightly", ylim=(0, 1)
    )
    axes.legend()
    return figure


if __name__ == "__main__":
    mpl.rcParams["svg.hashsalt"] = "lungfm-s"
    folder = Path(sys.argv[1])
    figure = curve([pd.read_csv(path) for path in sorted(folder.glob("part*_log.csv"))])
    figure.savefig(folder / "curve.svg", metadata={"Date": None})
