"""Run the study of training fractions and write its results.

nice -n 15 .venv/bin/python benchmarks/finetuning_study.py OUT
    --results benchmarks/results/finetuning_study

An interrupted run goes on when the same command is given again; with everything done, only the
results are written anew. ``--config`` takes any benchmark's configuration with zero-shot and
fine-tuned methods of one base.
"""

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from napari_lungfm._core.environment import hardware, package_versions, source_hash
from napari_lungfm._core.files import write_json, write_text
from napari_lungfm.benchmark.config import load_config
from napari_lungfm.benchmark.plan import build_cohorts
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.runner import run_benchmark
from napari_lungfm.benchmark.states import training_percent
from napari_lungfm.benchmark.trainings import plan_trainings
from napari_lungfm.evaluation.statistics import bootstrap_mean, compare_all
from napari_lungfm.models.automatic.trained import read_description

HERE = Path(__file__).parent
LEVEL = 0.05


def scores(records: list[Record], base: str) -> pd.DataFrame:
    """Return the Dice of every unit of a base: label, protocol, percent, seed, case, dice."""
    rows = [
        {
            "label": record.key.label or "",
            "protocol": record.key.protocol,
            "percent": training_percent(record.key.state),
            "seed": record.key.seed,
            "case": record.key.case,
            "dice": record.structures[0].dice,
        }
        for record in records
        if record.key.model == base and record.structures
    ]
    columns = ["label", "protocol", "percent", "seed", "case", "dice"]
    return pd.DataFrame(rows, columns=columns).dropna(subset="percent").astype({"dice": float})


def rounded(value: float) -> float | None:
    """Return a number as results have it; ``None`` for one that there is not."""
    return None if np.isnan(value) else round(float(value), 4)


def interval(of: dict) -> str:
    """Return a mean with its interval, which very few patients have not."""
    low, high = ("–" if of[end] is None else f"{of[end]:.3f}" for end in ("low", "high"))
    return f"{of['dice']:.3f} [{low}, {high}]"


def spread(by_seed: pd.Series) -> float:
    """Standard deviation over fits of the mean over patients."""
    return float(by_seed.std(ddof=1)) if len(by_seed) > 1 else float("nan")


def curve(units: pd.DataFrame) -> list[dict]:
    """Return the points of a learning curve: patients' interval, and spread over the fits."""
    points = []
    for percent, own in units.groupby("percent"):
        estimate = bootstrap_mean(own.groupby("case")["dice"].mean().to_numpy())
        by_seed = own.groupby("seed")["dice"].mean()
        points.append(
            {
                "percent": percent,
                "dice": rounded(estimate.mean),
                "low": rounded(estimate.low),
                "high": rounded(estimate.high),
                "patients": estimate.n,
                "of_seeds": {str(seed): round(value, 4) for seed, value in by_seed.items()},
                "sd_of_seeds": rounded(spread(by_seed)),
            }
        )
    return points


def differences(units: pd.DataFrame) -> list[dict]:
    """Return every pair of points of a curve, and whether it differs by more than the noise.

    More than the noise: Wilcoxon's test over patients (seeds averaged), Holm-corrected over all
    pairs of the curve, and a mean difference above twice its standard error over the fits, which
    one fit cannot tell: then the test over patients alone decides.
    """
    cases = units.groupby(["percent", "case"])["dice"].mean().unstack()
    seeds = units.groupby(["percent", "seed"])["dice"].mean().unstack()
    found = []
    for pair in compare_all(cases).to_dict("records"):
        less, more = sorted((pair["method_a"], pair["method_b"]))
        gain = bootstrap_mean((cases.loc[more] - cases.loc[less]).to_numpy())
        over_fits = (seeds.loc[more] - seeds.loc[less]).dropna()
        error = float(spread(over_fits) / np.sqrt(max(1, len(over_fits))))
        significant = pair["p_holm"] <= LEVEL
        found.append(
            {
                "from": less,
                "to": more,
                "gain": rounded(gain.mean),
                "low": rounded(gain.low),
                "high": rounded(gain.high),
                "p_holm": float(f"{pair['p_holm']:.3g}"),
                "standard_error_over_fits": rounded(error),
                "beyond_noise": bool(significant and not abs(gain.mean) <= 2 * error),
            }
        )
    return found


def verdict(pairs: list[dict]) -> str:
    """Return a sentence on what the curve shows."""
    of_base = [p for p in pairs if p["from"] == 0]
    among = [p for p in pairs if p["from"] > 0]
    shown = [f"{p['to']:g} %" for p in of_base if p["beyond_noise"] and p["gain"] > 0]
    if all(p["standard_error_over_fits"] is None for p in pairs):
        differ = sum(p["beyond_noise"] for p in among)
        return (
            f"Better than zero-shot over patients: {', '.join(shown) or 'no fraction'}. Among the "
            f"fractions {differ} of {len(among)} pairs differ over patients; with one fit each "
            "that may be the fits."
        )
    text = (
        f"Fine-tuning on {', '.join(shown)} of the patients is better than zero-shot by more than "
        "the noise. "
        if shown
        else "No fraction is better than zero-shot by more than the noise. "
    )
    apart = [f"{p['from']:g} and {p['to']:g} %" for p in among if p["beyond_noise"]]
    return text + (
        f"Among the fractions, these differ by more than the noise: {'; '.join(apart)}."
        if apart
        else "Among the fractions no difference exceeds the noise of patients and fits."
    )


