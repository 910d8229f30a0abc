"""U-Net and DeepLabV3 for slices, built from MONAI and torchvision.

`NetworkSpec` is how a configuration file describes a network; `build_network` makes it.
"""

import math
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict, Field

from napari_lungfm._core.imports import require

Positive = Annotated[int, Field(gt=0)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UNetSpec(_Model):
    """A U-Net: five levels of two 3 × 3 convolutions each (Ronneberger et al. 2015).

    Parameters
    ----------
    channels
        Channels of the five levels; the default is that of Primakov et al. 2022.
    dropout
        After the two deepest levels of the way down, 0.5 in Primakov et al.
    norm
        ``"none"`` as in Primakov et al., ``"batch"`` or ``"instance"``.
    """

    architecture: Literal["unet"] = "unet"
    channels: tuple[Positive, Positive, Positive, Positive, Positive] = (64, 128, 256, 512, 1024)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    norm: Literal["none", "batch", "instance"] = "none"


class DeepLabSpec(_Model):
    """torchvision's DeepLabV3 (Chen et al. 2017), without its auxiliary head.

    Parameters
    ----------
    backbone
        The ResNet; the paper's is ``"resnet101"``.
    """

    architecture: Literal["deeplabv3"] = "deeplabv3"
    backbone: Literal["resnet50", "resnet101"] = "resnet101"


#: Which network, as a configuration file says it.
NetworkSpec: TypeAlias = Annotated[UNetSpec | DeepLabSpec, Field(discriminator="architecture")]


def build_network(spec: NetworkSpec, *, in_channels: int, classes: int) -> torch.nn.Module:
    """Make a network ``(n, in_channels, y, x)`` → logits ``(n, classes, y, x)``, not trained.

    Weights are drawn from torch's global generator. The U-Net's start as He et al. 2015 propose,
    which is how Ronneberger et al. start theirs; DeepLabV3's as torchvision does.

    Parameters
    ----------
    spec
        Which network.
    in_channels
        Number of slices that it sees at once.
    classes
        Number of classes, background included.

    Raises
    ------
    MissingDependencyError
        If MONAI or torchvision is not installed.
    """
    if isinstance(spec, DeepLabSpec):
        return _DeepLab(spec, in_channels, classes)
    return _unet(spec, in_channels, classes)


def count_parameters(network: torch.nn.Module) -> int:
    """Return the number of trained parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _unet(spec: UNetSpec, in_channels: int, classes: int) -> torch.nn.Module:
    """MONAI's `BasicUNet`, with the way up and the dropout of Primakov et al."""
    nets = require("monai.networks.nets.basic_unet", purpose="U-Net")
    act = ("relu", {"inplace": True})
    norm = {"none": None, "batch": "batch", "instance": ("instance", {"affine": True})}[spec.norm]
    widths = spec.channels
    network = nets.BasicUNet(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=classes,
        features=(*widths, widths[0]),
        act=act,
        norm=norm,
    )
    for level in (1, 2, 3, 4):
        shallow, deep = widths[level - 1], widths[level]
        up = getattr(network, f"upcat_{level}")
        up.upsample = _up_convolution(deep, shallow)
        up.convs = nets.TwoConv(2, 2 * shallow, shallow, act, norm, bias=True)
    if spec.dropout:
        network.down_3 = torch.nn.Sequential(network.down_3, torch.nn.Dropout(spec.dropout))
        network.down_4 = torch.nn.Sequential(network.down_4, torch.nn.Dropout(spec.dropout))
    made: torch.nn.Module = network.apply(_start_he)
    return made


def _up_convolution(deep: int, shallow: int) -> torch.nn.Module:
    """Twice the size by repetition, then a 2 × 2 convolution and ReLU (Primakov et al.)."""
    return torch.nn.Sequential(
        torch.nn.Upsample(scale_factor=2, mode="nearest"),
        torch.nn.ZeroPad2d((0, 1, 0, 1)),  # an even kernel needs one more row and column
        torch.nn.Conv2d(deep, shallow, kernel_size=2),
        torch.nn.ReLU(inplace=True),
    )


def _start_he(module: torch.nn.Module) -> None:
    if isinstance(module, torch.nn.Conv2d):
        fan_in = module.in_channels * math.prod(module.kernel_size)
        torch.nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_in))
        if module.bias is not None:
            torch.nn.init.zeros_(module.bias)


class _DeepLab(torch.nn.Module):
    """torchvision's DeepLabV3, untouched; a single grey slice becomes three equal channels."""

    def __init__(self, spec: DeepLabSpec, in_channels: int, classes: int) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            msg = f"DeepLabV3 sees 1 or 3 slices at once, not {in_channels}"
            raise ValueError(msg)
        models = require("torchvision.models.segmentation", purpose="DeepLabV3")
        make = getattr(models, f"deeplabv3_{spec.backbone}")
        self.network = make(
            weights=None, weights_backbone=None, num_classes=classes, aux_loss=False
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See `build_network`."""
        logits: torch.Tensor = self.network(images.expand(-1, 3, -1, -1))["out"]
        return logits
