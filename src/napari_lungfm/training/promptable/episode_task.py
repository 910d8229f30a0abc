"""What the trainings of all networks on episodes have in common."""

import math
from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_lungfm._core.seeding import generator
from napari_lungfm.training.lightning_import import pl
from napari_lungfm.training.promptable.episodes import Episode
from napari_lungfm.training.promptable.scores import Scores


class EpisodeTask(pl.LightningModule):
    """Trains a network on episodes; how it answers a batch is for subclasses to say.

    Parameters
    ----------
    network
        What is trained, a ``torch.nn.Module``.
    seed
        Of the draws in every step.
    steps
        Optimiser steps of the whole training; the learning rate ends at zero there.
    learning_rate, weight_decay
        Of AdamW.
    warm_up
        Steps until the full learning rate.
    """

    def __init__(
        self,
        network: Any,
        *,
        seed: int,
        steps: int,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.02,
        warm_up: int = 100,
    ) -> None:
        super().__init__()
        self.network = network
        self._seed, self._steps, self._warm_up = seed, steps, warm_up
        self._learning_rate, self._weight_decay = learning_rate, weight_decay

    @abstractmethod
    def _run(self, episodes: list[Episode], rng: np.random.Generator) -> Scores:
        """Answer a batch, prompts, walks and corrections, and return what that was worth."""

    def configure_optimizers(self) -> Any:
        """AdamW without decay of biases and norms; linear warm-up, then half a cosine."""
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self._weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self._learning_rate, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        if step < self._warm_up:
            return (step + 1) / self._warm_up
        done = (step - self._warm_up) / max(1, self._steps - self._warm_up)
        return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))

    def training_step(self, episodes: list[Episode], number: int) -> Tensor:
        """Return the mean loss of all looks of a batch."""
        scores = self._run(episodes, generator("looks", self._seed, self.global_step))
        loss = scores.loss()
        values = {f"train/{name}": value for name, value in scores.metrics().items()}
        values["train/loss"] = loss.detach()
        self.log_dict(values, on_step=True, on_epoch=True, batch_size=len(episodes))
        return loss

    def validation_step(self, episodes: list[Episode], number: int) -> None:
        """Log the scores of a batch."""
        scores = self._run(episodes, generator("looks", "validation", number))
        values = {f"validation/{name}": value for name, value in scores.metrics().items()}
        values["validation/loss"] = scores.loss()
        self.log_dict(values, batch_size=len(episodes))

    def transfer_batch_to_device(
        self, batch: list[Episode], device: torch.device, dataloader_idx: int
    ) -> list[Episode]:
        """Move the images of all episodes."""
        return [episode.to(device) for episode in batch]
