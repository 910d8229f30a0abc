"""What part of a slice a model sees, and how coordinates go there and back.

A model has an input of fixed size S × S. Seeing a whole slice of 512 × 512 a nodule of 6 mm is 8
pixels wide; **zoom** shows the model a square around the prompts instead, at its full input size.
"""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from napari_lungfm._core.exceptions import LungFMWarning, PromptError, UsageError
from napari_lungfm.models.prompts import Box, Click, MaskPrompt, Prompt

#: Crops lie on this grid (voxels), so that prompts a little apart share encoded slices.
CROP_GRID = 16
#: Side in mm of what a click alone opens: it says where an object is, not how large.
CLICK_SIDE_MM = 80.0


@dataclass(frozen=True)
class Crop:
    """The rows ``[y0, y1)`` and columns ``[x0, x1)`` of every slice that a model sees.

    Parameters
    ----------
    y0, x0
        First row and column inside.
    y1, x1
        First row and column outside.
    zoomed
        It is a part of the slice that was chosen by `Zoom`, not the whole.
    """

    y0: int
    x0: int
    y1: int
    x1: int
    zoomed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return (self.y1 - self.y0, self.x1 - self.x0)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the crop in a slice ``(y, x)``."""
        return (slice(self.y0, self.y1), slice(self.x0, self.x1))

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> "Crop":
        """Return the crop that is all of a slice ``(y, x)``."""
        return cls(0, 0, shape[-2], shape[-1])

    def holds(self, prompts: Iterable[Prompt]) -> bool:
        """Tell whether all of these prompts lie inside."""
        hull = hull_of(prompts)
        return hull is None or (
            self.y0 <= hull.y0 and hull.y1 <= self.y1 and self.x0 <= hull.x0 and hull.x1 <= self.x1
        )

    def pixel(self, y: float, x: float, size: tuple[int, int]) -> tuple[float, float]:
        """Return the model pixel ``(y, x)`` of a voxel.

        Whole slices keep the publishers' rule, ``index · size / shape``, which the models know
        from their own predictors. A zoomed crop maps centre on centre: there the rule would be
        off by up to half a voxel, many model pixels.

        Parameters
        ----------
        y, x
            Row and column in the slice; whole numbers are voxel centres.
        size
            Rows and columns of the model's view.
        """
        scale_y, scale_x = (n / m for n, m in zip(size, self.shape, strict=True))
        y, x = y - self.y0, x - self.x0
        if not self.zoomed:
            return (y * scale_y, x * scale_x)
        return ((y + 0.5) * scale_y - 0.5, (x + 0.5) * scale_x - 0.5)

    def pixel_box(self, box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return a box as ``(x0, y0, x1, y1)`` in model pixels, the last ones inside.

        All models of the family were trained on boxes from the smallest to the largest index of
        a mask, both inside.
        """
        if not self.zoomed:
            y0, x0 = self.pixel(box.y0, box.x0, size)
            y1, x1 = self.pixel(box.y1 - 1, box.x1 - 1, size)
            return (x0, y0, x1, y1)
        y0, x0 = self.pixel(box.y0 - 0.5, box.x0 - 0.5, size)
        y1, x1 = self.pixel(box.y1 - 0.5, box.x1 - 0.5, size)
        return (x0 + 0.5, y0 + 0.5, x1 - 0.5, y1 - 0.5)


