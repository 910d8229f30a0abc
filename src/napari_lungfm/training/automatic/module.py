"""The lightning module of slice networks: loss, optimiser, Dice of validation cases."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_lungfm._core.imports import require
from napari_lungfm.models.automatic.networks import build_network
from napari_lungfm.models.automatic.slice_network import classify
from napari_lungfm.training.automatic.config import AutomaticTraining
from napari_lungfm.training.automatic.slices import Item
from napari_lungfm.training.lightning_import import pl

#: What is monitored: mean over structures of the mean Dice over validation cases.
MONITORED = "validation/dice"


class SliceModule(pl.LightningModule):
    """Trains a slice network.

    Parameters
    ----------
    config
        The training.
    validation_cases
        Number of validation cases.
    """

    def __init__(self, config: AutomaticTraining, validation_cases: int) -> None:
        super().__init__()
        classes = 1 + len(config.structures)
        self.network = build_network(
            config.network, in_channels=config.inputs.channels, classes=classes
        )
        self._config = config
        self._loss = _loss(config.loss)
        # Voxels per case and structure: in both, in the prediction, in the reference. Held for
        # one validation only, and no part of the checkpoint.
        self._counts = torch.zeros((validation_cases, classes - 1, 3), dtype=torch.float64)

    def training_step(self, batch: Item, number: int) -> torch.Tensor:
        """Return the loss of a batch."""
        images, classes = batch
        logits = self.network(images).float()
        loss: torch.Tensor = self._loss(logits, classes)
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=True, batch_size=len(images))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._counts.zero_()

    def validation_step(
        self, batch: tuple[int, npt.NDArray[np.float32], npt.NDArray[np.uint8]], number: int
    ) -> None:
        """Segment a whole case and count voxels."""
        case, image, wanted = batch
        found = classify(
            self.network,
            image,
            self._config.inputs,
            device=lambda: self.device,
            batch_size=self._config.batch_size,
        )
        for index in range(self._counts.shape[1]):
            a, b = found == index + 1, wanted == index + 1
            both = np.count_nonzero(a & b)
            self._counts[case, index] = torch.tensor(
                [both, np.count_nonzero(a), np.count_nonzero(b)]
            )

    def on_validation_epoch_end(self) -> None:
        """Log the mean Dice of every structure, and their mean."""
        counts = self._counts
        if self.trainer.world_size > 1:  # every device has counted cases of its own
            counts = self.trainer.strategy.reduce(counts.to(self.device).float(), reduce_op="sum")
        dice = (2 * counts[..., 0] / (counts[..., 1] + counts[..., 2])).float()
        means = torch.nanmean(dice, dim=0)  # NaN where neither has the structure
        for title, mean in zip(self._config.structures, means, strict=True):
            self.log(f"validation/dice {title}", mean.to(self.device))
        self.log(MONITORED, torch.nan_to_num(torch.nanmean(means)).to(self.device))

    def configure_optimizers(self) -> Any:
        """Return Adam or AdamW, and the schedule of the learning rate."""
        spec = self._config.optimiser
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.name]
        optimiser = kind(
            self.network.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay
        )
        if spec.schedule == "constant" and not spec.warm_up:
            return optimiser
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move training batches; validation cases go to the device a few slices at a time."""
        if isinstance(batch[0], int):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _rate(self, step: int) -> float:
        spec = self._config.optimiser
        if step < spec.warm_up:
            return (step + 1) / spec.warm_up
        if spec.schedule == "constant":
            return 1.0
        steps = int(self.trainer.estimated_stepping_batches)
        done = (step - spec.warm_up) / max(1, steps - spec.warm_up)
        return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def _loss(name: str) -> Any:
    if name == "cross-entropy":
        return torch.nn.CrossEntropyLoss()
    losses = require("monai.losses.dice", purpose="the Dice loss")
    # batch=True: Dice of the whole batch, so that slices without tumour do not count as missed.
    dice = losses.DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    cross_entropy = torch.nn.CrossEntropyLoss()

    def both(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = dice(logits, classes[:, None]) + cross_entropy(logits, classes)
        return total

    return both
