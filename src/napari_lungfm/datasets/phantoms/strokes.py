"""Strokes: the many thin tapering tubes and plates (vessels, bronchi, ribs), painted one by one.

Each stroke touches only the voxels of its own box, so thousands of them cost less than one field
over the whole grid.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.types import FloatArray
from napari_lungfm.datasets.phantoms.fields import Array

_MIN_BOX = 1e-3


@dataclass(frozen=True, eq=False)
class Strokes:
    """Straight tapering strokes.

    Parameters
    ----------
    start, end
        LPS ``(x, y, z)`` mm, ``(n, 3)``.
    r0, r1
        Radius in mm at the start and at the end, ``(n,)``; of flat strokes the larger one.
    normal
        Unit vectors ``(n, 3)`` along which the stroke is flat.
    flatness
        Larger radius divided by the smaller one, ``(n,)``; 1 = round.
    """

    start: FloatArray
    end: FloatArray
    r0: FloatArray
    r1: FloatArray
    normal: FloatArray
    flatness: FloatArray

    def __len__(self) -> int:
        return len(self.r0)

    @classmethod
    def round(cls, start: FloatArray, end: FloatArray, r0: FloatArray, r1: FloatArray) -> "Strokes":
        """Strokes with a round cross-section."""
        n = len(r0)
        normal = np.tile(np.array([0.0, 0.0, 1.0]), (n, 1))
        return cls(start, end, r0, r1, normal, np.ones(n))

    @classmethod
    def path(
        cls,
        points: npt.ArrayLike,
        radii: npt.ArrayLike,
        normals: npt.ArrayLike | None = None,
        flatness: float = 1.0,
    ) -> "Strokes":
        """Strokes along a path ``(n, 3)`` with one radius (and one normal) per point."""
        p = np.asarray(points, np.float64)
        r = np.broadcast_to(np.asarray(radii, np.float64), len(p))
        normal = np.zeros((len(p), 3)) + np.array([0.0, 0.0, 1.0])
        if normals is not None:
            normal = np.broadcast_to(np.asarray(normals, np.float64), (len(p), 3))
        middle = normal[:-1] + normal[1:]
        middle = middle / np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-9)
        return cls(p[:-1], p[1:], r[:-1], r[1:], middle, np.full(len(p) - 1, flatness))

    @classmethod
    def join(cls, parts: Iterable["Strokes"]) -> "Strokes":
        """All strokes of several sets."""
        sets = list(parts)
        if not sets:
            return cls.empty()
        return cls(
            *(
                np.concatenate([getattr(s, name) for s in sets])
                for name in ("start", "end", "r0", "r1", "normal", "flatness")
            )
        )

    @classmethod
    def empty(cls) -> "Strokes":
        """No strokes."""
        return cls.round(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros(0))

    def take(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Self:
        """Strokes chosen by a mask or by indices."""
        return type(self)(
            self.start[keep],
            self.end[keep],
            self.r0[keep],
            self.r1[keep],
            self.normal[keep],
            self.flatness[keep],
        )

    def shrunk(self, by: float) -> Self:
        """Strokes with ``by`` mm less radius on every side; what vanishes is left out."""
        thin = np.maximum(self.r0, self.r1) / self.flatness
        kept = self.take(thin - by > 0.2)
        larger = (kept.r0 - by, kept.r1 - by)
        # a flat stroke loses the same depth on its broad and on its narrow side
        flatness = (np.maximum(kept.r0, kept.r1) - by) / (
            np.maximum(kept.r0, kept.r1) / kept.flatness - by
        )
        return type(self)(
            kept.start,
            kept.end,
            np.maximum(larger[0], 0.05),
            np.maximum(larger[1], 0.05),
            kept.normal,
            flatness,
        )

    def grown(self, by: float) -> Self:
        """Strokes with ``by`` mm more radius."""
        return type(self)(
            self.start, self.end, self.r0 + by, self.r1 + by, self.normal, self.flatness
        )


def coverage(
    strokes: Strokes, zs: FloatArray, ys: FloatArray, xs: FloatArray, width: float
) -> Array | None:
    """Fraction of each voxel that strokes fill.

    Parameters
    ----------
    strokes
        The strokes; those outside the grid cost nothing.
    zs, ys, xs
        Voxel centres in mm, ascending.
    width
        Size of a voxel in mm.

    Returns
    -------
    ndarray or None
        float32 ``(z, y, x)`` from 0 to 1, or ``None`` when no stroke touches the grid.
    """
    boxes = _boxes(strokes, zs, ys, xs, width)
    touched = np.flatnonzero((boxes[:, :, 1] > boxes[:, :, 0]).all(axis=1))
    if touched.size == 0:
        return None
    filled = np.zeros((len(zs), len(ys), len(xs)), np.float32)
    axes = tuple(np.asarray(a, np.float32) for a in (zs, ys, xs))
    numbers = np.column_stack(
        [strokes.start, strokes.end, strokes.r0, strokes.r1, strokes.normal, strokes.flatness]
    ).tolist()
    ranges = boxes[touched].tolist()
    for i, ((z0, z1), (y0, y1), (x0, x1)) in zip(touched.tolist(), ranges, strict=True):
        part = filled[z0:z1, y0:y1, x0:x1]
        alpha = _stroke(
            axes[0][z0:z1, None, None],
            axes[1][None, y0:y1, None],
            axes[2][None, None, x0:x1],
            numbers[i],
            width,
        )
        np.maximum(part, alpha, out=part)
    return filled


def _boxes(
    strokes: Strokes, zs: FloatArray, ys: FloatArray, xs: FloatArray, width: float
) -> npt.NDArray[np.intp]:
    """Index ranges ``(n, 3, 2)`` in order z, y, x."""
    reach = (np.maximum(strokes.r0, strokes.r1) + width)[:, None]
    low = np.minimum(strokes.start, strokes.end) - reach
    high = np.maximum(strokes.start, strokes.end) + reach
    boxes = np.empty((len(strokes), 3, 2), np.intp)
    for axis, mm in enumerate((zs, ys, xs)):
        boxes[:, axis, 0] = np.searchsorted(mm, low[:, 2 - axis])
        boxes[:, axis, 1] = np.searchsorted(mm, high[:, 2 - axis], side="right")
    return boxes


def _stroke(z: Array, y: Array, x: Array, numbers: list[float], width: float) -> Array:
    ax, ay, az, bx, by, bz, r0, r1, nx, ny, nz, flatness = numbers
    ux, uy, uz = bx - ax, by - ay, bz - az
    length2 = max(ux * ux + uy * uy + uz * uz, _MIN_BOX)
    dx, dy, dz = x - ax, y - ay, z - az
    along = (dx * ux + dy * uy) + dz * uz
    t = along * (1 / length2)
    np.maximum(t, 0, out=t)  # np.clip costs more than the work itself on boxes this small
    np.minimum(t, 1, out=t)
    square = (dx * dx + dy * dy) + dz * dz
    along *= -2
    along += t * length2
    along *= t
    square += along
    np.maximum(square, 0, out=square)
    # what is thinner than a voxel is drawn one voxel wide and fainter by the ratio of areas
    thin = max(r0, r1)
    drawn = max(thin, 0.5 * width)
    fade = (thin / drawn) ** 2
    radius = t * (r1 - r0)
    radius += r0 + drawn - thin
    if flatness == 1.0:
        np.sqrt(square, out=square)
        square -= radius
    else:
        square = _flat(square, (dx * nx + dy * ny) + dz * nz, t, (ux, uy, uz), (nx, ny, nz),
                       flatness, radius)  # fmt: skip
    square *= -1 / width
    square += 0.5
    np.maximum(square, 0, out=square)
    np.minimum(square, 1, out=square)
    if fade != 1.0:
        square *= fade
    return square


def _flat(
    square: Array,
    out: Array,
    t: Array,
    axis: tuple[float, float, float],
    normal: tuple[float, float, float],
    flatness: float,
    radius: Array,
) -> Array:
    """First-order distance from a tube with elliptic section (as `fields.ellipsoid`)."""
    out = out - t * sum(a * n for a, n in zip(axis, normal, strict=True))
    out *= out
    scaled = np.sqrt(square + out * (flatness**2 - 1))
    slope = np.sqrt(square + out * (flatness**4 - 1))
    result: Array = (scaled - radius) * scaled
    result /= np.maximum(slope, np.float32(1e-4))
    return result
