"""The faster memory attention against the stock one."""

from typing import Any

import numpy as np
import pytest
import torch

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.geometry import Volume
from napari_lungfm.models.foundation.sam2_attention import set_attention
from napari_lungfm.models.foundation.sam2_video import Sam2Model
from napari_lungfm.models.prompts import Box
from napari_lungfm.preprocessing.windowing import Window


@pytest.fixture
def attentions(network: Any) -> tuple[Any, Any]:
    """The stock cross-attention, and the fast one."""
    attention = network.memory_attention.layers[0].cross_attn_image
    stock = attention.forward
    set_attention(network, "fast")
    return stock, attention


@pytest.mark.parametrize(("frames", "pointers"), [(1, 0), (3, 4), (8, 12)])
def test_same_result(attentions: tuple[Any, Any], frames: int, pointers: int) -> None:
    stock, quick = attentions
    q = torch.randn(1, 64, 64)
    memory = torch.randn(1, 64 * frames + pointers, 16) * 3
    keys = memory + torch.randn_like(memory)

    with torch.inference_mode():
        expected = stock(q=q, k=keys, v=memory, num_k_exclude_rope=pointers)
        result = quick(q=q, k=keys, v=memory, num_k_exclude_rope=pointers)

    assert expected.std() > 0.1
    torch.testing.assert_close(result, expected, atol=5e-5, rtol=1e-4)


def test_several_heads(attentions: tuple[Any, Any]) -> None:
    stock, quick = attentions
    quick.num_heads = 2
    quick.freqs_cis = quick.freqs_cis[:, :16]  # turns for half the channels
    q, memory = torch.randn(1, 64, 64), torch.randn(1, 128, 16)

    with torch.inference_mode():
        expected = stock(q=q, k=memory, v=memory, num_k_exclude_rope=0)
        result = quick(q=q, k=memory, v=memory, num_k_exclude_rope=0)

    torch.testing.assert_close(result, expected, atol=5e-5, rtol=1e-4)


def test_the_stock_code_runs_where_the_faster_way_does_not_fit(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = network.memory_attention.layers[0].cross_attn_image
    calls = []
    stock = attention.forward
    monkeypatch.setattr(attention, "forward", lambda **kw: calls.append(1) or stock(**kw))
    set_attention(network, "fast")
    q, memory = torch.randn(2, 64, 64), torch.randn(2, 128, 16)

    attention(q=q, k=memory, v=memory)  # two objects at once
    network.train()
    attention(q=q[:1], k=memory[:1], v=memory[:1])  # gradients through dropout
    network.eval()
    attention(q=q[:1], k=memory[:1], v=memory[:1])

    assert len(calls) == 2
    set_attention(network, "stock")
    attention(q=q[:1], k=memory[:1], v=memory[:1])
    assert len(calls) == 3


def test_propagation_with_it(network: Any, volume: Volume, window: Window) -> None:
    """The same but for memories that rounding tips to the next bfloat16 (see the module)."""
    logits = []
    for attention in ("stock", "fast"):
        model = Sam2Model(
            "m", network, weight_hash="w", window=window, device="cpu", attention=attention
        )
        stream = model.open(volume).propagate([Box(5, 30, 30, 60, 60)], range(12), fill=True)
        logits.append({z: prediction.logits for z, prediction in stream})

    for z, expected in logits[0].items():
        np.testing.assert_allclose(logits[1][z], expected, atol=5e-3)
    assert any(not np.array_equal(logits[0][z], logits[1][z]) for z in logits[0])


def test_unknown_ways(network: Any) -> None:
    with pytest.raises(UsageError, match="no attention 'slow'"):
        set_attention(network, "slow")  # type: ignore[arg-type]
