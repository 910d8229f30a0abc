"""How fast a fine-tuning goes, and how much memory of a GPU it takes."""

import time
from typing import Any

import torch

from napari_lungfm.training.lightning_import import Callback, pl


class Telemetry(Callback):
    """Logs slices per second and, on CUDA, the most memory in use, once per epoch.

    Parameters
    ----------
    slices
        Slices of a sample.
    """

    def __init__(self, slices: int) -> None:
        self._slices = slices
        self._began = self._ended = 0.0
        self._seen = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._began = self._ended = time.perf_counter()
        self._seen = 0
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count a batch; what comes after the last one, such as validation, does not count."""
        self._seen += len(batch) * self._slices * trainer.world_size
        self._ended = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what was counted."""
        seconds = max(self._ended - self._began, 1e-9)
        pl_module.log("slices_per_second", self._seen / seconds, rank_zero_only=True)
        if pl_module.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
            pl_module.log("gpu_memory_gib", peak, rank_zero_only=True)
