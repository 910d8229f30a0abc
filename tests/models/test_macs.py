"""Multiply-accumulates against what can be counted by hand, and against published counts."""

import pytest
import torch
from torch.nn import functional

from napari_lungfm._core.imports import require
from napari_lungfm.models.automatic.networks import DeepLabSpec, UNetSpec, build_network
from napari_lungfm.models.macs import MacCounter, count_macs


def test_a_convolution_and_a_product_are_counted_by_hand() -> None:
    convolution = torch.nn.Conv2d(3, 8, 5, stride=2, padding=2)
    macs, answer = count_macs(lambda: convolution(torch.zeros(2, 3, 16, 16)))
    assert answer.shape == (2, 8, 8, 8)
    assert macs == 2 * 8 * 8 * 8 * (3 * 5 * 5)
    assert count_macs(lambda: torch.zeros(4, 5) @ torch.zeros(5, 6))[0] == 4 * 5 * 6
    assert count_macs(lambda: torch.zeros(4, 5) + 1)[0] == 0


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_guards_of_inference_change_nothing(guard) -> None:
    layer = torch.nn.Linear(7, 9)

    def call() -> torch.Tensor:
        with guard():
            return layer(torch.zeros(2, 3, 7))

    assert count_macs(call)[0] == 2 * 3 * 7 * 9


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_fused_attention_is_counted_on_every_device(device) -> None:
    query = torch.zeros(2, 4, 10, 16, device=device)
    key = torch.zeros(2, 4, 30, 16, device=device)
    macs, _ = count_macs(lambda: functional.scaled_dot_product_attention(query, key, key))
    assert macs == 2 * (2 * 4) * 10 * 30 * 16


def test_blocks_may_be_nested_and_backward_is_counted() -> None:
    weight = torch.zeros(5, 6, requires_grad=True)
    with MacCounter() as outer:
        torch.zeros(4, 5) @ weight
        with MacCounter() as inner:
            (torch.zeros(4, 5) @ weight).sum().backward()
    assert inner.total == 2 * 4 * 5 * 6
    assert outer.total == 3 * 4 * 5 * 6


@pytest.mark.parametrize(
    ("spec", "giga"),
    [(UNetSpec(), 218.2), (DeepLabSpec(), 241.1)],  # counted apart from this code, at 512 px
)
def test_the_papers_networks_cost_what_others_counted(spec, giga) -> None:
    with torch.device("meta"):
        network = build_network(spec, in_channels=1, classes=4).eval()
        slices = torch.empty(1, 1, 512, 512)
    assert count_macs(lambda: network(slices))[0] / 1e9 == pytest.approx(giga, abs=0.06)


def test_the_encoder_of_medsam_costs_what_others_counted() -> None:
    registry = require("segment_anything", purpose="a test").sam_model_registry
    with torch.device("meta"):
        encoder = registry["vit_b"]().image_encoder.eval()
        image = torch.empty(1, 3, 1024, 1024)
    with torch.no_grad():
        macs, _ = count_macs(lambda: encoder(image))
    assert macs / 1e9 == pytest.approx(486, abs=1)
