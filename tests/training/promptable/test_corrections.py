"""Clicks into errors."""

import numpy as np
import torch

from napari_lungfm.models.lungfm.look import Look
from napari_lungfm.models.lungfm.window import LOOK_SIDE
from napari_lungfm.training.promptable.corrections import clicked, error_click


def disk(y: int, x: int, radius: float) -> torch.Tensor:
    rows, columns = np.ogrid[:LOOK_SIDE, :LOOK_SIDE]
    return torch.from_numpy((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


NOTHING = torch.zeros((LOOK_SIDE, LOOK_SIDE), dtype=torch.bool)
ERRORS = disk(30, 40, 5.0) | disk(80, 90, 9.0) | disk(20, 110, 3.0)


def test_clicks_lie_in_the_largest_error_often_in_its_middle() -> None:
    distances = []
    for seed in range(40):
        missed = error_click(NOTHING, ERRORS, np.random.default_rng(seed))
        extra = error_click(ERRORS, NOTHING, np.random.default_rng(seed))
        assert missed is not None
        assert extra is not None
        assert missed.positive
        assert not extra.positive
        assert (missed.y, missed.x) == (extra.y, extra.x)
        assert disk(80, 90, 9.0)[int(missed.y), int(missed.x)]
        distances.append(np.hypot(missed.y - 80.5, missed.x - 90.5))
    assert np.mean(np.array(distances) < 2.0) > 0.5
    assert max(distances) > 3.0


def test_where_nothing_is_wrong_there_is_no_click_and_no_draw() -> None:
    rng = np.random.default_rng(0)
    assert error_click(ERRORS, ERRORS, rng) is None
    assert rng.random() == np.random.default_rng(0).random()


def test_a_click_is_added_to_those_that_are_there() -> None:
    look = Look(torch.zeros((3, LOOK_SIDE, LOOK_SIDE)), step=0.1, side_mm=60.0)
    first = clicked(look, NOTHING, ERRORS, np.random.default_rng(0))
    second = clicked(first, ERRORS, NOTHING, np.random.default_rng(1))
    assert look.clicks is None
    assert torch.equal(second.clicks[0], first.clicks[0])
    assert not first.clicks[1].any()
    assert float(second.clicks[1].max()) == 1.0
    silent = clicked(look, ERRORS, ERRORS, np.random.default_rng(2))
    assert not silent.clicks.any()
