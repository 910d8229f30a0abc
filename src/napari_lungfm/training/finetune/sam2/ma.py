"""MedSAM2's way of training, and what our own has in common with it.

The network and the loss are those of the ``sam2`` package, with which MedSAM2 was trained.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from napari_lungfm._core.seeding import generator, stable_hash
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.config import PromptKind
from napari_lungfm.training.finetune.memory import checkpoint_blocks
from napari_lungfm.training.finetune.sam2.augment import augmented
from napari_lungfm.training.finetune.sam2.clips import PreparedClip, network_input
from napari_lungfm.training.finetune.sam2.config import MaRecipe, StockRecipe
from napari_lungfm.training.finetune.sam2.stock import ClipBatch, stock_loss, stock_network
from napari_lungfm.training.finetune.sam2.task import Sam2FineTuneTask

#: Learning rates at the end, as a part of those at the beginning.
_FINAL_RATE = 0.1
_TRUNK = "image_encoder.trunk"
#: Part of the prompts other than masks that are boxes.
_BOXES: dict[PromptKind, float] = {"box": 1.0, "point": 0.0, "mixed": 0.5}


class StockTask(Sam2FineTuneTask):
    """Trains the package's own training network with its loss.

    Parameters
    ----------
    base
        What it begins as.
    recipe
        How.
    prompts
        What it is prompted with, beside masks.
    steps
        Optimiser steps of the whole fit.
    checkpoint_encoder
        See `checkpoint_blocks`.
    """

    def __init__(
        self,
        base: BaseNetwork,
        recipe: StockRecipe,
        prompts: PromptKind,
        *,
        steps: int,
        checkpoint_encoder: bool = False,
    ) -> None:
        network = stock_network(base.build, base.network.state_dict(), recipe, _BOXES[prompts])
        super().__init__(network, base, prompts, begin_marked=True)
        self._stock_recipe, self._steps = recipe, steps
        self._loss = stock_loss(network)
        if checkpoint_encoder:
            checkpoint_blocks(network.image_encoder.trunk.blocks)

    def training_step(self, batch: list[PreparedClip], number: int) -> Tensor:
        """Return the package's loss of a batch, summed over slices and corrections."""
        # What the package draws is drawn for a whole batch, here from its first clip's seed.
        seed = batch[0].seed
        self.network.rng = generator("prompts", seed)
        torch.manual_seed(stable_hash("places of prompts", seed) % 2**63)
        losses = self.losses(clip_batch(batch, self._stock_recipe))
        names = {"loss_mask": "focal", "loss_dice": "dice", "loss_iou": "iou"}
        values = {f"train/{title}": losses[name].detach() for name, title in names.items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(batch))
        return self._told(losses["core_loss"], len(batch))

    def losses(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Return the losses of a batch by name; ``core_loss`` is their weighted sum."""
        found: dict[str, Tensor] = self._loss(self.network(batch), batch.masks)
        return found


class MaTask(StockTask):
    """Trains all of a SAM 2 network as MedSAM2 was trained; see `StockTask`."""

    def __init__(
        self,
        base: BaseNetwork,
        recipe: MaRecipe,
        prompts: PromptKind,
        *,
        steps: int,
        checkpoint_encoder: bool = False,
    ) -> None:
        super().__init__(base, recipe, prompts, steps=steps, checkpoint_encoder=checkpoint_encoder)
        self._recipe = recipe
        self.network.requires_grad_(True)

    def configure_optimizers(self) -> Any:
        """AdamW with a rate of its own for every block of the encoder; half a cosine."""
        recipe, trunk = self._recipe, self.network.image_encoder.trunk

        def rate(name: str) -> float:
            if not name.startswith("image_encoder."):
                return recipe.learning_rate
            return recipe.encoder_learning_rate * layer_scale(trunk, name, recipe.layer_decay)

        groups = parameter_groups(self.network, rate, recipe.weight_decay)
        optimiser = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        done = min(step / max(1, self._steps), 1.0)
        return _FINAL_RATE + (1.0 - _FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * done))


def clip_batch(clips: list[PreparedClip], recipe: StockRecipe) -> ClipBatch:
    """Return clips, changed at random, as the package's network reads them."""
    changed = [augmented(clip, recipe) for clip in clips]
    images = torch.cat([network_input(grey) for grey, _ in changed])
    return ClipBatch(images, torch.stack([truth for _, truth in changed], dim=1))


def layer_scale(trunk: Any, name: str, decay: float) -> float:
    """Return the factor of the learning rate of a weight of the image encoder.

    Parameters
    ----------
    trunk
        The network's ``image_encoder.trunk``.
    name
        Name of the weight in the network.
    decay
        Factor from each block to the one before. Outside the blocks it is 1, also for the grid of
        positions; the embedding of patches comes before the first block.
    """
    if not name.startswith(_TRUNK) or "pos_embed" in name:
        return 1.0
    layers = int(trunk.get_num_layers()) + 1
    return float(decay ** (layers - int(trunk.get_layer_id(name))))


def parameter_groups(
    network: torch.nn.Module, rate: Callable[[str], float], weight_decay: float
) -> list[dict[str, Any]]:
    """Return the trained weights of a network as groups of an optimiser.

    Parameters
    ----------
    network
        The network; weights without gradients are left out.
    rate
        Learning rate of a weight by its name.
    weight_decay
        Of all but biases and ``LayerNorm``, as in the package's configuration.
    """
    norms = {
        f"{place}.{name}"
        for place, module in network.named_modules()
        if isinstance(module, torch.nn.LayerNorm)
        for name, _ in module.named_parameters(recurse=False)
    }
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, weights in network.named_parameters():
        if weights.requires_grad:
            decay = 0.0 if "bias" in name or name in norms else weight_decay
            groups.setdefault((rate(name), decay), []).append(weights)
    return [
        {"params": weights, "lr": lr, "weight_decay": decay}
        for (lr, decay), weights in sorted(groups.items(), key=lambda item: item[0])
    ]
