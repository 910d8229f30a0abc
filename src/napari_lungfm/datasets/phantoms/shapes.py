"""`Blob`: an irregular closed surface around a centre."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.types import FloatArray, Vector3
from napari_lungfm.datasets.phantoms.fields import Array, Points
from napari_lungfm.datasets.phantoms.spec import TumourKind

_K = TumourKind


@dataclass(frozen=True)
class ShapeStyle:
    """How irregular a kind of tumour is: lobes, small bumps, elongation."""

    lobes: tuple[int, int] = (0, 0)
    lobe_height: tuple[float, float] = (0.0, 0.0)
    bumps: int = 0
    bump_height: float = 0.0
    stretch: float = 0.0


SHAPES: dict[TumourKind, ShapeStyle] = {
    _K.SOLID_ROUND: ShapeStyle(),
    _K.LOBULATED: ShapeStyle((5, 9), (0.35, 0.9), 10, 0.08, 0.16),
    _K.SPICULATED: ShapeStyle((3, 6), (0.15, 0.5), 40, 0.2, 0.15),
    _K.PART_SOLID: ShapeStyle((4, 7), (0.12, 0.4), 18, 0.08, 0.14),
    _K.GROUND_GLASS: ShapeStyle((3, 6), (0.1, 0.4), 18, 0.09, 0.14),
    _K.JUXTA_PLEURAL: ShapeStyle((3, 6), (0.15, 0.5), 14, 0.08, 0.2),
    _K.JUXTA_VASCULAR: ShapeStyle((3, 6), (0.12, 0.4), 14, 0.07, 0.14),
    _K.ATELECTASIS: ShapeStyle((4, 7), (0.15, 0.55), 14, 0.07, 0.16),
    _K.NECROTIC: ShapeStyle((5, 9), (0.15, 0.55), 18, 0.06, 0.18),
    _K.CAVITATING: ShapeStyle((4, 7), (0.12, 0.4), 18, 0.08, 0.14),
}


@dataclass(frozen=True, eq=False)
class Blob:
    """Star-shaped surface: radius 1 plus rounded bumps, stretched; of the unit sphere's volume."""

    directions: npt.NDArray[np.float64]
    heights: npt.NDArray[np.float64]
    sharpness: npt.NDArray[np.float64]
    stretch: npt.NDArray[np.float64]
    scale: float

    def _unstretched(self, cosines: FloatArray) -> FloatArray:
        bumps = self.heights * np.exp(self.sharpness * (cosines - 1))
        return np.asarray(self.scale * (1 + bumps.sum(axis=-1)))

    def radius(self, directions: FloatArray) -> FloatArray:
        """Radius of the unit shape along unit vectors ``(n, 3)``."""
        moved: FloatArray = directions @ self.stretch.T
        length = np.linalg.norm(moved, axis=1)
        return np.asarray(self._unstretched(moved / length[:, None] @ self.directions.T) / length)

    @property
    def reach(self) -> float:
        """Largest radius of the unit shape."""
        return float(self.radius(_sphere(600)).max()) * 1.05

    def implicit(self, p: Points, centre: Vector3, size: float) -> Array:
        """Implicit function of the shape scaled by ``size`` mm around a centre."""
        dx, dy, dz = (c - np.float32(o) for c, o in zip((p.x, p.y, p.z), centre, strict=True))
        m = self.stretch.astype(np.float32)
        qx, qy, qz = (m[i, 0] * dx + m[i, 1] * dy + m[i, 2] * dz for i in range(3))
        distance = np.sqrt(qx * qx + qy * qy + qz * qz)
        inverse = 1 / np.maximum(distance, np.float32(1e-3))
        radius = np.ones_like(distance)
        for d, height, sharp in zip(self.directions, self.heights, self.sharpness, strict=True):
            cosine = (
                qx * np.float32(d[0]) + qy * np.float32(d[1]) + qz * np.float32(d[2])
            ) * inverse
            radius += np.float32(height) * np.exp(np.float32(sharp) * (cosine - 1))
        radius *= np.float32(-size * self.scale)
        radius += distance
        result: Array = radius
        return result


def draw_blob(style: ShapeStyle, rng: np.random.Generator) -> Blob:
    """Draw a shape; lobes are broad, bumps narrow."""
    lobes = int(rng.integers(style.lobes[0], style.lobes[1] + 1))
    count = lobes + style.bumps
    directions = rng.normal(size=(count, 3))
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-9)
    heights = np.concatenate(
        [
            rng.uniform(*style.lobe_height, lobes),
            rng.normal(0, style.bump_height, style.bumps),
        ]
    )
    sharpness = np.concatenate([rng.uniform(6, 15, lobes), rng.uniform(12, 40, style.bumps)])
    matrix = _stretch(style.stretch, rng)
    raw = Blob(directions, heights, sharpness, matrix, 1.0)
    if count == 0:
        return raw
    # volume of a star-shaped body: a third of the integral of the radius cubed over all directions
    cubed = raw._unstretched(_sphere(1500) @ directions.T) ** 3
    return Blob(directions, heights, sharpness, matrix, float(np.mean(cubed) ** (-1 / 3)))


def _stretch(amount: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Matrix of determinant 1 that stretches along random axes."""
    logs = rng.normal(0, amount, 3) if amount else np.zeros(3)
    logs -= logs.mean()
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return np.asarray(axes @ np.diag(np.exp(logs)) @ axes.T, np.float64)


def _sphere(n: int) -> npt.NDArray[np.float64]:
    """Evenly spread unit vectors (Fibonacci lattice)."""
    i = np.arange(n) + 0.5
    z = 1 - 2 * i / n
    angle = np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z * z)
    return np.column_stack([r * np.cos(angle), r * np.sin(angle), z])