def curves(units: pd.DataFrame, ellipse: pd.DataFrame) -> dict[str, dict]:
    """Return the curve of every protocol, its differences, and what they show."""
    drawn = ellipse.groupby("protocol")["dice"].mean()
    found = {}
    for protocol, own in units.groupby("protocol", sort=False):
        pairs, known = differences(own), drawn.get(protocol)
        found[str(protocol)] = {
            "curve": curve(own),
            "prompt_only_ellipse": None if known is None else round(float(known), 4),
            "differences": pairs,
            "verdict": verdict(pairs),
        }
    return found


def draw(result: dict) -> plt.Figure:
    """Draw the curves of a base."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    draw_on(axes, result["protocols"])
    axes.set(xlabel="training patients (%); 0 is zero-shot", ylabel="Dice on test patients")
    axes.legend(title="prompts")
    return figure


def draw_on(axes: plt.Axes, protocols: dict[str, dict]) -> None:
    """Draw curves: mean, interval over patients, and every fit."""
    for number, (protocol, found) in enumerate(protocols.items()):
        points = found["curve"]
        x = [p["percent"] + 0.8 * (number - 1.5) for p in points]
        mean = np.array([p["dice"] for p in points])
        low, high = (np.array([p[end] for p in points], float) for end in ("low", "high"))
        bars = np.nan_to_num([mean - low, high - mean])
        line = axes.errorbar(x, mean, bars, marker="o", capsize=3, label=protocol)
        for place, point in zip(x, points, strict=True):
            fits = list(point["of_seeds"].values())
            axes.plot([place] * len(fits), fits, "_", color=line[0].get_color(), alpha=0.6)
    axes.set_xticks([0, 25, 50, 75, 100])


def markdown(result: dict) -> str:
    """Return the results as a page."""
    lines = [
        f"# {result['title']}",
        "",
        f"Base: `{result['base']}`. {result['patients']} test cases, none of them trained on or "
        "used for any choice. Mean volume Dice of the tumour; in brackets the 95 % BCa interval "
        "over patients (fits averaged), after ± the standard deviation over the fits (zero-shot: "
        "over the seeds of the prompts).",
        "",
        "| prompts | " + " | ".join(f"{p:g} %" for p in result["percents"]) + " | ellipse |",
        "|---|" + "--:|" * (len(result["percents"]) + 1),
    ]
    for protocol, found in result["protocols"].items():
        cells = [
            interval(p) + ("" if p["sd_of_seeds"] is None else f" ± {p['sd_of_seeds']:.3f}")
            for p in found["curve"]
        ]
        base = found["prompt_only_ellipse"]
        cells.append("–" if base is None else f"{base:.3f}")
        lines.append(f"| {protocol} | " + " | ".join(cells) + " |")
    lines += ["", f"![curves]({result['figure']})", "", "## Against zero-shot", ""]
    lines += [
        "| prompts | patients | gain in Dice | p (Holm) | beyond noise |",
        "|---|--:|--:|--:|---|",
    ]
    for protocol, found in result["protocols"].items():
        lines += [
            f"| {protocol} | {p['to']:g} % | {p['gain']:+.3f} [{p['low']:+.3f}, {p['high']:+.3f}] "
            f"| {p['p_holm']:.2g} | {'yes' if p['beyond_noise'] else 'no'} |"
            for p in found["differences"]
            if p["from"] == 0
        ]
    lines += ["", "## Larger than the noise?", "", result["noise"], ""]
    lines += [f"- **{name}**: {found['verdict']}" for name, found in result["protocols"].items()]
    return "\n".join([*lines, "", f"`{result['command']}`", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the run")
    parser.add_argument("--config", type=Path, default=HERE / "finetuning_study.yaml")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "finetuning_study")
    parser.add_argument("--base", default="lungfm-s")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    config, place = load_config(arguments.config), arguments.config.resolve().parent
    folder = run_benchmark(
        config,
        arguments.out,
        base=place,
        device=arguments.device,
        listener=lambda event: event.kind == "step" or print(event.text, file=sys.stderr),
    )
    records = folder.load()
    failed = [record.error for record in records if record.status != "ok"]
    if failed:
        sys.exit(f"{len(failed)} units failed, the first with: {failed[0]}; run it again")
    units = scores(records, arguments.base)
    protocols = curves(units, scores(records, "prompt-ellipse"))
    planned = plan_trainings(config.look_up(place), build_cohorts(config, place))
    fits = [read_description(folder.trainings / each.folder_name) for each in planned]
    bases = sorted({str(fit.settings["base"]["sha256"]) for fit in fits})
    result = {
        "title": "What training data buys: " + config.cohorts[0].title,
        "base": arguments.base,
        "base_sha256": bases,
        "patients": units["case"].nunique(),
        "percents": sorted(units["percent"].unique()),
        "noise": "A difference counts where Wilcoxon's test over patients, Holm-corrected over all "
        f"pairs of the curve, gives p ≤ {LEVEL}, and where it is larger than twice its standard "
        "error over the fits.",
        "protocols": protocols,
        "configuration": config.model_dump(mode="json", exclude_none=True),
        "figure": arguments.results.with_suffix(".svg").name,
        "command": f"benchmarks/finetuning_study.py OUT --config {arguments.config.name}",
        "code": source_hash(),
        "versions": package_versions(),
        "hardware": hardware(),
        "finished": max(record.finished for record in records),
    }
    write_json(arguments.results.with_suffix(".json"), result)
    write_text(arguments.results.with_suffix(".md"), markdown(result))
    mpl.rcParams["svg.hashsalt"] = "finetuning-study"
    draw(result).savefig(arguments.results.with_suffix(".svg"), metadata={"Date": None})
    print(markdown(result))


if __name__ == "__main__":
    main()
