"""Means over patients with bootstrap intervals, one at a time or thousands."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr, ndtri

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.seeding import generator

Float1D = npt.NDArray[np.float64]
Float2D = npt.NDArray[np.float64]

#: Bootstrap samples; the Monte Carlo error of a 95 % limit is then about 1 % of the interval.
N_RESAMPLES = 9999

#: Scores whose bootstrap means are held at a time: 80 bytes each, times the samples.
_BLOCK = 128
#: Means are rounded to so many digits: the noise of a sum must not break ties.
_DIGITS = 13


@dataclass(frozen=True)
class MeanEstimate:
    """A mean over patients with its confidence interval.

    Parameters
    ----------
    mean
        Mean of the defined values; NaN when there are none.
    low, high
        Limits of the interval; NaN where the data allow none.
    n
        Defined values.
    n_undefined
        Values that were NaN.
    confidence
        Level of the interval, 0 to 1.
    """

    mean: float
    low: float
    high: float
    n: int
    n_undefined: int
    confidence: float


@dataclass(frozen=True)
class _Bootstrap:
    """How intervals are made."""

    confidence: float
    n_resamples: int
    seed: int

    def weights(self, n: int) -> Float2D:
        """How often each of ``n`` patients is in each sample ``(samples, n)``."""
        return _weights(n, self.n_resamples, self.seed)


def bootstrap_mean(
    values: Sequence[float] | npt.NDArray[np.floating],
    confidence: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> MeanEstimate:
    """Estimate a mean over patients, with a BCa bootstrap interval (Efron 1987).

    Parameters
    ----------
    values
        One score per patient ``(n,)``; NaN where it is undefined.
    confidence
        Level of the interval, between 0 and 1.
    n_resamples
        Bootstrap samples.
    seed
        Same seed, same interval.

    Returns
    -------
    MeanEstimate
        With NaN limits for fewer than two values and for values that are all equal: such a
        sample says nothing about the spread of the population. With fewer than about ten values
        the limits are too close, for no bootstrap interval reaches beyond the values themselves.

    Raises
    ------
    UsageError
        If the level is not between 0 and 1.
    """
    every = np.asarray(values, dtype=np.float64).ravel()
    found = mean_intervals(every, confidence, n_resamples, seed).iloc[0]
    mean, low, high = (float(found[name]) for name in ("mean", "low", "high"))
    n = int(found["n"])
    if n:
        # The rounding of means may have carried a limit out of the values by a last digit.
        low, high = (float(np.clip(x, np.nanmin(every), np.nanmax(every))) for x in (low, high))
    return MeanEstimate(mean, low, high, n, every.size - n, confidence)


def mean_intervals(
    values: Float1D | Float2D,
    confidence: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Estimate many means at once, each as `bootstrap_mean` does.

    Bootstrap samples depend on the number of patients only, so that one set of them serves all
    scores of all methods: a report asks for thousands of intervals.

    Parameters
    ----------
    values
        Scores ``(patients, columns)`` or ``(patients,)``, NaN where undefined; each column by
        itself.
    confidence, n_resamples, seed
        As of `bootstrap_mean`.

    Returns
    -------
    DataFrame
        A row per column: ``mean``, ``low``, ``high``, ``n``. NaN limits for fewer than two
        values and for values that are all equal.

    Raises
    ------
    UsageError
        If the level is not between 0 and 1.
    """
    check_level(confidence)
    how = _Bootstrap(confidence, n_resamples, seed)
    table = np.asarray(values, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    out = np.full((table.shape[1], 3), np.nan)
    defined = ~np.isnan(table)
    counts = defined.sum(axis=0)
    for n in np.unique(counts[counts > 0]):
        columns = np.flatnonzero(counts == n)
        # A score's undefined patients are left out, so that all columns here are n long.
        own = np.stack([table[defined[:, c], c] for c in columns], axis=1)
        out[columns] = _bca(own, how)
    frame = pd.DataFrame(out, columns=["mean", "low", "high"])
    return frame.assign(n=counts.astype(int))


def _bca(values: Float2D, how: _Bootstrap) -> Float2D:
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
        result[block, 1:] = _limits(values[:, block], how)
    return result


def _limits(values: Float2D, how: _Bootstrap) -> Float2D:
    n = len(values)
    mean = values.mean(axis=0)
    scale = np.abs(values).max(axis=0)
    sampled = _rounded(how.weights(n) @ values / n, scale)
    centre = _rounded(mean, scale)
    below = ((sampled < centre).sum(axis=0) + (sampled <= centre).sum(axis=0)) / 2
    bias = ndtri(below / len(sampled))
    # Jackknife: leaving one out moves the mean by (mean - value) / (n - 1).
    influence = (values - mean) / n
    acceleration = (influence**3).sum(axis=0) / (6 * ((influence**2).sum(axis=0)) ** 1.5)
    tail = round((1 - how.confidence) / 2, 12)  # 0.025 and not a last digit beside it
    limits = np.empty((values.shape[1], 2))
    sampled = np.sort(np.ascontiguousarray(sampled.T)).T  # rows next to each other sort faster
    for i, z in enumerate((ndtri(tail), ndtri(1 - tail))):
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
def _weights(n: int, n_resamples: int, seed: int) -> Float2D:
    drawn = generator("bootstrap mean", seed).integers(0, n, (n_resamples, n))
    flat = (drawn + np.arange(n_resamples)[:, None] * n).ravel()
    counts = np.bincount(flat, minlength=n_resamples * n)
    return counts.reshape(n_resamples, n).astype(np.float64)


def check_level(confidence: float) -> None:
    """Refuse levels of confidence that are none.

    Raises
    ------
    UsageError
        If the level is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        msg = f"a confidence level lies between 0 and 1, for example 0.95, not {confidence}"
        raise UsageError(msg)
