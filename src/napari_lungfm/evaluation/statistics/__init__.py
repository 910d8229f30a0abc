"""What the scores of a cohort can and cannot show.

The patient is the unit everywhere: means come with a bootstrap interval over patients, methods
are compared on the same patients, and a score that is undefined (NaN) for a patient is left out
and counted.
"""

from napari_lungfm.evaluation.statistics.means import (
    N_RESAMPLES,
    MeanEstimate,
    bootstrap_mean,
    mean_intervals,
)
from napari_lungfm.evaluation.statistics.pairs import (
    PairedComparison,
    compare_all,
    holm,
    paired_comparison,
)
from napari_lungfm.evaluation.statistics.ranks import RankStability, rank_stability

__all__ = [
    "N_RESAMPLES",
    "MeanEstimate",
    "PairedComparison",
    "RankStability",
    "bootstrap_mean",
    "compare_all",
    "holm",
    "mean_intervals",
    "paired_comparison",
    "rank_stability",
]
