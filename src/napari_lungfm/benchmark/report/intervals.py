"""Bootstrap intervals of many means at once.

The same quantity as `evaluation.statistics.bootstrap_mean`, from the same bootstrap samples: those
depend on the number of patients only, so that one set of them serves all scores of all methods. A
report asks for thousands of intervals.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr, ndtri

from napari_lungfm._core.seeding import generator
from napari_lungfm.evaluation.statistics import N_RESAMPLES

Float1D = npt.NDArray[np.float64]
Float2D = npt.NDArray[np.float64]

_TAIL = 0.025
#: Scores whose bootstrap means are held at a time: 80 bytes each, times the samples.
_BLOCK = 128
#: Means are rounded to so many digits: the noise of a sum must not break ties.
_DIGITS = 13


def mean_intervals(values: Float2D) -> pd.DataFrame:
    """Return means over patients with their 95 % BCa intervals (Efron 1987).

    Parameters
    ----------
    values
        Scores ``(patients, columns)``, NaN where undefined; each column by itself.

    Returns
    -------
    DataFrame
        A row per column: ``mean``, ``low``, ``high``, ``n``. NaN limits for fewer than two
        values and for values that are all equal, as `bootstrap_mean` has them.
    """
    table = np.asarray(values, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    out = np.full((table.shape[1], 3), np.nan)
    defined = ~np.isnan(table)
    counts = defined.sum(axis=0)
    for n in np.unique(counts[counts > 0]):
        columns = np.flatnonzero(counts == n)
        # A score's undefined patients are left out, so that all columns here are n long.
        own = np.stack([table[defined[:, c], c] for c in columns], axis=1)
        out[columns] = _bca(own)
    frame = pd.DataFrame(out, columns=["mean", "low", "high"])
    return frame.assign(n=counts.astype(int))


def _bca(values: Float2D) -> Float2D:
    """Mean, low and high of columns without NaN."""
    n = len(values)
    means = values.mean(axis=0)
    result = np.stack([means, np.full_like(means, np.nan), np.full_like(means, np.nan)], axis=1)
    varied = np.ptp(values, axis=0) > 1e-12 * np.abs(means)
    if n < 2:
        return result
    columns = np.flatnonzero(varied)
    for start in range(0, len(columns), _BLOCK):
        block = columns[start : start + _BLOCK]
        result[block, 1:] = _limits(values[:, block])
    return result


def _limits(values: Float2D) -> Float2D:
    n = len(values)
    mean = values.mean(axis=0)
    scale = np.abs(values).max(axis=0)
    sampled = _rounded(_weights(n) @ values / n, scale)
    centre = _rounded(mean, scale)
    below = ((sampled < centre).sum(axis=0) + (sampled <= centre).sum(axis=0)) / 2
    bias = ndtri(below / len(sampled))
    # Jackknife: leaving one out moves the mean by (mean - value) / (n - 1).
    influence = (values - mean) / n
    acceleration = (influence**3).sum(axis=0) / (6 * ((influence**2).sum(axis=0)) ** 1.5)
    limits = np.empty((values.shape[1], 2))
    sampled = np.sort(np.ascontiguousarray(sampled.T)).T  # rows next to each other sort faster
    for i, z in enumerate((ndtri(_TAIL), ndtri(1 - _TAIL))):
        moved = bias + z
        level = ndtr(bias + moved / (1 - acceleration * moved))
        limits[:, i] = _quantiles(sampled, level)
    return limits


def _rounded(values: Float2D | Float1D, scale: Float1D) -> Float2D:
    unit = 10.0 ** (np.floor(np.log10(np.where(scale > 0, scale, 1.0))) + 1 - _DIGITS)
    rounded: Float2D = np.round(values / unit) * unit
    return rounded


def _quantiles(ordered: Float2D, level: Float1D) -> Float1D:
    """Quantiles by linear interpolation, one level per column of sorted samples."""
    place = level * (len(ordered) - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, len(ordered) - 1)
    columns = np.arange(ordered.shape[1])
    part = place - low
    found: Float1D = ordered[low, columns] * (1 - part) + ordered[high, columns] * part
    return found


@lru_cache(maxsize=8)
def _weights(n: int) -> Float2D:
    """How often each patient is in each bootstrap sample ``(N_RESAMPLES, n)``."""
    # The stream of `bootstrap_mean`, which draws the same samples for every score of n patients.
    drawn = generator("bootstrap mean", 0).integers(0, n, (N_RESAMPLES, n))
    flat = (drawn + np.arange(N_RESAMPLES)[:, None] * n).ravel()
    counts = np.bincount(flat, minlength=N_RESAMPLES * n)
    return counts.reshape(N_RESAMPLES, n).astype(np.float64)
