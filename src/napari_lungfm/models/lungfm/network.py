"""The network of LungFM-S: a small U-Net that is told by channels what to segment."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm.models.lungfm.window import LOOK_SIDE

#: Groups of the group normalisation; every width is a multiple of it.
_GROUPS = 8
#: Most strides: the deepest level of a look keeps two pixels a side, of which a mean and a
#: largest value are read.
_MOST_LEVELS = LOOK_SIDE.bit_length() - 2
#: Most channels and blocks of a level; a hundred times what fits a laptop.
_MOST_CHANNELS, _MOST_BLOCKS = 2048, 64


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the network.

    Parameters
    ----------
    inputs
        Input channels; see `look.CHANNELS`.
    widths
        Channels at strides 2, 4, 8, ...
    blocks
        Residual blocks at every stride, on the way down and on the way up.
    detail
        Channels of the last layers, at full resolution.
    answers_see_mask
        The global answers are read from the finest level and the mask too, and not from the
        deepest level alone.

    Raises
    ------
    ConfigError
        If there is no network of such sizes.
    """

    inputs: int
    widths: tuple[int, ...] = (48, 96, 160, 224)
    blocks: tuple[int, ...] = (1, 1, 2, 2)
    detail: int = 16
    answers_see_mask: bool = False

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem is not None:
            raise ConfigError(problem)

    def _problem(self) -> str | None:
        widths, blocks = self.widths, self.blocks
        if not 1 <= len(widths) <= _MOST_LEVELS:
            return f"widths: {len(widths)} levels; give 1 to {_MOST_LEVELS}"
        if len(blocks) != len(widths):
            return (
                f"blocks: {len(blocks)} numbers for {len(widths)} widths; give one for each level"
            )
        if any(width % _GROUPS or not 0 < width <= _MOST_CHANNELS for width in widths):
            return (
                f"widths: {list(widths)}; each has to be a multiple of {_GROUPS} from {_GROUPS} "
                f"to {_MOST_CHANNELS}"
            )
        if not all(1 <= count <= _MOST_BLOCKS for count in blocks):
            return f"blocks: {list(blocks)}; each has to be 1 to {_MOST_BLOCKS}"
        if not 1 <= self.detail <= _MOST_CHANNELS:
            return f"detail: {self.detail} channels; give 1 to {_MOST_CHANNELS}"
        return None


class PromptNetwork(nn.Module):
    """U-Net at half resolution with a refinement at full resolution and two global answers.

    Parameters
    ----------
    config
        Its sizes.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths, blocks = config.widths, config.blocks
        self.stem = nn.Conv2d(config.inputs, widths[0], 5, stride=2, padding=2)
        self.down = nn.ModuleList(
            _stage(width, count) for width, count in zip(widths, blocks, strict=True)
        )
        self.shrink = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairwise(widths)
        )
        self.grow = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(
            _stage(width, count) for width, count in zip(widths[:-1], blocks[:-1], strict=True)
        )
        self.spread = nn.Conv2d(widths[0], 4 * config.detail, 1)
        self.refine = nn.Sequential(
            nn.Conv2d(config.detail + config.inputs, config.detail, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(config.detail, 1, 3, padding=1),
        )
        told = 2 * widths[-1] + (2 * widths[0] + 1 if config.answers_see_mask else 0)
        self.answers = nn.Sequential(nn.Linear(told, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, looks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Segment.

        Parameters
        ----------
        looks
            Float ``(n, inputs, s, s)``, the side a multiple of 16.

        Returns
        -------
        tuple of Tensor
            Logits of the mask ``(n, s, s)``; logits ``(n,)`` of "the object is on this slice";
            estimated IoU of the mask ``(n,)``, 0 to 1.
        """
        x = self.stem(looks)
        kept = []
        for level, stage in enumerate(self.down):
            x = stage(x)
            if level < len(self.shrink):
                kept.append(x)
                x = self.shrink[level](x)
        deepest = x
        for level in reversed(range(len(self.up))):
            x = functional.interpolate(self.grow[level](x), scale_factor=2.0, mode="nearest")
            x = self.up[level](x + kept[level])
        fine = functional.pixel_shuffle(self.spread(x), 2)
        fine = fine.contiguous(memory_format=torch.channels_last)
        logits = self.refine(torch.cat([fine, looks], dim=1))
        told = [deepest.mean(dim=(2, 3)), deepest.amax(dim=(2, 3))]
        if self.config.answers_see_mask:
            told += _around_mask(x, logits)
        presence, quality = self.answers(torch.cat(told, dim=1)).unbind(dim=1)
        return logits[:, 0], presence, quality.sigmoid()


def _around_mask(finest: Tensor, logits: Tensor) -> list[Tensor]:
    """Return what the finest level sees, anywhere and where the mask is, and the mask's share.

    The mask itself learns nothing from what is read from it.
    """
    finest = functional.avg_pool2d(finest, 4).float()
    mask = functional.avg_pool2d(logits.detach().float().sigmoid(), 8)
    share = mask.mean(dim=(2, 3))
    inside = (finest * mask).mean(dim=(2, 3)) / (share + 1e-3)
    return [finest.mean(dim=(2, 3)), inside, share.sqrt()]


class _Block(nn.Module):
    """Residual block: normalise, convolve, activate, convolve, add."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(_GROUPS, width)
        nn.init.zeros_(self.second.weight)  # every block begins as the identity

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = functional.silu(self.first(self.norm(x)))
        inner = self.second(inner)
        return x + inner


def _stage(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(width) for _ in range(blocks)))
