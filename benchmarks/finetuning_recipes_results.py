"""What `finetuning_recipes.py` found, as numbers, a page and a figure."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from finetuning_study import LEVEL, curves, draw_on, interval, rounded, scores

from napari_lungfm._core.files import write_json, write_text
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.evaluation.statistics import bootstrap_mean

SAM2, VIT, ELLIPSE = "sam2-small", "vit-small", "prompt-ellipse"
#: Recipe → what it begins with.
BASES = {"ours": SAM2, "zhu": SAM2, "ma": SAM2, "medsam": VIT}


# ---------------------------------------------------------------------- the comparison
def comparison(
    found: Mapping[int, tuple[list[Record], Mapping[str, float]]],
    rivals: Mapping[str, tuple[str, dict[str, Any]]],
    steps: Mapping[str, int],
) -> list[dict[str, Any]]:
    """Return a row for every rival, base and baseline, best first.

    ``mean`` is over patients of each one's mean over protocols and fits, with its interval;
    ``spread`` the standard deviation of the means of fits; ``behind`` the mean difference from
    the best training of a SAM 2, patients paired.

    Parameters
    ----------
    found
        Seed of the fits → records, and CPU seconds of the trainings.
    rivals
        Title → recipe and what differs from its defaults.
    steps
        Title → optimiser steps.
    """
    units = pd.concat(
        [titled(records, rivals).assign(seed=seed) for seed, (records, _) in found.items()]
    )
    of_cases = units.groupby(["title", "case"])["dice"].mean().unstack()
    of_fits = units.groupby(["title", "seed"])["dice"].mean().unstack()
    ours = [title for title, (recipe, _) in rivals.items() if BASES[recipe] == SAM2]
    best = of_cases.loc[[t for t in ours if t in of_cases.index]].mean(axis=1).idxmax()
    rows = []
    for title, own in of_cases.iterrows():
        mean = bootstrap_mean(own.to_numpy())
        behind = bootstrap_mean((own - of_cases.loc[best]).to_numpy())
        recipe, changes = rivals.get(str(title), ("", {}))
        by_protocol = units[units["title"] == title].groupby("protocol")["dice"].mean()
        spent = [
            seconds
            for _, cpu in found.values()
            for name, seconds in cpu.items()
            if name.startswith(f"{title} (")
        ]
        spread = of_fits.loc[title].std(ddof=1) if recipe and len(found) > 1 else None
        rows.append(
            {
                "title": title,
                "recipe": recipe,
                "changes": changes,
                "steps": steps.get(str(title)),
                "cpu_seconds": round(sum(spent) / len(spent), 1) if spent else None,
                "dice": {str(name): round(float(v), 4) for name, v in by_protocol.items()},
                "mean": rounded(mean.mean),
                "low": rounded(mean.low),
                "high": rounded(mean.high),
                "fits": [rounded(v) for v in of_fits.loc[title]] if recipe else None,
                "spread": None if spread is None else rounded(spread),
                "behind": rounded(behind.mean),
                "behind_low": None if title == best else rounded(behind.low),
                "behind_high": None if title == best else rounded(behind.high),
            }
        )
    return sorted(rows, key=lambda row: -row["mean"])


def titled(records: list[Record], rivals: Mapping[str, tuple[str, dict[str, Any]]]) -> pd.DataFrame:
    """Return the scores of trainings, bases and baseline with the title of each."""
    parts = [scores(records, model).assign(model=model) for model in (SAM2, VIT, ELLIPSE)]
    units = pd.concat([part for part in parts if len(part)])
    trained = units["label"].isin(rivals)
    units["title"] = units["label"].where(trained, units["model"] + ", zero-shot")
    units.loc[units["model"] == ELLIPSE, "title"] = ELLIPSE
    return units


def comparison_lines(found: dict[str, Any]) -> list[str]:
    protocols, rows, seeds = found["protocols"], found["rows"], found["seeds"]
    fits = (
        f"{len(seeds)} fits each, averaged; their standard deviation is in the column of fits."
        if len(seeds) > 1
        else "One fit each: what repeating a fit changes is not in the intervals."
    )
    lines = [
        "## Settings at equal cost, on validation patients",
        "",
        f"Every training had {found['cpu_seconds_each']:g} s of one core by the time of a step "
        f"measured before, and all {found['training_patients']} training patients of a cohort of "
        f"its own; scored on its {found['patients']} other patients, who are neither trained on "
        "nor scored in the curves. Mean volume Dice; in brackets 95 % BCa intervals over "
        f"patients. {fits}",
        "",
        f"| settings | steps | CPU s | {' | '.join(protocols)} | mean | fits | against the best |",
        "|---|" + "--:|" * (len(protocols) + 5),
    ]
    for row in rows:
        behind = (
            "–"
            if row["behind_low"] is None
            else f"{row['behind']:+.3f} [{row['behind_low']:+.3f}, {row['behind_high']:+.3f}]"
        )
        spent = "–" if row["cpu_seconds"] is None else f"{row['cpu_seconds']:.0f}"
        cells = [f"{row['dice'][name]:.3f}" for name in protocols]
        mean = interval({**row, "dice": row["mean"]})
        name = f"**{row['title']}**" if row["title"] in found["chosen"].values() else row["title"]
        start = [name, str(row["steps"] or "–"), spent]
        spread = "–" if row["spread"] is None else f"± {row['spread']:.3f}"
        lines.append("| " + " | ".join([*start, *cells, mean, spread, behind]) + " |")
    lines += ["", "Bold: the settings with which curves are drawn.", ""]
    changed = [row for row in rows if row["changes"]]
    lines += [
        f"- *{row['title']}*: `{row['recipe']}` with "
        + ", ".join(f"{key} {value}" for key, value in row["changes"].items())
        for row in changed
    ]
    return [*lines, ""]


# ---------------------------------------------------------------------- the curves
def recipe_curves(records: list[Record]) -> dict[str, dict[str, Any]]:
    """Return the curves of every recipe: protocol → points, differences, verdict."""
    ellipse, found = scores(records, ELLIPSE), {}
    for recipe, base in BASES.items():
        units = scores(records, base)
        own = units[(units["label"] == recipe) | (units["percent"] == 0)]
        if len(own) and (own["percent"] > 0).any():
            found[recipe] = curves(own, ellipse)
    return found


def curve_lines(found: dict[str, Any]) -> list[str]:
    seeds = len(found["seeds"])
    lines = [
        "## Curves over training patients, on test patients",
        "",
        f"{found['patients']} test patients; {seeds} fit{'s' if seeds > 1 else ''} for every part, "
        f"{found['cpu_seconds_each']:g} s of one core each, prompted with boxes and with clicks; "
        "0 % is the base itself. In brackets 95 % BCa intervals over patients (fits averaged).",
        "",
    ]
    for recipe, protocols in found["recipes"].items():
        spent = [v for name, v in found["cpu_seconds"].items() if name.startswith(f"{recipe} (")]
        lines += [
            f"### `{recipe}` on {BASES[recipe]}",
            "",
            f"Settings: {found['settings'][recipe]}; {found['steps'][recipe]} steps, "
            f"{min(spent):.0f} to {max(spent):.0f} s of CPU time.",
            "",
        ]
        percents = [point["percent"] for point in next(iter(protocols.values()))["curve"]]
        lines += [
            "| prompts | " + " | ".join(f"{p:g} %" for p in percents) + " | ellipse |",
            "|---|" + "--:|" * (len(percents) + 1),
        ]
        for protocol, each in protocols.items():
            cells = [interval(p) for p in each["curve"]]
            lines.append(
                f"| {protocol} | {' | '.join(cells)} | {each['prompt_only_ellipse']:.3f} |"
            )
        lines += ["", *(f"- **{p}**: {each['verdict']}" for p, each in protocols.items()), ""]
    noise = (
        "and where it is larger than twice its standard error over the fits"
        if seeds > 1
        else "with one fit for every part; what repeating a fit changes is not known"
    )
    return [
        *lines,
        f"A difference counts where Wilcoxon's test over patients, Holm-corrected over all pairs "
        f"of a curve, gives p ≤ {LEVEL}, {noise}.",
        "",
        f"![curves]({found['figure']})",
        "",
    ]


def draw(recipes: dict[str, dict[str, Any]]) -> plt.Figure:
    """Draw a panel for every recipe."""
    figure, _ = plt.subplots(
        1, len(recipes), figsize=(3.6 * len(recipes), 4), sharey=True, layout="constrained"
    )
    for axes, (recipe, protocols) in zip(figure.axes, recipes.items(), strict=True):
        draw_on(axes, protocols)
        axes.set_title(f"{recipe} on {BASES[recipe]}")
    figure.axes[0].set_ylabel("Dice on test patients")
    figure.axes[0].legend(title="prompts", loc="lower right")
    figure.supxlabel("training patients (%); 0 is zero-shot")
    return figure


# ---------------------------------------------------------------------- the page
def base_lines(base: dict[str, Any]) -> list[str]:
    found = base.get("validation") or {}
    looks = [f"{name} {found[name]['mean']:.3f}" for name in ("prompt", "walk") if name in found]
    said = f"; Dice on clips of another seed: {', '.join(looks)}" if looks else ""
    return [
        f"`{SAM2}`: {base['title']}, {base['parameters'] / 1e6:.1f} M parameters, trained for "
        f"{base['cpu_seconds'] / 60:.0f} min of one core ({base['steps']} steps) on the synthetic "
        f"clips of LungFM-S{said}. `{VIT}`: a network of MedSAM's build with random weights. "
        "Neither has seen the scanner or the tumours of these cohorts.",
        "",
    ]


def report_tables(folder: Path) -> list[str]:
    """Return the tables over training parts as the run's own report has them."""
    files = sorted((folder / "report" / "tables").glob("*--paper.md"))
    lines = [
        "## Tables III and IV as the report writes them",
        "",
        "The report has one measure of noise for a whole curve, 1.96 times the standard deviation "
        "of fits, pooled over the parts, times the root of 2 / fits; above, each pair of parts has "
        "the standard error of its own fits, which one bad fit makes large.",
        "",
    ]
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                lines.append(f"### {line.lstrip('# ')}")
            else:
                lines.append(line + "  " if ": Largest" in line else line)
    return [*lines, ""] if files else []


def write_results(out: Path, results: Path) -> None:
    """Write what there is: the comparison, and the curves once they are run."""
    compared = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    result: dict[str, Any] = {"comparison": compared}
    lines = ["# Recipes of fine-tuning at equal cost, and over training data", ""]
    lines += [*base_lines(compared["base"]), *comparison_lines(compared)]
    if (out / "curve.json").is_file():
        found = json.loads((out / "curve.json").read_text(encoding="utf-8"))
        found["recipes"] = recipe_curves(RunFolder.open(out / "curve").load())
        found["figure"] = results.with_suffix(".svg").name
        result["curve"] = found
        mpl.rcParams["svg.hashsalt"] = "finetuning-recipes"
        draw(found["recipes"]).savefig(results.with_suffix(".svg"), metadata={"Date": None})
        lines += [*curve_lines(found), *report_tables(out / "curve")]
    lines += ["`benchmarks/finetuning_recipes.py base | compare | curve`", ""]
    write_json(results.with_suffix(".json"), result)
    write_text(results.with_suffix(".md"), "\n".join(lines))
