"""The whole encoder, or adapters: what moves, and that the result is a plain SAM 2."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from napari_lungfm.models.foundation.sam2_build import build_sam2
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.moved import moved_weights
from napari_lungfm.training.finetune.sam2.clips import PreparedClip, network_input
from napari_lungfm.training.finetune.sam2.config import OursRecipe
from napari_lungfm.training.finetune.sam2.ours import OursTask
from napari_lungfm.training.finetune.sam2.track import clip_dice

Prepared = Callable[..., PreparedClip]

PLAIN = {"flip": 0.0, "degrees": 0.0, "brightness": 0.0, "contrast": 0.0, "clip": 3}


def test_adapters_move_and_the_result_is_a_plain_network(
    base: BaseNetwork, prepared: Prepared, taught: Callable[..., list[float]]
) -> None:
    recipe = OursRecipe(**PLAIN, encoder="adapters", learning_rate=1e-3, encoder_learning_rate=1e-2)
    task = OursTask(base, recipe, "mixed", steps=10)
    before = base.network.state_dict()
    at_first = moved_weights(before, task.result_state())
    assert all(part.moved == 0 for part in at_first.values())  # adapters begin as nothing
    clip = prepared(task, 3)
    losses = taught(task, [clip], 6)
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    state = {name: tensor.clone() for name, tensor in task.result_state().items()}
    changed = {name for name in before if not torch.equal(before[name], state[name])}
    encoder = {name for name in changed if name.startswith("image_encoder.")}
    assert encoder == {
        f"image_encoder.trunk.blocks.{n}.attn.{layer}.weight"
        for n in range(len(task.network.image_encoder.trunk.blocks))
        for layer in ("qkv", "proj")
    }
    assert not any(name.startswith("sam_prompt_encoder.") for name in changed)
    for part in ("sam_mask_decoder.", "memory_attention.", "memory_encoder.", "obj_ptr_proj."):
        assert any(name.startswith(part) for name in changed)
    plain = build_sam2(base.build)
    plain.load_state_dict(state, strict=True)
    task.eval()
    image = network_input(clip.grey[:1])
    with torch.no_grad():
        wanted = task.network.image_encoder(image)["backbone_fpn"]
        found = plain.image_encoder(image)["backbone_fpn"]
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert float(clip_dice(plain, clip)) == pytest.approx(
        float(clip_dice(task.network, clip)), abs=0.02
    )


def test_of_an_encoder_with_adapters_few_weights_are_trained(base: BaseNetwork) -> None:
    task = OursTask(base, OursRecipe(encoder="adapters", rank=4), "box", steps=10)
    encoder = list(task.network.image_encoder.parameters())
    trained = sum(p.numel() for p in encoder if p.requires_grad)
    assert 0 < trained < 0.1 * sum(p.numel() for p in encoder)
    assert all(p.dtype == torch.float32 for p in task.parameters())


def test_the_whole_encoder_is_trained_but_never_the_prompt_encoder(
    base: BaseNetwork, prepared: Prepared, taught: Callable[..., list[float]]
) -> None:
    recipe = OursRecipe(**PLAIN, encoder="whole", learning_rate=1e-3)
    task = OursTask(base, recipe, "box", steps=4)
    trained = {name for name, p in task.network.named_parameters() if p.requires_grad}
    every = {name for name, _ in task.network.named_parameters()}
    assert {name.partition(".")[0] for name in every - trained} == {"sam_prompt_encoder"}
    before = {name: tensor.clone() for name, tensor in base.network.state_dict().items()}
    taught(task, [prepared(task, 3)], 3)
    moved = moved_weights(before, task.result_state())
    assert moved["image_encoder"].moved > 0.9
    assert moved["sam_prompt_encoder"].moved == 0
    assert set(task.result_state()) == set(before)


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({"encoder": "whole"}, 2e-4),
        ({"encoder": "adapters"}, 8e-4),
        ({"encoder": "whole", "encoder_learning_rate": 3e-5}, 3e-5),
        ({"encoder": "adapters", "encoder_learning_rate": 3e-5}, 3e-5),
    ],
)
def test_the_encoder_has_a_rate_of_its_own(
    base: BaseNetwork, options: dict[str, Any], rate: float
) -> None:
    task = OursTask(base, OursRecipe(**options, learning_rate=2e-4, warm_up=0), "box", steps=4)
    groups = task.configure_optimizers()["optimizer"].param_groups
    of = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, weights in task.network.named_parameters():
        if weights.requires_grad:
            encoder = name.startswith("image_encoder.")
            assert of[id(weights)] == pytest.approx(rate if encoder else 2e-4), name


@pytest.mark.parametrize("option", [{"rank": 4}, {"alpha": 8.0}])
def test_options_of_adapters_are_refused_without_them(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))}: there are no adapters"):
        OursRecipe(encoder="whole", **option)
    OursRecipe(encoder="adapters", **option)


def test_activations_computed_twice_still_teach_the_adapters(
    base: BaseNetwork, prepared: Prepared
) -> None:
    recipe = OursRecipe(**PLAIN, encoder="adapters")
    task = OursTask(base, recipe, "box", steps=10, checkpoint_encoder=True).train()
    task.training_step([prepared(task, 3)], 0).backward()
    adapters = {name: p for name, p in task.named_parameters() if ".lora_B." in name}
    assert adapters
    assert any(p.grad is not None and bool(p.grad.any()) for p in adapters.values())
