"""LiteMedSAM with random weights: timm's TinyViT before SAM's prompt encoder and mask decoder.

LiteMedSAM's encoder is the 5 M TinyViT with three changes (bowang-lab/MedSAM, branch
LiteMedSAM): the patch embedding keeps the resolution (1 × 1 kernels, stride 1), the last
downsampling only widens, and SAM's neck takes the place of the classifier. So 256 px become
64 × 64 positions of 256 channels, what SAM's decoder expects of 1024 px.

Its file calls the same tensors otherwise than timm does. `LiteEncoder` reads and writes the
published names, so that checks, imports and exports of weights see one layout only.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm._core.imports import require
from napari_lungfm.models.foundation.sam_build import assemble_sam

#: The published network; the values that `build_litemedsam` takes and their defaults.
TINY_VIT: Mapping[str, Any] = MappingProxyType(
    {
        "image_size": 256,
        "embed_dims": (64, 128, 160, 320),
        "depths": (2, 2, 6, 2),
        "num_heads": (2, 4, 5, 10),
        "window_sizes": (7, 7, 14, 7),
        "prompt_dim": 256,
    }
)
#: Pixels of the input from one position of the embedding to the next.
STRIDE = 4


class LiteEncoder(torch.nn.Module):
    """The image encoder: ``(n, 3, S, S)`` → ``(n, prompt_dim, S/4, S/4)``.

    Parameters
    ----------
    values
        As in `TINY_VIT`, complete.

    Attributes
    ----------
    img_size : int
        Side S of the input in pixels.
    published_of : dict of str to str
        Name of each tensor in here → its published name.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.img_size = int(values["image_size"])
        self.vit = _tiny_vit(values)
        self.neck = _neck(values["embed_dims"][-1], values["prompt_dim"])
        self.published_of = _published_names(self)
        self.register_state_dict_post_hook(_publish)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_adopt)  # type: ignore[no-untyped-call]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode images."""
        embedding: torch.Tensor = self.neck(self.vit.forward_features(images))
        return embedding


def build_litemedsam(config: Mapping[str, Any] = TINY_VIT) -> torch.nn.Module:
    """Build a LiteMedSAM with random weights, in inference mode, ready for its state dict.

    Parameters
    ----------
    config
        What differs from `TINY_VIT`.

    Returns
    -------
    torch.nn.Module
        A ``segment_anything`` ``Sam`` whose state dict has the published names.

    Raises
    ------
    ConfigError
        If there is no such value, or the input size is no positive multiple of 4.
    MissingDependencyError
        If ``timm`` or ``segment_anything`` is not installed.
    """
    unknown = set(config) - set(TINY_VIT)
    if unknown:
        msg = f"a LiteMedSAM has no value '{min(unknown)}'; it has: {', '.join(TINY_VIT)}"
        raise ConfigError(msg)
    values = {**TINY_VIT, **config}
    size = int(values["image_size"])
    if size <= 0 or size % STRIDE:
        msg = f"the input size must be a positive multiple of {STRIDE} px, not {size}"
        raise ConfigError(msg)
    require("torchvision", purpose="LiteMedSAM")  # before timm, which imports it
    return assemble_sam(LiteEncoder(values), size, STRIDE, values["prompt_dim"])


def _tiny_vit(values: Mapping[str, Any]) -> Any:
    parts = require("timm.models.tiny_vit", purpose="LiteMedSAM")
    dims = tuple(values["embed_dims"])
    vit = parts.TinyVit(
        num_classes=0,
        embed_dims=dims,
        depths=tuple(values["depths"]),
        num_heads=tuple(values["num_heads"]),
        window_sizes=tuple(values["window_sizes"]),
        drop_path_rate=0.0,
    )
    del vit.head
    vit.patch_embed.conv1 = parts.ConvNorm(3, dims[0] // 2)
    vit.patch_embed.conv2 = parts.ConvNorm(dims[0] // 2, dims[0])
    vit.stages[-1].downsample.conv2 = parts.ConvNorm(
        dims[-1], dims[-1], ks=3, stride=1, pad=1, groups=dims[-1]
    )
    return vit


def _neck(channels: int, out: int) -> torch.nn.Sequential:
    """As in SAM's own encoder."""
    norm = require("segment_anything.modeling.common", purpose="LiteMedSAM").LayerNorm2d
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, out, kernel_size=1, bias=False),
        norm(out),
        torch.nn.Conv2d(out, out, kernel_size=3, padding=1, bias=False),
        norm(out),
    )


# ---------------------------------------------------------------------- names of tensors
def _published_names(encoder: torch.nn.Module) -> dict[str, str]:
    """Name in here → name in the published file, for every tensor that is kept."""
    names = {name: published_name(name) for name in encoder.state_dict()}
    if len(set(names.values())) != len(names):  # pragma: no cover - a change of timm's names
        msg = "two tensors of timm's TinyViT have one published name; install timm 1.0"
        raise ConfigError(msg)
    return names


def published_name(name: str) -> str:
    """Return what the published file calls a tensor of the encoder.

    What timm puts before a stage, the published network has at the end of the layer before.

    Parameters
    ----------
    name
        Name in `LiteEncoder`: ``vit.stages.1.downsample.conv1.conv.weight``.
    """
    part, *rest = name.removeprefix("vit.").split(".")
    if part == "stages":
        number, what, *rest = rest
        layer = int(number) - (what == "downsample")
        rest = [str(layer), what, *rest]
        part = "layers"
    elif part == "patch_embed":
        rest = ["seq", {"conv1": "0", "conv2": "2"}.get(rest[0], rest[0]), *rest[1:]]
    # A convolution with its norm: timm's "conv" and "bn" are "c" and "bn".
    return ".".join([part, *("c" if word == "conv" else word for word in rest)])


def _publish(encoder: Any, state: dict[str, Any], prefix: str, _: object) -> None:
    """Give the tensors that leave their published names, in the same order."""
    for name in [name for name in state if name.startswith(prefix)]:
        published = encoder.published_of[name.removeprefix(prefix)]
        state[prefix + published] = state.pop(name)


def _adopt(encoder: Any, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Give the tensors that come in timm's names; those of no other layout."""
    inner_of = {published: inner for inner, published in encoder.published_of.items()}
    for name in [name for name in state if name.startswith(prefix)]:
        published = name.removeprefix(prefix)
        # A name that is not published becomes one that torch finds unexpected, timm's own too.
        state[prefix + inner_of.get(published, f"not published: {published}")] = state.pop(name)
    for module in encoder.modules():
        if hasattr(module, "attention_bias_cache"):  # timm keeps the biases of earlier weights
            module.attention_bias_cache = {}
