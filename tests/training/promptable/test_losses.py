import pytest
import torch
from monai.losses import DiceLoss

from napari_lungfm.training.promptable.losses import iou, mask_loss


def test_the_loss_is_cross_entropy_and_the_dice_loss_of_monai() -> None:
    torch.manual_seed(0)
    logits, truth = torch.randn(3, 16, 16), (torch.rand(3, 16, 16) > 0.6).float()
    oracle = DiceLoss(
        sigmoid=True, squared_pred=True, smooth_nr=1.0, smooth_dr=1.0, reduction="none"
    )
    dice = oracle(logits[:, None], truth[:, None]).flatten()
    entropy = torch.nn.BCEWithLogitsLoss(reduction="none")(logits, truth).mean(dim=(1, 2))
    assert torch.allclose(mask_loss(logits, truth), 4 * entropy + dice, atol=1e-5)


def test_an_absent_object_costs_cross_entropy_alone() -> None:
    nothing = torch.zeros(1, 8, 8)
    assert float(mask_loss(torch.full((1, 8, 8), -20.0), nothing)) == pytest.approx(0, abs=1e-6)
    assert float(mask_loss(torch.full((1, 8, 8), 5.0), nothing)) > 10


def test_iou_by_hand() -> None:
    truth = torch.zeros(3, 4, 4)
    truth[0, :2], truth[1, :, :2] = 1.0, 1.0
    logits = torch.full((3, 4, 4), -1.0)
    logits[0, 1:3], logits[1, :, :2] = 1.0, 1.0
    assert iou(logits, truth).tolist() == pytest.approx([1 / 3, 1.0, 1.0])
