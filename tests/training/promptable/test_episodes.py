from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_lungfm._core.seeding import generator
from napari_lungfm.models.lungfm.window import LOOK_SIDE
from napari_lungfm.training.promptable.episodes import (
    Episode,
    EpisodeSource,
    augmented,
    draw_episode,
    inexact,
)
from napari_lungfm.training.promptable.walks import next_prior
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


@pytest.fixture(scope="module")
def drawn() -> list[Episode]:
    return [draw_episode(ball_clip(), generator("d", n), 4) for n in range(100)]


def test_some_walks_begin_beyond_the_object_with_a_mask_expected_there(drawn) -> None:
    begun = [e for e in drawn if e.start is not None]
    beyond = [e for e in begun if e.start_plane.max() < -380]
    assert 0.04 < len(beyond) / len(drawn) < 0.3
    for episode in beyond:
        assert episode.start.any()
        assert episode.kind == "beside"
        assert not (episode.walk_truth > 0.5).any()
        assert not (episode.walk_planes[:, 1] > -380).any()
    # The others begin on a slice that shows the object, and most of what is known is right.
    for episode in (e for e in begun if e.start_plane.max() >= -380):
        seen = (episode.start_plane > -380).float()
        assert float((seen * episode.start).sum()) > 0.5 * float(seen.sum())


def test_some_prompts_lie_near_an_end_with_the_walk_on_its_way_out(drawn) -> None:
    out = [e for e in drawn if e.start is None and not (e.walk_truth[-1] > 0.5).any()]
    assert 0.12 < len(out) / len(drawn) < 0.4
    first_empty = {int(((e.walk_truth > 0.5).sum(dim=(1, 2)) == 0).float().argmax()) for e in out}
    assert {0, 1, 2, 3} <= first_empty
    assert all((e.truth > 0.5).any() for e in out)


def walked(*, there: bool, kind: str, begun: bool = True) -> Episode:
    """An episode whose walk has the object on both of its slices, or on none."""
    episode = draw_episode(ball_clip(), generator("n"), 2)
    truth = torch.zeros(2, LOOK_SIDE, LOOK_SIDE)
    if there:
        truth[:, 40:90, 40:90] = 1.0
    start = torch.ones(LOOK_SIDE, LOOK_SIDE) if begun else None
    return replace(episode, walk_truth=truth, kind=kind, start=start)


def test_a_walk_that_went_on_too_far_goes_on_being_shown_until_it_finds_nothing() -> None:
    found = torch.zeros(LOOK_SIDE, LOOK_SIDE)
    found[60:70, 60:70] = 1.0
    rng = np.random.default_rng(0)
    for begun in (True, False):
        gone = walked(there=False, kind="beside", begun=begun)
        assert torch.equal(next_prior(gone, 0, found, rng), found)
        assert not next_prior(gone, 0, torch.zeros_like(found), rng).any()
    # Between finished slices nothing is carried on: what is expected comes from both sides.
    assert not next_prior(walked(there=False, kind="between"), 0, found, rng).any()


def test_a_walk_that_lost_the_object_goes_on_from_the_truth() -> None:
    episode = walked(there=True, kind="beside")
    truth, rng = episode.walk_truth[0], np.random.default_rng(0)
    found = torch.zeros(LOOK_SIDE, LOOK_SIDE)
    again = next_prior(episode, 0, found, rng)
    assert float(2 * (again * truth).sum() / (again.sum() + truth.sum())) > 0.6
    found[50:60, 50:60] = 1.0
    assert torch.equal(next_prior(episode, 0, found, rng), found)
    expected = next_prior(walked(there=True, kind="between"), 0, found, rng)
    assert float(2 * (expected * truth).sum() / (expected.sum() + truth.sum())) > 0.6


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
