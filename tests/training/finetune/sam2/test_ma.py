"""MedSAM2's recipe against the ``sam2`` package's own classes, put together as Meta's file says."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.moved import moved_weights
from napari_lungfm.training.finetune.sam2.clips import PreparedClip
from napari_lungfm.training.finetune.sam2.config import MaRecipe
from napari_lungfm.training.finetune.sam2.ma import MaTask, clip_batch
from napari_lungfm.training.finetune.sam2.stock import training_module

Prepared = Callable[..., PreparedClip]

#: As in sam2.1_hiera_b+_MOSE_finetune.yaml, but for boxes, which MedSAM2 takes for all points.
PROMPTING = {
    "prob_to_use_pt_input_for_train": 0.5,
    "prob_to_use_pt_input_for_eval": 0.0,
    "prob_to_use_box_input_for_train": 1.0,
    "prob_to_use_box_input_for_eval": 0.0,
    "prob_to_sample_from_gt_for_train": 0.1,
    "num_frames_to_correct_for_train": 2,
    "num_frames_to_correct_for_eval": 1,
    "rand_frames_to_correct_for_train": True,
    "add_all_frames_to_correct_as_cond": True,
    "num_init_cond_frames_for_train": 2,
    "rand_init_cond_frames_for_train": True,
    "num_correction_pt_per_frame": 7,
    "num_init_cond_frames_for_eval": 1,
    "forward_backbone_per_frame_for_eval": True,
}
QUICK = {"clip": 3, "corrections": 1}
UNCHANGED = {"flip": 0.0, "degrees": 0.0, "shear": 0.0, "brightness": 0.0, "contrast": 0.0}


def their_network(base: BaseNetwork) -> Any:
    target = "training.model.sam2.SAM2Train"
    training_module("model.sam2")
    network = instantiate(OmegaConf.create({**base.build, **PROMPTING, "_target_": target}))
    network.load_state_dict(base.network.state_dict())
    return network


def their_loss() -> Any:
    return training_module("loss_fns").MultiStepMultiMasksAndIous(
        weight_dict={"loss_mask": 20, "loss_dice": 1, "loss_iou": 1, "loss_class": 1},
        supervise_all_iou=True,
        iou_use_l1_loss=True,
        pred_obj_scores=True,
        focal_gamma_obj_score=0.0,
        focal_alpha_obj_score=-1.0,
    )


def their_batch(images: torch.Tensor, masks: torch.Tensor) -> Any:
    """Images ``(b, t, 3, S, S)`` and masks ``(b, t, S, S)`` by the package's own collation."""
    data = training_module("utils.data_utils")
    videos = []
    for number, (slices, truths) in enumerate(zip(images, masks, strict=True)):
        frames = [
            data.Frame(data=image, objects=[data.Object(1, place, truth)])
            for place, (image, truth) in enumerate(zip(slices, truths, strict=True))
        ]
        videos.append(data.VideoDatapoint(frames, number, (64, 64)))
    return data.collate_fn(videos, dict_key="all")


def their_optimiser(network: torch.nn.Module) -> Any:
    def always(value: float) -> dict[str, Any]:
        largest = {"_target_": "hydra.utils.get_method", "path": "builtins.max"}
        return {"_target_": "functools.partial", "_args_": [largest, value]}  # max(value, 0.0)

    options = {
        "lr": [
            {"scheduler": always(5e-5)},
            {"scheduler": always(3e-5), "param_names": ["image_encoder.*"]},
        ],
        "weight_decay": [
            {"scheduler": always(0.1)},
            {
                "scheduler": always(0.0),
                "param_names": ["*bias*"],
                "module_cls_names": ["torch.nn.LayerNorm"],
            },
        ],
    }
    decay = {
        "_target_": "training.optimizer.layer_decay_param_modifier",
        "_partial_": True,
        "layer_decay_value": 0.9,
        "apply_to": "image_encoder.trunk",
        "overrides": [{"pattern": "*pos_embed*", "value": 1.0}],
    }
    return training_module("optimizer").construct_optimizer(
        network,
        OmegaConf.create({"_target_": "torch.optim.AdamW"}),
        OmegaConf.create(options),
        OmegaConf.create([decay]),
    )


def seeded(network: Any, seed: int) -> None:
    network.rng = np.random.default_rng(seed)
    torch.manual_seed(seed)


