"""Clips changed at random keep their structure where it is in the image."""

from collections.abc import Callable
from dataclasses import replace

import torch

from napari_lungfm._core.seeding import generator
from napari_lungfm.preprocessing.windowing import Window
from napari_lungfm.training.finetune.sam2.augment import augmented
from napari_lungfm.training.finetune.sam2.clips import ClipPreparation, PreparedClip
from napari_lungfm.training.finetune.sam2.config import MaRecipe
from napari_lungfm.training.finetune.samples import FineTuneClip

NOTHING = MaRecipe(flip=0, degrees=0, shear=0, brightness=0, contrast=0)


def prepared(clip: FineTuneClip, seed: int) -> PreparedClip:
    prepare = ClipPreparation(64, Window(-600.0, 1500.0), "box", begin_marked=True)
    return replace(prepare(clip, generator("a", 0)), seed=seed)


def test_nothing_is_changed_where_nothing_is_asked_for(
    clip_of: Callable[..., FineTuneClip],
) -> None:
    clip = prepared(clip_of(3), 1)
    grey, truth = augmented(clip, NOTHING)
    torch.testing.assert_close(grey, clip.grey.float(), rtol=0, atol=1e-3)
    assert torch.equal(truth, clip.truth)


def test_the_structure_moves_with_the_image(clip_of: Callable[..., FineTuneClip]) -> None:
    recipe, moved = MaRecipe(), 0
    for seed in range(12):
        clip = prepared(clip_of(3, radius=14.0), seed)
        grey, truth = augmented(clip, recipe)
        seen = grey > 120  # the ball is far brighter than what is around it
        common = (seen & truth).sum()
        assert float(2 * common / (seen.sum() + truth.sum())) > 0.93
        moved += not torch.equal(truth, clip.truth)
        again = augmented(clip, recipe)
        assert torch.equal(grey, again[0])
        assert torch.equal(truth, again[1])
    assert moved >= 10


def test_all_slices_are_moved_alike(clip_of: Callable[..., FineTuneClip]) -> None:
    clip = prepared(clip_of(2), 5)
    alike = replace(
        clip, grey=clip.grey[:1].expand(2, -1, -1), truth=clip.truth[:1].expand(2, -1, -1)
    )
    grey, truth = augmented(alike, MaRecipe(brightness=0, contrast=0))
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(truth[0], truth[1])
    grey, _ = augmented(alike, MaRecipe())
    assert not torch.equal(grey[0], grey[1])


def test_a_structure_at_the_edge_is_not_lost(clip_of: Callable[..., FineTuneClip]) -> None:
    clip = prepared(clip_of(2), 0)
    truth = torch.zeros_like(clip.truth)
    truth[:, :2, :2] = True
    for seed in range(20):
        _, moved = augmented(replace(clip, truth=truth, seed=seed), MaRecipe())
        assert moved[0].any()
