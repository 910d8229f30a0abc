"""Clicks that correct what was found."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from napari_lungfm._core.masks import largest_part
from napari_lungfm.models.lungfm.look import Look
from napari_lungfm.models.lungfm.window import spots


@dataclass(frozen=True)
class ErrorClick:
    """A click into an error.

    Parameters
    ----------
    y, x
        The middle of the pixel clicked, in continuous look coordinates.
    positive
        Whether the object was missed there, or found though it is not there.
    """

    y: float
    x: float
    positive: bool


def error_click(found: Tensor, wanted: Tensor, rng: np.random.Generator) -> ErrorClick | None:
    """Draw a click in the middle, or anywhere, of the largest error.

    Parameters
    ----------
    found, wanted
        Masks, boolean ``(s, s)``.
    rng
        The draws; none is made where there is no error.

    Returns
    -------
    ErrorClick or None
        A click in the largest connected part of what was missed, or of what was found too much,
        whichever is more; ``None`` where the masks are equal.
    """
    missed, extra = (wanted & ~found).cpu().numpy(), (found & ~wanted).cpu().numpy()
    positive = bool(missed.sum() >= extra.sum())
    region = missed if positive else extra
    if not region.any():
        return None
    depth = ndimage.distance_transform_edt(largest_part(region))
    inside = np.argwhere(depth >= (0.9 if rng.random() < 0.7 else 0.01) * depth.max())
    y, x = inside[int(rng.integers(len(inside)))]
    return ErrorClick(float(y) + 0.5, float(x) + 0.5, positive)


def clicked(look: Look, found: Tensor, wanted: Tensor, rng: np.random.Generator) -> Look:
    """Return a look with one more click, drawn by `error_click`."""
    clicks = look.clicks
    if clicks is None:
        clicks = look.planes.new_zeros((2, *look.planes.shape[1:]))
    click = error_click(found, wanted, rng)
    if click is not None:
        channel = 0 if click.positive else 1
        clicks = clicks.clone()
        clicks[channel] = torch.maximum(clicks[channel], spots([(click.y, click.x)], look.planes))
    return replace(look, clicks=clicks)
