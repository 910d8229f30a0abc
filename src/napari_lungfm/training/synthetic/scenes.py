"""Clips of random tissues and shapes.

Domain randomisation in the manner of SynthSeg (Billot et al., Medical Image Analysis 86 (2023)
102789): shapes, tissues, intensities, blur and noise are drawn far beyond what anatomy allows, so
that a network learns "the thing in the box" and not one appearance. Half the scenes keep to the
chest (aerated lung, chest wall with ribs, vessels), the rest are soft tissue or arbitrary.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_lungfm._core.masks import largest_part
from napari_lungfm.training.synthetic.clips import Clip, Sampling
from napari_lungfm.training.synthetic.shapes import (
    Array,
    Grid,
    ball,
    lesion_shape,
    smooth_noise,
    spicules,
    tube,
)

Setting: TypeAlias = Literal["lung", "soft", "arbitrary"]

#: Attenuation in HU of what soft-tissue scenes are made of: fat, fluid, muscle and organs,
#: enhanced vessels, bone, gas; centres of the usual ranges.
_TISSUES_HU = (-105.0, -90.0, 0.0, 15.0, 35.0, 50.0, 60.0, 80.0, 130.0, 200.0, 350.0, -900.0)
_TISSUE_WEIGHTS = np.array([3, 2, 1, 1, 3, 3, 3, 2, 2, 1, 1, 0.5])


@dataclass(eq=False)
class _Scene:
    """A scene while it is painted."""

    grid: Grid
    rng: np.random.Generator
    hu: Array
    setting: Setting
    wall: Array | None = None  # distance from the chest wall's surface in mm, negative in it

    def paint(self, distance: Array, value: Array | float) -> None:
        """Mix a value into the inside of a shape, with partial volume at its surface."""
        alpha = np.clip(0.5 - distance / np.float32(self.grid.width), 0.0, 1.0)
        self.hu += alpha * (value - self.hu)

    def textured(self, value: float, coarse: float, fine: float) -> Array:
        """Return a value with texture of two scales, amplitudes in HU."""
        size = self.grid.diameter
        texture = np.float32(coarse) * smooth_noise(self.rng, self.grid, 0.5 * size)
        texture += np.float32(fine) * smooth_noise(self.rng, self.grid, max(0.12 * size, 2.0))
        return texture + np.float32(value)


def scene_clip(rng: np.random.Generator) -> Clip | None:
    """Return a random object in random surroundings."""
    sampling = Sampling.draw(rng)
    grid = Grid.of(sampling.shape, sampling.spacing, sampling.diameter_mm)
    setting: Setting = ("lung", "soft", "arbitrary")[int(rng.choice(3, p=[0.5, 0.28, 0.22]))]
    scene = _Scene(grid, rng, np.empty(grid.shape, np.float32), setting)
    _background(scene)
    body = lesion_shape(rng, grid)
    if scene.wall is not None and rng.random() < 0.5:  # stopped by the wall, or growing into it
        body = np.maximum(body, -scene.wall - np.float32(rng.uniform(0.0, 0.15) * grid.diameter))
    value = _lesion_value(scene, body)
    _neighbour(scene, value)
    _lesion(scene, body, value)
    mask = largest_part(body < 0)
    if not mask.any():
        return None
    return Clip(_acquire(scene), mask, sampling.spacing, "scene")


# ---------------------------------------------------------------------- surroundings
def _background(scene: _Scene) -> None:
    rng = scene.rng
    if scene.setting == "lung":
        scene.hu[:] = scene.textured(rng.uniform(-930.0, -680.0), 40 * rng.random(), 20.0)
        _vessels(scene, int(rng.integers(2, 16)), float(rng.uniform(-20.0, 180.0)))
        if rng.random() < 0.6:
            _chest_wall(scene)
        return
    count = int(rng.integers(2, 8))
    if scene.setting == "soft":
        weights = _TISSUE_WEIGHTS / _TISSUE_WEIGHTS.sum()
        values = rng.choice(np.array(_TISSUES_HU), size=count, p=weights)
        values = values + rng.normal(0.0, 12.0, count)
    else:
        low, high = np.sort(rng.uniform(-1000.0, 600.0, 2))
        values = rng.uniform(low, max(high, low + 150.0), count)
    scene.hu[:] = _patchwork(scene, values.astype(np.float32))
    _vessels(scene, int(rng.integers(0, 7)), float(rng.uniform(-100.0, 300.0)))


def _patchwork(scene: _Scene, values: npt.NDArray[np.float32]) -> Array:
    """Fill space with regions of given values: where one of several noises is the highest."""
    rng, grid = scene.rng, scene.grid
    wavelength = grid.diameter * float(np.exp(rng.uniform(np.log(0.7), np.log(4.0)))) + 5.0
    layers = np.stack([smooth_noise(rng, grid, wavelength) for _ in values])
    sharpness = np.float32(rng.uniform(4.0, 14.0))
    weights = np.exp(sharpness * (layers - layers.max(axis=0)))
    weights /= weights.sum(axis=0)
    texture = np.float32(rng.uniform(0.0, 12.0)) * smooth_noise(rng, grid, 4.0)
    return np.tensordot(values, weights, axes=1).astype(np.float32) + texture


def _vessels(scene: _Scene, count: int, value: float) -> None:
    rng, grid = scene.rng, scene.grid
    bend = [np.float32(0.08 * grid.diameter) * smooth_noise(rng, grid, grid.diameter) for _ in "zy"]
    for _ in range(count):
        start = rng.uniform(-0.5, 0.5, 3) * grid.extent
        direction = rng.normal(size=3) * np.array([rng.uniform(0.1, 1.5), 1.0, 1.0])
        radius = float(np.exp(rng.uniform(np.log(0.5), np.log(0.5 + 0.08 * grid.diameter + 1.5))))
        scene.paint(tube(grid, start, direction, radius, bend), value + float(rng.normal(0, 15)))


def _chest_wall(scene: _Scene) -> None:
    """Paint muscle, fat and ribs beyond a bent plane."""
    rng, grid = scene.rng, scene.grid
    normal = rng.normal(size=3) * np.array([0.25, 1.0, 1.0])
    normal = (normal / np.linalg.norm(normal)).astype(np.float32)
    offset = np.float32(rng.uniform(-0.1, 1.1) * grid.diameter)
    height = sum(n * c for n, c in zip(normal, grid.axes, strict=True))
    wave = np.float32(0.25 * grid.diameter) * smooth_noise(rng, grid, 2.0 * grid.diameter)
    scene.wall = np.asarray(offset - height + wave, dtype=np.float32)
    scene.paint(scene.wall, scene.textured(float(rng.normal(50.0, 15.0)), 10.0, 8.0))
    depth = float(rng.uniform(3.0, 15.0))
    scene.paint(scene.wall + np.float32(depth), float(rng.normal(-100.0, 10.0)))
    scene.paint(scene.wall + np.float32(depth + rng.uniform(5, 30)), float(rng.normal(55.0, 10.0)))
    for _ in range(int(rng.integers(0, 4))):
        along = np.cross(normal, rng.normal(size=3))
        start = normal * (offset + float(rng.uniform(3.0, 12.0)))
        start = start + along * 0.3 * grid.diameter * float(rng.normal())
        scene.paint(tube(grid, start, along, float(rng.uniform(3.0, 8.0))), float(rng.normal(450)))


def _neighbour(scene: _Scene, value: float) -> None:
    """Paint something of nearly the same density against the object: vessel, atelectasis, wall."""
    rng, grid = scene.rng, scene.grid
    for _ in range(int(rng.choice(3, p=[0.5, 0.35, 0.15]))):
        direction = rng.normal(size=3) * np.array([0.5, 1.0, 1.0])
        direction /= np.linalg.norm(direction)
        radius = grid.diameter * float(rng.uniform(0.2, 0.9))
        centre = direction * (0.5 * grid.diameter + radius * float(rng.uniform(0.5, 1.3)))
        shape = ball(grid, centre, radius)
        shape += np.float32(0.35 * radius) * smooth_noise(rng, grid, 1.2 * radius)
        near = value + float(rng.normal(0.0, 30.0 if rng.random() < 0.6 else 120.0))
        scene.paint(shape, scene.textured(near, 8.0, 8.0))


# ---------------------------------------------------------------------- the object
def _lesion_value(scene: _Scene, body: Array) -> float:
    """Draw the object's mean in HU, so that it can be told from most of what is around it."""
    rng = scene.rng
    shell = (body > 0) & (body < np.float32(0.25 * scene.grid.diameter + 2.0))
    around = float(np.median(scene.hu[shell])) if shell.any() else float(scene.hu.mean())
    if scene.setting == "lung":
        kind = rng.random()
        if kind < 0.72:
            return float(rng.normal(45.0, 35.0))
        if kind < 0.9:
            return min(max(float(rng.uniform(-750.0, -200.0)), around + 100.0), 0.0)
        return around + float(rng.choice([-1, 1])) * float(rng.uniform(100.0, 700.0))
    contrast = float(np.exp(rng.uniform(np.log(15.0), np.log(300.0))))
    return float(np.clip(around + contrast * float(rng.choice([-1, 1])), -1000.0, 1000.0))


