import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.evaluation.statistics import (
    bootstrap_mean,
    compare_all,
    holm,
    paired_comparison,
    rank_stability,
)

NAN = float("nan")


# ------------------------------------------------------------------ means
def test_bootstrap_agrees_with_scipy_and_is_seeded():
    values = np.random.default_rng(0).beta(8, 2, 40)
    ours = bootstrap_mean(values, n_resamples=4000, seed=3)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, rng=np.random.default_rng(9)
    ).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.003)
    assert bootstrap_mean(values, n_resamples=4000, seed=3) == ours
    assert bootstrap_mean(values, n_resamples=4000, seed=4) != ours
    narrow = bootstrap_mean(values, confidence=0.5, n_resamples=4000, seed=3)
    assert ours.low < narrow.low < ours.mean < narrow.high < ours.high


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        estimate = bootstrap_mean(rng.beta(8, 2, 30), n_resamples=499, seed=trial)
        hits += estimate.low <= 0.8 <= estimate.high
    assert 178 <= hits <= 199  # 95 % of 200, give or take three standard deviations


def test_undefined_values_are_left_out_and_counted():
    values = [0.9, NAN, 0.7, 0.8, NAN]
    estimate = bootstrap_mean(values)
    assert (estimate.n, estimate.n_undefined) == (3, 2)
    assert estimate == bootstrap_mean([0.9, 0.7, 0.8]).__class__(
        **{**vars(bootstrap_mean([0.9, 0.7, 0.8])), "n_undefined": 2}
    )
    assert estimate.mean == pytest.approx(0.8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[], [NAN, NAN], [0.5], [0.5, NAN], [0.3] * 7, [0.0, 0.0]])
def test_no_interval_where_none_can_be_had(values):
    estimate = bootstrap_mean(values)
    defined = [v for v in values if not math.isnan(v)]
    assert estimate.n == len(defined)
    assert estimate.mean == pytest.approx(defined[0] if defined else NAN, nan_ok=True)
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[0.2, 0.6], [0, 0, 0, 1], [0.1, 0.1 + 1e-9, 0.1]])
def test_few_or_nearly_equal_values_still_give_an_interval_inside_the_data(values):
    estimate = bootstrap_mean(values)
    assert min(values) <= estimate.low <= estimate.mean <= estimate.high <= max(values)


def test_a_confidence_level_is_between_0_and_1():
    for level in (0, 1, 95, NAN):
        with pytest.raises(UsageError, match="confidence"):
            bootstrap_mean([1, 2, 3], level)


# ------------------------------------------------------------------ pairs
@given(st.integers(1, 25), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_wilcoxon_agrees_with_scipy_s_exact_test_without_ties(n, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal([[0.3], [0.0]], 1.0, (2, n))
    ours = paired_comparison(a, b)
    theirs = stats.wilcoxon(a, b, method="exact")
    assert ours.p_value == pytest.approx(theirs.pvalue)
    assert ours.n == n


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_wilcoxon_is_exact_with_ties_and_zeros(differences):
    """Against all sign patterns of the non-zero differences."""
    ours = paired_comparison(differences, np.zeros(len(differences)))
    unequal = np.array([d for d in differences if d])
    if not len(unequal):
        assert (ours.p_value, ours.effect_size) == (1.0, 0.0)
        return
    ranks = stats.rankdata(np.abs(unequal))
    observed = ranks[unequal > 0].sum()
    null = np.array([ranks @ signs for signs in product([0, 1], repeat=len(ranks))])
    expected = 2 * min((null <= observed).mean(), (null >= observed).mean())
    assert ours.p_value == pytest.approx(min(1, expected))
    assert ours.effect_size == pytest.approx((2 * observed - ranks.sum()) / ranks.sum())


def test_wilcoxon_with_many_patients_agrees_with_the_normal_approximation():
    rng = np.random.default_rng(2)
    a = rng.normal(0.12, 1, 400)
    ours = paired_comparison(a, np.zeros(400))
    theirs = stats.wilcoxon(a, method="asymptotic")
    assert 1e-3 < theirs.pvalue < 0.5
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=0.02)


def test_a_known_pair():
    # Differences 1, 2, −3, 4: ranks 1, 2, 4 up and 3 down.
    result = paired_comparison([1, 2, 0, 4, NAN], [0, 0, 3, 0, 1])
    assert (result.n, result.n_undefined) == (4, 1)
    assert result.median_difference == 1.5
    assert result.effect_size == pytest.approx(0.4)
    assert result.smallest_possible_p == 0.125
    assert result.p_value == pytest.approx(0.625)


def test_the_smallest_possible_p_is_reached_when_all_agree():
    for n in (1, 2, 6, 12):
        result = paired_comparison(np.arange(1, n + 1), np.zeros(n))
        assert result.p_value == pytest.approx(result.smallest_possible_p)
        assert result.effect_size == 1.0
        assert paired_comparison(np.zeros(n), np.arange(1, n + 1)).effect_size == -1.0
    assert paired_comparison(range(1, 13), [0] * 12).smallest_possible_p == pytest.approx(
        4.9e-4, rel=0.01
    )


def test_noise_of_floating_point_sums_does_not_make_equal_scores_unequal():
    result = paired_comparison([0.1 + 0.2, 0.5, 0.7], [0.3, 0.5, 0.7])
    assert (result.p_value, result.median_difference) == (1.0, 0.0)


def test_nothing_in_common_is_undefined_and_other_lengths_are_refused():
    result = paired_comparison([NAN, 1.0], [1.0, NAN])
    assert (result.n, result.n_undefined) == (0, 2)
    assert math.isnan(result.p_value)
    with pytest.raises(UsageError, match="same patients"):
        paired_comparison([1, 2], [1])


# ------------------------------------------------------------------ many methods
def test_holm():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.01, NAN, 0.04]), [0.02, NAN, 0.04])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])
    assert holm([]).size == 0
    assert np.isnan(holm([NAN])).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)  # statsmodels collects garbage at every call
