"""Which design LungFM-S should have: a U-Net with prompt channels, or a small SAM 2.

Every design learns from random weights on the same episodes in the same order, for the same CPU
time of one thread, which does not depend on what else the machine does; the learning rate rises
over the first twentieth of it and then falls along half a cosine. At the end all answer the same
validation episodes, of clips that were not trained on. Episodes whose walk goes between finished
slices are left out of the measurement, for the U-Net is told more there than SAM 2 can be.

The learning rate of a design is the best of a few that were each tried for a minute; the best is
the one with the highest Dice on the training episodes of its last third.

Banks are folders of clips from `training.synthetic.fill_bank`, made from seeds 1 and 2.

    taskset -c 1 python benchmarks/lungfm_s_design.py --bank BANK --validation-bank BANK2 \
        --out benchmarks/results/lungfm_s_design.json
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_lungfm._core.environment import hardware, package_versions
from napari_lungfm._core.files import write_json, write_text
from napari_lungfm._core.seeding import generator
from napari_lungfm.models.lungfm.look import CHANNELS
from napari_lungfm.models.lungfm.window import LOOK_SIDE
from napari_lungfm.training.promptable.config import NetworkSizes
from napari_lungfm.training.promptable.episodes import Episode, EpisodeSource
from napari_lungfm.training.promptable.sam2_task import Sam2Task, small_config, untrained_sam2
from napari_lungfm.training.promptable.task import PromptTask
from napari_lungfm.training.synthetic import ClipBank

SEED = 1
WALK = 3
WARM_UP = 0.05  # of the budget
KINDS = ("prompt", "walk", "correction", "second correction", "presence")


@dataclass(frozen=True)
class Design:
    """One of the rivals: how it is made, and the precision that it learns fastest in here."""

    title: str
    make: Callable[[float], PromptTask]
    bfloat16: bool
    image_size: int
    rates_of: str | None = None  # takes the learning rate of another design


def unet(rate: float) -> PromptTask:
    return PromptTask(
        NetworkSizes().config(), seed=SEED, steps=1, learning_rate=rate, lone_clicks=False
    )


def sam2(size: int) -> Callable[[float], PromptTask]:
    def make(rate: float) -> PromptTask:
        network = untrained_sam2(small_config(size), SEED)
        return Sam2Task(network, seed=SEED, steps=1, learning_rate=rate)

    return make


DESIGNS = {
    "unet": Design("U-Net with prompt channels, 128 px", unet, True, LOOK_SIDE),
    "sam2-128": Design("small SAM 2, 128 px", sam2(128), False, 128),
    "sam2-256": Design("small SAM 2, 256 px", sam2(256), False, 256, rates_of="sam2-128"),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--validation-bank", type=Path, required=True)
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=list(DESIGNS))
    parser.add_argument("--clips", type=int, default=2450, help="training clips used")
    parser.add_argument("--validation-clips", type=int, default=160)
    parser.add_argument("--validation-rounds", type=int, default=2, help="episodes of every clip")
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU minutes for each design")
    parser.add_argument("--trial-minutes", type=float, default=1.0)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, help="JSON; the table goes beside it as Markdown")
    return parser.parse_args()


def batches(options: argparse.Namespace) -> Iterator[list[Episode]]:
    """Training episodes without end, the same for all."""
    bank = ClipBank(options.bank)
    source = EpisodeSource(bank, range(options.clips), SEED, WALK, 10**9)
    number = 0
    while True:
        yield [source[0, number + i] for i in range(options.batch)]
        number += options.batch


def fraction_of_rate(done: float) -> float:
    if done < WARM_UP:
        return max(done, 0.01 * WARM_UP) / WARM_UP
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (done - WARM_UP) / (1.0 - WARM_UP))))


class Fit:
    """One design, trained for a time."""

    def __init__(self, design: Design, rate: float, minutes: float, options: argparse.Namespace):
        self.design, self.steps, self.curve = design, 0, []
        self.task = design.make(rate).train()
        optimizer = self.task.configure_optimizers()["optimizer"]
        began, budget = time.process_time(), 60.0 * minutes
        for episodes in batches(options):
            done = (time.process_time() - began) / budget
            if done >= 1.0:
                break
            for group in optimizer.param_groups:
                group["lr"] = rate * fraction_of_rate(done)
            scores = self.scores(episodes, generator("looks", SEED, self.steps))
            loss = scores.loss()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.task.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            self.steps += 1
            values = {name: float(value) for name, value in scores.metrics().items()}
            self.curve.append({"done": done, "loss": loss.item(), **values})
        self.cpu_seconds = time.process_time() - began

    def scores(self, episodes: list[Episode], rng: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.design.bfloat16):
            return self.task._run(episodes, rng)

    def mean(self, name: str, since: float) -> float:
        found = [row[name] for row in self.curve if row["done"] >= since and name in row]
        return sum(found) / max(len(found), 1)

    def curve_in_tenths(self) -> list[dict[str, float]]:
        names = ("loss", "prompt", "walk", "correction", "presence")
        parts = [[r for r in self.curve if int(10 * r["done"]) == i] for i in range(10)]
        return [
            {n: round(sum(r[n] for r in part if n in r) / max(1, sum(n in r for r in part)), 4)
             for n in names}
            for part in parts
        ]  # fmt: skip

    def validate(self, options: argparse.Namespace) -> dict[str, dict[str, float]]:
        """Mean and standard error over all looks of a kind."""
        count = options.validation_clips
        bank = ClipBank(options.validation_bank)
        source = EpisodeSource(bank, range(count), SEED, WALK, count)
        items = [(r, n) for r in range(options.validation_rounds) for n in range(count)]
        episodes = [e for e in (source[item] for item in items) if e.kind == "beside"]
        found: dict[str, list[Tensor]] = {}
        self.task.eval()
        with torch.inference_mode():
            for number, first in enumerate(range(0, len(episodes), options.batch)):
                part = episodes[first : first + options.batch]
                scores = self.scores(part, generator("looks", "validation", number))
                for kind, values in scores._dice.items():
                    found.setdefault(kind, []).extend(values)
        results = {}
        for kind, values in ((k, torch.cat(v)) for k, v in found.items()):
            error = float(values.std() / math.sqrt(len(values)))
            results[kind] = {"mean": float(values.mean()), "error": error, "n": len(values)}
        return results | {"episodes": {"n": len(episodes)}}


# ---------------------------------------------------------------------- time of one slice
def least_time(run: Callable[[], Any], repeats: int = 30) -> float:
    """Least seconds of a call: CPU time of one thread, wall time of several.

    What else runs on the machine hardly changes the first, and only adds to the second.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times = []
    for _ in range(repeats):
        began = clock()
        run()
        times.append(clock() - began)
    return min(times[2:])


