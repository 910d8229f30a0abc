"""The stock modules of SAM after its image encoder, for one slice."""

from dataclasses import dataclass
from typing import Any

import torch

from napari_lungfm.models.foundation.runtime import Runtime
from napari_lungfm.models.foundation.sam_preprocess import SamView


@dataclass(frozen=True, eq=False)
class SamDecoder:
    """Prompt encoder and mask decoder on the features of one slice.

    Parameters
    ----------
    network
        A ``Sam``.
    runtime
        Where it runs.
    view
        How the model sees a crop.
    """

    network: Any
    runtime: Runtime
    view: SamView

    def decode(
        self,
        embedding: torch.Tensor,
        *,
        points: tuple[torch.Tensor, torch.Tensor] | None,
        box: torch.Tensor | None,
        mask: torch.Tensor | None,
        best_of_three: bool,
    ) -> tuple[torch.Tensor, float]:
        """Return low-resolution logits ``(1, 1, L, L)`` on the CPU, and expected overlap.

        Parameters
        ----------
        embedding
            Image embedding ``(1, C, L/4, L/4)``.
        points
            Coordinates ``(1, P, 2)`` in (x, y) model pixels, and labels ``(1, P)``.
        box
            ``(1, 4)``: x0, y0, x1, y1 in model pixels.
        mask
            Mask prompt ``(1, 1, L, L)``.
        best_of_three
            Take the one of three masks that the model expects to be the best: for a single
            click, which may mean a part or the whole.
        """
        low, ious = self.runtime.run(
            lambda: self._decode(embedding, points, box, mask, best_of_three=best_of_three)
        )
        best = int(ious[0].argmax())
        return low[:, best : best + 1].float().cpu(), float(ious[0, best])

    def _decode(
        self,
        embedding: torch.Tensor,
        points: tuple[torch.Tensor, torch.Tensor] | None,
        box: torch.Tensor | None,
        mask: torch.Tensor | None,
        *,
        best_of_three: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.runtime.device
        sparse, dense = self.network.prompt_encoder(
            points=None if points is None else (points[0].to(device), points[1].to(device)),
            boxes=None if box is None else box.to(device),
            masks=None if mask is None else mask.to(device),
        )
        low, ious = self.network.mask_decoder(
            image_embeddings=embedding.to(device, dtype=torch.float32),
            image_pe=self.network.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=best_of_three,
        )
        return low, ious
