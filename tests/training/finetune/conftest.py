"""Cases of a few small slices, and networks that learn them in seconds."""

import numpy as np
import pytest

from napari_lungfm.datasets.cases import Case, Cohort
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Volume, VolumeGeometry

torch = pytest.importorskip("torch")
pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

from napari_lungfm.models.foundation.finetuned import BaseFacts, FineTunedSettings  # noqa: E402

GRID = VolumeGeometry((6, 40, 44), (3.0, 1.0, 1.5))
#: What differs from MedSAM's ViT-B: the same code paths, a thousand times smaller.
TINY_VIT = {
    "image_size": 128,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "global_attn_indexes": [1],
    "window_size": 4,
    "prompt_dim": 64,
}
FACTS = BaseFacts(
    name="random", sha256="0" * 64, licence="CC-BY-NC-4.0", commercial="no", licence_note="a test"
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_case(name, *, without=(), grid=GRID, seed=None, radius=7):
    """A right lung with a bright ball in it; noise and place depend on the name."""
    rng = np.random.default_rng(sum(map(ord, name)) if seed is None else seed)
    z, y, x = np.ogrid[: grid.shape[0], : grid.shape[1], : grid.shape[2]]
    cy, cx = 20 + rng.integers(-5, 6), 20 + rng.integers(-5, 6)
    labels = np.zeros(grid.shape, np.uint8)
    labels[:, 4:36, 4:40] = 2
    ball = (2.5 * (z - 2)) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    labels[ball] = 3
    hu = np.choose(labels, (40, 0, -820, 60)) + rng.normal(0, 20, grid.shape)
    for value in without:
        labels[labels == value] = 0
    volume = Volume(hu.astype(np.int16), grid)
    return Case(name, volume, LabelMap(labels, grid, LUNG_LABELS), {})


class Source:
    """A case that is made when it is asked for, under any name."""

    def __init__(self, name, make=make_case, **changes):
        self.name, self._make, self._changes = name, make, changes

    def fingerprint(self):
        return repr((self.name, sorted(self._changes.items())))

    def inputs(self):
        return ()

    def load(self):
        return self._make(self.name, **self._changes)


@pytest.fixture
def make_source():
    return Source


@pytest.fixture
def make_cohort():
    """Factory: a cohort of training cases, and test cases."""

    def make(*names, test=(), **wrong):
        train = tuple(n if isinstance(n, Source) else Source(n, **wrong.get(n, {})) for n in names)
        tests = tuple(n if isinstance(n, Source) else Source(n) for n in test)
        return Cohort("clinic", "made up", test=tests, train=train)

    return make


@pytest.fixture
def stored(make_cohort, tmp_path):
    """Factory: cases on disk."""
    from napari_lungfm.geometry import Structure
    from napari_lungfm.training.finetune.cases import store_cohort

    def store(*names, structures=(Structure.TUMOUR,), **wrong):
        cohort = make_cohort(*names, **wrong)
        return store_cohort(cohort, tmp_path / "cases", structures=structures)

    return store


@pytest.fixture
def tiny_settings():
    return FineTunedSettings(
        network="sam",
        build=TINY_VIT,
        window=(-600.0, 1500.0),
        preprocessing="medsam",
        base=FACTS,
    )


@pytest.fixture
def tiny_base(tiny_settings):
    """Factory: a fresh network of SAM's build."""
    from napari_lungfm.models.foundation.finetuned import build_network
    from napari_lungfm.training.finetune.base import BaseNetwork

    def make(seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return BaseNetwork(build_network(tiny_settings), tiny_settings)

    return make


@pytest.fixture
def base_folder(tiny_base, tmp_path):
    """The folder of a network of SAM's build with random weights."""
    from napari_lungfm.training.finetune.finish import write_base

    base = tiny_base()
    write_base(tmp_path / "base", "small SAM", base.network, base.settings)
    return tmp_path / "base"


@pytest.fixture
def tiny_values():
    """A configuration that trains in seconds."""
    return {
        "kind": "finetune",
        "name": "tiny",
        "base": "base",
        "recipe": {"name": "medsam", "least_pixels": 1, "batch_size": 2, "learning_rate": 1e-3},
        "epochs": 2,
        "validation": 0.3,
        "validation_clips": 2,
        "seed": 1,
        "workers": 0,
    }