def _lesion(scene: _Scene, body: Array, value: float) -> None:
    rng, grid = scene.rng, scene.grid
    if rng.random() < 0.25:
        scene.paint(spicules(rng, grid), value - float(rng.uniform(0.0, 200.0)))
    large = min(grid.diameter / 60.0, 1.0)  # large tumours are the heterogeneous ones
    coarse, fine = (
        float(rng.uniform(0.0, 15 + 35 * large)),
        float(rng.uniform(0.0, 15 + 10 * large)),
    )
    scene.paint(body, scene.textured(value, coarse, fine))
    if rng.random() < 0.2 + 0.3 * large:
        _inside(scene, body, value - float(rng.uniform(10.0, 60.0)))  # necrosis, fluid
    if rng.random() < 0.12:
        _inside(scene, body, float(rng.uniform(-1000.0, -700.0)))  # cavity
    if value < -200.0 and rng.random() < 0.4:
        _inside(scene, body, float(rng.normal(30.0, 30.0)))  # solid part of ground glass
    if rng.random() < 0.1:
        for _ in range(int(rng.integers(1, 5))):
            centre = rng.uniform(-0.3, 0.3, 3) * grid.diameter
            radius = float(rng.uniform(0.02, 0.07)) * grid.diameter
            scene.paint(np.maximum(ball(grid, centre, radius), body), float(rng.uniform(150, 900)))


