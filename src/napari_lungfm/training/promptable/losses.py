"""What a promptable network is trained to lower."""

import torch
from torch import Tensor
from torch.nn import functional


def mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice loss of every mask.

    The Dice term is that of Milletari et al. (V-Net, 3DV 2016), squared terms in the denominator;
    it is left out where the object is absent, since it would not change with the logits' size.

    Parameters
    ----------
    logits
        Float ``(n, s, s)``.
    truth
        How much of each pixel the object covers, 0 to 1.

    Returns
    -------
    Tensor
        One value per mask, ``(n,)``.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    found = logits.sigmoid()
    both = (found * truth).sum(dim=(1, 2))
    total = (found.square() + truth.square()).sum(dim=(1, 2))
    dice = 1.0 - (2.0 * both + 1.0) / (total + 1.0)
    present = truth.amax(dim=(1, 2)) > 0.5
    return entropy.mean(dim=(1, 2)) * 4.0 + dice * present


@torch.no_grad()
def iou(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the IoU ``(n,)`` of masks at logit 0 with the truth; 1 where both are empty."""
    found, wanted = logits > 0, truth > 0.5
    union = (found | wanted).sum(dim=(1, 2))
    return torch.where(
        union > 0, (found & wanted).sum(dim=(1, 2)) / union.clamp(min=1), torch.ones_like(union)
    ).float()
