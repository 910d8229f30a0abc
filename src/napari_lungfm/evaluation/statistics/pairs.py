"""Two methods on the same patients, and every pair of many."""

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

Float1D = npt.NDArray[np.float64]


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
