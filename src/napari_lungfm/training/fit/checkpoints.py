"""Checkpoints of a fit: never half written, tensors and plain values only."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from napari_lungfm._core.files import atomic_path
from napari_lungfm.training.fit.settings import FitError
from napari_lungfm.training.lightning_import import (
    Checkpoint,
    ModelCheckpoint,
    TorchCheckpointIO,
    pl,
)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints beside their place and moves them there.

    Lightning writes them in the folder of temporary files. Where that is another file system they
    are copied from there, and whatever interrupts that leaves half a checkpoint and no other.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint, whole or not at all."""
        buffer = io.BytesIO()  # torch, writing into a file, does not say that a disk is full
        torch.save(checkpoint, buffer)
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())


class BestCheckpoint(ModelCheckpoint):
    """Goes on knowing the best score where the folder of the fit was moved since.

    Lightning forgets it there, and the next validation would pass for the best one.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the scores so far, their files in this folder."""
        here = Path(str(self.dirpath))
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {key: _beside(here, state_dict[key]) for key in paths if state_dict.get(key)}
        best = {_beside(here, path): v for path, v in state_dict["best_k_models"].items()}
        known = {**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath}
        super().load_state_dict(known)


def _beside(folder: Path, path: str) -> str:
    return str(folder / Path(path).name)


class LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` every few epochs, and always after the epoch that ends the fit."""

    def __init__(self, path: Path, every: int) -> None:
        self._path, self._every = path, every

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoint where it is time."""
        epoch = trainer.current_epoch + 1
        if epoch % self._every == 0 or epoch == trainer.max_epochs or trainer.should_stop:
            trainer.save_checkpoint(self._path)


def load_weights(module: torch.nn.Module, checkpoint: Path) -> None:
    """Put the weights of a checkpoint of `run_fit` into its module.

    Raises
    ------
    FitError
        If the checkpoint cannot be read.
    """
    module.load_state_dict(read_checkpoint(checkpoint)["state_dict"])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint: tensors and plain values only, no pickled code is run."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        msg = f"the checkpoint '{path}' cannot be read ({reason}); start the training anew"
        raise FitError(msg) from error
    return content
