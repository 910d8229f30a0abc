"""What the looks of a batch are worth: losses to lower, overlaps to log."""

import torch
from torch import Tensor
from torch.nn import functional

from napari_lungfm.training.promptable.losses import iou, mask_loss

#: Weights of "is it there" and of the estimated IoU beside the mask's loss.
PRESENCE_WEIGHT, QUALITY_WEIGHT = 1.0, 0.5


class Scores:
    """Losses and overlaps of the looks of one batch."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._dice: dict[str, list[Tensor]] = {}

    def add(
        self,
        kind: str,
        logits: Tensor,
        presence: Tensor,
        quality: Tensor,
        truth: Tensor,
        weights: Tensor | None,
    ) -> None:
        """Add looks; those of weight 0 do not count.

        Parameters
        ----------
        kind
            What kind of look they are.
        logits, truth
            What was found and how much of each pixel the object covers ``(n, s, s)``.
        presence, quality
            Logit of "it is there" and estimated IoU of every look ``(n,)``.
        weights
            Weight of every look ``(n,)``; all 1 if ``None``.
        """
        overlap = iou(logits, truth)
        losses = mask_loss(logits, truth)
        losses = losses + PRESENCE_WEIGHT * _presence_loss(presence, truth)
        losses = losses + QUALITY_WEIGHT * (quality - overlap).square()
        self._count(kind, losses, overlap, presence, truth, weights)

    def loss(self) -> Tensor:
        """Return the mean over all looks that count."""
        losses, weights = torch.cat(self._losses), torch.cat(self._weights)
        mean: Tensor = (losses * weights).sum() / weights.sum().clamp(min=1)
        return mean

    def metrics(self) -> dict[str, Tensor]:
        """Return mean Dice by kind of look, and how often presence was told rightly."""
        joined = {kind: torch.cat(values) for kind, values in self._dice.items()}
        return {
            kind.replace(" ", "_"): values.mean() for kind, values in joined.items() if len(values)
        }

    def _count(
        self,
        kind: str,
        losses: Tensor,
        overlap: Tensor,
        presence: Tensor,
        truth: Tensor,
        weights: Tensor | None,
    ) -> None:
        """Keep the losses and the IoU of looks."""
        present = _present(truth)
        weights = torch.ones_like(losses) if weights is None else weights
        self._losses.append(losses)
        self._weights.append(weights)
        counted = (weights > 0) & (present > 0)
        self._dice.setdefault(kind, []).append((2 * overlap / (1 + overlap))[counted])
        if kind == "walk":
            right = ((presence.detach() > 0).float() == present).float()[weights > 0]
            self._dice.setdefault("presence", []).append(right)


class MultimaskScores(Scores):
    """Scores of looks that come with several masks each, as those of SAM 2 do."""

    def add_masks(
        self,
        kind: str,
        masks: Tensor,
        presence: Tensor,
        quality: Tensor,
        chosen: Tensor,
        truth: Tensor,
        weights: Tensor,
    ) -> None:
        """Add looks; those of weight 0 do not count.

        Parameters
        ----------
        kind
            What kind of look they are.
        masks, quality
            Logits ``(n, m, s, s)`` and estimated IoU ``(n, m)`` of the masks.
        presence, chosen, truth, weights
            Of every look ``(n,)``: logit of "it is there", the mask that the network prefers,
            how much of each pixel the object covers ``(n, s, s)``, and the weight.
        """
        present = _present(truth)
        wanted = truth[:, None].expand_as(masks).flatten(0, 1)
        flat = masks.flatten(0, 1)
        of_masks = mask_loss(flat, wanted).view_as(quality)
        overlaps = iou(flat, wanted).view_as(quality)
        # The first version of SAM 2's training lets only the best mask tell its IoU; 2.1 all.
        of_quality = (quality - overlaps).abs().mean(dim=1)
        losses = present * (
            of_masks.amin(dim=1) + QUALITY_WEIGHT * of_quality
        ) + PRESENCE_WEIGHT * _presence_loss(presence, truth)
        rows = torch.arange(len(masks), device=masks.device)
        self._count(kind, losses, overlaps[rows, chosen], presence, truth, weights)


def _present(truth: Tensor) -> Tensor:
    """Return 1 where the object is on a look and 0 where it is not, ``(n,)``."""
    return (truth.amax(dim=(1, 2)) > 0.5).float()


def _presence_loss(presence: Tensor, truth: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(presence, _present(truth), reduction="none")
