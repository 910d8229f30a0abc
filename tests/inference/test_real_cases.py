"""Known answers on real tumours, and floors that the classical method must not fall below."""

from typing import Any

import numpy as np
import pytest

from napari_lungfm._core.seeding import generator
from napari_lungfm.evaluation import parse_protocol
from napari_lungfm.inference import segment_object
from napari_lungfm.models import create_model

pytestmark = pytest.mark.real_data


def _predicted(case: Any, model: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    volume, truth = case
    protocol = parse_protocol(name)
    prompts = protocol.prompts(truth, generator(0, "case", name, "tumour"))
    result = segment_object(create_model(model), volume, prompts, fill=protocol.fill)
    return result.array > 0, truth


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_ellipse_on_every_slice_of_the_lung_tumour(real_case: Any) -> None:
    found, truth = _predicted(real_case("ibsi"), "prompt-ellipse", "box-every-slice")
    assert _dice(found, truth) == pytest.approx(0.935, abs=5e-4)
    slices = np.flatnonzero(truth.any(axis=(1, 2)))
    assert slices[[0, -1]].tolist() == [17, 42]
    per_slice = np.mean([_dice(found[z], truth[z]) for z in slices])
    assert per_slice == pytest.approx(0.924, abs=5e-4)


def test_ellipsoid_of_one_box_of_the_lung_tumour(real_case: Any) -> None:
    found, truth = _predicted(real_case("ibsi"), "prompt-ellipse", "box-one")
    assert _dice(found, truth) == pytest.approx(0.749, abs=5e-4)


@pytest.mark.parametrize(("name", "least"), [("ibsi", 0.91), ("000001", 0.94), ("000009", 0.91)])
def test_classical_with_boxes(real_case: Any, name: str, least: float) -> None:
    found, truth = _predicted(real_case(name), "classical", "box-every-slice")
    assert _dice(found, truth) > least


@pytest.mark.parametrize("name", ["000001", "000009"])
def test_classical_follows_swapped_axes_from_one_box(real_case: Any, name: str) -> None:
    found, truth = _predicted(real_case(name), "classical", "box-one")
    assert _dice(found, truth) > 0.75
