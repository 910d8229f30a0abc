"""What the scores of a cohort can and cannot show.

The patient is the unit everywhere: means come with a bootstrap interval over patients, methods
are compared on the same patients, and a score that is undefined (NaN) for a patient is left out
and counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.seeding import generator

Float1D = npt.NDArray[np.float64]
Float2D = npt.NDArray[np.float64]

#: Bootstrap samples; the Monte Carlo error of a 95 % limit is then about 1 % of the interval.
N_RESAMPLES = 9999

_RANK_COLUMNS = ["mean", "rank", "mean_rank", "rank_low", "rank_high", "p_best"]


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
class PairedComparison:
    """Two methods on the same patients; see `paired_comparison`.

    Parameters
    ----------
    n
        Patients for whom both scores are defined.
    n_undefined
        Patients left out.
    median_difference
        Median of first minus second.
    effect_size
        Matched-pairs rank-biserial correlation, −1 to 1; positive where the first is larger.
    p_value
        Two-sided, exact.
    smallest_possible_p
        What the test would give had every one of the ``n`` patients differed the same way.
    """

    n: int
    n_undefined: int
    median_difference: float
    effect_size: float
    p_value: float
    smallest_possible_p: float


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
    """
    _check_level(confidence)
    every = np.asarray(values, dtype=np.float64).ravel()
    defined = every[~np.isnan(every)]
    n, undefined = int(defined.size), int(every.size - defined.size)
    if n == 0:
        return MeanEstimate(np.nan, np.nan, np.nan, 0, undefined, confidence)
    mean = float(defined.mean())
    if n < 2 or np.ptp(defined) <= 1e-12 * abs(mean):
        return MeanEstimate(mean, np.nan, np.nan, n, undefined, confidence)
    result = stats.bootstrap(
        (defined,),
        np.mean,
        n_resamples=n_resamples,
        confidence_level=confidence,
        method="BCa",
        rng=generator("bootstrap mean", seed),
    )
    low, high = (float(v) for v in result.confidence_interval)
    return MeanEstimate(mean, low, high, n, undefined, confidence)


def paired_comparison(
    first: Sequence[float] | npt.NDArray[np.floating],
    second: Sequence[float] | npt.NDArray[np.floating],
) -> PairedComparison:
    """Compare two methods on the same patients by Wilcoxon's signed-rank test.

    The p value is exact for any number of patients, ties included: the null distribution of the
    rank sum is counted out. Equal scores are dropped, as Wilcoxon did. The effect size is Kerby's
    (2014) difference of favourable and unfavourable shares of the rank sum.

    Parameters
    ----------
    first, second
        Scores ``(n,)`` of the two methods, patient by patient; NaN where undefined.

    Raises
    ------
    UsageError
        If the lengths differ.
    """
    a = np.asarray(first, dtype=np.float64).ravel()
    b = np.asarray(second, dtype=np.float64).ravel()
    if a.size != b.size:
        msg = f"a paired comparison needs the same patients, not {a.size} and {b.size} scores"
        raise UsageError(msg)
    both = ~(np.isnan(a) | np.isnan(b))
    # Rounded, so that the noise of a sum neither breaks ties nor makes equal scores unequal.
    difference = np.round(a[both] - b[both], 12)
    n, undefined = int(difference.size), int(a.size - difference.size)
    if n == 0:
        return PairedComparison(0, undefined, np.nan, np.nan, np.nan, np.nan)
    unequal = difference[difference != 0]
    ranks = stats.rankdata(np.abs(unequal))
    total = float(ranks.sum())
    upper = float(ranks[unequal > 0].sum())
    return PairedComparison(
        n,
        undefined,
        median_difference=float(np.median(difference)),
        effect_size=(2 * upper - total) / total if total else 0.0,
        p_value=_signed_rank_p(ranks, upper),
        smallest_possible_p=2.0 ** (1 - n),
    )


def holm(p_values: Sequence[float] | npt.NDArray[np.floating]) -> Float1D:
    """Adjust p values by Holm's (1979) step-down procedure; NaN stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=np.float64).ravel()
    adjusted = np.full(p.shape, np.nan)
    defined = ~np.isnan(p)
    if defined.any():
        adjusted[defined] = multipletests(p[defined], method="holm")[1]
    return adjusted


def compare_all(table: pd.DataFrame) -> pd.DataFrame:
    """Compare every pair of methods.

    Parameters
    ----------
    table
        One score; methods as rows, patients as columns, NaN where undefined.

    Returns
    -------
    DataFrame
        A row per pair: ``method_a``, ``method_b``, the fields of `PairedComparison` (differences
        are a − b), ``p_holm`` over all pairs, and ``smallest_possible_p_holm``: where this
        exceeds the level of significance, no outcome could have been significant.
    """
    scores = table.to_numpy(dtype=np.float64)
    rows = [
        {"method_a": a, "method_b": b, **vars(paired_comparison(scores[i], scores[j]))}
        for (i, a), (j, b) in combinations(enumerate(table.index), 2)
    ]
    columns = ["method_a", "method_b", *PairedComparison.__dataclass_fields__]
    pairs = pd.DataFrame(rows, columns=columns)
    pairs["p_holm"] = holm(pairs["p_value"].to_numpy(dtype=np.float64))
    # Holm's procedure is monotone in every p value, so this is a lower bound of `p_holm`.
    smallest = pairs["smallest_possible_p"].to_numpy(dtype=np.float64)
    pairs["smallest_possible_p_holm"] = holm(smallest)
    return pairs


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
    _check_level(confidence)
    scores = table.to_numpy(dtype=np.float64)
    complete = ~np.isnan(scores).any(axis=0)
    scores = scores[:, complete]
    methods, n = scores.shape
    undefined = int(complete.size - n)
    if n == 0 or methods == 0:
        empty = pd.DataFrame(np.nan, index=table.index, columns=_RANK_COLUMNS)
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
    ranking = pd.DataFrame(dict(zip(_RANK_COLUMNS, values, strict=True)), index=table.index)
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


def _signed_rank_p(ranks: Float1D, upper: float) -> float:
    """Two-sided exact p value of a sum of positive ranks.

    Under the null hypothesis each rank is positive with probability ½. Mid-ranks are whole or
    half numbers, so twice their sum is a whole number whose distribution can be counted.
    """
    if not len(ranks):
        return 1.0
    doubled = np.rint(2 * np.sort(ranks)).astype(int)
    chance = _rank_sum_distribution(tuple(doubled.tolist()))
    observed = round(2 * upper)
    lower_tail, upper_tail = chance[: observed + 1].sum(), chance[observed:].sum()
    return float(min(1.0, 2 * min(lower_tail, upper_tail)))


@lru_cache(maxsize=64)
def _rank_sum_distribution(doubled: tuple[int, ...]) -> Float1D:
    """Probability of every sum of positive ranks, which are given times two.

    Kept, because pairs without ties on the same patients share it, and a run has hundreds.
    """
    chance = np.zeros(sum(doubled) + 1)
    chance[0] = 1.0
    for rank in doubled:
        moved = np.zeros_like(chance)
        moved[rank:] = chance[: chance.size - rank]
        chance = (chance + moved) / 2
    chance.setflags(write=False)
    return chance


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


def _check_level(confidence: float) -> None:
    if not 0 < confidence < 1:
        msg = f"a confidence level lies between 0 and 1, for example 0.95, not {confidence}"
        raise UsageError(msg)
