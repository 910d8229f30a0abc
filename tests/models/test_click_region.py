import numpy as np
import pytest
from scipy import ndimage

from napari_lungfm.models.click_region import region_of_clicks
from napari_lungfm.models.prompts import Click

Y, X = np.ogrid[:160, :160]


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def _image(disc: np.ndarray, inside: float, outside: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 15, disc.shape)
    return np.where(disc, inside, outside) + noise


@pytest.mark.parametrize(("inside", "outside"), [(40, -850), (-500, -850), (50, -100), (-30, 100)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.4, 0.4), (0.7, 1.4)])
def test_a_disc_is_found(inside: float, outside: float, spacing: tuple[float, float]) -> None:
    disc = np.hypot((Y - 80) * spacing[0], (X - 80) * spacing[1]) <= 14
    region = region_of_clicks(_image(disc, inside, outside), [Click(0, 78, 83)], spacing, 50.0)
    assert _dice(region, disc) > 0.9


def test_a_disc_on_a_stalk_is_cut_off_the_wall() -> None:
    disc = np.hypot(Y - 80, X - 80) <= 15
    image = _image(disc | (X > 110) | ((np.abs(Y - 80) <= 2) & (X > 80)), 40, -850)
    assert _dice(region_of_clicks(image, [Click(0, 84, 76)], (1.0, 1.0), 50.0), disc) > 0.9


def test_a_click_on_the_blurred_border_means_the_dense_side() -> None:
    disc = np.hypot(Y - 80, X - 80) <= 15
    image = ndimage.gaussian_filter(_image(disc, 40, -850), 1.2)
    region = region_of_clicks(image, [Click(0, 65, 80)], (1.0, 1.0), 50.0)
    assert _dice(region, disc) > 0.9


def test_the_click_is_in_it_and_a_negative_click_is_not() -> None:
    image = np.random.default_rng(1).normal(0, 300, (160, 160))
    clicks = [Click(0, 3, 157), Click(0, 10, 150, positive=False)]
    region = region_of_clicks(image, clicks, (1.0, 1.0), 50.0)
    assert region[3, 157]
    assert not region[10, 150]


def test_nothing_lies_beyond_the_limit() -> None:
    region = region_of_clicks(np.zeros((160, 160)), [Click(0, 80, 80)], (1.0, 1.0), 20.0)
    assert region.any()
    assert not (region & (np.hypot(Y - 80, X - 80) > 21)).any()
