"""Random shapes as distance-like functions on a grid: negative inside, in mm near the surface."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from napari_lungfm._core.types import Index3, Vector3

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres in mm, counted from the middle of a clip.

    Parameters
    ----------
    shape
        Voxels ``(z, y, x)``.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.
    diameter
        Diameter in mm of the object that the clip is about: what lengths are measured by.
    axes
        Positions along z, y and x, shaped to broadcast.
    """

    shape: Index3
    spacing: Vector3
    diameter: float
    axes: tuple[Array, Array, Array]

    @classmethod
    def of(cls, shape: Index3, spacing: Vector3, diameter: float) -> "Grid":
        """Make the grid of a clip."""
        z, y, x = (
            ((np.arange(n) - (n - 1) / 2) * s).astype(np.float32)
            for n, s in zip(shape, spacing, strict=True)
        )
        return cls(shape, spacing, diameter, (z[:, None, None], y[None, :, None], x[None, None, :]))

    @property
    def extent(self) -> npt.NDArray[np.float64]:
        """Lengths of the clip along z, y and x in mm."""
        return np.asarray(self.shape, dtype=np.float64) * np.asarray(self.spacing, dtype=np.float64)

    @property
    def width(self) -> float:
        """Width in mm of the blurred border between two tissues: one pixel."""
        return self.spacing[1]

    def offsets(self, centre: npt.ArrayLike) -> tuple[Array, Array, Array]:
        """Return the positions relative to a point ``(z, y, x)`` in mm."""
        z, y, x = (a - np.float32(c) for a, c in zip(self.axes, np.asarray(centre), strict=True))
        return z, y, x


def smooth_noise(rng: np.random.Generator, grid: Grid, wavelength: float) -> Array:
    """Noise of about unit variance that changes over a wavelength in mm."""
    cells = [
        int(np.clip(np.ceil(length / wavelength) + 2, 3, n + 2))
        for length, n in zip(grid.extent, grid.shape, strict=True)
    ]
    coarse = torch.from_numpy(rng.standard_normal(cells, dtype=np.float32))
    fine = torch.nn.functional.interpolate(
        coarse[None, None], size=grid.shape, mode="trilinear", align_corners=True
    )
    # Linear interpolation in three directions leaves about (2/3)^3 of the variance.
    return np.asarray(fine[0, 0].numpy() * np.float32(1.5))


def ball(grid: Grid, centre: npt.ArrayLike, radius: float) -> Array:
    """Distance from a ball's surface."""
    z, y, x = grid.offsets(centre)
    return np.asarray(np.sqrt(z * z + y * y + x * x) - np.float32(radius), dtype=np.float32)


def tube(
    grid: Grid,
    start: npt.ArrayLike,
    direction: npt.ArrayLike,
    radius: float,
    bend: Sequence[Array] = (),
) -> Array:
    """Distance from an endless tube; ``bend`` displaces it along the first axes, in mm."""
    unit = np.asarray(direction, dtype=np.float32)
    unit = unit / max(float(np.linalg.norm(unit)), 1e-6)
    offsets: list[Array] = list(grid.offsets(start))
    for axis, shift in enumerate(bend):
        offsets[axis] = offsets[axis] + shift
    along = sum(u * o for u, o in zip(unit, offsets, strict=True))
    square = sum(o * o for o in offsets) - along * along
    return np.asarray(np.sqrt(np.maximum(square, 0)) - np.float32(radius), dtype=np.float32)


def lesion_shape(rng: np.random.Generator, grid: Grid) -> Array:
    """Distance from a random lump's surface: ellipsoid or union of lobes, warped by noise."""
    radius = grid.diameter / 2
    axes = _rotation(rng)
    lengths = radius * np.exp(rng.normal(0.0, 0.22, 3))
    lengths *= radius / np.cbrt(np.prod(lengths))
    shape = _ellipsoid(grid, np.zeros(3), lengths, axes)
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 6))):
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            lobe = radius * float(rng.uniform(0.3, 0.75))
            centre = direction * radius * float(rng.uniform(0.3, 0.9))
            shape = _smooth_min(shape, ball(grid, centre, lobe), 0.2 * radius)
        shape = shape + np.float32(0.15 * radius)  # lobes make it larger
    for wavelength, most in ((1.4, 0.3), (0.6, 0.12), (0.25, 0.05)):
        amplitude = np.float32(radius * rng.uniform(0.0, most))
        shape = shape + amplitude * smooth_noise(rng, grid, wavelength * radius)
    return np.asarray(shape, dtype=np.float32)


def spicules(rng: np.random.Generator, grid: Grid) -> Array:
    """Distance from thin cones that stick out of a ball of the object's size."""
    radius = grid.diameter / 2
    count = int(rng.integers(8, 40))
    directions = rng.normal(size=(count, 3)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    reach = np.float32(radius) * rng.uniform(1.2, 1.9, count).astype(np.float32)
    thick = np.float32(np.clip(0.06 * radius, 0.5, 1.5)) * rng.uniform(0.6, 1.4, count)
    z, y, x = grid.axes
    square = z * z + y * y + x * x
    result = np.full(grid.shape, 1e3, np.float32)
    for (uz, uy, ux), far, wide in zip(directions, reach, thick.astype(np.float32), strict=True):
        along = uz * z + uy * y + ux * x
        across = np.sqrt(np.maximum(square - along * along, 0))
        taper = wide * np.clip((far - along) / np.float32(0.9 * radius), 0, 1)
        inside = (along > 0.5 * radius) & (along < far)
        np.minimum(result, np.where(inside, across - taper, 1e3), out=result)
    return result


def _ellipsoid(
    grid: Grid, centre: npt.ArrayLike, lengths: npt.ArrayLike, axes: npt.NDArray[np.float64]
) -> Array:
    offsets = grid.offsets(centre)
    scaled = np.zeros(grid.shape, np.float32)
    for unit, length in zip(axes, np.asarray(lengths), strict=True):
        along = sum(np.float32(u) * o for u, o in zip(unit, offsets, strict=True))
        scaled += (along / np.float32(length)) ** 2
    mean = np.float32(np.cbrt(np.prod(np.asarray(lengths))))
    return np.asarray((np.sqrt(scaled) - 1) * mean, dtype=np.float32)


def _smooth_min(a: Array, b: Array, k: float) -> Array:
    h = np.maximum(np.float32(k) - np.abs(a - b), 0)
    return np.asarray(np.minimum(a, b) - h * h * np.float32(0.25 / k), dtype=np.float32)


def _rotation(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return a random rotation matrix."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    return np.asarray(q * np.sign(np.diag(r)))
