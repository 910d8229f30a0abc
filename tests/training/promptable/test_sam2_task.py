"""The small SAM 2 on episodes; its answers against the stock network asked slice by slice."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm._core.seeding import generator
from napari_lungfm.models.foundation.sam2_prompts import (
    FIRST_CORNER,
    LAST_CORNER,
    NEGATIVE,
    POSITIVE,
)
from napari_lungfm.models.lungfm.window import LOOK_SIDE, filled_box
from napari_lungfm.training.promptable.episodes import Episode, draw_episode
from napari_lungfm.training.promptable.sam2_episodes import (
    COLOURS_HU,
    NO_POINT,
    click_inputs,
    encoded_slices,
    images_of,
    jump_of,
    prompt_inputs,
)
from napari_lungfm.training.promptable.sam2_task import Sam2Task, small_config, untrained_sam2
from napari_lungfm.training.synthetic import Clip
from napari_lungfm.training.synthetic.clips import SIDE

WALK = 2
#: Slices that the ball begins and ends on.
FIRST, LAST = 3, 17


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ball(slices: int = 20, radius: float = 15.0) -> Clip:
    """A ball whose tissue is 10 HU denser on every next slice."""
    z, y, x = np.ogrid[:slices, :SIDE, :SIDE]
    mask = ((z - slices / 2) * 2.0) ** 2 + (y - 64) ** 2 + (x - 64) ** 2 < radius**2
    image = np.where(mask, 10 * z, -800).astype(np.int16)
    return Clip(image, mask, (2.0, 1.0, 1.0), "scene")


def episodes(count: int, *, one_window: bool = False, first: int = 0) -> list[Episode]:
    clip = ball()
    return [
        draw_episode(clip, generator("sam2", first + i), WALK, one_window=one_window)
        for i in range(count)
    ]


def task(size: int | None = None, seed: int = 0) -> Sam2Task:
    return Sam2Task(untrained_sam2(small_config(size), seed), seed=seed, steps=10)


# ---------------------------------------------------------------------- the network
def test_the_configuration_is_of_the_size_asked_for() -> None:
    trunk = small_config()["image_encoder"]["trunk"]
    begins = np.cumsum([0, *trunk["stages"][:-1]])
    assert not set(trunk["global_att_blocks"]) & set(begins)
    network = untrained_sam2(small_config(), 0)
    assert 3e6 < sum(p.numel() for p in network.parameters()) < 6e6
    assert small_config(256)["memory_attention"]["layer"]["self_attention"]["feat_sizes"] == [
        16,
        16,
    ]
    with pytest.raises(ConfigError, match="multiple of 32"):
        small_config(100)


def test_weights_follow_the_seed() -> None:
    same, other = untrained_sam2(small_config(), 3), untrained_sam2(small_config(), 4)
    again = untrained_sam2(small_config(), 3).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in same.state_dict().items())
    assert not torch.equal(same.no_mem_embed, other.no_mem_embed)


# ---------------------------------------------------------------------- what goes in
def test_one_window_changes_nothing_but_the_window_of_the_walk() -> None:
    for apart, shared in zip(episodes(20), episodes(20, one_window=True), strict=True):
        assert shared.window == shared.walk_window == apart.window
        assert torch.equal(apart.planes, shared.planes)
        assert torch.equal(apart.clicks, shared.clicks)
        assert (apart.start is None) == (shared.start is None)
        assert apart.walk_valid == shared.walk_valid
        assert jump_of(apart) == jump_of(shared)


def test_the_start_is_seen_on_its_own_slice() -> None:
    inside = beyond = 0
    for episode in episodes(40, one_window=True):
        if episode.start is None:
            continue
        assert episode.start_plane is not None
        anchor, jump = float(episode.planes[1].max()), jump_of(episode)
        if float(episode.start_plane.max()) > -700:
            inside += 1
            assert abs(float(episode.start_plane.max()) - anchor) == pytest.approx(
                10 * jump, abs=0.5
            )
        else:  # a walk that went on too far: the object ends before that slice on one side
            beyond += 1
            assert min(anchor / 10 - jump - FIRST, LAST - anchor / 10 - jump) < -0.9
    assert inside > beyond > 0
    assert all(e.start_plane is None for e in episodes(40) if e.start is None)


def test_boxes_become_their_corners_and_clicks_their_places() -> None:
    boxed = [e for e in episodes(30) if e.box is not None]
    inputs = prompt_inputs(boxed, 2 * LOOK_SIDE)
    assert inputs["point_labels"][:, :2].tolist() == [[FIRST_CORNER, LAST_CORNER]] * len(boxed)
    for episode, (first, last, click), labels in zip(
        boxed, inputs["point_coords"] / 2, inputs["point_labels"], strict=True
    ):
        (x0, y0), (x1, y1) = first.tolist(), last.tolist()
        box = filled_box((y0, x0, y1, x1), episode.box)
        torch.testing.assert_close(box, episode.box, atol=1e-4, rtol=0)
        if labels[2] != NO_POINT:
            x, y = (int(v) for v in click)
            assert episode.clicks[0, y, x] == episode.clicks[0].max()
    clicked = [e for e in episodes(30) if e.box is None]
    assert prompt_inputs(clicked, 128)["point_labels"].tolist() == [[POSITIVE]] * len(clicked)


def test_corrections_click_into_the_error() -> None:
    wanted = torch.zeros((3, LOOK_SIDE, LOOK_SIDE), dtype=torch.bool)
    wanted[:, 20:60, 20:60] = True
    found = wanted.clone()
    found[0, 20:60, 20:30] = False  # missed
    found[1, 80:90, 100:120] = True  # too much; the third is right
    inputs = click_inputs(found, wanted, np.random.default_rng(0), 256)
    assert inputs["point_labels"].tolist() == [[POSITIVE], [NEGATIVE], [NO_POINT]]
    (x0, y0), (x1, y1) = (inputs["point_coords"][i, 0].tolist() for i in (0, 1))
    assert 40 <= x0 < 60
    assert 40 <= y0 < 120
    assert 200 <= x1 < 240
    assert 160 <= y1 < 180


def test_colours_are_windows_of_hu() -> None:
    low, high = COLOURS_HU[1]
    planes = torch.full((1, LOOK_SIDE, LOOK_SIDE), (low + high) / 2)
    image = images_of(planes, 160, COLOURS_HU)
    assert image.shape == (1, 3, 160, 160)
    assert float(image[0, 1, 5, 5]) == pytest.approx((0.5 - 0.456) / 0.224, abs=1e-5)


# ---------------------------------------------------------------------- one batch
def test_every_part_of_the_network_learns() -> None:
    model = task()
    model.train()
    scores = model._run(episodes(6), np.random.default_rng(0))
    loss = scores.loss()
    loss.backward()
    assert torch.isfinite(loss)
    assert {"prompt", "walk", "correction", "presence"} <= set(scores.metrics())
    idle = {
        name
        for name, part in model.network.named_children()
        if not any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())
    }
    # Built for masks prompted at full size, which the stock code brings down by itself.
    assert idle <= {"mask_downsample"}


class Recorder(Sam2Task):
    """Keeps the logits of every answer by kind."""

    kept: list[tuple[str, torch.Tensor]]

    def _scored(self, output: Any, pixels: Any, truth: Any, kind: str, *rest: Any) -> Any:
        self.kept.append((kind, output[3].detach()))
        return super()._scored(output, pixels, truth, kind, *rest)


def recorder(network: Any) -> Recorder:
    model = Recorder(network, seed=0, steps=10)
    model.kept = []
    return model.eval()


def test_a_walk_is_that_of_the_stock_network() -> None:
    """Episodes that begin at their anchor, in one window: the publishers' own order of calls."""
    network = untrained_sam2(small_config(), 1)
    torch.nn.init.constant_(network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 8.0)
    chosen = [e for e in episodes(60, one_window=True) if e.start is None and e.box is None][:3]
    model = recorder(network)
    with torch.inference_mode():
        model._run(chosen, np.random.default_rng(0))
        found = {"prompt": [], "walk": []}
        for kind, logits in model.kept:
            found.setdefault(kind, []).append(logits)
        for i, episode in enumerate(chosen):
            seen = encoded_slices(network, [episode], COLOURS_HU)
            outputs: dict[str, dict[int, Any]] = {
                "cond_frame_outputs": {},
                "non_cond_frame_outputs": {},
            }
            for number, name in enumerate(("prompt", "walk 0", "walk 1")):
                points = prompt_inputs([episode], 128) if number == 0 else None
                frame = seen[name]
                answer = network.track_step(
                    number, number == 0, frame.maps, frame.positions, frame.sizes, points, None,
                    outputs, 10, False,
                )  # fmt: skip
                kind = "cond_frame_outputs" if number == 0 else "non_cond_frame_outputs"
                outputs[kind][number] = answer
                ours = found["prompt"][0] if number == 0 else found["walk"][number - 1]
                lost = not bool((answer["pred_masks_high_res"] > 0).any())
                torch.testing.assert_close(
                    ours[i : i + 1], answer["pred_masks"], atol=1e-3, rtol=1e-3
                )
                if lost:  # from here on ours is helped
                    break


