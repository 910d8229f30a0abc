"""nnU-Net's trainer for demonstrations. nnU-Net finds it by name, through nnUNet_extTrainer."""

from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class LungFMSmallTrainer(nnUNetTrainer):  # type: ignore[misc]
    """Few iterations, no mirroring, an optimiser that gets somewhere in a hundred steps.

    Left and right lung are different structures; a network that sees them mirrored needs far
    longer to tell them apart.

    Parameters
    ----------
    *arguments, **keywords
        See nnU-Net's `nnUNetTrainer`.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 4
        self.num_iterations_per_epoch = 40
        self.num_val_iterations_per_epoch = 2
        self.save_every = 1
        self.logger.plot_progress_png = lambda folder: None  # takes longer than the epoch

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802
        """Return nnU-Net's own choice, without mirroring."""
        rotation, dummy_2d, patch, _ = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        self.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, patch, None

    def configure_optimizers(self) -> Any:
        """Return Adam in place of gradient descent with a momentum of 0.99."""
        self.initial_lr = 5e-3
        optimiser = torch.optim.AdamW(
            self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay
        )
        return optimiser, PolyLRScheduler(optimiser, self.initial_lr, self.num_epochs)
