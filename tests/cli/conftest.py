import json
from types import SimpleNamespace

import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm.cli.app import run
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry

GRID = VolumeGeometry((16, 60, 60), (3.0, 1.0, 1.0), (-30.0, -20.0, 50.0))
CENTRE = (8, 30, 30)


def ball(radius_mm=12.0):
    """Mask of a ball around `CENTRE` in mm."""
    z, y, x = np.indices(GRID.shape)
    away = [(i - c) * s for i, c, s in zip((z, y, x), CENTRE, GRID.spacing, strict=True)]
    return sum(a**2 for a in away) <= radius_mm**2


@pytest.fixture
def case(tmp_path):
    """A bright ball in dark lung, as files."""
    rng = np.random.default_rng(1)
    inside = ball()
    hu = np.where(inside, 40, -850) + rng.normal(0, 15, GRID.shape)
    image, mask = tmp_path / "image.nii.gz", tmp_path / "truth.nii.gz"
    io.write_image(Volume(hu.astype(np.int16), GRID), image)
    io.write_label_map(LabelMap.from_mask(inside, GRID, label=1), mask)
    return SimpleNamespace(folder=tmp_path, image=image, mask=mask, inside=inside, geometry=GRID)


@pytest.fixture
def bench(capfd):
    """Run the command line; exit code, stdout, stderr and parsed JSON."""

    def call(*arguments):
        code = run([str(a) for a in arguments])
        out, err = capfd.readouterr()
        parsed = json.loads(out) if "--json" in arguments and out.strip() else None
        return SimpleNamespace(code=code, out=out, err=err, json=parsed)

    return call
