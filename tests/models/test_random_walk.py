import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_lungfm.models.random_walk import random_walk

images = hnp.arrays(float, (6, 5), elements=st.floats(-1000, 1000))
priors = hnp.arrays(float, (6, 5), elements=st.floats(0, 1))


@given(images, priors, st.floats(20.0, 300.0), st.floats(0.1, 20.0))
@settings(max_examples=50)
def test_it_solves_the_walk_and_keeps_within_the_priors(
    image: np.ndarray, prior: np.ndarray, scale: float, smoothness: float
) -> None:
    got = random_walk(image, prior, edge_scale=scale, smoothness=smoothness)
    # The same walk as a dense matrix, built pixel by pixel.
    n = image.size
    weights = np.zeros((n, n))
    flat, width = image.ravel(), image.shape[1]
    for i in range(n):
        for j in (i + 1, i + width):
            if j < n and (j != i + 1 or j % width):
                weights[i, j] = weights[j, i] = np.exp(-(((flat[i] - flat[j]) / scale) ** 2)) + 1e-4
    laplacian = np.diag(weights.sum(axis=1)) - weights
    exact = np.linalg.solve(np.eye(n) + smoothness * laplacian, prior.ravel())
    np.testing.assert_allclose(got.ravel(), exact, atol=2e-4)
    assert prior.min() - 1e-3 <= got.min() <= got.max() <= prior.max() + 1e-3


def test_without_smoothness_the_prior_comes_back() -> None:
    prior = np.random.default_rng(0).random((8, 9))
    np.testing.assert_allclose(
        random_walk(np.zeros((8, 9)), prior, edge_scale=10.0, smoothness=0.0), prior
    )


def test_edges_hold_the_walker_back() -> None:
    image = np.zeros((20, 20))
    image[:, 10:] = 500.0
    prior = np.where(image > 0, 0.9, 0.1)
    prior[5, 5], prior[5, 15] = 1.0, 0.0  # noise on either side
    got = random_walk(image, prior, edge_scale=50.0, smoothness=5.0)
    np.testing.assert_array_equal(got > 0.5, image > 0)
    assert got[12, 9] == pytest.approx(0.1, abs=0.02)
