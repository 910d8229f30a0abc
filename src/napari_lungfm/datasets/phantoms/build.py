"""`Build`: the numbers in which one body differs from another."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.seeding import generator
from napari_lungfm._core.types import FloatArray, Vector3

#: Centre-to-centre distance of thoracic vertebrae with their discs: 22 to 25 mm in adults
#: (Gray's Anatomy); scaled by the height of the patient.
VERTEBRA_MM = 22.5
#: Level of the first thoracic vertebra. The carina (z = 0) lies at T4/T5, lower in inspiration.
T1_Z = 98.0


@dataclass(frozen=True)
class Build:
    """Size and shape of a body; lengths in mm, the carina near the origin.

    Typical inner chest in inspiration: width 250 to 300 mm, depth 160 to 200 mm, lung height
    240 to 290 mm, total lung volume 4 to 7 L (round textbook values).
    """

    sx: float
    sy: float
    sz: float
    half_width: float
    half_depth: float
    top: float
    fat: float
    muscle: float
    breasts: bool
    dome_right: float
    dome_left: float
    dome_bulge: float
    heart: float
    kyphosis: float
    scoliosis: float
    shoulder: float
    gas: float
    emphysema: float
    rib_drop: float

    @classmethod
    def draw(cls, seed: int) -> Self:
        """Draw a body from its own random stream."""
        rng = generator("phantom", seed, "build")
        female = bool(rng.random() < 0.45)
        size = float(np.clip(rng.normal(0.96 if female else 1.02, 0.035), 0.88, 1.1))
        sx = size * float(np.clip(rng.normal(1.0, 0.03), 0.93, 1.07))
        sy = size * float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12))
        sz = size * float(np.clip(rng.normal(1.0, 0.03), 0.93, 1.07))
        breath = float(rng.uniform(-12, 8))
        return cls(
            sx=sx,
            sy=sy,
            sz=sz,
            half_width=127.0 * sx,
            half_depth=88.0 * sy,
            top=112.0 * sz,
            fat=float(np.clip(rng.gamma(3.0, 4.5 if female else 3.8), 4.0, 34.0)),
            muscle=float(np.clip(rng.normal(23 if female else 28, 4), 15, 36)),
            breasts=female and bool(rng.random() < 0.85),
            dome_right=(-100.0 + breath) * sz,
            dome_left=(-110.0 + breath + float(rng.uniform(-5, 5))) * sz,
            dome_bulge=float(rng.uniform(0.85, 1.2)),
            heart=float(np.clip(rng.normal(1.0, 0.06), 0.88, 1.15)),
            kyphosis=float(rng.uniform(0.6, 1.5)),
            scoliosis=float(np.clip(rng.normal(0, 3.0), -7, 7)),
            shoulder=float(rng.uniform(-8, 8)),
            gas=float(rng.uniform(0.3, 1.0)),
            emphysema=float(max(0.0, rng.normal(-0.2, 0.5))),
            rib_drop=float(rng.uniform(0.85, 1.15)),
        )

    def at(self, x: float, y: float, z: float) -> npt.NDArray[np.float64]:
        """Scale a landmark of the mean body, LPS ``(x, y, z)`` mm, to this one."""
        return np.array([x * self.sx, y * self.sy, z * self.sz])

    def place(self, x: float, y: float, z: float) -> Vector3:
        """`at` as a tuple."""
        return (x * self.sx, y * self.sy, z * self.sz)

    def path(self, points: list[tuple[float, float, float]]) -> npt.NDArray[np.float64]:
        """Scale a list of landmarks, ``(n, 3)``."""
        scale = np.array([self.sx, self.sy, self.sz], dtype=np.float64)
        return np.array(points, dtype=np.float64) * scale

    def vertebra_z(self, number: int) -> float:
        """Height of the middle of thoracic vertebra ``number`` (13 = first lumbar)."""
        return (T1_Z - (number - 1) * VERTEBRA_MM) * self.sz

    def spine_xy(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Centre of the vertebral bodies at heights ``z``: thoracic kyphosis, some scoliosis."""
        t = np.clip(np.asarray(z, np.float64) / self.sz, -330, 200) / 100.0
        y = 58.0 - 7.0 * self.kyphosis * (t + 0.2) ** 2 - 8.0 * np.clip(t - 0.6, 0, None) ** 2
        x = self.scoliosis * np.sin(1.7 * t)
        return x * self.sx, y * self.sy
