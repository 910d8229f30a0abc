"""Random walker with priors: probabilities that keep to image edges."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import spsolve

from napari_lungfm._core.types import FloatArray

Array: TypeAlias = npt.NDArray[np.float64]

#: Weight of a bond across the strongest edges; above 0, so that no pixel is cut off entirely.
_MIN_BOND = 1e-4


def random_walk(
    image: FloatArray, prior: FloatArray, *, edge_scale: float, smoothness: float
) -> Array:
    """Return the probability of the object, given a prior probability for every pixel.

    A walker starts at a pixel and moves to its four neighbours with weights
    exp(−(ΔI / ``edge_scale``)²); at every step it may stop, and the prior where it stops is what
    it reports. The expected report x solves (1 + ``smoothness`` · L) x = prior with the graph
    Laplacian L (Grady, "Multilabel random walker image segmentation using prior models", CVPR
    2005, for two labels whose priors add up to 1).

    Parameters
    ----------
    image
        Intensities ``(y, x)``, such as HU.
    prior
        Probabilities ``(y, x)``, 0 to 1.
    edge_scale
        Intensity difference that counts as an edge, in the unit of ``image``.
    smoothness
        How far a walker goes; 0 returns the prior.

    Returns
    -------
    ndarray
        Probabilities ``(y, x)``, float64.
    """
    start = prior.astype(np.float64)
    if smoothness == 0.0:
        return start
    bonds = _bonds(image, edge_scale)
    diagonal = sparse.diags_array(1.0 + smoothness * bonds.sum(axis=0), dtype=np.float64)
    # A direct solver: conjugate gradients would be faster, but their scalar products round
    # differently with other numbers of threads, and the same image must give the same mask.
    solution = spsolve(
        (diagonal - smoothness * bonds).tocsc(), start.ravel(), permc_spec="MMD_AT_PLUS_A"
    )
    return np.clip(solution.reshape(image.shape), 0.0, 1.0)


def _bonds(image: FloatArray, edge_scale: float) -> sparse.csr_array[np.float64]:
    """Weights between four-connected neighbours: symmetric, ``(pixels, pixels)``."""
    values = image.astype(np.float64)
    number = np.arange(image.size).reshape(image.shape)
    ends, weights = [], []
    for axis in (0, 1):
        first = number.take(range(image.shape[axis] - 1), axis)
        second = number.take(range(1, image.shape[axis]), axis)
        ends.append(np.stack([first.ravel(), second.ravel()]))
        steps = np.diff(values, axis=axis).ravel()
        weights.append(np.exp(-((steps / edge_scale) ** 2)) + _MIN_BOND)
    pairs, weight = np.concatenate(ends, axis=1), np.concatenate(weights)
    one_way = sparse.coo_array((weight, (pairs[0], pairs[1])), shape=(image.size, image.size))
    return (one_way + one_way.T).tocsr()
