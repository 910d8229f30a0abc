"""Prompts as SAM 2 takes them."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from napari_lungfm._core.types import SliceMask
from napari_lungfm.models.foundation.zoom import Crop, hull_of
from napari_lungfm.models.prompts import Box, Click, MaskPrompt, Prompt

#: ``point_coords`` (1, P, 2) in (x, y) model pixels and ``point_labels`` (1, P), as in ``sam2``.
PointInputs: TypeAlias = dict[str, torch.Tensor]
#: Labels of points in ``sam2``: beside, on the object, first and last corner of a box.
NEGATIVE, POSITIVE, FIRST_CORNER, LAST_CORNER = 0, 1, 2, 3


def mask_of(prompts: Sequence[Prompt]) -> SliceMask | None:
    """Return the hand-drawn outline among the prompts of one slice; it overrides the others."""
    for prompt in prompts:
        if isinstance(prompt, MaskPrompt):
            return prompt.mask
    return None


def point_inputs(prompts: Sequence[Prompt], crop: Crop, size: int) -> PointInputs | None:
    """Return boxes and clicks of one slice as labelled points, the box first.

    Several boxes of one object on one slice count as the box around them, for SAM 2 knows one.

    Parameters
    ----------
    prompts
        Prompts of the slice.
    crop
        What the model sees.
    size
        Side of the model's input in pixels.
    """
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    box = hull_of(prompt for prompt in prompts if isinstance(prompt, Box))
    if box is not None:
        x0, y0, x1, y1 = crop.pixel_box(box, (size, size))
        points += [(x0, y0), (x1, y1)]
        labels += [FIRST_CORNER, LAST_CORNER]
    for prompt in prompts:
        if isinstance(prompt, Click):
            y, x = crop.pixel(prompt.y, prompt.x, (size, size))
            points.append((x, y))
            labels.append(POSITIVE if prompt.positive else NEGATIVE)
    if not points:
        return None
    return {
        "point_coords": torch.tensor([points], dtype=torch.float32),
        "point_labels": torch.tensor([labels], dtype=torch.int32),
    }


def mask_input(mask: SliceMask, crop: Crop, size: int) -> torch.Tensor:
    """Return a slice mask as float32 0/1 ``(1, 1, S, S)``: resized smoothly, cut at a half."""
    part = torch.from_numpy(np.ascontiguousarray(mask[crop.slices], dtype=np.float32))[None, None]
    if part.shape[-2:] == (size, size):
        return part
    resized = F.interpolate(
        part, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
    return (resized >= 0.5).float()
