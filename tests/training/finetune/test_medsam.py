import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_lungfm.models.foundation.sam_preprocess import medsam_view, sam_view
from napari_lungfm.models.foundation.zoom import Crop
from napari_lungfm.models.prompts import Box
from napari_lungfm.preprocessing.windowing import Window, to_uint8
from napari_lungfm.training.finetune.medsam import (
    MedSAMTask,
    SlicePreparation,
    truth_in_view,
)
from napari_lungfm.training.finetune.moved import moved_weights
from napari_lungfm.training.finetune.recipe import MedSAMRecipe
from napari_lungfm.training.finetune.samples import cut_clip

LUNG = Window(-600, 1500)


@pytest.fixture
def clip(stored):
    return cut_clip(stored("a", "b")[0], "tumour", range(2, 3))


def preparation(**changes):
    values = {
        "size": 128,
        "preprocessing": "medsam",
        "window": LUNG,
        "prompts": "box",
        "jitter": 5.0,
        "with_image": True,
    }
    return SlicePreparation(**{**values, **changes})


def batch(clip, count=2, **changes):
    return [preparation(**changes)(clip, np.random.default_rng(n)) for n in range(count)]


def step(task, examples):
    """One step of the task's own optimiser; what moved."""
    before = {name: tensor.clone() for name, tensor in task.result_state().items()}
    optimizer = task.configure_optimizers()
    loss = task._loss(task.logits(examples), examples)
    loss.backward()
    optimizer.step()
    return {name: each.moved for name, each in moved_weights(before, task.result_state()).items()}


# ---------------------------------------------------------------------- what goes in
@pytest.mark.parametrize("preprocessing", ["medsam", "sam"])
def test_boxes_move_outward_only_and_stay_inside(clip, preprocessing):
    view = {"medsam": medsam_view, "sam": sam_view}[preprocessing](128)
    rows, columns = view.input_shape(clip.mask[0].shape)
    tight = np.array(view.corners(Box.around(clip.mask[0], 0), Crop.whole(clip.mask[0].shape)))
    boxes = [each.box.numpy() for each in batch(clip, 40, preprocessing=preprocessing)]
    outward = np.stack([(box - tight) * [-1, -1, 1, 1] for box in boxes])
    assert outward.min() >= -1e-4
    assert outward.max() <= 5.0 + 1e-4
    assert np.ptp(outward, axis=0).min() > 2  # every side by itself
    assert all((box >= 0).all() and (box[2:] <= [columns - 1, rows - 1]).all() for box in boxes)
    exact = batch(clip, 1, preprocessing=preprocessing, jitter=0.0)[0]
    np.testing.assert_allclose(exact.box.numpy(), tight, rtol=1e-6)


def test_points_lie_inside_and_mixed_prompts_are_both(clip):
    pointed = batch(clip, 30, prompts="point")
    assert all(each.box is None for each in pointed)
    for each in pointed:
        x, y = (float(v) for v in each.point)
        assert clip.mask[0][round(y * 40 / 128), round(x * 44 / 128)]
    mixed = batch(clip, 40, prompts="mixed")
    assert all((each.box is None) != (each.point is None) for each in mixed)
    assert 8 < sum(each.box is None for each in mixed) < 32


def test_images_and_truth_are_what_the_model_sees_in_use(clip):
    view = medsam_view(128)
    example = batch(clip, 1)[0]
    grey = to_uint8(clip.image[0], LUNG)
    assert torch.equal(example.image, view.prepare(grey))
    assert np.array_equal(example.grey, grey)
    truth = truth_in_view(clip.mask[0], view)
    assert set(truth.unique().tolist()) == {0.0, 1.0}
    # The way back of the model's own view finds the mask again.
    logits = functional.interpolate((truth * 20 - 10)[None, None], (64, 64), mode="area")
    found = view.restore(logits, clip.mask[0].shape) > 0
    assert 2 * (found & clip.mask[0]).sum() / (found.sum() + clip.mask[0].sum()) > 0.95
    padded = truth_in_view(clip.mask[0], sam_view(128))
    assert padded[117:].sum() == 0  # 40 of 44 rows