def test_holm_agrees_with_its_definition(p):
    order = np.argsort(p, kind="stable")
    running, expected = 0.0, np.empty(len(p))
    for position, k in enumerate(order):
        running = max(running, min(1.0, (len(p) - position) * p[k]))
        expected[k] = running
    np.testing.assert_allclose(holm(p), expected)


@pytest.fixture
def table():
    rng = np.random.default_rng(5)
    base = rng.normal(0.7, 0.1, 12)
    scores = [base, base + 0.05 + rng.normal(0, 0.01, 12), base + rng.normal(0, 0.05, 12)]
    return pd.DataFrame(scores, index=["plain", "best", "noisy"], columns=list("abcdefghijkl"))


def test_compare_all(table):
    table.loc["noisy", "c"] = NAN
    pairs = compare_all(table)
    assert list(zip(pairs.method_a, pairs.method_b, strict=True)) == [
        ("plain", "best"),
        ("plain", "noisy"),
        ("best", "noisy"),
    ]
    for row in pairs.itertuples():
        alone = paired_comparison(table.loc[row.method_a], table.loc[row.method_b])
        for name, value in vars(alone).items():
            assert getattr(row, name) == value
    assert pairs.n.tolist() == [12, 11, 11]
    np.testing.assert_allclose(pairs.p_holm, holm(pairs.p_value))
    assert (pairs.p_holm >= pairs.smallest_possible_p_holm).all()
    assert pairs.p_holm[0] == pytest.approx(3 * 2**-11)
    assert pairs.effect_size[0] == -1.0


def test_what_28_pairs_of_12_cases_can_show():
    table = pd.DataFrame(np.arange(8)[:, None] + np.zeros((8, 12)))
    pairs = compare_all(table)
    assert len(pairs) == 28
    np.testing.assert_allclose(pairs.smallest_possible_p_holm, 28 * 2.0**-11)
    np.testing.assert_allclose(pairs.p_holm, 28 * 2.0**-11)


def test_one_method_or_none_gives_no_pairs(table):
    for part in (table.iloc[:1], table.iloc[:0]):
        pairs = compare_all(part)
        assert len(pairs) == 0
        assert {"method_a", "p_value", "p_holm", "smallest_possible_p_holm"} <= set(pairs.columns)


# ------------------------------------------------------------------ ranks
def test_rank_stability_agrees_with_a_plain_loop(table):
    result = rank_stability(table, n_resamples=3000, seed=1)
    rng = np.random.default_rng(0)
    scores = table.to_numpy()
    ranks, taus = [], []
    full = stats.rankdata(-scores.mean(axis=1))
    for _ in range(3000):
        sample = scores[:, rng.integers(0, 12, 12)].mean(axis=1)
        ranks.append(stats.rankdata(-sample))
        taus.append(stats.kendalltau(ranks[-1], full).statistic)
    ranks = pd.DataFrame(ranks, columns=table.index)
    np.testing.assert_allclose(result.table.mean_rank.loc[table.index], ranks.mean(), atol=0.06)
    np.testing.assert_allclose(result.table.p_best.loc[table.index], (ranks == 1).mean(), atol=0.04)
    assert result.tau_mean == pytest.approx(np.mean(taus), abs=0.05)
    assert result.table.index[0] == "best"
    assert result.table["rank"].tolist() == [1, 2, 3]
    assert result.table.p_best.sum() == pytest.approx(1)
    assert (result.n_cases, result.n_undefined) == (12, 0)


def test_rank_stability_is_seeded_and_independent_of_row_order(table):
    one = rank_stability(table, 500, seed=1)
    pd.testing.assert_frame_equal(one.table, rank_stability(table, 500, seed=1).table)
    pd.testing.assert_frame_equal(one.table, rank_stability(table.iloc[::-1], 500, seed=1).table)
    assert not one.table.equals(rank_stability(table, 500, seed=2).table)


def test_a_method_that_is_always_better_is_always_first():
    table = pd.DataFrame([[1.0, 2.0, 3.0], [1.5, 2.5, 3.5]], index=["low", "high"])
    result = rank_stability(table, 200)
    assert result.table.loc["high", ["mean_rank", "rank_low", "rank_high", "p_best"]].tolist() == [
        1,
        1,
        1,
        1,
    ]
    assert (result.tau_mean, result.tau_low, result.tau_high) == (1, 1, 1)
    lower = rank_stability(table, 200, higher_is_better=False)
    assert lower.table.index[0] == "low"
    assert lower.table.loc["low", "p_best"] == 1


def test_equal_methods_share_rank_and_first_place():
    table = pd.DataFrame([[0.1, 0.2, 0.4]] * 2, index=["a", "b"])
    result = rank_stability(table, 100)
    assert result.table.p_best.tolist() == [0.5, 0.5]
    assert result.table["rank"].tolist() == [1.5, 1.5]
    assert math.isnan(result.tau_mean)


def test_undefined_scores_leave_their_patient_out(table):
    holes = table.copy()
    holes.loc["best", "b"] = NAN
    holes.loc["noisy", "k"] = NAN
    result = rank_stability(holes, 300)
    assert (result.n_cases, result.n_undefined) == (10, 2)
    expected = rank_stability(table.drop(columns=["b", "k"]), 300)
    pd.testing.assert_frame_equal(result.table, expected.table)
    holes.loc["plain"] = NAN
    nothing = rank_stability(holes, 300)
    assert nothing.n_cases == 0
    assert nothing.table.isna().all(axis=None)
    assert math.isnan(nothing.tau_mean)
