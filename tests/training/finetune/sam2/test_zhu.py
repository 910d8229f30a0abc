"""Medical SAM 2's recipe against its two losses and two optimisers, written out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from napari_lungfm._core.seeding import generator
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.moved import moved_weights
from napari_lungfm.training.finetune.sam2.clips import PreparedClip, network_input, prompt_of
from napari_lungfm.training.finetune.sam2.config import ZhuRecipe
from napari_lungfm.training.finetune.sam2.track import clip_dice
from napari_lungfm.training.finetune.sam2.zhu import MEMORY_PARTS, ZhuTask

Prepared = Callable[..., PreparedClip]


def copied(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def two_losses(network: Any, clip: PreparedClip) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of a clip of two slices by the network's own methods, everything in one graph."""
    encoded = network.forward_image(network_input(clip.grey))
    _, maps, places, sizes = network._prepare_backbone_features(encoded)
    outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    losses = []
    for number in range(2):
        points = None
        if number == 0:
            rng = generator("click", clip.seed, 0)
            points = prompt_of(clip.truth[0], boxed=clip.boxed, rng=rng)
        one = [m[:, number : number + 1] for m in maps], [p[:, number : number + 1] for p in places]
        answer = network.track_step(number, number == 0, *one, sizes, points, None, outputs, 2)
        outputs["cond_frame_outputs" if number == 0 else "non_cond_frame_outputs"][number] = answer
        losses.append(
            F.binary_cross_entropy_with_logits(
                answer["pred_masks_high_res"][:, 0],
                clip.truth[number][None].float(),
                pos_weight=torch.tensor(2.0),
            )
        )
    return losses[0], losses[1]


@pytest.mark.parametrize("prompts", ["box", "point"])
def test_gradients_are_those_of_two_optimisers(
    prompts: Any, base: BaseNetwork, prepared: Prepared
) -> None:
    task = ZhuTask(base, ZhuRecipe(), prompts).train()
    clip = prepared(task, 2)
    network = task.network
    first, second = two_losses(network, clip)
    decoder = dict(network.sam_mask_decoder.named_parameters())
    memory = {
        f"{part}.{name}": weights
        for part in MEMORY_PARTS
        for name, weights in getattr(network, part).named_parameters()
    }
    options = {"allow_unused": True, "retain_graph": True}
    wanted = dict(
        zip(decoder, torch.autograd.grad(first, decoder.values(), **options), strict=True)
    )
    wanted |= dict(
        zip(memory, torch.autograd.grad(second, memory.values(), **options), strict=True)
    )
    found = task.losses(clip)
    torch.testing.assert_close(found.prompted[0], first)
    torch.testing.assert_close(found.tracked[0], second)
    found.total().backward()
    assert any(gradient is not None and gradient.any() for gradient in wanted.values())
    for name, weights in {**decoder, **memory}.items():
        gradient = torch.zeros_like(weights) if wanted[name] is None else wanted[name]
        has = torch.zeros_like(weights) if weights.grad is None else weights.grad
        torch.testing.assert_close(has, gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_decoder_and_memory_move_and_nothing_else(
    base: BaseNetwork, prepared: Prepared, taught: Callable[..., list[float]]
) -> None:
    before = copied(base.network)
    task = ZhuTask(base, ZhuRecipe(), "box")
    losses = taught(task, [prepared(task, 2)], 6)
    moved = moved_weights(before, task.result_state())
    assert losses[-1] < losses[0]
    assert moved["sam_mask_decoder"].moved > 0.5
    for still in ("image_encoder", "sam_prompt_encoder", "no_mem_embed", "maskmem_tpos_enc"):
        assert moved[still].moved == 0.0
    # 1e-8 a step moves float32 weights; in bfloat16 they would have stayed where they were.
    for part in ("memory_attention", "memory_encoder", "obj_ptr_proj"):
        assert moved[part].moved > 0.3
        assert moved[part].moved_in_bfloat16 < 0.01
        assert 0 < moved[part].largest < 1e-6
    assert moved["sam_mask_decoder"].moved_in_bfloat16 > 0.1


def test_features_are_computed_once(base: BaseNetwork, prepared: Prepared) -> None:
    task = ZhuTask(base, ZhuRecipe(clip=4), "box").train()
    losses = [float(task.losses(prepared(task, 4)).total()) for _ in range(2)]
    assert losses[0] == losses[1]
    assert task.features.computed == 4
    task.losses(prepared(task, 4, first=2))
    assert task.features.computed == 6
    assert not task.network.image_encoder.training


def test_validation_takes_the_features_that_are_known(
    base: BaseNetwork, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = ZhuTask(base, ZhuRecipe(clip=3), "box").eval()
    clip = prepared(task, 3)
    logged = []
    monkeypatch.setattr(task, "log", lambda name, value, **options: logged.append(float(value)))
    for _ in range(2):
        task.validation_step([clip], 0)
    assert (task.features.computed, task.features.reused) == (3, 3)
    assert logged == [float(clip_dice(task.network, clip))] * 2


def test_every_second_slice_is_prompted(base: BaseNetwork, prepared: Prepared) -> None:
    task = ZhuTask(base, ZhuRecipe(clip=5), "point").train()
    found = task.losses(prepared(task, 5))
    assert (len(found.prompted), len(found.tracked)) == (3, 2)


def test_an_absent_object_is_prompted_with_an_empty_mask(
    base: BaseNetwork, prepared: Prepared
) -> None:
    task = ZhuTask(base, ZhuRecipe(), "box").train()
    clip = prepared(task, 2)
    truth = clip.truth.clone()
    truth[0] = False
    found = task.losses(replace(clip, truth=truth))
    assert not found.prompted[0].requires_grad
    # logit -10 everywhere, as the stock code answers a mask prompt
    assert float(found.prompted[0]) == pytest.approx(4.54e-5, rel=1e-2)
    found.total().backward()
    assert all(
        p.grad is None or not p.grad.any() for p in task.network.sam_mask_decoder.parameters()
    )


def test_two_clips_one_by_one_are_a_batch_of_two(
    new_base: Callable[[], BaseNetwork], prepared: Prepared
) -> None:
    tasks = [ZhuTask(new_base(), ZhuRecipe(), "mixed").train() for _ in range(2)]
    clips = [prepared(tasks[0], 2, n, radius=12.0 + 4 * n, case=str(n)) for n in range(2)]
    tasks[0].training_step(clips, 0).backward()
    for clip in clips:
        (tasks[1].training_step([clip], 0) / 2).backward()
    for one, other in zip(*(task.parameters() for task in tasks), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-7)
