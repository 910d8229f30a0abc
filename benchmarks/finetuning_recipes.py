"""Compare the recipes of fine-tuning at equal cost, and draw their curves over training data.

    P="taskset -c 0 env OMP_NUM_THREADS=1 .venv/bin/python benchmarks/finetuning_recipes.py"
    $P base OUT --bank BANK     # trains a small SAM 2, and writes a ViT of random weights
    $P compare OUT              # recipes and settings at equal CPU time, on validation patients
    $P curve OUT                # 0, 25, 50, 75 and 100 %, on test patients

Every step goes on where it was interrupted; those after the first write what there is to
``--results``. BANK is a folder of clips of the generator that LungFM-S learns from, made by
``training.synthetic.fill_bank(BANK, 1, range(2450))``, on which the small SAM 2 is trained as in
``lungfm_s_design.py``.

The patients are those of ``finetuning_study.yaml``. The comparison has patients of its own, drawn
from the same distribution by another seed: neither those that the curves are trained on nor those
that they are scored on had a part in any choice. Equal cost: before anything is trained, a few
steps of every training are timed, and each gets as many steps as fit into the same CPU time.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from finetuning_recipes_results import comparison, write_results
from lungfm_s_design import Design, Fit

from napari_lungfm._core.environment import hardware, package_versions, source_hash
from napari_lungfm._core.files import write_json
from napari_lungfm.benchmark.config import BenchmarkConfig, parse_config
from napari_lungfm.benchmark.events import RunEvent
from napari_lungfm.benchmark.report import write_report
from napari_lungfm.benchmark.runner import run_benchmark
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.geometry import Structure
from napari_lungfm.models.automatic.trained import is_trained_model
from napari_lungfm.models.foundation.finetuned import BaseFacts, FineTunedSettings, build_network
from napari_lungfm.training.finetune.base import load_base
from napari_lungfm.training.finetune.cases import StoredCase, store_cohort
from napari_lungfm.training.finetune.config import FineTuning
from napari_lungfm.training.finetune.finish import write_base
from napari_lungfm.training.finetune.samples import ClipSource
from napari_lungfm.training.promptable.sam2_task import Sam2Task, small_config, untrained_sam2

HERE = Path(__file__).parent
SEED = 1
SIDE = 96  # px of the small SAM 2
WINDOW = (-600.0, 1500.0)  # level and width in HU, of both bases
SAM2, VIT = "sam2-small", "vit-small"
#: As MedSAM's ViT-B is built, a few hundred times smaller.
SMALL_VIT: dict[str, Any] = {
    "image_size": 128,
    "embed_dim": 64,
    "depth": 4,
    "num_heads": 4,
    "global_attn_indexes": [1, 3],
    "window_size": 4,
    "prompt_dim": 128,
}
#: What the comparison is decided by, and what the curves are drawn of.
COMPARED = ("box-every-slice", "box-one", "point-one")
PROTOCOLS = ("box-every-slice", "box-one", "point-every-slice", "point-one")
#: Recipe → its shipped configuration.
CONFIGURATIONS = {
    "zhu": "medsam2-zhu",
    "ma": "medsam2-ma",
    "ours": "medsam2-ours",
    "medsam": "medsam-box",
}
#: Published learning rates are for networks that are ten times as large or more, and better
#: trained. Here each recipe is tried with them and with larger ones.
FASTER = {"learning_rate": 5e-4}
ADAPTERS = {"encoder": "adapters"}
#: Title → recipe and what differs from its defaults.
RIVALS: dict[str, tuple[str, dict[str, Any]]] = {
    "zhu": ("zhu", {}),
    "zhu, rates × 10": ("zhu", {"learning_rate": 1e-3, "memory_learning_rate": 1e-7}),
    "ma": ("ma", {}),
    "ma, rates × 10, batches of 2": (
        "ma",
        {"learning_rate": 5e-4, "encoder_learning_rate": 3e-4, "batch_size": 2},
    ),
    "ours": ("ours", {}),
    "ours, faster": ("ours", FASTER),
    "ours, faster, clips of 3": ("ours", {**FASTER, "clip": 3, "batch_size": 4}),
    "ours, adapters": ("ours", ADAPTERS),
    "ours, faster, adapters": ("ours", {**FASTER, **ADAPTERS}),
    "ours, faster, adapters of rank 32": (
        "ours",
        {**FASTER, **ADAPTERS, "rank": 32, "alpha": 64.0},
    ),
    # So small a rate that the adapters stay what they begin as: nothing.
    "ours, faster, encoder as it is": (
        "ours",
        {**FASTER, **ADAPTERS, "encoder_learning_rate": 1e-12},
    ),
    "medsam": ("medsam", {}),
    "medsam, rate × 10": ("medsam", {"learning_rate": 1e-3}),
}


# ---------------------------------------------------------------------- the bases
def random_weights(**values: Any) -> FineTunedSettings:
    facts = BaseFacts(name="random weights", sha256="", licence="BSD-3-Clause", commercial="yes")
    return FineTunedSettings(window=WINDOW, base=facts, **values)


def small_sam2(rate: float) -> Sam2Task:
    low, high = WINDOW[0] - WINDOW[1] / 2, WINDOW[0] + WINDOW[1] / 2
    network = untrained_sam2(small_config(SIDE), SEED)
    colours = [(low, high)] * 3
    return Sam2Task(network, seed=SEED, steps=1, learning_rate=rate, colours=colours)


def make_bases(options: argparse.Namespace) -> None:
    """Train the base of the SAM 2 recipes, and write it and that of MedSAM."""
    if not is_trained_model(options.out / VIT):
        settings = random_weights(network="sam", build=SMALL_VIT, preprocessing="medsam")
        torch.manual_seed(SEED)
        write_base(options.out / VIT, VIT, build_network(settings), settings)
    if is_trained_model(options.out / SAM2):
        return
    design = Design(f"small SAM 2, {SIDE} px", small_sam2, bfloat16=False, image_size=SIDE)
    fit = Fit(design, options.rate, options.minutes, options)
    facts = {
        "title": design.title,
        "parameters": sum(p.numel() for p in fit.task.network.parameters()),
        "clips": options.clips,
        "batch": options.batch,
        "learning_rate": options.rate,
        "steps": fit.steps,
        "cpu_seconds": round(fit.cpu_seconds, 1),
        "validation": fit.validate(options) if options.validation_bank else None,
        "training_curve_in_tenths": fit.curve_in_tenths(),
        "code": source_hash(),
        "versions": package_versions(),
        "hardware": hardware(),
    }
    settings = random_weights(network="sam2", build=small_config(SIDE))
    write_json(options.out / "base.json", facts)
    write_base(options.out / SAM2, SAM2, fit.task.network, settings)
    print(facts)


# ---------------------------------------------------------------------- configurations
def cohort(name: str, seed: int | None, n_train: int, n_test: int) -> dict[str, Any]:
    """Return the cohort of the study, or patients of another seed."""
    text = (HERE / "finetuning_study.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)["cohorts"][0]
    values |= {"name": name, "n_train": n_train, "n_test": n_test}
    return values if seed is None else values | {"seed": seed}


def training(title: str, label: str, steps: int, protocols: tuple[str, ...]) -> dict[str, Any]:
    """Return the method that trains a rival for so many steps and scores it."""
    recipe, changes = RIVALS[title]
    batch = FineTuning.model_validate(
        {"name": "x", "base": "x", "recipe": {"name": recipe, **changes}}
    ).recipe.batch_size
    return {
        "train": CONFIGURATIONS[recipe],
        "label": label,
        "prompts": "mixed",
        "protocols": list(protocols),
        "settings": {
            "base": VIT if recipe == "medsam" else SAM2,
            "recipe": {"name": recipe, **changes},
            "validation": 0,
            "epochs": 1,
            "samples_per_epoch": steps * batch,
            "workers": 0,
            "fit": {"precision": "float32", "early_stopping": None},
            "keep": "last",
        },
    }


def configuration(
    name: str,
    patients: dict[str, Any],
    trainings: list[dict[str, Any]],
    protocols: tuple[str, ...],
    seeds: list[int],
    out: Path,
) -> BenchmarkConfig:
    """Return a run of trainings, their bases as they are, and the shape of the prompt."""
    used = {method["settings"]["base"] for method in trainings}
    known = ["prompt-ellipse", *(base for base in (SAM2, VIT) if base in used)]
    values = {
        "schema_version": 1,
        "name": name,
        "seeds": seeds,
        "structures": ["tumour"],
        "count_macs": False,
        "cohorts": [patients],
        "methods": [{"model": model, "protocols": list(protocols)} for model in known] + trainings,
    }
    return parse_config(values, base=out)


# ---------------------------------------------------------------------- equal cost
def seconds_per_step(config: FineTuning, cases: tuple[StoredCase, ...], out: Path) -> float:
    """Return the CPU time of an optimiser step, preparation of its samples included."""
    base = load_base(config.base, config.recipe.networks, place=out)
    package = "medsam" if config.recipe.name == "medsam" else "sam2"
    module = importlib.import_module(f"napari_lungfm.training.finetune.{package}")
    task = module.make_task(config, base, 1000)
    recipe = config.recipe
    source = ClipSource(
        cases, config.structures, recipe.clip, SEED, 10_000,
        turn=recipe.turn, least_pixels=recipe.least_pixels, prepare=task.prepare,
    )  # fmt: skip
    made = task.configure_optimizers()
    optimiser = made["optimizer"] if isinstance(made, dict) else made
    task.train()
    began, steps, size = time.process_time(), -1, recipe.batch_size
    while steps < 4 or time.process_time() - began < 6:  # draws make some steps longer
        if steps == 0:  # the first one allocates
            began = time.process_time()
        steps += 1
        batch = [source[0, steps * size + place] for place in range(size)]
        task.training_step(batch, steps).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return (time.process_time() - began) / steps


def timed(titles: list[str], out: Path, tiny: bool) -> dict[str, float]:
    """Return the CPU time of a step of every rival; it is measured once."""
    file = out / "seconds-per-step.json"
    known: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
    for title in titles:
        if title in known:
            continue
        config = compare_config({title: 1}, out, tiny)
        patients = config.cohorts[0].build(out)
        structures = (Structure.TUMOUR,)
        cases = store_cohort(patients, out / "timing-cases", structures=structures)
        (method,) = (m for m in config.look_up(out) if m.training is not None)
        known[title] = round(seconds_per_step(method.training, cases, out), 4)
        print(f"{title}: {known[title]:.3f} s a step", file=sys.stderr, flush=True)
        write_json(file, known)
    return known


def steps_in(seconds: float, titles: list[str], out: Path, tiny: bool) -> dict[str, int]:
    of_step = timed(titles, out, tiny)
    return {title: max(1, round(seconds / of_step[title])) for title in titles}


class Stopwatch:
    """Prints what a run tells, and keeps the CPU time of its trainings."""

    def __init__(self, file: Path) -> None:
        self._file, self._began = file, 0.0
        self.found: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}

    def __call__(self, event: RunEvent) -> None:
        if event.kind == "step":
            return
        print(time.strftime("%H:%M:%S"), event.text, file=sys.stderr, flush=True)
        name, _, told = event.text.removeprefix("training ").rpartition(": ")
        if event.kind == "training" and told == "begins":
            self._began = time.process_time()
        elif event.kind == "training" and told.startswith("done"):
            self.found[name] = round(time.process_time() - self._began, 1)
            write_json(self._file, self.found)


def do(config: BenchmarkConfig, out: Path, base: Path) -> tuple[RunFolder, dict[str, float]]:
    """Run a configuration, and return its folder and the CPU time of its trainings."""
    out.mkdir(parents=True, exist_ok=True)
    watch = Stopwatch(out / "cpu-seconds.json")
    folder = run_benchmark(config, out, base=base, device="cpu", listener=watch)
    failed = [record.error for record in folder.load() if record.status != "ok"]
    if failed:
        sys.exit(f"{len(failed)} units failed, the first with: {failed[0]}; run it again")
    return folder, watch.found


# ---------------------------------------------------------------------- the comparison
def compare_config(steps: dict[str, int], out: Path, tiny: bool, seed: int = 0) -> BenchmarkConfig:
    patients = cohort("cone-beam-validation", 8, *((4, 2) if tiny else (16, 12)))
    trainings = [training(title, title, n, COMPARED) for title, n in steps.items()]
    for method in trainings:
        method["settings"]["seed"] = seed
    return configuration("finetuning-recipes-compare", patients, trainings, COMPARED, [SEED], out)


def compare(options: argparse.Namespace) -> None:
    """Train every rival for the same CPU time, and score it on validation patients."""
    titles = list(CONFIGURATIONS) if options.tiny else list(RIVALS)
    steps = steps_in(options.seconds, titles, options.out, options.tiny)
    found = {}
    for seed in options.seeds:
        config = compare_config(steps, options.out, options.tiny, seed)
        folder, cpu = do(config, options.out / f"compare-seed-{seed}", options.out)
        found[seed] = (folder.load(), cpu)
        rows = comparison(found, RIVALS, steps)
        result = {
            "cpu_seconds_each": options.seconds,
            "seeds": list(found),
            "training_patients": config.cohorts[0].n_train,
            "patients": config.cohorts[0].n_test,
            "protocols": COMPARED,
            "base": json.loads((options.out / "base.json").read_text()),
            "rows": rows,
            "chosen": chosen(rows),
            "configuration": config.model_dump(mode="json", exclude_none=True),
        }
        write_json(options.out / "comparison.json", result)
        write_results(options.out, options.results)


def chosen(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return the best settings of every recipe: recipe → title."""
    table = pd.DataFrame([row for row in rows if row["title"] in RIVALS])
    best = table.loc[table.groupby("recipe", sort=False)["mean"].idxmax()]
    return dict(zip(best["recipe"], best["title"], strict=True))


