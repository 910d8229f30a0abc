"""What happens at every step and epoch of a fit: seeds, log, progress, checkpoints."""

import csv
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm._core.files import write_text
from napari_lungfm._core.seeding import stable_hash
from napari_lungfm.training.fit.pace import Pace
from napari_lungfm.training.fit.settings import FitError, FitListener, FitProgress, FitSettings
from napari_lungfm.training.lightning_import import Callback, EarlyStopping, pl


class StepSeeds(Callback):
    """Seed torch anew at every step, by the step's number: dropout does not depend on the past."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed torch by the number of the step and of the process."""
        parts = (self._seed, "step", trainer.global_step, trainer.global_rank)
        torch.manual_seed(stable_hash(*parts) % 2**63)


class EpochLog(Callback):
    """Writes ``log.csv``; rows of epochs that are done again are replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds, self.epochs = 0.0, 0
        self._since = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Keep the time of all starts, and how far the fit was."""
        return {"seconds": self.seconds, "epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.seconds, self.epochs = state_dict["seconds"], state_dict["epochs"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count the time of this start."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Raise `FitError` where the loss is not finite."""
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if loss is not None and not bool(torch.isfinite(loss)):
            msg = (
                f"the loss became {float(loss)} at step {trainer.global_step}; "
                "lower the learning rate, or take float32"
            )
            raise FitError(msg)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the row of the epoch."""
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        self.epochs = trainer.current_epoch + 1
        if trainer.is_global_zero:
            row = {"epoch": self.epochs, "step": trainer.global_step, "seconds": self.seconds}
            self._write({**row, **_metrics(trainer)})

    def _write(self, row: Mapping[str, float]) -> None:
        rows: list[dict[str, Any]] = []
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as stream:
                rows = [r for r in csv.DictReader(stream) if int(r["epoch"]) < row["epoch"]]
        rows.append({key: f"{value:.6g}" for key, value in row.items()})
        columns = list(dict.fromkeys(key for each in rows for key in each))
        lines = [",".join(columns)]
        lines += [",".join(str(each.get(key) or "") for key in columns) for each in rows]
        write_text(self.path, "\n".join(lines) + "\n")


class Teller(Callback):
    """Tells the listener of every step, with the time left."""

    def __init__(self, epochs: int, listener: FitListener | None) -> None:
        self._epochs, self._listener = epochs, listener
        self._pace, self._steps = Pace(), 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to measure the pace."""
        self._pace = Pace()
        self._steps = int(trainer.estimated_stepping_batches)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Tell of the step."""
        self._tell(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell of the epoch and what was measured."""
        self._tell(trainer, ended=True)

    def _tell(self, trainer: pl.Trainer, *, ended: bool = False) -> None:
        if self._listener is None or not trainer.is_global_zero:
            return
        left = self._pace.left(trainer.global_step, self._steps)
        self._listener(
            FitProgress(
                trainer.global_step,
                self._steps,
                trainer.current_epoch + 1,
                self._epochs,
                left,
                _metrics(trainer) if ended else {},
                ended,
            )
        )


def _metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Return what was measured in this epoch, means of the epoch and not of its last step."""
    every = trainer.check_val_every_n_epoch or 1
    validated = (trainer.current_epoch + 1) % every == 0
    values = {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if not name.endswith(("_step", "_epoch"))
        and (validated or not name.startswith("validation/"))  # lightning keeps old ones
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}


class _EarlyStopping(EarlyStopping):
    """Stops a fit that had stopped before it was interrupted, instead of one epoch later."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


def early_stopping(settings: FitSettings, monitor: str | None) -> list[Callback]:
    """Return what stops a fit early, if its settings say so.

    Raises
    ------
    ConfigError
        If nothing is monitored.
    """
    if settings.early_stopping is None:
        return []
    if monitor is None:
        msg = "early stopping needs validation cases; set some aside or leave it out"
        raise ConfigError(msg)
    return [_EarlyStopping(monitor, mode="max", patience=settings.early_stopping)]
