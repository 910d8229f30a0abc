"""Many intervals at once against one at a time."""

import numpy as np
import pytest

from napari_lungfm.benchmark.report.intervals import mean_intervals
from napari_lungfm.evaluation.statistics import bootstrap_mean


@pytest.mark.parametrize("n", [2, 4, 12, 58])
def test_intervals_are_those_of_the_evaluation(n):
    rng = np.random.default_rng(n)
    values = np.stack([rng.integers(0, 64, n), rng.integers(0, 9, n) ** 4, -rng.random(n)], axis=1)
    # Sums of these are exact, so that no noise breaks the ties of either computation.
    values = np.round(values * 64) / 64
    values[0, 2] = np.nan
    found = mean_intervals(values)
    for column, row in zip(values.T, found.itertuples(), strict=True):
        one = bootstrap_mean(column)
        assert row.n == one.n
        expected = (one.mean, one.low, one.high)
        assert (row.mean, row.low, row.high) == pytest.approx(expected, nan_ok=True, rel=1e-9)


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
