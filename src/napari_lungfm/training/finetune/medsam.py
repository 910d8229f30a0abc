"""MedSAM's own way of training: one slice, one prompt, one mask.

As in its ``train_one_gpu.py``: Dice with squared terms + cross-entropy at the input's size, AdamW
on image encoder and mask decoder, the prompt encoder frozen, each side of the box moved outward
by up to 20 of 1024 pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm._core.imports import require
from napari_lungfm._core.types import SliceMask
from napari_lungfm.models.foundation.sam_preprocess import Preprocessing, SamView, view_of
from napari_lungfm.models.foundation.zoom import Crop
from napari_lungfm.models.prompts import Box
from napari_lungfm.preprocessing.windowing import Window, to_uint8
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.config import FineTuning, PromptKind
from napari_lungfm.training.finetune.memory import FrozenFeatures, checkpoint_blocks
from napari_lungfm.training.finetune.prompts import random_click
from napari_lungfm.training.finetune.recipe import MedSAMRecipe
from napari_lungfm.training.finetune.samples import FineTuneClip
from napari_lungfm.training.finetune.task import FineTuneTask

#: The input size that MedSAM's pixels of jitter are of.
_PUBLISHED_SIZE = 1024


@dataclass(frozen=True, eq=False)
class PromptedSlice:
    """One slice with its prompt.

    Parameters
    ----------
    grey
        The slice through the window, uint8 ``(y, x)``.
    image
        Network input ``(3, S, S)``; ``None`` where the encoder's features may be known.
    truth
        The structure in the network's view, float32 ``(S, S)``: 0 or 1.
    box
        x0, y0, x1, y1 in model pixels, or ``None``.
    point
        x, y in model pixels of a positive click, or ``None``.
    key
        Case and slice.
    """

    grey: npt.NDArray[np.uint8]
    image: Tensor | None
    truth: Tensor
    box: Tensor | None
    point: Tensor | None
    key: tuple[str, int]

    def to(self, device: torch.device) -> "PromptedSlice":
        """Return the slice with its tensors on a device."""
        names = ("image", "truth", "box", "point")
        moved = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(self, **{name: tensor.to(device) for name, tensor in moved.items()})


@dataclass(frozen=True)
class SlicePreparation:
    """Makes prompted slices of clips of one slice.

    Parameters
    ----------
    size
        Side S of the network's input.
    preprocessing, window
        What the network sees of a slice.
    prompts
        Kind of prompt; ``"mixed"`` draws one or the other.
    jitter
        Most model pixels by which the sides of a box move outward.
    with_image
        Make the network's input at once.
    """

    size: int
    preprocessing: Preprocessing
    window: Window
    prompts: PromptKind
    jitter: float
    with_image: bool

    def __call__(self, clip: FineTuneClip, rng: np.random.Generator) -> PromptedSlice:
        """Return the slice of a clip, prompted."""
        view = view_of(self.preprocessing, self.size)
        mask = clip.mask[0]
        grey = to_uint8(clip.image[0], self.window)
        # Both are drawn in any case: the draws of a box do not depend on the kind of prompts.
        box, point = self._box(mask, view, rng), self._point(mask, view, rng)
        boxed = self.prompts == "box" or (self.prompts == "mixed" and bool(rng.random() < 0.5))
        return PromptedSlice(
            grey=grey,
            image=view.prepare(grey) if self.with_image else None,
            truth=truth_in_view(mask, view),
            box=box if boxed else None,
            point=None if boxed else point,
            key=(clip.case, clip.slices.start),
        )

    def _box(self, mask: SliceMask, view: SamView, rng: np.random.Generator) -> Tensor:
        x0, y0, x1, y1 = view.corners(Box.around(mask, 0), Crop.whole(mask.shape))
        rows, columns = view.input_shape((mask.shape[0], mask.shape[1]))
        left, up, right, down = rng.uniform(0.0, self.jitter, size=4)
        return torch.tensor(
            [
                max(0.0, x0 - left),
                max(0.0, y0 - up),
                min(columns - 1.0, x1 + right),
                min(rows - 1.0, y1 + down),
            ]
        )

    def _point(self, mask: SliceMask, view: SamView, rng: np.random.Generator) -> Tensor:
        click = random_click(mask, 0, rng)
        size = view.input_shape((mask.shape[0], mask.shape[1]))
        y, x = Crop.whole(mask.shape).pixel(click.y, click.x, size)
        return torch.tensor([x, y])


def truth_in_view(mask: SliceMask, view: SamView) -> Tensor:
    """Return a mask as the network would have to give it, float32 ``(S, S)``, nearest voxels."""
    rows, columns = view.input_shape((mask.shape[0], mask.shape[1]))
    whole = torch.from_numpy(np.ascontiguousarray(mask)).float()[None, None]
    seen = F.interpolate(whole, size=(rows, columns), mode="nearest-exact")[0, 0]
    return F.pad(seen, (0, view.size - columns, 0, view.size - rows))


class MedSAMTask(FineTuneTask):
    """Trains a network of SAM's build.

    Parameters
    ----------
    base
        The network; it is trained in place.
    recipe
        How.
    prompts
        What it is prompted with.
    checkpoint_encoder
        See `checkpoint_blocks`.
    """

    network: Any

    def __init__(
        self,
        base: BaseNetwork,
        recipe: MedSAMRecipe,
        prompts: PromptKind,
        *,
        checkpoint_encoder: bool = False,
    ) -> None:
        super().__init__()
        self.network = base.network
        self._recipe = recipe
        size = int(self.network.image_encoder.img_size)
        preprocessing = base.settings.preprocessing or "medsam"
        if preprocessing == "litemedsam":
            msg = f"'{base.name}' sees slices as LiteMedSAM does; the recipe is for a ViT"
            raise ConfigError(msg)
        self._view = view_of(preprocessing, size)
        self.prepare = SlicePreparation(
            size=size,
            preprocessing=preprocessing,
            window=base.window,
            prompts=prompts,
            jitter=recipe.jitter * size / _PUBLISHED_SIZE,
            with_image=recipe.train_encoder,
        )
        self.features = None if recipe.train_encoder else FrozenFeatures.of(recipe)
        self._freeze()
        if checkpoint_encoder and recipe.train_encoder:
            checkpoint_blocks(self.network.image_encoder.blocks)
        losses = require("monai.losses", purpose="fine-tuning MedSAM")
        self._dice_loss = losses.DiceLoss(sigmoid=True, squared_pred=True, reduction="mean")

    def _freeze(self) -> None:
        self.network.requires_grad_(True)
        self.network.prompt_encoder.requires_grad_(False)
        self.network.image_encoder.requires_grad_(self._recipe.train_encoder)
        # MedSAM's loss does not look at the expected overlap, so nothing would be learnt there;
        # fits on several devices want to know that beforehand.
        self.network.mask_decoder.iou_prediction_head.requires_grad_(False)

    def configure_optimizers(self) -> Any:
        """AdamW without a schedule, on all that is trained."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        return torch.optim.AdamW(
            trained, lr=self._recipe.learning_rate, weight_decay=self._recipe.weight_decay
        )

    def training_step(self, batch: list[PromptedSlice], number: int) -> Tensor:
        """Return Dice loss + cross-entropy of a batch."""
        loss = self._loss(self.logits(batch), batch)
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: list[PromptedSlice], number: int) -> None:
        """Log the loss, and the mean Dice of the slices."""
        logits = self.logits(batch)
        truth = _truth(batch)
        found = (logits > 0).float()
        common = (found * truth).sum(dim=(1, 2, 3))
        dice = 2 * common / (found + truth).sum(dim=(1, 2, 3))
        values = {"validation/dice": dice.mean(), "validation/loss": self._loss(logits, batch)}
        self.log_dict(values, batch_size=len(batch), sync_dist=True)

    def transfer_batch_to_device(
        self, batch: list[PromptedSlice], device: torch.device, dataloader_idx: int
    ) -> list[PromptedSlice]:
        """Move all slices."""
        return [each.to(device) for each in batch]

    def logits(self, batch: list[PromptedSlice]) -> Tensor:
        """Return the logits of a batch ``(n, 1, S, S)``, float32."""
        embeddings = self._embeddings(batch)
        encoder, decoder = self.network.prompt_encoder, self.network.mask_decoder
        found = []
        # One slice at a time: the stock decoder repeats the embeddings of all for every prompt.
        for embedding, each in zip(embeddings, batch, strict=True):
            with torch.no_grad():
                sparse, dense = encoder(
                    points=None if each.point is None else _as_click(each.point),
                    boxes=None if each.box is None else each.box[None],
                    masks=None,
                )
            low, _ = decoder(
                image_embeddings=embedding[None],
                image_pe=encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            found.append(low)
        size = (self._view.size, self._view.size)
        return F.interpolate(torch.cat(found).float(), size, mode="bilinear", align_corners=False)

    def _embeddings(self, batch: list[PromptedSlice]) -> Tensor:
        if self.features is None:
            images = torch.stack([each.image for each in batch if each.image is not None])
            embeddings: Tensor = self.network.image_encoder(images)
            return embeddings
        return torch.cat([self._frozen(each, self.features) for each in batch])

    def _frozen(self, each: PromptedSlice, features: FrozenFeatures) -> Tensor:
        def encode() -> tuple[Tensor, ...]:
            image = self._view.prepare(each.grey)[None].to(self.device)
            return (self.network.image_encoder(image),)

        return features.get(each.key, encode, self.device)[0]

    def _loss(self, logits: Tensor, batch: list[PromptedSlice]) -> Tensor:
        truth = _truth(batch)
        loss: Tensor = self._dice_loss(logits, truth)
        return loss + F.binary_cross_entropy_with_logits(logits, truth)

    def result_state(self) -> Mapping[str, Tensor]:
        """Return the state dict of the network."""
        state: Mapping[str, Tensor] = self.network.state_dict()
        return state


def make_task(config: FineTuning, base: BaseNetwork, steps: int) -> MedSAMTask:
    """Make the task of a configuration; its schedule does not depend on the number of steps."""
    recipe = config.recipe
    if not isinstance(recipe, MedSAMRecipe):
        msg = f"recipe: '{recipe.name}' is not MedSAM's"
        raise ConfigError(msg)
    return MedSAMTask(base, recipe, config.prompts, checkpoint_encoder=config.checkpoint_encoder)


def _truth(batch: list[PromptedSlice]) -> Tensor:
    return torch.stack([each.truth for each in batch])[:, None]


def _as_click(point: Tensor) -> tuple[Tensor, Tensor]:
    return point[None, None], torch.ones((1, 1), dtype=torch.int32, device=point.device)
