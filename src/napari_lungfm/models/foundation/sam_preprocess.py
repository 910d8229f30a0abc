"""How the models of the SAM family want a slice, each as published."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from skimage import transform

from napari_lungfm._core.types import FloatArray

#: ``"sam"``: SAM and MedicoSAM, as ``SamPredictor`` does. ``"medsam"``: as MedSAM's own code does.
Preprocessing: TypeAlias = Literal["sam", "medsam"]
#: Mean and standard deviation of ImageNet's colours, 0 to 255, as in SAM.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class SamView:
    """Preprocessing and postprocessing of one model.

    Parameters
    ----------
    size
        Side of the model's input in pixels.
    input_shape
        Shape of a crop → rows and columns that it covers of the input.
    prepare
        A grey crop uint8 ``(y, x)`` → network input ``(3, S, S)``, float32.
    restore
        Low-resolution logits ``(1, 1, S/4, S/4)`` and shape of the crop → logits float32
        ``(y, x)``, positive where the publishers' own code says that the object is.
    """

    size: int
    input_shape: Callable[[tuple[int, int]], tuple[int, int]]
    prepare: Callable[[npt.NDArray[np.uint8]], torch.Tensor]
    restore: Callable[[torch.Tensor, tuple[int, int]], FloatArray]


def sam_view(size: int) -> SamView:
    """Return the view of SAM: aspect kept, longest side to S, colours normalised, zero-padded."""

    def input_shape(shape: tuple[int, int]) -> tuple[int, int]:
        scale = size / max(shape)
        return (int(shape[0] * scale + 0.5), int(shape[1] * scale + 0.5))

    def prepare(grey: npt.NDArray[np.uint8]) -> torch.Tensor:
        rows, columns = input_shape(grey.shape)
        # Pillow's bilinear filter, antialiased, is what torchvision does with a PIL image.
        resized = Image.fromarray(grey).resize((columns, rows), Image.Resampling.BILINEAR)
        plane = torch.from_numpy(np.array(resized)).float()
        mean = torch.tensor(PIXEL_MEAN)[:, None, None]
        std = torch.tensor(PIXEL_STD)[:, None, None]
        colours = (plane[None] - mean) / std
        return F.pad(colours, (0, size - columns, 0, size - rows))

    def restore(low: torch.Tensor, shape: tuple[int, int]) -> FloatArray:
        rows, columns = input_shape(shape)
        padded = F.interpolate(low, (size, size), mode="bilinear", align_corners=False)
        part = padded[..., :rows, :columns]
        return _plane(F.interpolate(part, shape, mode="bilinear", align_corners=False))

    return SamView(size, input_shape, prepare, restore)


def medsam_view(size: int) -> SamView:
    """Return the view of MedSAM: S × S whatever the aspect, grey values of the slice to [0, 1].

    Bicubic on three equal channels, back to 8 bit by truncation, then the smallest value of the
    slice becomes 0 and the largest 1; no mean, no deviation. On the way back the sigmoid comes
    before the interpolation, and the threshold is 0.5.
    """

    def prepare(grey: npt.NDArray[np.uint8]) -> torch.Tensor:
        colours = np.repeat(grey[:, :, None], 3, axis=-1)
        # All three channels: the truncation below tells their last bits apart.
        resized: npt.NDArray[Any] = transform.resize(
            colours, (size, size), order=3, preserve_range=True, anti_aliasing=True
        ).astype(np.uint8)
        low, high = int(resized.min()), int(resized.max())
        unit = (resized - low) / max(high - low, 1e-8)
        return torch.from_numpy(unit).float().permute(2, 0, 1)

    def restore(low: torch.Tensor, shape: tuple[int, int]) -> FloatArray:
        probability = F.interpolate(
            torch.sigmoid(low), size=shape, mode="bilinear", align_corners=False
        )
        # Clipped to what float32 can tell from 0 and 1; above 0.5 and above 0 stay the same.
        return _plane(torch.logit(probability, eps=1e-6))

    return SamView(size, lambda _: (size, size), prepare, restore)


def view_of(preprocessing: Preprocessing, size: int) -> SamView:
    """Return the view of a model by the name of its preprocessing."""
    return medsam_view(size) if preprocessing == "medsam" else sam_view(size)


def _plane(tensor: torch.Tensor) -> FloatArray:
    plane: FloatArray = tensor[0, 0].float().cpu().numpy()
    return plane