# ---------------------------------------------------------------------- the curves
def draw_curves(options: argparse.Namespace) -> None:
    """Train the best settings of every recipe on parts of the patients, and score them."""
    best = json.loads((options.out / "comparison.json").read_text())["chosen"]
    steps = steps_in(options.seconds, list(best.values()), options.out, options.tiny)
    fractions = [0.5, 1.0] if options.tiny else [0.25, 0.5, 0.75, 1.0]
    parts = {"fraction": fractions, "seeds": options.seeds}
    trainings = [
        training(title, recipe, steps[title], PROTOCOLS) | parts for recipe, title in best.items()
    ]
    patients = cohort("cone-beam", None, *((4, 2) if options.tiny else (16, options.test)))
    config = configuration(
        "finetuning-recipes", patients, trainings, PROTOCOLS, options.seeds, options.out
    )
    folder, cpu = do(config, options.out / "curve", options.out)
    report = write_report(folder, overlay_cases=0)
    facts = {
        "title": "Recipes over training data: " + patients["title"],
        "steps": {recipe: steps[title] for recipe, title in best.items()},
        "settings": best,
        "cpu_seconds_each": options.seconds,
        "cpu_seconds": cpu,
        "patients": patients["n_test"],
        "seeds": options.seeds,
        "configuration": config.model_dump(mode="json", exclude_none=True),
        "report": [path.name for path in report.tables],
        "code": source_hash(),
        "versions": package_versions(),
        "hardware": hardware(),
    }
    write_json(options.out / "curve.json", facts)
    write_results(options.out, options.results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    base = steps.add_parser("base", help="train and write what is fine-tuned")
    base.add_argument("--bank", type=Path, required=True, help="clips of seed 1")
    base.add_argument("--validation-bank", type=Path, help="clips of seed 2, to measure it")
    base.add_argument("--clips", type=int, default=2450)
    base.add_argument("--validation-clips", type=int, default=40)
    base.add_argument("--validation-rounds", type=int, default=1)
    base.add_argument("--minutes", type=float, default=12.0, help="CPU minutes")
    base.add_argument("--rate", type=float, default=1e-3)
    base.add_argument("--batch", type=int, default=8)
    base.set_defaults(run=make_bases)
    against = steps.add_parser("compare", help="recipes and settings at equal cost")
    against.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the fits")
    against.set_defaults(run=compare)
    curve = steps.add_parser("curve", help="parts of the training patients")
    curve.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    curve.add_argument("--test", type=int, default=24, help="test patients")
    curve.set_defaults(run=draw_curves)
    for step in steps.choices.values():
        step.add_argument("out", type=Path, help="folder of everything")
    for step in (against, curve):
        step.add_argument("--seconds", type=float, default=40.0, help="CPU time of a training")
        step.add_argument("--tiny", action="store_true", help="few patients, to try it out")
        step.add_argument("--results", type=Path, default=HERE / "results" / "finetuning_recipes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.run(options)


if __name__ == "__main__":
    main()
