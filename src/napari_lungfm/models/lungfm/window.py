"""The square of a slice that LungFM-S looks at, and the way there and back."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

#: Side of a look in pixels of the network.
LOOK_SIDE = 128
#: Smallest side of a window in voxels: an object of a few voxels still shows its surroundings.
LEAST_SIDE = 24


@dataclass(frozen=True)
class Window:
    """A square of whole voxels, which may stick out of the slice.

    Parameters
    ----------
    y0, x0
        First row and column.
    side
        Rows and columns.
    """

    y0: int
    x0: int
    side: int

    @classmethod
    def around(cls, y: float, x: float, side: float, *, least: int = LEAST_SIDE) -> "Window":
        """Return the window of about a given side in voxels around a place.

        Parameters
        ----------
        y, x
            Middle in continuous indices, voxel *i* covering ``[i, i + 1)``.
        side
            Wanted side.
        least
            Smallest side.
        """
        whole = max(least, round(side))
        return cls(round(y - whole / 2), round(x - whole / 2), whole)

    def cut(self, planes: Tensor, outside: float) -> Tensor:
        """Cut the window out of slices ``(n, y, x)``; beyond their border comes ``outside``."""
        y1, x1 = self.y0 + self.side, self.x0 + self.side
        inner = planes[:, max(self.y0, 0) : max(y1, 0), max(self.x0, 0) : max(x1, 0)]
        left, top = min(max(-self.x0, 0), self.side), min(max(-self.y0, 0), self.side)
        right = self.side - left - inner.shape[2]
        bottom = self.side - top - inner.shape[1]
        if not (left or top or right or bottom):
            return inner
        if inner.numel() == 0:
            return planes.new_full((planes.shape[0], self.side, self.side), outside)
        return functional.pad(inner, (left, right, top, bottom), value=outside)

    def within(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Return the rows and columns of the window that a slice ``(y, x)`` has; maybe none."""
        (y0, y1), (x0, x1) = (
            (min(max(first, 0), end), min(max(first + self.side, 0), end))
            for first, end in zip((self.y0, self.x0), shape, strict=True)
        )
        return slice(y0, y1), slice(x0, x1)

    def seen_from(self, y: int, x: int) -> "Window":
        """Return the same window in slices that begin at row ``y`` and column ``x``."""
        return Window(self.y0 - y, self.x0 - x, self.side)

    def look(self, planes: Tensor, outside: float) -> Tensor:
        """Return slices ``(n, y, x)`` as the network sees them, float32 ``(n, s, s)``."""
        return resized(self.cut(planes, outside).float(), LOOK_SIDE)

    def back(self, logits: Tensor, shape: tuple[int, int], outside: float) -> Tensor:
        """Return logits of looks ``(n, s, s)`` on whole slices ``(n, y, x)``."""
        inner = resized(logits, self.side)
        whole = logits.new_full((logits.shape[0], *shape), outside)
        y0, x0 = max(self.y0, 0), max(self.x0, 0)
        y1, x1 = min(self.y0 + self.side, shape[0]), min(self.x0 + self.side, shape[1])
        if y1 > y0 and x1 > x0:
            whole[:, y0:y1, x0:x1] = inner[
                :, y0 - self.y0 : y1 - self.y0, x0 - self.x0 : x1 - self.x0
            ]
        return whole

    def place(self, y: float, x: float) -> tuple[float, float]:
        """Return the continuous look coordinates of a place in continuous voxel indices."""
        scale = LOOK_SIDE / self.side
        return ((y - self.y0) * scale, (x - self.x0) * scale)


def resized(planes: Tensor, side: int) -> Tensor:
    """Resample squares ``(n, a, a)`` to another side, averaging where they shrink."""
    if planes.shape[-1] == side:
        return planes
    return functional.interpolate(
        planes[:, None], size=(side, side), mode="bilinear", antialias=True, align_corners=False
    )[:, 0]


def filled_box(sides: tuple[float, float, float, float], like: Tensor) -> Tensor:
    """Return how much of each look pixel a box covers, float32 ``(s, s)``.

    Parameters
    ----------
    sides
        ``(y0, x0, y1, x1)`` in continuous look coordinates.
    like
        A tensor on the device wanted.
    """
    edges = torch.arange(LOOK_SIDE + 1, dtype=torch.float32, device=like.device)
    y0, x0, y1, x1 = sides
    rows = (edges[1:].clamp(max=y1) - edges[:-1].clamp(min=y0)).clamp(min=0)
    columns = (edges[1:].clamp(max=x1) - edges[:-1].clamp(min=x0)).clamp(min=0)
    return rows[:, None] * columns[None, :]


def spots(places: list[tuple[float, float]], like: Tensor, sigma: float = 4.0) -> Tensor:
    """Return Gaussian spots of height 1 at continuous look coordinates, float32 ``(s, s)``."""
    centres = torch.arange(LOOK_SIDE, dtype=torch.float32, device=like.device) + 0.5
    image = torch.zeros((LOOK_SIDE, LOOK_SIDE), device=like.device)
    for y, x in places:
        rows = torch.exp(-0.5 * ((centres - y) / sigma) ** 2)
        columns = torch.exp(-0.5 * ((centres - x) / sigma) ** 2)
        image = torch.maximum(image, rows[:, None] * columns[None, :])
    return image
