"""Many intervals at once against SciPy's, one at a time."""

import numpy as np
import pytest
from scipy import stats

from napari_lungfm._core.seeding import generator
from napari_lungfm.evaluation.statistics import N_RESAMPLES, bootstrap_mean, mean_intervals


def scipy_interval(values, *, confidence=0.95, n_resamples=N_RESAMPLES, seed=0):
    """The interval of SciPy from the same bootstrap samples."""
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=n_resamples,
        confidence_level=confidence,
        method="BCa",
        rng=generator("bootstrap mean", seed),
    )
    return tuple(found.confidence_interval)


@pytest.mark.parametrize("n", [2, 4, 12, 58])
@pytest.mark.parametrize("how", [{}, {"confidence": 0.8, "n_resamples": 2000, "seed": 7}])
def test_intervals_are_scipy_s_from_the_same_samples(n, how):
    rng = np.random.default_rng(n)
    values = np.stack([rng.integers(0, 64, n), rng.integers(0, 9, n) ** 4, -rng.random(n)], axis=1)
    # Sums of these are exact, so that no noise breaks the ties of either computation.
    values = np.round(values * 64) / 64
    values[0, 2] = np.nan
    found = mean_intervals(values, **how)
    for column, row in zip(values.T, found.itertuples(), strict=True):
        known = column[~np.isnan(column)]
        assert (row.n, row.mean) == (len(known), pytest.approx(known.mean()))
        if len(known) > 1 and np.ptp(known) > 0:
            assert (row.low, row.high) == pytest.approx(scipy_interval(known, **how), rel=1e-9)
        one = bootstrap_mean(column, **how)
        assert (one.n, one.n_undefined) == (row.n, n - row.n)
        same = (one.mean, one.low, one.high)
        assert same == pytest.approx((row.mean, row.low, row.high), nan_ok=True, rel=1e-12)


def test_noise_of_sums_breaks_no_ties():
    values = np.array([0.1, 0.7, 0.3, 0.6])
    found = [mean_intervals(values[list(order)]) for order in ((0, 1, 2, 3), (3, 1, 0, 2))]
    exact = mean_intervals(values * 10)
    for each in found:
        assert each["low"][0] == pytest.approx(exact["low"][0] / 10, abs=0.02)
        assert each["high"][0] == pytest.approx(exact["high"][0] / 10, abs=0.02)


def test_what_has_no_spread_has_no_interval():
    found = mean_intervals(np.array([[1.0, np.nan, 0.5], [1.0, np.nan, np.nan], [1.0, 2.0, 0.7]]))
    assert found["n"].tolist() == [3, 1, 2]
    assert found["mean"].tolist() == pytest.approx([1.0, 2.0, 0.6])
    assert np.isnan(found.loc[:1, ["low", "high"]]).all(axis=None)
    assert found.loc[2, "low"] <= 0.6 <= found.loc[2, "high"]


def test_no_columns_and_no_values():
    assert len(mean_intervals(np.zeros((0, 2)))) == 2
    assert mean_intervals(np.full((3, 1), np.nan))["n"].tolist() == [0]
