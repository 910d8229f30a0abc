"""Medical SAM 2's own way of training on volumes, as ``train_3d.py`` of its authors tells it.

Of a clip every second slice is prompted, from the reference: a tight box or a click inside, and
an all-zero mask where the object is absent. The other slices are tracked. Cross-entropy on the
prompted slices trains the mask decoder, on the others what remembers: two optimisers, and
neither loss moves what belongs to the other. One Adam with two groups is the same as two, for its
state is each weight's own, so here the gradients are kept apart instead:

- where a slice is tracked, the weights of the decoder count as given;
- what a prompted slice leaves to the memory counts as given.

The encoders are not trained; the features of the image encoder are computed once per slice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from napari_lungfm._core.seeding import generator
from napari_lungfm.models.foundation.sam2_prompts import PointInputs
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.config import PromptKind
from napari_lungfm.training.finetune.memory import Features, FrozenFeatures
from napari_lungfm.training.finetune.sam2.clips import PreparedClip, network_input, prompt_of
from napari_lungfm.training.finetune.sam2.config import ZhuRecipe
from napari_lungfm.training.finetune.sam2.task import Sam2FineTuneTask
from napari_lungfm.training.finetune.sam2.track import encoder_maps, frame_of

#: What the loss on tracked slices trains, as the authors list it.
MEMORY_PARTS = ("memory_attention", "memory_encoder", "obj_ptr_proj", "mask_downsample")


@dataclass(frozen=True, eq=False)
class SliceLosses:
    """Cross-entropy of every slice of a clip, apart by what it trains."""

    prompted: list[Tensor]
    tracked: list[Tensor]

    def total(self) -> Tensor:
        """Return the sum of both means."""
        means = [torch.stack(losses).mean() for losses in (self.prompted, self.tracked) if losses]
        return torch.stack(means).sum()


class ZhuTask(Sam2FineTuneTask):
    """Trains mask decoder and memory of a SAM 2 network.

    Parameters
    ----------
    base
        The network; it is trained in place.
    recipe
        How.
    prompts
        What it is prompted with.
    """

    def __init__(self, base: BaseNetwork, recipe: ZhuRecipe, prompts: PromptKind) -> None:
        super().__init__(base.network, base, prompts, begin_marked=False)
        self._recipe = recipe
        self._frozen = self.features = FrozenFeatures.of(recipe)
        self.network.requires_grad_(False)
        for part in self._trained():
            part.requires_grad_(True)

    def _trained(self) -> list[torch.nn.Module]:
        parts = (getattr(self.network, name, None) for name in MEMORY_PARTS)
        return [self.network.sam_mask_decoder, *(part for part in parts if part is not None)]

    def configure_optimizers(self) -> Any:
        """Adam: the mask decoder at one rate, the memory at another; no schedule."""
        decoder, *memory = self._trained()
        rates = self._recipe.learning_rate, self._recipe.memory_learning_rate
        weights = [p for part in memory for p in part.parameters()]
        return torch.optim.Adam(
            [
                {"params": list(decoder.parameters()), "lr": rates[0]},
                {"params": weights, "lr": rates[1]},
            ],
            lr=rates[0],
        )

    def train(self, mode: bool = True) -> "ZhuTask":
        """Switch to training, but for the image encoder, which is not trained."""
        super().train(mode)
        self.network.image_encoder.eval()
        return self

    def training_step(self, batch: list[PreparedClip], number: int) -> Tensor:
        """Return the mean loss of the clips."""
        loss = torch.stack([self.losses(clip).total() for clip in batch]).mean()
        return self._told(loss, len(batch))

    def losses(self, clip: PreparedClip) -> SliceLosses:
        """Walk through a clip and return the losses of its slices."""
        outputs: dict[str, dict[int, Any]] = {
            "cond_frame_outputs": {},
            "non_cond_frame_outputs": {},
        }
        losses, count = SliceLosses([], []), len(clip.slices)
        prompted = range(0, count, self._recipe.prompt_every)
        # All prompts are given before the walk begins, so that it knows those ahead as well.
        for place in prompted:
            with self._left_as_given():
                loss, answer = self._look(clip, place, outputs, prompted=True)
            losses.prompted.append(loss)
            outputs["cond_frame_outputs"][place] = answer
        for place in (n for n in range(count) if n not in prompted):
            with self._decoder_as_given():
                loss, answer = self._look(clip, place, outputs, prompted=False)
            losses.tracked.append(loss)
            outputs["non_cond_frame_outputs"][place] = answer
        return losses

    def _look(
        self,
        clip: PreparedClip,
        place: int,
        outputs: dict[str, dict[int, Any]],
        *,
        prompted: bool,
    ) -> tuple[Tensor, dict[str, Any]]:
        frame, truth = frame_of(self.network, self.maps(clip, place)), clip.truth[place]
        points, mask = self._prompt(clip, place) if prompted else (None, None)
        _, heads, _, _ = self.network._track_step(
            frame_idx=place,
            is_init_cond_frame=prompted,
            current_vision_feats=frame.maps,
            current_vision_pos_embeds=frame.positions,
            feat_sizes=frame.sizes,
            point_inputs=points,
            mask_inputs=mask,
            output_dict=outputs,
            num_frames=max(len(clip.slices), 2),
            track_in_reverse=False,
            prev_sam_mask_logits=None,
        )
        _, _, _, _, high, pointer, score = heads
        logits = high[:, 0].float()
        weight = logits.new_tensor(self._recipe.positive_weight)
        loss = F.binary_cross_entropy_with_logits(logits, truth[None].float(), pos_weight=weight)
        memory, positions = self.network._encode_new_memory(
            current_vision_feats=frame.maps,
            feat_sizes=frame.sizes,
            pred_masks_high_res=high.detach() if prompted else high,
            object_score_logits=score.detach() if prompted else score,
            is_mask_from_pts=points is not None,
        )
        answer = {
            "maskmem_features": memory,
            "maskmem_pos_enc": positions,
            "obj_ptr": pointer,
        }
        return loss, answer

    def _prompt(self, clip: PreparedClip, place: int) -> tuple[PointInputs | None, Tensor | None]:
        truth = clip.truth[place]
        if not bool(truth.any()):
            return None, torch.zeros_like(truth)[None, None].float()
        return prompt_of(truth, boxed=clip.boxed, rng=generator("click", clip.seed, place)), None

    def maps(self, clip: PreparedClip, place: int) -> Features:
        """See `Sam2FineTuneTask`; every slice is encoded once."""

        def encode() -> Features:
            return encoder_maps(self.network, network_input(clip.grey[place : place + 1]))

        return self._frozen.get((clip.case, clip.slices[place]), encode, clip.grey.device)

    @contextmanager
    def _decoder_as_given(self) -> Iterator[None]:
        """Compute with the decoder without its weights getting gradients."""
        decoder = self.network.sam_mask_decoder
        decoder.requires_grad_(False)
        try:
            yield
        finally:
            decoder.requires_grad_(True)

    @contextmanager
    def _left_as_given(self) -> Iterator[None]:
        """Let pointers not pass gradients on to the decoder that they come from."""
        projection: torch.nn.Module = self.network.obj_ptr_proj
        hook = projection.register_forward_pre_hook(lambda module, given: (given[0].detach(),))
        try:
            yield
        finally:
            hook.remove()
