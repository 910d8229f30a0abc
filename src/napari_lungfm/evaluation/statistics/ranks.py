"""How firmly the order of methods stands."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from napari_lungfm._core.seeding import generator
from napari_lungfm.evaluation.statistics.means import N_RESAMPLES, check_level

Float1D = npt.NDArray[np.float64]
Float2D = npt.NDArray[np.float64]

_COLUMNS = ["mean", "rank", "mean_rank", "rank_low", "rank_high", "p_best"]


@dataclass(frozen=True, eq=False)
class RankStability:
    """How firmly the order of methods stands; see `rank_stability`.

    Parameters
    ----------
    table
        Index: method, best first. Columns: ``mean`` (score), ``rank`` (1 = best), ``mean_rank``,
        ``rank_low``, ``rank_high`` (over the bootstrap samples) and ``p_best``.
    tau_mean, tau_low, tau_high
        Kendall's tau-b between the order in a sample and the full order: mean and limits.
    n_cases
        Patients for whom all methods have a score; the others are left out.
    n_undefined
        Patients left out.
    """

    table: pd.DataFrame
    tau_mean: float
    tau_low: float
    tau_high: float
    n_cases: int
    n_undefined: int


def rank_stability(
    table: pd.DataFrame,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    *,
    higher_is_better: bool = True,
    confidence: float = 0.95,
) -> RankStability:
    """Rank methods by their mean score, in the data and in bootstrap samples of the patients.

    After Wiesenfarth et al. 2021 (doi:10.1038/s41598-021-82017-6). All methods are ranked on the
    same patients: those with an undefined score of any method are left out.

    Parameters
    ----------
    table
        One score; methods as rows, patients as columns, NaN where undefined.
    n_resamples
        Bootstrap samples.
    seed
        Same seed, same result.
    higher_is_better
        ``False`` for distances.
    confidence
        Level of the intervals, between 0 and 1.

    Returns
    -------
    RankStability
        Equal means share the average rank, and the first place in equal parts. All NaN but the
        counts where no patient is left.
    """
    check_level(confidence)
    scores = table.to_numpy(dtype=np.float64)
    complete = ~np.isnan(scores).any(axis=0)
    scores = scores[:, complete]
    methods, n = scores.shape
    undefined = int(complete.size - n)
    if n == 0 or methods == 0:
        empty = pd.DataFrame(np.nan, index=table.index, columns=_COLUMNS)
        return RankStability(empty, np.nan, np.nan, np.nan, n, undefined)
    sign = -1.0 if higher_is_better else 1.0
    full = _ranks(sign * scores.mean(axis=1)[None])[0]
    weights = generator("rank stability", seed).multinomial(n, np.full(n, 1 / n), n_resamples)
    ranks = _ranks(sign * (weights @ scores.T) / n)
    best = ranks == ranks.min(axis=1, keepdims=True)
    limits = ((1 - confidence) / 2, (1 + confidence) / 2)
    low, high = np.quantile(ranks, limits, axis=0, method="inverted_cdf")
    share = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    values = [scores.mean(axis=1), full, ranks.mean(axis=0), low, high, share]
    ranking = pd.DataFrame(dict(zip(_COLUMNS, values, strict=True)), index=table.index)
    tau = _kendall_tau(ranks, full)
    tau = tau[~np.isnan(tau)]
    tau_low, tau_high = np.quantile(tau, limits) if tau.size else (np.nan, np.nan)
    return RankStability(
        ranking.sort_values(["rank", "mean_rank"], kind="stable"),
        tau_mean=float(tau.mean()) if tau.size else float("nan"),
        tau_low=float(tau_low),
        tau_high=float(tau_high),
        n_cases=n,
        n_undefined=undefined,
    )


def _ranks(scores: Float2D) -> Float2D:
    """Ranks along the last axis, 1 = smallest; means that differ by rounding only are equal."""
    ranks: Float2D = stats.rankdata(np.round(scores, 12), axis=1)
    return ranks


def _kendall_tau(ranks: Float2D, full: Float1D) -> Float1D:
    """Kendall's tau-b of every row with ``full``; NaN where all of either are tied."""
    i, j = np.triu_indices(len(full), k=1)
    rows = np.sign(ranks[:, i] - ranks[:, j])
    reference = np.sign(full[i] - full[j])
    norm = np.sqrt((rows != 0).sum(axis=1) * float((reference != 0).sum()))
    tau = np.full(len(ranks), np.nan)
    np.divide(rows @ reference, norm, out=tau, where=norm > 0)
    return tau
