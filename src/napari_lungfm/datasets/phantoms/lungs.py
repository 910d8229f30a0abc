"""Shape of the lungs, their lobes, and the parenchyma."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.types import FloatArray
from napari_lungfm.datasets.phantoms.build import Build
from napari_lungfm.datasets.phantoms.canvas import Canvas
from napari_lungfm.datasets.phantoms.fields import Array, Points, SmoothNoise, ramp, smooth_max
from napari_lungfm.datasets.phantoms.tissues import Tissue

#: Pleura and endothoracic fascia between ribs and lung, mm.
_PLEURA_MM = 1.2
#: Density rises to the dependent side; in supine inspiration by about 0.3 to 1 HU per mm
#: (Millar and Denison, Thorax 1989; Verschakelen et al., AJR 1993;161:713).
_GRAVITY_HU_PER_MM = 0.42


@dataclass(frozen=True, eq=False)
class LungFields:
    """Both lungs on a lattice, as distances (negative inside)."""

    left: Array
    right: Array

    @property
    def either(self) -> Array:
        """Distance from the nearer lung."""
        return np.minimum(self.left, self.right)


def lung_fields(p: Points, wall: Array, solid: Array, above: Array) -> LungFields:
    """Lungs: within the ribs, beside the mediastinum, above the diaphragm.

    Parameters
    ----------
    p
        Positions.
    wall
        Distance from the inner chest wall.
    solid
        Distance from the mediastinum.
    above
        Distance above the diaphragm.
    """
    both = smooth_max(wall + _PLEURA_MM, -above + 1.0, 4)
    both = smooth_max(both, -solid, 5)
    side = np.broadcast_to(p.x, both.shape)
    return LungFields(np.maximum(both, 0.5 - side), np.maximum(both, 0.5 + side))


# ---------------------------------------------------------------------- fissures
def oblique_fissure(build: Build, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
    """Height in mm above the oblique fissure; negative in the lower lobe.

    It runs from about T3 behind down to the front of the diaphragm, bulging a little.
    """
    wave = 4.0 * np.sin(x / 23.0) + 3.0 * np.sin(y / 31.0 + 1.0)
    plane = z - (-22.0 + 0.98 * y + 0.0012 * x * x * np.sign(x)) * build.sz
    return np.asarray((plane + wave) * 0.7, dtype=np.float64)


def horizontal_fissure(build: Build, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
    """Height in mm above the horizontal fissure of the right lung."""
    level = (-22.0 - 0.12 * (x + 60.0) + 0.10 * (y + 40)) * build.sz
    return np.asarray(z - level - 3.0 * np.sin(y / 25.0), dtype=np.float64)


def lobe_of(build: Build, points: FloatArray) -> npt.NDArray[np.intp]:
    """Lobe of LPS points ``(n, 3)``: 0 upper, 1 lower, 2 middle (right lung only)."""
    x, y, z = points.T
    lower = oblique_fissure(build, x, y, z) < 0
    middle = ~lower & (x < 0) & (horizontal_fissure(build, x, y, z) < 0)
    lobe: npt.NDArray[np.intp] = np.where(lower, 1, np.where(middle, 2, 0)).astype(np.intp)
    return lobe


# ---------------------------------------------------------------------- parenchyma
def paint_lungs(
    canvas: Canvas, build: Build, coverage: Array, noise: SmoothNoise, hu: dict[Tissue, float]
) -> None:
    """Paint aerated lung where ``coverage`` (both lungs, 0 to 1) says so."""
    region = covered_region(coverage)
    if region is None:
        return
    zs, ys, xs = canvas.zs[region[0]], canvas.ys[region[1]], canvas.xs[region[2]]
    value = parenchyma(build, noise, zs, ys, xs, hu[Tissue.LUNG])
    value += 190.0 * _fissures(canvas, build, zs, ys, xs)
    canvas.blend(region, coverage[region], value, Tissue.LUNG)


def covered_region(coverage: Array) -> tuple[slice, slice, slice] | None:
    """Smallest region where a coverage is above 0."""
    bounds = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero((coverage > 0).any(axis=others))
        if hit.size == 0:
            return None
        bounds.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return (bounds[0], bounds[1], bounds[2])


def parenchyma(
    build: Build,
    noise: SmoothNoise,
    zs: FloatArray,
    ys: FloatArray,
    xs: FloatArray,
    mean: float,
) -> Array:
    """HU of aerated lung: gravity, lobules, uneven ventilation, emphysema.

    Parameters
    ----------
    build
        The body.
    noise
        Noise of this patient.
    zs, ys, xs
        Voxel centres in mm.
    mean
        HU half-way from front to back.
    """
    value = noise.sample(zs, ys, xs, 2.6) * np.float32(19.0)
    wide = noise.sample(zs, ys, xs, 17.0)
    value += wide * np.float32(9.0)
    value += noise.sample(zs + 900, ys, xs, 6.5) * np.float32(10.0)
    y = np.asarray(ys, np.float32)[None, :, None]
    value += np.float32(mean) + np.float32(_GRAVITY_HU_PER_MM) * y
    value += np.float32(26) * ramp(y, 55, 95)  # dependent density
    if build.emphysema > 0:
        holes = ramp(wide + 0.8 * noise.sample(zs, ys + 700, xs, 9.0), 0.6, 1.8)
        upper = 0.3 + 0.7 * ramp(np.asarray(zs), -80, 60)[:, None, None]
        value += holes * upper * np.float32(build.emphysema) * (np.float32(-965) - value)
    np.clip(value, -990, None, out=value)
    return value


def _fissures(
    canvas: Canvas, build: Build, zs: FloatArray, ys: FloatArray, xs: FloatArray
) -> Array:
    """Faint sheets: share of a voxel filled by a fissure of 0.8 mm."""
    z, y, x = (
        np.asarray(zs, np.float32)[:, None, None],
        np.asarray(ys, np.float32)[None, :, None],
        np.asarray(xs, np.float32)[None, None, :],
    )
    gap = np.abs(oblique_fissure(build, x, y, z)).astype(np.float32)
    upper = (x < 0) & (oblique_fissure(build, x, y, z) > 0)
    level = np.abs(horizontal_fissure(build, x, y, z)).astype(np.float32)
    gap = np.where(upper, np.minimum(gap, level), gap)
    width = max(canvas.width, 1.2)
    sheet: Array = np.clip(1 - gap / np.float32(width), 0, 1) * np.float32(0.8 / width)
    return sheet