@pytest.mark.parametrize(("seed", "pointed"), [(1, [False, True]), (2, [True, True])])
def test_a_step_is_that_of_the_package(
    seed: int, pointed: list[bool], base: BaseNetwork, prepared: Prepared
) -> None:
    recipe = MaRecipe(clip=4, **UNCHANGED)
    theirs = their_network(base).train()
    task = MaTask(base, recipe, "box", steps=100).train()
    clips = [prepared(task, 4, n, radius=12.0 + 4 * n) for n in range(2)]
    batch = clip_batch(clips, recipe)
    images = batch.flat_img_batch.view(2, 4, *batch.flat_img_batch.shape[1:])
    other = their_batch(images, torch.stack([clip.truth for clip in clips]))
    assert torch.equal(batch.flat_obj_to_img_idx, other.flat_obj_to_img_idx.long())
    assert torch.equal(batch.masks, other.masks)
    ours = task.configure_optimizers()["optimizer"]
    optimiser, loss = their_optimiser(theirs), their_loss()
    for step in range(2):  # prompted with masks, or boxes that are corrected
        seeded(task.network, seed + 10 * step)
        found = task.losses(batch)
        ours.zero_grad()
        found["core_loss"].backward()
        torch.nn.utils.clip_grad_norm_(task.network.parameters(), 0.1)
        ours.step()
        seeded(theirs, seed + 10 * step)
        outputs = theirs(other)
        wanted = loss(outputs, other.masks)
        assert (outputs[0]["point_inputs"] is not None) is pointed[step]
        assert len(outputs[0]["multistep_pred_ious"]) == (8 if pointed[step] else 1)
        optimiser.zero_grad()
        wanted["core_loss"].backward()
        training_module("optimizer").GradientClipper(0.1)(theirs)
        optimiser.step(0.0, step)
        for name in ("loss_mask", "loss_dice", "loss_iou", "loss_class", "core_loss"):
            torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_rates_and_decay_are_those_of_the_package(base: BaseNetwork) -> None:
    theirs = their_optimiser(their_network(base)).optimizer
    task = MaTask(base, MaRecipe(), "box", steps=100)
    made = task.configure_optimizers()
    shapes = {}
    for who, groups, network in (
        ("theirs", theirs.param_groups, None),
        ("ours", made["optimizer"].param_groups, task.network),
    ):
        shapes[who] = sorted(
            (tuple(p.shape), round(float(group["lr"]), 12), group["weight_decay"])
            for group in groups
            for p in group["params"]
        )
        assert network is None or len(shapes[who]) == len(list(network.parameters()))
    assert shapes["ours"] == shapes["theirs"]
    assert len({rate for _, rate, _ in shapes["ours"]}) > 5


def test_rates_fall_to_a_tenth(base: BaseNetwork) -> None:
    made = MaTask(base, MaRecipe(), "box", steps=10).configure_optimizers()
    optimiser, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    first = [group["lr"] for group in optimiser.param_groups]
    for _ in range(10):
        optimiser.step()
        schedule.step()
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx(
        [0.1 * rate for rate in first]
    )


def test_all_of_the_network_moves_and_the_loss_falls(
    new_base: Callable[[], BaseNetwork], prepared: Prepared, taught: Callable[..., list[float]]
) -> None:
    base = new_base()
    recipe = MaRecipe(**QUICK, **UNCHANGED, learning_rate=1e-3, encoder_learning_rate=1e-3)
    task = MaTask(base, recipe, "mixed", steps=10)
    losses = taught(task, [prepared(task, 3)], 6)
    moved = moved_weights(base.network.state_dict(), task.result_state())
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    for part in ("image_encoder", "sam_mask_decoder", "memory_attention", "memory_encoder"):
        assert moved[part].moved > 0.9
    assert moved["sam_prompt_encoder"].moved > 0.0


def test_draws_depend_on_the_clip_alone(base: BaseNetwork, prepared: Prepared) -> None:
    task = MaTask(base, MaRecipe(**QUICK), "mixed", steps=10).train()
    clip = prepared(task, 3)
    first = float(task.training_step([clip], 0))
    torch.rand(3)
    task.network.rng.random(3)
    assert float(task.training_step([clip], 7)) == first
    other = {float(task.training_step([prepared(task, 3, n)], 0)) for n in range(1, 4)}
    assert len({first, *other}) > 2


def test_two_clips_one_by_one_are_a_batch_of_two(
    new_base: Callable[[], BaseNetwork], prepared: Prepared
) -> None:
    # Masks as prompts: what else is drawn is drawn for a batch, not for a clip.
    recipe = MaRecipe(**QUICK, **UNCHANGED, mask_prompts=1.0, prompted_slices=1)
    tasks = [MaTask(new_base(), recipe, "box", steps=10).train() for _ in range(2)]
    clips = [prepared(tasks[0], 3, n, radius=14.0 + 4 * n) for n in range(2)]
    tasks[0].training_step(clips, 0).backward()
    for clip in clips:
        (tasks[1].training_step([clip], 0) / 2).backward()
    gradients = 0
    for one, other in zip(*(task.parameters() for task in tasks), strict=True):
        if one.grad is not None and other.grad is not None:
            gradients += 1
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)
    assert gradients > 100


def test_activations_computed_twice_change_nothing(
    new_base: Callable[[], BaseNetwork], prepared: Prepared
) -> None:
    recipe = MaRecipe(**QUICK, **UNCHANGED)
    plain, twice = (
        MaTask(new_base(), recipe, "box", steps=10, checkpoint_encoder=on).train()
        for on in (False, True)
    )
    clip = prepared(plain, 3)
    losses = [task.training_step([clip], 0) for task in (plain, twice)]
    assert float(losses[0]) == float(losses[1])
    for loss in losses:
        loss.backward()
    for one, other in zip(plain.parameters(), twice.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-7)
    assert plain.result_state().keys() == twice.result_state().keys()
