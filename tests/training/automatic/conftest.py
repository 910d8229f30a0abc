import numpy as np
import pytest

from napari_lungfm.datasets.cases import Case, Cohort
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Volume, VolumeGeometry

pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

GRID = VolumeGeometry((6, 40, 44), (3.0, 1.0, 1.0))


def make_case(name, *, without=(), grid=GRID, shift=0, noise=None, change=None):
    """Two lungs, and a bright tumour in one of them."""
    rng = np.random.default_rng(sum(map(ord, noise or name)))
    labels = np.zeros(grid.shape, np.uint8)
    labels[:, 8:32, 26:40] = 1
    labels[:, 8:32, 4:18] = 2
    row = 12 + shift
    labels[1:4, row : row + 8, 8:15] = 3
    hu = np.choose(labels, (40, -800, -820, 60)) + rng.normal(0, 20, grid.shape)
    for value in without:
        labels[labels == value] = 0
    hu = hu.astype(np.int16)
    volume = Volume(hu if change is None else change(hu), grid)
    return Case(name, volume, LabelMap(labels, grid, LUNG_LABELS), {})


class Source:
    """A case that is made, or fails, when it is asked for."""

    def __init__(self, name, **changes):
        self.name, self._changes, self.loaded = name, changes, 0

    def fingerprint(self):
        return repr((self.name, sorted(self._changes)))

    def inputs(self):
        return ()

    def load(self):
        self.loaded += 1
        error = self._changes.get("error")
        if error is not None:
            raise error
        return make_case(self.name, **self._changes)


@pytest.fixture
def make_cohort():
    """Factory: a cohort of training cases; what is wrong with a case by its name."""

    def make(*names, **wrong):
        sources = [Source(n, **wrong.get(n, {})) for n in names]
        return Cohort("clinic", "made up", test=(), train=tuple(sources))

    return make


@pytest.fixture
def tiny_values():
    """A configuration that trains in seconds on the cases of `make_cohort`."""
    return {
        "name": "tiny",
        "network": {"architecture": "unet", "channels": [2, 3, 4, 4, 4], "dropout": 0.5},
        "inputs": {"spacing": [3.0, 1.0, 1.0], "size": [32, 48]},
        "validation": 0.3,
        "sampling": {"kind": "foreground", "slices_per_epoch": 12},
        "augmentation": "standard",
        "loss": "dice-cross-entropy",
        "optimiser": {"learning_rate": 1e-2, "schedule": "cosine", "warm_up": 2},
        "batch_size": 4,
        "workers": 0,
        "fit": {"epochs": 3, "seed": 1},
    }
