"""Clips changed at random, alike on all their slices, as the training of SAM 2 does it."""

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from napari_lungfm._core.seeding import generator
from napari_lungfm.training.finetune.sam2.clips import PreparedClip
from napari_lungfm.training.finetune.sam2.config import StockRecipe

#: Draws until a turned and sheared clip still has its structure on the first slice.
_TRIES = 3


def augmented(clip: PreparedClip, recipe: StockRecipe) -> tuple[Tensor, Tensor]:
    """Return a clip mirrored, turned, sheared, and with other grey values.

    The order and the distributions are those of the package's configuration. Saturation and hue
    are left out, for CT has none.

    Parameters
    ----------
    clip
        The clip; all draws follow from its seed.
    recipe
        How much is changed.

    Returns
    -------
    tuple of Tensor
        Grey values, float32 ``(t, S, S)``, 0 to 255, and the structure, boolean.
    """
    rng = generator("augmentation", clip.seed)
    grey, truth = clip.grey.float(), clip.truth
    if rng.random() < recipe.flip:
        grey, truth = grey.flip(-1), truth.flip(-1)
    grey, truth = _turned(grey, truth, recipe, rng)
    return _other_greys(grey, recipe, rng), truth


def _turned(
    grey: Tensor, truth: Tensor, recipe: StockRecipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    draws = rng.uniform(-1.0, 1.0, size=(_TRIES, 2))
    if recipe.degrees == 0 and recipe.shear == 0:
        return grey, truth
    for turn, shear in draws:
        places = _places(
            math.radians(turn * recipe.degrees), math.radians(shear * recipe.shear), grey
        )
        moved = F.grid_sample(truth[:, None].float(), places, "nearest", align_corners=False)
        if bool((moved[0] > 0.5).any()):
            seen = F.grid_sample(grey[:, None], places, "bilinear", align_corners=False)
            return seen[:, 0], moved[:, 0] > 0.5
    return grey, truth


def _places(turn: float, shear: float, like: Tensor) -> Tensor:
    """Where every pixel is taken from, for `grid_sample`; a turn after a shear along rows."""
    cosine, sine, slope = math.cos(turn), math.sin(turn), math.tan(shear)
    forth = torch.tensor([[cosine, cosine * slope - sine], [sine, sine * slope + cosine]])
    back = torch.cat([torch.linalg.inv(forth), torch.zeros(2, 1)], dim=1)
    slices, rows, columns = like.shape
    matrix = back.to(like).expand(slices, -1, -1)
    return F.affine_grid(matrix, [slices, 1, rows, columns], align_corners=False)


def _other_greys(grey: Tensor, recipe: StockRecipe, rng: np.random.Generator) -> Tensor:
    """Change brightness and contrast of all slices alike, then of each on its own."""
    slices = len(grey)
    # Alike, the publishers change the contrast less than slice by slice.
    alike = (recipe.brightness, 0.6 * recipe.contrast, 1)
    for brightness, contrast, count in (alike, (recipe.brightness, recipe.contrast, slices)):
        factors = 1.0 + rng.uniform(-1.0, 1.0, size=(2, count)) * [[brightness], [contrast]]
        bright, steep = (torch.tensor(f).to(grey)[:, None, None] for f in factors)
        grey = (grey * bright).clamp(0.0, 255.0)
        middle = grey.mean(dim=(1, 2), keepdim=True)
        grey = (middle + (grey - middle) * steep).clamp(0.0, 255.0)
    return grey
