"""What intensities say about object and background, learnt from one crop."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_lungfm._core.types import FloatArray

#: Range of the histograms in HU: air to calcification, everything beyond counts as the end.
_LOWEST_HU, _HIGHEST_HU, _BIN_HU = -1050, 650, 5
_BINS = (_HIGHEST_HU - _LOWEST_HU) // _BIN_HU
#: Fraction of every histogram that is spread evenly, so that no intensity is ruled out.
_UNIFORM = 2e-3
#: Largest evidence of one pixel, in units of log odds.
_MAX_EVIDENCE = 5.0


@dataclass(frozen=True)
class ContrastScale:
    """How far intensities must differ to mean something in a crop.

    Parameters
    ----------
    edge_hu
        Step that counts as an edge between two pixels.
    blur_hu
        Standard deviation of the kernel that smooths histograms.
    """

    edge_hu: float
    blur_hu: float

    @classmethod
    def of(cls, image: FloatArray) -> "ContrastScale":
        """Scale with the spread of the crop: wide at lung borders, narrow in soft tissue."""
        low, high = np.percentile(image, [2.0, 98.0])
        spread = float(min(high, 300.0) - max(low, -1000.0))
        return cls(
            float(np.clip(0.2 * spread, 30.0, 200.0)), float(np.clip(spread / 40, 6.0, 25.0))
        )


def histogram(
    image: FloatArray, weights: FloatArray, scale: ContrastScale
) -> npt.NDArray[np.float64]:
    """Return a smooth distribution of intensities that adds up to 1.

    Parameters
    ----------
    image
        HU ``(y, x)``.
    weights
        How much each pixel counts, ``(y, x)``, not negative.
    scale
        How much to smooth.
    """
    counts = np.bincount(_bins(image).ravel(), weights.ravel().astype(np.float64), _BINS)
    smooth = ndimage.gaussian_filter1d(counts, scale.blur_hu / _BIN_HU, mode="nearest")
    total = smooth.sum()
    even = np.full(_BINS, 1.0 / _BINS)
    mixed: npt.NDArray[np.float64] = (
        (1.0 - _UNIFORM) * smooth / total + _UNIFORM * even if total > 0 else even
    )
    return mixed


def evidence(image: FloatArray, inside: FloatArray, outside: FloatArray) -> npt.NDArray[np.float64]:
    """Log odds ``(y, x)`` that each pixel was drawn from one histogram and not the other."""
    odds = np.clip(np.log(inside) - np.log(outside), -_MAX_EVIDENCE, _MAX_EVIDENCE)
    taken: npt.NDArray[np.float64] = odds[_bins(image)]
    return taken


def overlap(first: FloatArray, second: FloatArray) -> float:
    """Return the part that two histograms share, from 0 (apart) to 1 (the same)."""
    return float(np.minimum(first, second).sum())


def _bins(image: FloatArray) -> npt.NDArray[np.int64]:
    index = np.floor((image - _LOWEST_HU) / _BIN_HU).astype(np.int64)
    return np.clip(index, 0, _BINS - 1)
