from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry


@pytest.fixture(scope="session")
def oblique() -> tuple[tuple[float, ...], ...]:
    """Direction of a grid turned about two axes, with one axis mirrored."""
    a, b = 0.3, -0.2
    turn_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return tuple(map(tuple, (turn_z @ turn_x @ np.diag([1.0, -1.0, 1.0])).tolist()))


@pytest.fixture(scope="session")
def read_labels(real_data: Path) -> Callable[[str], LabelMap]:
    """Read a real mask as a label map with the tumour's label."""

    def read(name: str) -> LabelMap:
        image = SimpleITK.ReadImage(str(real_data / name))
        array = SimpleITK.GetArrayFromImage(image)
        geometry = VolumeGeometry(
            array.shape,
            image.GetSpacing()[::-1],
            image.GetOrigin(),
            np.reshape(image.GetDirection(), (3, 3)),
        )
        return LabelMap.from_mask(array, geometry)

    return read


@pytest.fixture
def small_ct(oblique) -> Volume:
    """Noise in the HU range on an oblique, mirrored, anisotropic grid, stored sagittally."""
    rng = np.random.default_rng(1)
    geometry = VolumeGeometry((9, 14, 11), (0.9, 3.0, 0.8), (-12.0, 30.5, 7.25), oblique)
    direction = np.array(geometry.direction)[:, [1, 2, 0]]
    geometry = VolumeGeometry((9, 14, 11), geometry.spacing, geometry.origin, direction)
    voxels = rng.integers(-1400, 1600, geometry.shape).astype(np.int16)
    return Volume(voxels, geometry, {"series": "1"})
