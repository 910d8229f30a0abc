import numpy as np
import pytest

from napari_lungfm.datasets.cases import Case
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Volume, VolumeGeometry

GRID = VolumeGeometry((24, 60, 72), (8.0, 5.0, 5.0), (-177.5, -147.5, -92.0))
#: Middle of the lungs on either side of the patient, LPS x in mm; the left is at positive x.
SIDE_MM = 78.0


def ellipsoid(centre, half_axes):
    """Mask of an ellipsoid on `GRID`; LPS ``(x, y, z)`` in mm."""
    world = GRID.index_to_world(np.stack(np.indices(GRID.shape), axis=-1))
    return (((world - centre) / half_axes) ** 2).sum(axis=-1) <= 1.0


def _make_chest(name="LUNG1-001", radius=20.0, centre=(70.0, 5.0, 3.0), tumour=True):
    """A body with two lungs of 1.7 L each and a round tumour in the left one."""
    hu = np.where(ellipsoid((0, 0, 0), (170, 135, 1000)), 40, -1000).astype(np.int16)
    reference = np.zeros(GRID.shape, dtype=np.uint8)
    for value, side in ((1, SIDE_MM), (2, -SIDE_MM)):
        lung = ellipsoid((side, 0, 0), (55, 90, 80))
        hu[lung], reference[lung] = -820, value
    if tumour:
        ball = ellipsoid(centre, (radius, radius, radius))
        hu[ball], reference[ball] = 30, 3
    # Other patients have other CTs: the same one under two names is noticed.
    hu += np.random.default_rng(list(name.encode())).integers(-15, 15, GRID.shape, dtype=np.int16)
    return Case(name, Volume(hu, GRID), LabelMap(reference, GRID, dict(LUNG_LABELS)))


@pytest.fixture(scope="session")
def chest():
    """The chest that most tests look at."""
    return _make_chest()


@pytest.fixture(scope="session")
def make_chest():
    """Make a chest of one's own."""
    return _make_chest
