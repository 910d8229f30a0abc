from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK


@pytest.fixture(scope="session")
def ibsi_tumour(real_data: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Mask (z, y, x) and spacing (z, y, x) of the tumour of the IBSI phantom."""
    image = SimpleITK.ReadImage(str(real_data / "ibsi_lung" / "nifti" / "mask" / "mask.nii.gz"))
    return SimpleITK.GetArrayFromImage(image) > 0, image.GetSpacing()[::-1]


@pytest.fixture(scope="session")
def ellipsoid() -> Callable[..., np.ndarray]:
    """Mask of an ellipsoid: shape, centre and half-axes in voxels (z, y, x)."""

    def make(shape, centre, axes) -> np.ndarray:
        grid = np.indices(shape, dtype=float)
        return sum(((g - c) / a) ** 2 for g, c, a in zip(grid, centre, axes, strict=True)) <= 1

    return make
