"""Synthetic slices and volumes with an object of known shape."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from napari_lungfm.geometry import Volume, VolumeGeometry

Scene = tuple[Volume, np.ndarray]


def _lobulated(rng: np.random.Generator, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Lobulated ball of about 15 mm radius around the origin, coordinates in mm."""
    place = np.stack(np.broadcast_arrays(z, y, x), axis=-1)
    distance = np.linalg.norm(place, axis=-1)
    outwards = place / np.maximum(distance, 1e-6)[..., np.newaxis]
    radius = np.full(distance.shape, 15.0)
    for _ in range(5):
        bump = rng.normal(size=3)
        bump /= np.linalg.norm(bump)
        radius += rng.uniform(-6.0, 6.0) * np.exp(8.0 * (outwards @ bump - 1.0))
    return distance <= radius


@pytest.fixture(scope="session")
def scene() -> Callable[..., Scene]:
    """Factory: noisy volume of 3 x 1 x 1 mm with a ball or lobulated object, and its mask."""

    def make(
        seed: int,
        *,
        surroundings: str = "lung",
        lobulated: bool = True,
        object_hu: float = 40.0,
        noise: float = 25.0,
    ) -> Scene:
        rng = np.random.default_rng(seed)
        axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in ((21, 3.0), (72, 1.0), (72, 1.0))]
        z, y, x = np.meshgrid(*axes, indexing="ij")
        mask = _lobulated(rng, z, y, x) if lobulated else z**2 + y**2 + x**2 <= 15.0**2
        image = np.full(mask.shape, -850.0 if surroundings == "lung" else -100.0)
        image[np.hypot(y - 20.0, x + 8.0) < 2.5] = 60.0  # a vessel beside it
        image[x > 13.0] = 50.0 if surroundings != "fat" else -100.0  # a wall that it touches
        if surroundings == "lung":
            image[x > 20.0] = -100.0
        image[mask] = object_hu
        image = ndimage.gaussian_filter(image, (0.25, 0.7, 0.7))
        image += ndimage.gaussian_filter(
            rng.normal(scale=2.4 * noise, size=mask.shape), (0, 0.7, 0.7)
        )
        geometry = VolumeGeometry(mask.shape, (3.0, 1.0, 1.0))
        return Volume(np.rint(image).astype(np.int16), geometry), mask

    return make


@pytest.fixture(scope="session")
def dice() -> Callable[[np.ndarray, np.ndarray], float]:
    def score(a: np.ndarray, b: np.ndarray) -> float:
        return float(2.0 * (a & b).sum() / (a.sum() + b.sum()))

    return score
