"""How fast a fine-tuning goes, what it takes of a GPU, and which features it computed anew."""

import time
from typing import Any

import torch

from napari_lungfm.training.finetune.memory import FrozenFeatures
from napari_lungfm.training.lightning_import import Callback, pl

#: Seconds between two looks at how busy a GPU is.
_LOOK_EVERY = 1.0


class Telemetry(Callback):
    """Logs slices per second, once per epoch.

    On CUDA also the most memory in use and, where ``nvidia-ml-py`` is installed, how busy the GPU
    was on average (percent of the time, as ``nvidia-smi`` has it). Of a frozen encoder also for
    how many slices features were computed and for how many they were known.

    Parameters
    ----------
    slices
        Slices of a sample.
    features
        Of a frozen encoder.
    """

    def __init__(self, slices: int, features: FrozenFeatures | None = None) -> None:
        self._slices, self._features = slices, features
        self._began = self._ended = self._looked = 0.0
        self._seen = 0
        self._busy: list[float] = []
        self._before = 0, 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._began = self._ended = time.perf_counter()
        self._seen = 0
        self._busy = []
        if self._features is not None:
            self._before = self._features.computed, self._features.reused
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
        if pl_module.device.type == "cuda" and self._ended - self._looked >= _LOOK_EVERY:
            self._looked = self._ended
            busy = gpu_utilization(pl_module.device)
            self._busy += [] if busy is None else [busy]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what was counted."""
        seconds = max(self._ended - self._began, 1e-9)
        values = {"slices_per_second": self._seen / seconds}
        if self._features is not None:
            computed, reused = self._before
            values["features_computed"] = float(self._features.computed - computed)
            values["features_reused"] = float(self._features.reused - reused)
        if pl_module.device.type == "cuda":
            values["gpu_memory_gib"] = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
            if self._busy:
                values["gpu_utilization"] = sum(self._busy) / len(self._busy)
        pl_module.log_dict(values, rank_zero_only=True)


def gpu_utilization(device: torch.device) -> float | None:
    """Return percent of the last moments in which a GPU was busy; ``None`` if nobody can tell."""
    try:
        return float(torch.cuda.utilization(device))
    except Exception:  # noqa: BLE001 - no pynvml, no driver, no right to ask: it does not matter
        return None