@dataclass(frozen=True)
class Zoom:
    """How to choose a crop around prompts.

    Parameters
    ----------
    margin
        Side of the square as a multiple of the larger side of what the prompts span, at least 1.
    min_size_mm
        Smallest side in mm: what a click alone opens, and what a small nodule needs around it.
        ``None`` lets `margin` decide wherever a box or an outline says how large the object is;
        clicks alone open `CLICK_SIDE_MM`.

    Raises
    ------
    UsageError
        If a value makes no sense.
    """

    margin: float = 2.5
    min_size_mm: float | None = CLICK_SIDE_MM

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin >= 1.0):
            msg = f"the zoom margin must be a factor of at least 1, not {self.margin}"
            raise UsageError(msg)
        smallest = CLICK_SIDE_MM if self.min_size_mm is None else self.min_size_mm
        if not (math.isfinite(smallest) and smallest > 0):
            msg = (
                f"the smallest zoomed side must be a positive length in mm, not {self.min_size_mm}"
            )
            raise UsageError(msg)

    def side(self, prompts: Iterable[Prompt], spacing: tuple[float, float]) -> int | None:
        """Return the side in voxels of the square around prompts; ``None`` if they have no place.

        Parameters
        ----------
        prompts
            All prompts of one object that are known so far.
        spacing
            Distance of rows and of columns in mm.
        """
        known = list(prompts)
        hull = hull_of(known)
        if hull is None:
            return None
        extent = max(hull.y1 - hull.y0, hull.x1 - hull.x0)
        smallest = self.min_size_mm
        if smallest is None:
            sized = any(isinstance(prompt, Box | MaskPrompt) for prompt in known)
            smallest = 0.0 if sized else CLICK_SIDE_MM
        wanted = max(self.margin * extent, smallest / min(spacing))
        return _up_to_grid(max(wanted, extent + CROP_GRID))

    def crop(
        self, prompts: Iterable[Prompt], shape: tuple[int, int], spacing: tuple[float, float]
    ) -> Crop:
        """Return the square around prompts, or the whole slice where that is no smaller.

        Parameters
        ----------
        prompts
            All prompts of one object that are known so far.
        shape
            Rows and columns of a slice.
        spacing
            Distance of rows and of columns in mm.
        """
        known = list(prompts)
        hull, side = hull_of(known), self.side(known, spacing)
        if hull is None or side is None or side >= min(shape):
            return Crop.whole(shape)
        y0 = _start(hull.y0, hull.y1, side, shape[0])
        x0 = _start(hull.x0, hull.x1, side, shape[1])
        return Crop(y0, x0, y0 + side, x0 + side, zoomed=True)


class CropChooser:
    """Chooses what one model sees; says once where zoom was asked for and does not apply.

    Parameters
    ----------
    zoom
        How to zoom; ``None`` always shows whole slices.
    """

    def __init__(self, zoom: Zoom | None) -> None:
        self.zoom = zoom
        self._told = False

    def crop(
        self, prompts: Iterable[Prompt], shape: tuple[int, int], spacing: tuple[float, float]
    ) -> Crop:
        """Return what the model sees; see `Zoom.crop`."""
        if self.zoom is None:
            return Crop.whole(shape)
        known = list(prompts)
        crop = self.zoom.crop(known, shape, spacing)
        side = self.zoom.side(known, spacing)
        if side is not None and not crop.zoomed and not self._told:
            self._told = True
            warnings.warn(
                f"zoom does not apply: the square around the prompts ({side} voxels, "
                f"{side * min(spacing):.0f} mm) is no smaller than a slice of {shape[0]} × "
                f"{shape[1]} voxels, so whole slices are shown; a smaller factor or zoom_mm zooms",
                LungFMWarning,
                stacklevel=3,
            )
        return crop


def hull_of(prompts: Iterable[Prompt]) -> Box | None:
    """Return the smallest box that holds all prompts that have a place, or ``None``.

    Its slice is that of the first of them and means nothing.
    """
    boxes: list[Box] = []
    for prompt in prompts:
        match prompt:
            case Box():
                boxes.append(prompt)
            case Click():
                boxes.append(Box(prompt.z, prompt.y, prompt.x, prompt.y + 1, prompt.x + 1))
            case MaskPrompt():
                if np.any(prompt.mask):
                    boxes.append(Box.around(prompt.mask, prompt.z))
            case _:
                pass
    if not boxes:
        return None
    return Box(
        boxes[0].z,
        min(b.y0 for b in boxes),
        min(b.x0 for b in boxes),
        max(b.y1 for b in boxes),
        max(b.x1 for b in boxes),
    )


def check_inside(crop: Crop, prompts: Iterable[Prompt]) -> None:
    """Refuse prompts that the model would not see.

    Raises
    ------
    PromptError
        If one lies outside the crop.
    """
    for prompt in prompts:
        if not crop.holds((prompt,)):
            msg = (
                f"a prompt on slice {prompt.z} lies outside the zoomed rows {crop.y0}:{crop.y1}, "
                f"columns {crop.x0}:{crop.x1}; start the object anew with it, or turn zoom off"
            )
            raise PromptError(msg)


def _up_to_grid(length: float) -> int:
    return math.ceil(length / CROP_GRID) * CROP_GRID


def _start(low: int, high: int, side: int, size: int) -> int:
    """First row (column) of a centred crop: on the grid, around the hull, inside the slice."""
    centred = round(((low + high) / 2 - side / 2) / CROP_GRID) * CROP_GRID
    return min(max(centred, high - side, 0), low, size - side)