def slice_times(design: Design, bfloat16: bool) -> dict[str, float]:
    """Seconds for one slice: from a prompt, and on a walk with a full memory."""
    network: Any = design.make(1e-3).network.eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        if isinstance(design.make(1e-3), Sam2Task):
            return _sam2_times(network, design.image_size)
        look = torch.rand(1, CHANNELS, LOOK_SIDE, LOOK_SIDE)
        look = look.contiguous(memory_format=torch.channels_last)
        seconds = least_time(lambda: network(look))
        return {"prompt": seconds, "walk": seconds}


def _sam2_times(network: Any, size: int) -> dict[str, float]:
    image = torch.randn(1, 3, size, size)
    points = {
        "point_coords": torch.tensor([[[30.0, 30.0], [90.0, 90.0]]]),
        "point_labels": torch.tensor([[2, 3]], dtype=torch.int32),
    }
    outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}

    def look(number: int, box: Any) -> Any:
        _, maps, places, sizes = network._prepare_backbone_features(network.forward_image(image))
        return network.track_step(
            number, number == 0, maps, places, sizes, box, None, outputs, 100, False
        )

    outputs["cond_frame_outputs"][0] = look(0, points)
    for number in range(1, 8):
        outputs["non_cond_frame_outputs"][number] = look(number, None)
    return {
        "prompt": least_time(lambda: look(0, points)),
        "walk": least_time(lambda: look(8, None)),
    }


def all_times(design: Design) -> dict[str, dict[str, float]]:
    """Times by threads and precision; two threads need two cores, whatever this one is bound to."""
    bound = os.sched_getaffinity(0)
    results = {}
    for threads in (1, 2):
        if threads > len(bound):
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
        torch.set_num_threads(threads)
        for bfloat16 in (False, True):
            what = "CPU time, 1 thread" if threads == 1 else f"wall time, {threads} threads"
            name = f"{what}, {'bf16' if bfloat16 else 'fp32'}"
            results[name] = slice_times(design, bfloat16)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, bound)
    return results