def _inside(scene: _Scene, body: Array, value: float) -> None:
    """Paint a part that keeps a rim away from the object's surface."""
    rng, grid = scene.rng, scene.grid
    centre = rng.uniform(-0.15, 0.15, 3) * grid.diameter
    radius = grid.diameter * float(rng.uniform(0.15, 0.42))
    core = ball(grid, centre, radius)
    core += np.float32(0.5 * radius) * smooth_noise(rng, grid, radius)
    rim = np.float32(max(1.0, float(rng.uniform(0.02, 0.12)) * grid.diameter))
    scene.paint(np.maximum(core, body + rim), scene.textured(value, 8.0, 8.0))


# ---------------------------------------------------------------------- the scanner
def _acquire(scene: _Scene) -> npt.NDArray[np.int16]:
    """Blur, add noise and round, as a scanner would."""
    rng, grid = scene.rng, scene.grid
    pixel = grid.spacing[1]
    sigma_px = float(rng.uniform(0.25, 0.9)) / pixel
    hu = ndimage.gaussian_filter(
        scene.hu, (float(rng.uniform(0.0, 0.6)), sigma_px, sigma_px), truncate=3.0
    )
    noise = rng.standard_normal(grid.shape, dtype=np.float32)
    grain = float(rng.uniform(0.0, 0.8)) / pixel
    noise = ndimage.gaussian_filter(noise, (0.0, grain, grain), truncate=3.0)
    noise /= max(float(noise.std()), 1e-6)
    # Coarser pixels average more of the noise out.
    level = float(np.exp(rng.uniform(np.log(3.0), np.log(60.0)))) / max(1.0, pixel)
    hu = hu + np.float32(level) * noise
    if rng.random() < 0.06:
        hu = hu + _streaks(rng, grid)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def _streaks(rng: np.random.Generator, grid: Grid) -> Array:
    """Straight streaks through every slice, as metal and arms leave them."""
    angle = rng.uniform(0.0, np.pi)
    across = np.cos(angle) * grid.axes[1] + np.sin(angle) * grid.axes[2]
    waves = np.zeros(np.broadcast_shapes(across.shape, grid.axes[0].shape), np.float32)
    for _ in range(5):
        wavelength, phase = rng.uniform(4.0, 30.0), rng.uniform(0.0, 6.3)
        waves = waves + np.sin(across * np.float32(6.2832 / wavelength) + np.float32(phase))
    return np.asarray(np.float32(rng.uniform(3.0, 40.0)) * waves, dtype=np.float32)
