"""SAM networks with random weights, on the modules of the ``segment_anything`` package."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm._core.imports import require
from napari_lungfm.models.foundation.sam_preprocess import PIXEL_MEAN, PIXEL_STD

#: ViT-B as in SAM, MedSAM and MedicoSAM; the values that `build_sam` takes and their defaults.
VIT_B: Mapping[str, Any] = MappingProxyType(
    {
        "image_size": 1024,
        "embed_dim": 768,
        "depth": 12,
        "num_heads": 12,
        "global_attn_indexes": (2, 5, 8, 11),
        "window_size": 14,
        "prompt_dim": 256,
    }
)
#: Side of a patch in pixels.
PATCH = 16


def build_sam(config: Mapping[str, Any] = VIT_B) -> torch.nn.Module:
    """Build a ``Sam`` with random weights, in inference mode, ready for a state dict.

    Parameters
    ----------
    config
        What differs from `VIT_B`.

    Raises
    ------
    ConfigError
        If there is no such value, or the input size is no positive multiple of 16.
    MissingDependencyError
        If ``segment_anything`` is not installed.
    """
    unknown = set(config) - set(VIT_B)
    if unknown:
        msg = f"a SAM has no value '{min(unknown)}'; it has: {', '.join(VIT_B)}"
        raise ConfigError(msg)
    values = {**VIT_B, **config}
    size, dim = int(values["image_size"]), int(values["prompt_dim"])
    if size <= 0 or size % PATCH:
        msg = f"the input size must be a positive multiple of {PATCH} px, not {size}"
        raise ConfigError(msg)
    require("torchvision", purpose="a SAM model")
    parts = require("segment_anything.modeling", purpose="a SAM model")
    encoder = parts.ImageEncoderViT(
        depth=values["depth"],
        embed_dim=values["embed_dim"],
        img_size=size,
        mlp_ratio=4,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        num_heads=values["num_heads"],
        patch_size=PATCH,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=tuple(values["global_attn_indexes"]),
        window_size=values["window_size"],
        out_chans=dim,
    )
    return assemble_sam(encoder, size, PATCH, dim)


def assemble_sam(encoder: torch.nn.Module, size: int, stride: int, dim: int) -> torch.nn.Module:
    """Put SAM's prompt encoder and mask decoder, with random weights, behind an image encoder.

    Parameters
    ----------
    encoder
        Image encoder: ``(n, 3, size, size)`` → ``(n, dim, size / stride, size / stride)``.
    size
        Side of the input in pixels.
    stride
        Pixels of the input from one position of the embedding to the next.
    dim
        Channels of the embedding.

    Returns
    -------
    torch.nn.Module
        A ``Sam`` in inference mode. Its low-resolution masks have four times the embedding's
        side.

    Raises
    ------
    MissingDependencyError
        If ``segment_anything`` is not installed.
    """
    parts = require("segment_anything.modeling", purpose="a SAM model")
    grid = (size // stride, size // stride)
    prompts = parts.PromptEncoder(
        embed_dim=dim, image_embedding_size=grid, input_image_size=(size, size), mask_in_chans=16
    )
    transformer = parts.TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=2048, num_heads=8)
    decoder = parts.MaskDecoder(
        num_multimask_outputs=3,
        transformer=transformer,
        transformer_dim=dim,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )
    network: torch.nn.Module = parts.Sam(
        encoder, prompts, decoder, list(PIXEL_MEAN), list(PIXEL_STD)
    )
    return network.eval()
