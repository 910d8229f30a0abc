"""What the scanner adds: sampling, blur, noise, streaks."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_lungfm._core.seeding import generator
from napari_lungfm._core.types import FloatArray
from napari_lungfm.datasets.phantoms.build import Build
from napari_lungfm.datasets.phantoms.fields import Array, ramp
from napari_lungfm.datasets.phantoms.spec import Imaging, Kernel

#: Thickest fine slice in mm that the slice profile is averaged from.
_FINE_SLICE_MM = 1.35
#: Width (standard deviation, mm) and overshoot of the in-plane point spread: a soft kernel has an
#: MTF of 10 % near 5 lp/cm, a lung kernel near 10 with some edge enhancement.
_BLUR: dict[Kernel, tuple[float, float]] = {"soft": (0.62, 0.0), "lung": (0.34, 0.35)}
#: Frequency in cycles per mm at which the apodisation of the kernel has fallen to 1/e.
_CUTOFF: dict[Kernel, float] = {"soft": 0.36, "lung": 0.75}
_TILE = 512
_POOL = 3


def fine_offsets(thickness: float) -> npt.NDArray[np.float64]:
    """Heights in mm, relative to a slice's middle, of the fine slices it averages."""
    count = max(1, int(np.ceil(thickness / _FINE_SLICE_MM)))
    return ((np.arange(count) + 0.5) / count - 0.5) * thickness


def blur_kernel(kernel: Kernel, spacing: float) -> npt.NDArray[np.float64]:
    """Weights of the in-plane blur along one axis; odd length, sum 1."""
    sigma, boost = _BLUR[kernel]
    reach = (
        int(np.ceil(4 * 1.6 * sigma / spacing)) if boost else int(np.ceil(3.5 * sigma / spacing))
    )
    x = np.arange(-reach, reach + 1) * spacing
    narrow = np.exp(-0.5 * (x / sigma) ** 2)
    narrow /= narrow.sum()
    wide = np.exp(-0.5 * (x / (1.6 * sigma)) ** 2)
    wide /= wide.sum()
    return np.asarray((1 + boost) * narrow - boost * wide)


def blur(hu: Array, kernel: Kernel, spacing_yx: tuple[float, float]) -> Array:
    """Blur slices ``(z, y, x)`` in-plane."""
    for axis, spacing in ((1, spacing_yx[0]), (2, spacing_yx[1])):
        weights = blur_kernel(kernel, spacing)
        if len(weights) > 1:
            hu = ndimage.correlate1d(hu, weights, axis=axis, mode="nearest")
    return hu


# ---------------------------------------------------------------------- noise
@lru_cache(maxsize=4)
def _noise_pool(kernel: Kernel, dy: float, dx: float, streaks: bool) -> tuple[Array, ...]:
    """Tiles of noise of unit variance that repeat without a seam.

    Power spectrum of filtered back-projection: proportional to the frequency, cut off by the
    kernel (Riederer, Pelc and Chesler, Phys Med Biol 1978;23:446).
    """
    rng = generator("phantom noise", kernel, dy, dx, int(streaks))
    fy = np.fft.fftfreq(_TILE, dy)[:, None]
    fx = np.fft.rfftfreq(_TILE, dx)[None, :]
    f = np.hypot(fy, fx)
    if streaks:  # long in x, fine in y
        amplitude = np.exp(-((fx * 45.0) ** 2) - (fy / 0.2) ** 2) * np.sqrt(np.abs(fy) + 0.01)
    else:
        amplitude = np.sqrt(f + 0.004) * np.exp(-((f / _CUTOFF[kernel]) ** 2))
    amplitude[0, 0] = 0
    tiles = []
    for _ in range(1 if streaks else _POOL):
        white = rng.standard_normal((_TILE, _TILE), dtype=np.float32)
        tile = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(_TILE, _TILE))
        tiles.append((tile / tile.std()).astype(np.float32))
    return tuple(tiles)


def slice_noise(
    imaging: Imaging,
    seed: int,
    spacing_yx: tuple[float, float],
    number: int,
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
) -> tuple[Array, Array | None]:
    """Noise and streaks of one slice, of unit variance.

    They depend on the indices of slices, rows and columns counted from the patient's origin, so a
    crop has the noise of the whole.

    Parameters
    ----------
    imaging
        The acquisition.
    seed
        Seed of the noise.
    spacing_yx
        Pixel spacing ``(y, x)`` in mm.
    number
        Index of the slice.
    rows, columns
        Indices of the pixels.
    """
    rng = generator("phantom", seed, "noise", number)
    dy, dx = (round(s, 6) for s in spacing_yx)
    pool = _noise_pool(imaging.kernel, dy, dx, False)
    pick, shifts = rng.permutation(len(pool))[:2], rng.integers(0, _TILE, (3, 2))
    first, second = (
        _roll(pool[int(k)], s, rows, columns) for k, s in zip(pick, shifts, strict=False)
    )
    first += second
    first *= np.float32(np.sqrt(0.5))
    if imaging.streaks_hu == 0:
        return first, None
    tile = _noise_pool(imaging.kernel, dy, dx, True)[0]
    return first, _roll(tile, shifts[2], rows, columns)


def _roll(
    tile: Array,
    shift: npt.NDArray[np.int64],
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
) -> Array:
    part: Array = np.take(tile, (rows + shift[0]) % _TILE, axis=0)
    result: Array = np.take(part, (columns + shift[1]) % _TILE, axis=1)
    return result


def noise_scale(build: Build, body: Array, z: float) -> Array:
    """How much noisier than the middle of the chest each pixel of a slice is.

    The variance grows with the attenuation along the rays: more in the middle of the body than at
    its rim, most through the shoulders, more through the abdomen than through the lungs.

    Parameters
    ----------
    build
        The body.
    body
        Distance from the skin ``(y, x)`` in mm, negative inside.
    z
        Height in mm.
    """
    depth = np.clip(-body / np.float32(90), 0, 1)
    inside = np.float32(0.5) + np.float32(0.5) * np.sqrt(depth)
    result: Array = inside * np.float32(level_scale(build, z))
    return result


def level_scale(build: Build, z: float) -> float:
    """Noise at a height relative to the middle of the chest."""
    shoulders, abdomen = _levels(build, z)
    return 1 + 0.7 * shoulders + 0.25 * abdomen


def streak_scale(build: Build, z: float) -> float:
    """Strength of shoulder streaks at a height, 0 to 1."""
    return _levels(build, z)[0]


def _levels(build: Build, z: float) -> tuple[float, float]:
    height = np.array(z / build.sz)
    return float(ramp(height, 45, 105)), float(ramp(-height, 100, 160))


def to_int16(hu: FloatArray) -> npt.NDArray[np.int16]:
    """Round and clip to what 12-bit CT stores."""
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
