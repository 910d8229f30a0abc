"""How the models of the SAM family want a slice, each as published."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from skimage import transform

from napari_lungfm._core.types import FloatArray
from napari_lungfm.models.foundation.zoom import Crop
from napari_lungfm.models.prompts import Box

#: ``"sam"``: SAM and MedicoSAM, as ``SamPredictor`` does. ``"medsam"``, ``"litemedsam"``: as
#: these models' own code does.
Preprocessing: TypeAlias = Literal["sam", "medsam", "litemedsam"]
#: x0, y0, x1, y1 in model pixels, the last ones inside.
Corners: TypeAlias = tuple[float, float, float, float]
#: Mean and standard deviation of ImageNet's colours, 0 to 255, as in SAM.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class SamView:
    """Preprocessing and postprocessing of one model.

    Parameters
    ----------
    size
        Side S of the model's input in pixels.
    low_size
        Side L of its low-resolution logits, and of its mask prompts.
    input_shape
        Shape of a crop → rows and columns that it covers of the input.
    prepare
        A grey crop uint8 ``(y, x)`` → network input ``(3, S, S)``, float32.
    restore
        Low-resolution logits ``(1, 1, L, L)`` and shape of the crop → logits float32
        ``(y, x)``, positive where the publishers' own code says that the object is.
    own_corners
        Box and shape of a whole slice → corners in model pixels, where the publishers' rule is
        not that of `Crop.pixel_box`.
    """

    size: int
    low_size: int
    input_shape: Callable[[tuple[int, int]], tuple[int, int]]
    prepare: Callable[[npt.NDArray[np.uint8]], torch.Tensor]
    restore: Callable[[torch.Tensor, tuple[int, int]], FloatArray]
    own_corners: Callable[[Box, tuple[int, int]], Corners] | None = None

    def low_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns that a crop covers of a mask prompt, at least one each."""
        rows, columns = (n * self.low_size // self.size for n in self.input_shape(shape))
        return (max(1, rows), max(1, columns))

    def corners(self, box: Box, crop: Crop) -> Corners:
        """Return a box in model pixels."""
        if self.own_corners is None or crop.zoomed:
            return crop.pixel_box(box, self.input_shape(crop.shape))
        return self.own_corners(box, crop.shape)


def sam_view(size: int) -> SamView:
    """Return the view of SAM: aspect kept, longest side to S, colours normalised, zero-padded."""
    input_shape = partial(_longest_side, size)

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

    return SamView(size, size // 4, input_shape, prepare, restore)


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

    return SamView(size, size // 4, lambda _: (size, size), prepare, restore)


def litemedsam_view(size: int) -> SamView:
    """Return the view of LiteMedSAM: aspect kept, grey values of the slice to [0, 1], then padding.

    Longest side to S by means over areas, back to 8 bit, smallest value to 0 and largest to 1,
    zeros below and on the right. Boxes are cut to whole pixels, as in its own code. The way back
    leaves the padding out and interpolates the logits, which are as large as the input.
    """
    input_shape = partial(_longest_side, size)

    def prepare(grey: npt.NDArray[np.uint8]) -> torch.Tensor:
        rows, columns = input_shape(grey.shape)
        resized = area_means(grey, (rows, columns))
        low, high = int(resized.min()), int(resized.max())
        unit = torch.from_numpy((resized - low) / max(high - low, 1e-8)).float()
        return F.pad(unit, (0, size - columns, 0, size - rows)).expand(3, size, size)

    def restore(low: torch.Tensor, shape: tuple[int, int]) -> FloatArray:
        rows, columns = input_shape(shape)
        part = low[..., :rows, :columns]
        return _plane(F.interpolate(part, shape, mode="bilinear", align_corners=False))

    def corners(box: Box, shape: tuple[int, int]) -> Corners:
        ratio = size / max(shape)
        indices = (box.x0, box.y0, box.x1 - 1, box.y1 - 1)
        x0, y0, x1, y1 = (float(int(index * ratio)) for index in indices)
        return (x0, y0, x1, y1)

    return SamView(size, size, input_shape, prepare, restore, corners)


def area_means(grey: npt.NDArray[np.uint8], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize a grey image; each pixel becomes the mean over the area that it covers.

    What OpenCV's ``resize`` does with ``INTER_AREA``, rounding included, without OpenCV, which
    would be a large dependency for one function. Where the factor is not a whole number, or the
    image is enlarged, OpenCV's arithmetic is coarser and may round to the next grey level.

    Parameters
    ----------
    grey
        8-bit image ``(y, x)``.
    shape
        Rows and columns of the result.
    """
    weights = [_overlaps(n, m) for n, m in zip(grey.shape, shape, strict=True)]
    means = weights[0] @ grey.astype(np.float64) @ weights[1].T
    if grey.shape == (2 * shape[0], 2 * shape[1]):
        return np.floor(means + 0.5).astype(np.uint8)  # its own code for halves: (sum + 2) >> 2
    # Rounded off first: 2.5 has to be 2.5 for a half to go to the even number.
    return np.rint(means.round(9)).astype(np.uint8)


def _overlaps(n: int, m: int) -> npt.NDArray[np.float64]:
    """Weights ``(m, n)`` by which ``n`` pixels in a row make the means of ``m``."""
    edges = np.arange(m + 1) * (n / m)
    pixels = np.arange(n)
    starts = np.maximum(edges[:-1, None], pixels)
    ends = np.minimum(edges[1:, None], pixels + 1)
    overlaps: npt.NDArray[np.float64] = np.clip(ends - starts, 0.0, None) * (m / n)
    return overlaps


def view_of(preprocessing: Preprocessing, size: int) -> SamView:
    """Return the view of a model by the name of its preprocessing."""
    return _VIEWS[preprocessing](size)


def _longest_side(size: int, shape: tuple[int, int]) -> tuple[int, int]:
    scale = size / max(shape)
    return (int(shape[0] * scale + 0.5), int(shape[1] * scale + 0.5))


def _plane(tensor: torch.Tensor) -> FloatArray:
    plane: FloatArray = tensor[0, 0].float().cpu().numpy()
    return plane


_VIEWS: dict[Preprocessing, Callable[[int], SamView]] = {
    "sam": sam_view,
    "medsam": medsam_view,
    "litemedsam": litemedsam_view,
}
