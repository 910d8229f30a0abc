import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm.benchmark.config import parse_config
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry

GRID = VolumeGeometry((12, 40, 44), (3.0, 1.0, 1.0), (-20.0, 7.0, -40.0))


def ellipsoid(half_axes_mm):
    """Mask of an ellipsoid in the middle of `GRID`; half-axes ``(z, y, x)`` in mm."""
    index = np.indices(GRID.shape)
    middle = [(n - 1) / 2 for n in GRID.shape]
    parts = zip(index, middle, GRID.spacing, half_axes_mm, strict=True)
    return sum(((i - c) * s / a) ** 2 for i, c, s, a in parts) <= 1.0


@pytest.fixture
def cases(tmp_path):
    """Two cases on disk."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "data"
    folder.mkdir()
    for name, axes in (("small", (6, 6, 7)), ("large", (12, 13, 10))):
        inside = ellipsoid(axes)
        hu = np.where(inside, 30, -800) + rng.normal(0, 20, GRID.shape)
        io.write_image(Volume(hu.astype(np.int16), GRID), folder / f"{name}.nii.gz")
        io.write_label_map(LabelMap.from_mask(inside, GRID, label=1), folder / f"{name}_m.nii.gz")
    return folder


@pytest.fixture
def make_config(cases):
    """A small configuration on `cases`, with changes."""

    def make(**changes):
        listed = [
            {"name": n, "image": f"{n}.nii.gz", "mask": f"{n}_m.nii.gz", "attributes": {"size": n}}
            for n in ("small", "large")
        ]
        values = {
            "name": "test",
            "cohorts": [{"kind": "files", "name": "c", "root": str(cases), "cases": listed}],
            "methods": [
                {"model": "prompt-ellipse", "protocols": ["box-every-slice", "box-one"]},
                {"model": "prompt-box", "protocols": ["box-every-slice"]},
            ],
        }
        return parse_config(values | changes)

    return make
