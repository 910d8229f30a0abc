import numpy as np
import pytest

from napari_lungfm._core.seeding import generator
from napari_lungfm.training.synthetic.shapes import (
    Grid,
    ball,
    lesion_shape,
    smooth_noise,
    spicules,
    tube,
)

GRID = Grid.of((40, 60, 60), (1.5, 1.0, 1.0), 20.0)


def test_a_ball_has_its_volume() -> None:
    volume = (ball(GRID, (0, 2.0, -3.0), 12.0) < 0).sum() * 1.5
    assert volume == pytest.approx(4 / 3 * np.pi * 12.0**3, rel=0.02)


def test_a_tube_has_its_cross_section() -> None:
    inside = tube(GRID, (0, 0, 0), (1.0, 0, 0), 6.0) < 0
    np.testing.assert_allclose(inside.sum(axis=(1, 2)), np.pi * 36, rtol=0.03)


def test_lesions_are_about_as_large_as_asked_for() -> None:
    volumes = [(lesion_shape(generator("l", i), GRID) < 0).sum() * 1.5 for i in range(30)]
    diameters = np.cbrt(np.array(volumes) * 6 / np.pi)
    assert 15 < np.median(diameters) < 24


def test_noise_has_unit_variance_and_changes_over_its_wavelength() -> None:
    fields = [smooth_noise(generator("n", i), GRID, 8.0) for i in range(8)]
    assert np.std(fields) == pytest.approx(1.0, abs=0.2)
    steps = np.std([np.diff(f, axis=2) for f in fields])
    assert steps < 0.35


def test_spicules_are_thin_and_reach_out() -> None:
    inside = spicules(generator("s"), GRID) < 0
    z, y, x = GRID.axes
    radius = np.broadcast_to(np.sqrt(z * z + y * y + x * x), GRID.shape)[inside]
    assert radius.min() > 4.5
    assert radius.max() < 20
    assert 0 < inside.mean() < 0.05