# ---------------------------------------------------------------------- what is trained
def test_encoder_and_decoder_are_trained_and_the_prompt_encoder_is_frozen(tiny_base, clip):
    task = MedSAMTask(tiny_base(), MedSAMRecipe(), "mixed")
    moved = step(task, batch(clip, prompts="mixed"))
    assert moved["prompt_encoder"] == 0
    assert moved["image_encoder"] > 0.9
    assert moved["mask_decoder"] > 0.5
    frozen = MedSAMTask(tiny_base(), MedSAMRecipe(train_encoder=False), "box")
    moved = step(frozen, batch(clip, with_image=False))
    assert moved["prompt_encoder"] == moved["image_encoder"] == 0
    assert moved["mask_decoder"] > 0.5


def test_the_loss_is_squared_dice_and_cross_entropy(tiny_base, clip):
    task = MedSAMTask(tiny_base(), MedSAMRecipe(), "box")
    examples = batch(clip)
    logits = task.logits(examples)
    truth = torch.stack([each.truth for each in examples])[:, None]
    found = logits.sigmoid()
    common = (found * truth).sum((1, 2, 3))
    squares = (found**2).sum((1, 2, 3)) + (truth**2).sum((1, 2, 3))
    dice = 1 - (2 * common + 1e-5) / (squares + 1e-5)
    entropy = -(truth * found.log() + (1 - truth) * (1 - found).log()).mean()
    torch.testing.assert_close(task._loss(logits, examples), dice.mean() + entropy)


def test_every_slice_is_answered_as_by_itself(tiny_base, stored):
    cases = stored("a", "b")
    task = MedSAMTask(tiny_base(), MedSAMRecipe(), "box")
    examples = [
        preparation()(cut_clip(case, "tumour", range(2, 3)), np.random.default_rng(0))
        for case in cases
    ]
    both = task.logits(examples)
    alone = torch.cat([task.logits([each]) for each in examples])
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(both[0], both[1])


def test_checkpointing_changes_no_gradient(tiny_base, clip):
    examples = batch(clip)
    gradients = []
    for checkpoint in (False, True):
        base = tiny_base()
        task = MedSAMTask(base, MedSAMRecipe(), "box", checkpoint_encoder=checkpoint)
        assert list(task.result_state()) == list(tiny_base().network.state_dict())
        task._loss(task.logits(examples), examples).backward()
        gradients.append([p.grad for p in base.network.image_encoder.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    assert any(gradient.abs().max() > 0 for gradient in gradients[0])


def test_a_frozen_encoder_sees_every_slice_once(tiny_base, clip, monkeypatch):
    base = tiny_base()
    task = MedSAMTask(base, MedSAMRecipe(train_encoder=False), "box")
    calls = []
    base.network.image_encoder.register_forward_hook(lambda *args: calls.append(len(args[1][0])))
    examples = batch(clip, 3, with_image=False)
    first = task.logits(examples)
    assert calls == [1]
    assert torch.equal(task.logits(examples), first)
    assert calls == [1]
    trained = MedSAMTask(tiny_base(), MedSAMRecipe(), "box")
    torch.testing.assert_close(trained.logits(batch(clip, 3)), first, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_one_case_is_learnt_by_heart(tiny_base, stored):
    """A ball that spans a third of the image: Dice of 0.98 and more on every one of its slices."""
    cases = stored("a", "b")
    clips = [
        cut_clip(cases[0], "tumour", range(z, z + 1))
        for z, pixels in enumerate(cases[0].areas["tumour"])
        if pixels >= 60
    ]
    assert len(clips) >= 3
    examples = [preparation(jitter=0.0)(clip, np.random.default_rng(0)) for clip in clips]
    task = MedSAMTask(tiny_base(), MedSAMRecipe(), "box")
    optimizer = torch.optim.AdamW(
        [p for p in task.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.01
    )
    truth = torch.stack([each.truth for each in examples])[:, None]
    dice = torch.zeros(1)
    for _ in range(400):
        logits = task.logits(examples)
        found = (logits > 0).float()
        dice = 2 * (found * truth).sum((1, 2, 3)) / (found + truth).sum((1, 2, 3))
        if float(dice.min()) >= 0.98:
            break
        optimizer.zero_grad()
        task._loss(logits, examples).backward()
        optimizer.step()
    assert float(dice.min()) >= 0.98
