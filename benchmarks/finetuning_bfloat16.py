"""What weights kept in bfloat16 lose of Medical SAM 2's recipe: which of them move at all.

The recipe ``zhu`` trains a small SAM 2 of seeded random weights for a few steps on the same
synthetic clips in the same order, three times:

- **float32**: weights, optimiser and computations in float32;
- **mixed**: computations in bfloat16, weights and optimiser in float32, as ``precision: bfloat16``
  of a fine-tuning has it;
- **bfloat16**: weights, optimiser and computations in bfloat16, as the publishers' code has it.

For each it says which part of the weights of the mask decoder (learning rate 1e-4) and of the
memory (1e-8) is not what it was, and how large the steps were next to the weights. Nothing is
timed, so that any machine will do.

    python benchmarks/finetuning_bfloat16.py --out benchmarks/results/finetuning_bfloat16.json
"""

import argparse
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_lungfm._core.environment import hardware, package_versions
from napari_lungfm._core.files import write_json
from napari_lungfm._core.seeding import generator
from napari_lungfm.models.foundation.finetuned import BaseFacts, FineTunedSettings
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.moved import MovedWeights, moved_weights
from napari_lungfm.training.finetune.sam2.clips import PreparedClip
from napari_lungfm.training.finetune.sam2.config import ZhuRecipe
from napari_lungfm.training.finetune.sam2.zhu import MEMORY_PARTS, ZhuTask
from napari_lungfm.training.finetune.samples import FineTuneClip
from napari_lungfm.training.promptable.sam2_task import small_config, untrained_sam2
from napari_lungfm.training.synthetic import make_clip

#: Group of the result → the modules that are in it.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "mask decoder, 1e-4": ("sam_mask_decoder",),
    "memory, 1e-8": MEMORY_PARTS,
}
MODES = ("float32", "mixed", "bfloat16")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file; printed if left out")
    return parser.parse_args()


def base_network(image_size: int, seed: int) -> BaseNetwork:
    build = small_config(image_size)
    facts = BaseFacts(name="random", sha256="0" * 64, licence="BSD-3-Clause")
    settings = FineTunedSettings(network="sam2", build=build, window=(-600.0, 1500.0), base=facts)
    return BaseNetwork(untrained_sam2(build, seed), settings)


def clips(prepare: Callable[..., PreparedClip], count: int, seed: int) -> list[PreparedClip]:
    """Two slices around the largest one of a synthetic object, each."""
    made = []
    for number in range(count):
        clip = make_clip(seed, number)
        z = min(int(np.argmax(clip.mask.sum(axis=(1, 2)))), len(clip.mask) - 2)
        two = FineTuneClip(
            clip.image[z : z + 2],
            clip.mask[z : z + 2],
            clip.spacing,
            str(number),
            range(z, z + 2),
            "tumour",
        )
        made.append(prepare(two, generator("clip", seed, number)))
    return made


def train(mode: str, options: argparse.Namespace) -> dict[str, Any]:
    """Take the steps and return what moved."""
    task = ZhuTask(base_network(options.image_size, options.seed), ZhuRecipe(), "box").train()
    samples = clips(task.prepare, options.steps, options.seed)
    if mode == "bfloat16":
        _keep_in_bfloat16(task.network)
    before = {name: tensor.clone() for name, tensor in task.result_state().items()}
    optimiser = task.configure_optimizers()
    losses = []
    for sample in samples:
        optimiser.zero_grad()
        with _precision(mode):
            loss = task.losses(sample).total()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    after = task.result_state()
    moved = moved_weights(before, after)
    tenth = max(1, len(losses) // 10)
    return {
        "groups": {
            title: {
                **_joined([moved[part] for part in parts if part in moved]),
                "median_change": _median_change(before, after, parts),
            }
            for title, parts in GROUPS.items()
        },
        "first_loss": round(sum(losses[:tenth]) / tenth, 4),
        "last_loss": round(sum(losses[-tenth:]) / tenth, 4),
    }


def _keep_in_bfloat16(network: torch.nn.Module) -> None:
    network.to(torch.bfloat16)

    def same(module: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(each.to(torch.bfloat16) for each in given)

    for module in network.modules():
        if isinstance(module, torch.nn.LayerNorm):  # on the CPU autocast leaves it alone
            module.register_forward_pre_hook(same)


def _precision(mode: str) -> AbstractContextManager[Any]:
    return nullcontext() if mode == "float32" else torch.autocast("cpu", torch.bfloat16)


def _joined(parts: list[MovedWeights]) -> dict[str, float]:
    entries = sum(part.entries for part in parts)

    def share(name: str) -> float:
        return round(sum(getattr(part, name) * part.entries for part in parts) / entries, 6)

    return {
        "weights": entries,
        "moved": share("moved"),
        "moved_in_bfloat16": share("moved_in_bfloat16"),
        "largest_change": max(part.largest for part in parts),
    }


def _median_change(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], parts: tuple[str, ...]
) -> float:
    """Median of change / weight over weights that began as something."""
    changes = []
    for name, old in before.items():
        if name.partition(".")[0] in parts:
            start, end = old.float().flatten(), after[name].float().flatten()
            there = start != 0
            changes.append(((end - start).abs() / start.abs())[there])
    return float(torch.cat(changes).median())


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    result = {
        "command": "python benchmarks/finetuning_bfloat16.py"
        f" --steps {options.steps} --image-size {options.image_size} --seed {options.seed}",
        "network": f"small SAM 2 at {options.image_size} px, seeded random weights",
        "modes": {mode: train(mode, options) for mode in MODES},
        "versions": package_versions(),
        "hardware": hardware(),
    }
    if options.out is None:
        print(json.dumps(result, indent=1))
        return
    write_json(options.out, result)
    for mode in MODES:
        for title, group in result["modes"][mode]["groups"].items():
            print(f"{mode:9} {title:20} {group['moved']:.2%} of {group['weights']} moved")


if __name__ == "__main__":
    main()
