"""What the fine-tunings of SAM 2 have in common."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.config import PromptKind
from napari_lungfm.training.finetune.memory import Features
from napari_lungfm.training.finetune.sam2.clips import (
    ClipPreparation,
    PreparedClip,
    network_input,
)
from napari_lungfm.training.finetune.sam2.track import clip_dice, encoder_maps
from napari_lungfm.training.finetune.task import FineTuneTask


class Sam2FineTuneTask(FineTuneTask):
    """Fine-tunes a SAM 2 network on clips.

    Parameters
    ----------
    network
        A ``SAM2Base``.
    base
        What it begins as.
    prompts
        What it is prompted with.
    begin_marked
        See `ClipPreparation`.
    """

    def __init__(
        self, network: Any, base: BaseNetwork, prompts: PromptKind, *, begin_marked: bool
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.prepare = ClipPreparation(
            size=int(network.image_size),
            window=base.window,
            prompts=prompts,
            begin_marked=begin_marked,
        )

    def validation_step(self, batch: list[PreparedClip], number: int) -> None:
        """Log the mean Dice of clips that are prompted once and walked through."""
        scores = [clip_dice(self.network, clip, partial(self.maps, clip)) for clip in batch]
        dice = torch.stack(scores).mean()
        self.log("validation/dice", dice, batch_size=len(batch), sync_dist=True)

    def maps(self, clip: PreparedClip, place: int) -> Features:
        """Return what the image encoder makes of the slice at a place of a clip."""
        return encoder_maps(self.network, network_input(clip.grey[place : place + 1]))

    def transfer_batch_to_device(
        self, batch: list[PreparedClip], device: torch.device, dataloader_idx: int
    ) -> list[PreparedClip]:
        """Move all clips."""
        return [clip.to(device) for clip in batch]

    def result_state(self) -> Mapping[str, Tensor]:
        """Return the state dict of the network."""
        state: Mapping[str, Tensor] = self.network.state_dict()
        return state

    def _told(self, loss: Tensor, count: int) -> Tensor:
        """Log the loss of a batch, and return it."""
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=True, batch_size=count)
        return self._with_all_weights(loss)

    def _with_all_weights(self, loss: Tensor) -> Tensor:
        """Let every trained weight have a gradient, where several devices have to agree on them.

        Which weights a step needs depends on its prompts, and data-parallel training waits for
        those of all.
        """
        distributed = torch.distributed
        if not distributed.is_available() or not distributed.is_initialized():
            return loss
        trained = [p for p in self.parameters() if p.requires_grad]
        return loss + 0.0 * torch.stack([p.sum() for p in trained]).sum()
