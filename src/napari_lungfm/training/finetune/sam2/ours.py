"""Our own way: mask decoder and memory trained, and the encoder, whole or by adapters.

The adapters are LoRA's (Hu et al., ICLR 2022, arXiv:2106.09685) from ``peft``: a product of two
thin matrices beside a frozen one, zero at first. They are added to the frozen ones at the end, so
that the result is a plain SAM 2.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from napari_lungfm._core.imports import require
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.config import PromptKind
from napari_lungfm.training.finetune.sam2.config import OursRecipe
from napari_lungfm.training.finetune.sam2.ma import StockTask, parameter_groups

#: Linear layers of the encoder's attention, by the ends of their names.
_ATTENTION = r"trunk\.blocks\.\d+\.attn\.(qkv|proj)"
_ADAPTER = "default"


class OursTask(StockTask):
    """Trains a SAM 2 network but for its prompt encoder; see `StockTask`."""

    def __init__(
        self,
        base: BaseNetwork,
        recipe: OursRecipe,
        prompts: PromptKind,
        *,
        steps: int,
        checkpoint_encoder: bool = False,
    ) -> None:
        super().__init__(base, recipe, prompts, steps=steps, checkpoint_encoder=checkpoint_encoder)
        self._recipe = recipe
        self.network.requires_grad_(True)
        self.network.sam_prompt_encoder.requires_grad_(False)
        if recipe.encoder == "adapters":
            add_adapters(self.network.image_encoder, recipe.rank, recipe.alpha)

    def configure_optimizers(self) -> Any:
        """AdamW, the encoder at a rate of its own; warm-up, then half a cosine down to zero."""
        recipe = self._recipe

        def rate(name: str) -> float:
            encoder = name.startswith("image_encoder.")
            return recipe.rate_of_encoder if encoder else recipe.learning_rate

        groups = parameter_groups(self.network, rate, recipe.weight_decay)
        optimiser = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        warm_up = min(self._recipe.warm_up, self._steps // 4)
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / max(1, self._steps - warm_up)
        return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))

    def result_state(self) -> Mapping[str, Tensor]:
        """Return the state dict of the base network, the adapters added to its weights."""
        return merged_state(self.network)


def add_adapters(encoder: torch.nn.Module, rank: int, alpha: float) -> None:
    """Freeze an image encoder and put adapters beside the linear layers of its attention.

    Parameters
    ----------
    encoder
        The ``image_encoder`` of a SAM 2 network; it is changed in place.
    rank, alpha
        Rank of the adapters, and their scale times the rank.
    """
    peft = require("peft", purpose="encoder: adapters")
    settings = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=_ATTENTION, bias="none")
    encoder.requires_grad_(False)
    peft.inject_adapter_in_model(settings, encoder, adapter_name=_ADAPTER)


def merged_state(network: torch.nn.Module) -> dict[str, Tensor]:
    """Return the state dict that a network without adapters would need to do the same.

    The network itself stays as it is.
    """
    adapted = dict(_adapted(network))
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        place, _, rest = name.rpartition(".base_layer.")
        if place in adapted and place:
            change = adapted[place].get_delta_weight(_ADAPTER) if rest == "weight" else 0.0
            state[f"{place}.{rest}"] = (tensor + change).detach()
        elif not any(name.startswith(f"{layer}.lora_") for layer in adapted):
            state[name] = tensor
    return state


def _adapted(network: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    layer = require("peft.tuners.lora", purpose="encoder: adapters").LoraLayer
    return ((name, module) for name, module in network.named_modules() if isinstance(module, layer))