# ---------------------------------------------------------------------- the comparison
def best_rate(name: str, options: argparse.Namespace) -> tuple[float, dict[str, float]]:
    tried = {}
    for rate in options.rates:
        fit = Fit(DESIGNS[name], rate, options.trial_minutes, options)
        dice = (fit.mean("prompt", 2 / 3) + fit.mean("walk", 2 / 3)) / 2
        tried[f"{rate:g}"] = dice
        print(f"{name}: rate {rate:g}, {fit.steps} steps, Dice {dice:.3f}", flush=True)
    return float(max(tried, key=tried.__getitem__)), tried


def measure(name: str, rate: float, options: argparse.Namespace) -> dict[str, Any]:
    design = DESIGNS[name]
    fit = Fit(design, rate, options.minutes, options)
    looks = fit.steps * options.batch * (1 + WALK)
    return {
        "title": design.title,
        "parameters": sum(p.numel() for p in fit.task.network.parameters()),
        "learning_rate": rate,
        "precision": "bf16" if design.bfloat16 else "fp32",
        "cpu_seconds": fit.cpu_seconds,
        "steps": fit.steps,
        "slices_asked": looks,  # without corrections
        "validation": fit.validate(options),
        "training_curve_in_tenths": fit.curve_in_tenths(),
        "seconds_per_slice": all_times(design),
    }


def table(results: dict[str, Any]) -> str:
    rows = ["| | " + " | ".join(r["title"] for r in results["designs"].values()) + " |"]
    rows.append("|---" * (1 + len(results["designs"])) + "|")

    def row(title: str, cell: Callable[[dict[str, Any]], str]) -> None:
        rows.append(f"| {title} | " + " | ".join(map(cell, results["designs"].values())) + " |")

    def score(kind: str) -> Callable[[dict[str, Any]], str]:
        def cell(result: dict[str, Any]) -> str:
            found = result["validation"].get(kind)
            return "{mean:.3f} ± {error:.3f}".format(**found) if found else "none"

        return cell

    row("parameters", lambda r: f"{r['parameters'] / 1e6:.2f} M")
    row("learning rate", lambda r: f"{r['learning_rate']:g}")
    row("CPU time of training", lambda r: f"{r['cpu_seconds'] / 60:.1f} min, {r['precision']}")
    row("optimiser steps", lambda r: f"{r['steps']}")
    row("slices asked, without corrections", lambda r: f"{r['slices_asked']}")
    for kind in KINDS[:-1]:
        row(f"Dice, {kind}", score(kind))
    row("presence told rightly", score("presence"))
    for setting in next(iter(results["designs"].values()))["seconds_per_slice"]:
        row(
            f"ms a slice, prompt / walk ({setting})",
            lambda r, s=setting: "{prompt:.0f} / {walk:.0f}".format(
                **{k: 1000 * v for k, v in r["seconds_per_slice"][s].items()}
            ),
        )
    return "\n".join([f"`{results['command']}`", "", *rows, ""])


def command(options: argparse.Namespace, designs: Iterable[str]) -> str:
    return (
        "python benchmarks/lungfm_s_design.py --bank BANK --validation-bank BANK2 "
        f"--clips {options.clips} --validation-clips {options.validation_clips} "
        f"--minutes {options.minutes:g} --trial-minutes {options.trial_minutes:g} "
        f"--rates {' '.join(f'{r:g}' for r in options.rates)} --designs {' '.join(designs)}"
    )


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "schema_version": 1,
        "threads_in_training": 1,
        "batch": options.batch,
        "hardware": hardware(),
        "versions": package_versions(),
        "rates_tried": {},
        "designs": {},
    }
    rates: dict[str, float] = {}
    for name in options.designs:
        if DESIGNS[name].rates_of in rates:
            rates[name] = rates[str(DESIGNS[name].rates_of)]
        else:
            rates[name], results["rates_tried"][name] = best_rate(name, options)
        results["designs"][name] = measure(name, rates[name], options)
        results["command"] = command(options, results["designs"])
        print(json.dumps(results["designs"][name]["validation"]), flush=True)
        if options.out:
            write_json(options.out, results)
            write_text(options.out.with_suffix(".md"), table(results))
    print(table(results))


if __name__ == "__main__":
    main()
