"""Carrying an object from slice to slice with a model that has no memory.

SAM, MedSAM, LiteMedSAM and MedicoSAM see one slice. What they are told on the next one is made
from the mask on this one: the box around it, the mask itself as low-resolution logits, or both.
Where the object ends has to be seen from what comes out.
"""

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import SliceMask
from napari_lungfm.models.foundation.options import Carry
from napari_lungfm.models.foundation.zoom import Crop
from napari_lungfm.models.prompts import Box
from napari_lungfm.models.protocols import Prior

#: Logits of a mask prompt that is made from a binary mask, as SAM 2 makes its own (sigmoid of
#: 10 is 0.99995).
MASK_LOGIT = 10.0
#: The box around a mask is moved outward by this part of the model's input: 10 px of 1024, the
#: middle of the 0 to 20 px by which MedSAM's boxes were moved in training. It has to hold what
#: the object gains from one slice to the next.
BOX_MARGIN = 10 / 1024


@dataclass(frozen=True)
class EndRule:
    """When an object that is carried on has ended; SAM 2's walks have one too.

    Only asked beyond the prompted slices; between them the object most likely goes on.

    Parameters
    ----------
    min_iou
        Smallest overlap that the model may expect its mask to have.
    min_area_fraction
        Smallest area, as a fraction of that on the slice before.
    min_area_mm2
        Smallest area in mm².

    Raises
    ------
    UsageError
        If a value makes no sense.
    """

    min_iou: float = 0.5
    min_area_fraction: float = 0.2
    min_area_mm2: float = 4.0

    def __post_init__(self) -> None:
        for name, high in (
            ("min_iou", 1.0),
            ("min_area_fraction", 1.0),
            ("min_area_mm2", math.inf),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0.0 <= value <= high):
                msg = f"{name} must be between 0 and {high:g}, not {value}"
                raise UsageError(msg)

    def has_ended(self, iou: float, area: int, before: int, pixel_mm2: float) -> bool:
        """Tell whether the object has ended.

        Parameters
        ----------
        iou
            Overlap that the model expects.
        area, before
            Pixels of the mask on this slice and on the slice before.
        pixel_mm2
            Area of a pixel in mm².
        """
        return (
            area == 0
            or iou < self.min_iou
            or area < self.min_area_fraction * before
            or area * pixel_mm2 < self.min_area_mm2
        )


@dataclass(frozen=True, eq=False)
class SamMemory:
    """What SAM said of a slice, for the next look at it or at its neighbour.

    Parameters
    ----------
    low
        Low-resolution logits ``(1, 1, L, L)`` on the CPU.
    crop
        What it saw.
    carried
        Slices that the object was carried over to get here.
    """

    low: torch.Tensor
    crop: Crop
    carried: int = 0


def check_carry(carry: str) -> None:
    """Refuse unknown ways to carry an object on.

    Raises
    ------
    UsageError
        If there is no such way.
    """
    if carry not in get_args(Carry):
        msg = f"an object cannot be carried by '{carry}'; choose from {', '.join(get_args(Carry))}"
        raise UsageError(msg)


def box_around(mask: SliceMask, z: int, crop_side: int) -> Box:
    """Return the box around a non-empty mask, moved outward by `BOX_MARGIN`.

    Parameters
    ----------
    mask
        Boolean ``(y, x)``.
    z
        The slice that the box is for.
    crop_side
        Longer side, in voxels, of what the model sees.
    """
    box = Box.around(mask, z)
    margin = max(1, round(BOX_MARGIN * crop_side))
    return Box(
        z,
        max(0, box.y0 - margin),
        max(0, box.x0 - margin),
        min(mask.shape[0], box.y1 + margin),
        min(mask.shape[1], box.x1 + margin),
    )


def mask_logits(
    prior: Prior, crop: Crop, covered: tuple[int, int], low_size: int, *, expected: bool
) -> torch.Tensor:
    """Return a mask prompt ``(1, 1, L, L)`` from what is known of the object.

    The model's own logits of the slice where it comes from, if they fit; otherwise (another
    crop, a hand edit, a mask interpolated between two slices) the mask as ±`MASK_LOGIT`.

    Parameters
    ----------
    prior
        What is known.
    crop
        What the model will see.
    covered
        Rows and columns of the mask prompt that the crop covers; the rest is padding.
    low_size
        Side L of the mask prompt.
    expected
        Take the mask, never the logits.
    """
    memory = prior.memory
    if not expected and isinstance(memory, SamMemory) and memory.crop == crop:
        return memory.low
    part = np.ascontiguousarray(prior.mask[crop.slices], dtype=np.float32)
    inside = F.interpolate(
        torch.from_numpy(part)[None, None],
        size=covered,
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    padded = F.pad(inside, (0, low_size - covered[1], 0, low_size - covered[0]))
    return padded * (2 * MASK_LOGIT) - MASK_LOGIT
