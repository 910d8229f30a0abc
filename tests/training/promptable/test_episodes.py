import numpy as np
import pytest
import torch

from napari_lungfm._core.seeding import generator
from napari_lungfm.models.lungfm.window import LOOK_SIDE
from napari_lungfm.training.promptable.episodes import (
    EpisodeSource,
    augmented,
    draw_episode,
    inexact,
)
from napari_lungfm.training.synthetic import Clip, ClipBank, fill_bank
from napari_lungfm.training.synthetic.clips import SIDE


def ball_clip(slices: int = 20, radius: float = 15.0) -> Clip:
    z, y, x = np.ogrid[:slices, :SIDE, :SIDE]
    distance = ((z - slices / 2) * 2.0) ** 2 + (y - 64) ** 2 + (x - 64) ** 2
    mask = distance < radius**2
    image = np.where(mask, 40, -800).astype(np.int16)
    return Clip(image, mask, (2.0, 1.0, 1.0), "scene")


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> ClipBank:
    folder = tmp_path_factory.mktemp("bank")
    fill_bank(folder, 5, range(3), "scene")
    return ClipBank(folder)


def test_prompts_lie_on_the_object_and_the_walk_shows_it() -> None:
    for number in range(60):
        episode = draw_episode(ball_clip(), generator("e", number), 3)
        truth = episode.truth > 0.5
        assert truth.any()
        if episode.box is not None:
            covered = float((episode.box * episode.truth).sum() / episode.truth.sum())
            assert covered > 0.6
        positive = episode.clicks[0]
        if positive.max() > 0:
            y, x = divmod(int(positive.argmax()), LOOK_SIDE)
            assert episode.truth[y, x] > 0.2
        assert not episode.clicks[1].any()
        assert episode.box is not None or positive.max() > 0
        # Bright is inside and dark outside, so image and truth lie on each other everywhere.
        seen = episode.walk_planes[:, 1] > -380
        there = episode.walk_truth > 0.5
        assert (seen == there).float().mean() > 0.99


def test_walks_begin_at_the_anchor_or_anywhere_and_pass_the_ends() -> None:
    episodes = [draw_episode(ball_clip(), generator("w", n), 3) for n in range(80)]
    starts = [e.start is None for e in episodes]
    assert 0.3 < np.mean(starts) < 0.9
    absent = [bool(t.max() < 0.5) for e in episodes for t in e.walk_truth]
    assert 0.05 < np.mean(absent) < 0.6
    assert {e.kind for e in episodes} == {"beside", "between"}
    assert all(e.kind == "beside" for e in episodes if e.start is None)


def test_a_number_names_an_episode_and_every_clip_comes_up_once_in_a_turn(bank) -> None:
    source, again = (EpisodeSource(bank, range(3), 1, 2, 2) for _ in range(2))
    other = EpisodeSource(bank, range(3), 2, 2, 2)
    assert torch.equal(source[2, 1].planes, again[2, 1].planes)
    assert torch.equal(source[2, 1].walk_truth, again[2, 1].walk_truth)
    assert not torch.equal(source[2, 1].planes, other[2, 1].planes)
    read: list[int] = []
    original = ClipBank.read

    def noted(self, index):
        read.append(index)
        return original(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClipBank, "read", noted)
        for number in range(6):
            source[divmod(number, 2)]
    assert sorted(read[:3]) == sorted(read[3:]) == [0, 1, 2]


def test_augmentation_keeps_the_object_on_its_image() -> None:
    clip = ball_clip()
    for number in range(20):
        changed = augmented(clip, generator("a", number))
        inside, outside = changed.image[changed.mask], changed.image[~changed.mask]
        assert inside.min() > outside.max()
        assert changed.mask.sum() == clip.mask.sum()


def test_inexact_masks_are_near_the_truth_but_not_it() -> None:
    truth = torch.zeros(LOOK_SIDE, LOOK_SIDE)
    truth[40:90, 50:100] = 1.0
    overlaps = []
    for number in range(40):
        mask = inexact(truth, generator("i", number))
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        overlaps.append(float(2 * (mask * truth).sum() / (mask.sum() + truth.sum())))
    assert min(overlaps) > 0.6
    assert 0.85 < np.median(overlaps) < 1.0


def test_an_object_too_small_to_be_inexact_is_left_alone() -> None:
    truth = torch.zeros(LOOK_SIDE, LOOK_SIDE)
    truth[64, 64] = 1.0
    assert all(inexact(truth, generator("s", n)).any() for n in range(20))


def test_episodes_move_with_all_their_images() -> None:
    episode = draw_episode(ball_clip(), generator("m"), 2)
    moved = episode.to(torch.device("meta"))
    assert moved.planes.is_meta
    assert moved.walk_truth.is_meta
    assert moved.window == episode.window
