import pytest
import torch

from napari_lungfm.models.lungfm.look import CHANNELS, Look, grey_levels, neighbour_steps
from napari_lungfm.models.lungfm.window import LOOK_SIDE

PLANES = torch.full((3, LOOK_SIDE, LOOK_SIDE), -300.0)


def test_every_part_has_its_channel() -> None:
    ones = torch.ones(LOOK_SIDE, LOOK_SIDE)
    full = Look(
        PLANES,
        step=0.05,
        side_mm=60.0,
        anchor=torch.stack([PLANES[0], ones]),
        anchor_distance=0.5,
        prior=ones,
        prior_kind="between",
        box=ones,
        clicks=torch.stack([ones, ones]),
    )
    bare = Look(PLANES, step=0.05, side_mm=60.0)
    told, silent = full.channels(), bare.channels()
    assert told.shape == silent.shape == (CHANNELS, LOOK_SIDE, LOOK_SIDE)
    assert torch.equal(told[:6], silent[:6])
    values = told[6:, 64, 64].tolist(), silent[6:, 64, 64].tolist()
    assert values[0] == pytest.approx([0.5, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0.4, 0.5, 0])
    assert values[1] == pytest.approx([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.4, 0, 0])


def test_grey_levels_show_lung_and_soft_tissue() -> None:
    hu = torch.tensor([-1200.0, -1000.0, -300.0, -160.0, 40.0, 240.0, 400.0, 2000.0])
    wide, narrow = grey_levels(hu.reshape(1, 1, 8))[:, 0]
    expected = [0, 0, 0.5, 0.6, 1040 / 1400, 1240 / 1400, 1, 1]
    assert wide.tolist() == pytest.approx(expected)
    assert narrow.tolist() == pytest.approx([0, 0, 0, 0, 0.5, 1, 1, 1])


def test_neighbours_lie_two_millimetres_away_at_least() -> None:
    assert [neighbour_steps(s) for s in (0.5, 1.0, 1.25, 2.0, 5.0)] == [4, 2, 2, 1, 1]