def test_an_episode_is_answered_alike_alone_and_among_others() -> None:
    network = untrained_sam2(small_config(), 2)
    batch = [e for e in episodes(60) if e.start is None][:4]
    assert {e.box is None for e in batch} == {True, False}
    together, alone = recorder(network), recorder(network)
    with torch.inference_mode():
        together._run(batch, np.random.default_rng(0))
        walks = [logits for kind, logits in together.kept if kind == "walk"]
        for i, episode in enumerate(batch):
            alone.kept = []
            alone._run([episode], np.random.default_rng(0))
            ours = [logits for kind, logits in alone.kept if kind == "walk"]
            torch.testing.assert_close(walks[0][i : i + 1], ours[0], atol=1e-3, rtol=1e-3)


def test_a_lost_walk_goes_on_from_the_truth() -> None:
    """The memory of a slice where all was lost is made anew, those of others are kept."""
    model = task(seed=1).eval()
    network = model.network
    episode = next(e for e in episodes(20) if bool((e.walk_truth[0] > 0.5).any()))
    truth = episode.walk_truth[:1]
    frame = encoded_slices(network, [episode] * 2, COLOURS_HU)["walk 0"]
    empty = model._mask_memory(frame, torch.zeros_like(truth).expand(2, -1, -1))
    again = model._found_again(
        empty,
        frame,
        truth.expand(2, -1, -1),
        torch.tensor([False, True]),
        np.random.default_rng(0),
    )
    assert torch.equal(again["obj_ptr"][0], empty["obj_ptr"][0])
    assert torch.equal(again["maskmem_features"][0], empty["maskmem_features"][0])
    assert not torch.allclose(again["maskmem_features"][1], empty["maskmem_features"][1])


@pytest.mark.slow
def test_it_learns() -> None:
    model = task(seed=5)
    model.train()
    batch = episodes(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for step in range(12):
        scores = model._run(batch, np.random.default_rng(step))
        optimizer.zero_grad()
        scores.loss().backward()
        optimizer.step()
        losses.append(float(scores.loss().detach()))
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
