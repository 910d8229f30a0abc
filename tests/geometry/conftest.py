from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from napari_lungfm.geometry import VolumeGeometry


@pytest.fixture(scope="session")
def random_geometry() -> Callable[..., VolumeGeometry]:
    """Any grid from a seed: anisotropic, oblique, perhaps mirrored and with permuted axes."""

    def make(seed: int, *, oblique: bool = True) -> VolumeGeometry:
        rng = np.random.default_rng(seed)
        angles = rng.uniform(-0.5, 0.5, 3) if oblique else np.zeros(3)
        turn = Rotation.from_euler("xyz", angles).as_matrix()
        signs = np.diag(rng.choice([-1.0, 1.0], 3))
        direction = turn @ (signs[:, rng.permutation(3)])
        shape = tuple(int(n) for n in rng.integers(2, 8, 3))
        spacing = tuple(rng.uniform(0.5, 4.0, 3))
        return VolumeGeometry(shape, spacing, tuple(rng.uniform(-300, 300, 3)), direction)

    return make


@pytest.fixture(scope="session")
def to_sitk() -> Callable[..., SimpleITK.Image]:
    """The grid (and voxels, if given) as a SimpleITK image, written apart from the package."""

    def make(geometry: VolumeGeometry, array: np.ndarray | None = None) -> SimpleITK.Image:
        voxels = np.zeros(geometry.shape, np.uint8) if array is None else array
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels))
        image.SetSpacing([float(s) for s in reversed(geometry.spacing)])
        image.SetOrigin(geometry.origin)
        image.SetDirection([v for row in geometry.direction for v in row])
        return image

    return make
