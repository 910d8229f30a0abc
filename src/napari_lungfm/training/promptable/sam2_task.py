"""How a SAM 2 network learns from the episodes that LungFM-S learns from.

The network is a stock ``SAM2Base``, from random weights or from a publisher's, and its own methods
do the work. An episode is answered as the rival design answers it, so that scores compare:

- The prompt is asked on the anchor slice, in the prompt's window.
- The walk is seen in its own window, all slices of it alike. What was found on the anchor enters
  there as a mask prompt, and makes the memory of a prompted slice. Where both windows are the same
  (``one_window`` of `episodes.draw_episode`) the prompted look itself makes that memory, as in the
  publishers' predictor.
- Where a walk begins away from the anchor, its inexact mask enters as a mask prompt on the slice
  before it, and counts as a tracked slice.
- Corrections are clicks on one slice, with the logits before them; they do not enter memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional

from napari_lungfm._core.seeding import stable_hash
from napari_lungfm.models.foundation.sam2_build import build_sam2, with_image_size
from napari_lungfm.models.foundation.sam2_engine import LOGIT_BOUND
from napari_lungfm.models.foundation.sam2_prompts import PointInputs
from napari_lungfm.models.lungfm.window import resized
from napari_lungfm.training.promptable.episode_task import EpisodeTask
from napari_lungfm.training.promptable.episodes import Episode, inexact
from napari_lungfm.training.promptable.sam2_episodes import (
    COLOURS_HU,
    Frame,
    click_inputs,
    encoded_slices,
    joined_points,
    jump_of,
    prompt_inputs,
)
from napari_lungfm.training.promptable.scores import MultimaskScores
from napari_lungfm.training.promptable.walks import walk_starts

#: First logit of "an object is there" of a network from random weights. A stock network blanks
#: masks that it holds to be absent, so one that begins undecided would track nothing.
_FIRST_PRESENCE = 2.0
#: Slices of a walk's volume as the stock code is told; it only ends searches there.
_MANY = 10_000


def small_config(image_size: int | None = None) -> dict[str, Any]:
    """Return the configuration of the small SAM 2 of this package, for `build_sam2`.

    Parameters
    ----------
    image_size
        Side of the input in pixels, if another than its own 128.

    Raises
    ------
    ConfigError
        If the size does not fit the network.
    """
    file = files("napari_lungfm.models.foundation") / "configs" / "lungfm-sam2-small.yaml"
    config: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))["model"]
    return config if image_size is None else with_image_size(config, image_size)


def untrained_sam2(config: Mapping[str, Any], seed: int) -> Any:
    """Build a network with seeded random weights, ready to be trained.

    Parameters
    ----------
    config
        See `models.foundation.sam2_build.build_sam2`.
    seed
        Seed of the weights.
    """
    torch.manual_seed(stable_hash("weights of SAM 2", seed) % 2**63)
    network: Any = build_sam2(config)
    if network.pred_obj_scores:
        head = network.sam_mask_decoder.pred_obj_score_head
        torch.nn.init.constant_(getattr(head, "layers", [head])[-1].bias, _FIRST_PRESENCE)
    return network


class Sam2Task(EpisodeTask):
    """Trains a SAM 2 network: prompts, walks with memory and corrections in every step.

    It logs what `PromptTask` logs. Losses are those of SAM 2's training in kind: of several masks
    the best one learns, every estimated IoU, and the object score; masks and IoU only where the
    object is. Other than there, masks learn before the object score blanks them.

    Parameters
    ----------
    network
        A ``SAM2Base`` with object scores and pointers, such as `build_sam2` returns.
    seed
        Of the draws in every step.
    steps
        Optimiser steps of the whole training; the learning rate ends at zero there.
    learning_rate, weight_decay
        Of AdamW.
    warm_up
        Steps until the full learning rate.
    colours
        HU that become 0 and 1 in the three input channels, which are then normalised as the
        publishers' images are.
    """

    def __init__(
        self,
        network: Any,
        *,
        seed: int,
        steps: int,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.02,
        warm_up: int = 100,
        colours: Sequence[tuple[float, float]] = COLOURS_HU,
    ) -> None:
        super().__init__(
            network,
            seed=seed,
            steps=steps,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warm_up=warm_up,
        )
        self._colours, self._size = colours, int(network.image_size)
        self._decoded: Tensor | None = None
        network.sam_mask_decoder.register_forward_hook(self._keep_masks)

    # ------------------------------------------------------------------ one batch
    def _run(self, episodes: list[Episode], rng: np.random.Generator) -> MultimaskScores:
        scores = MultimaskScores()
        corrected = int(rng.integers(1 + episodes[0].walk_truth.shape[0]))
        seen = encoded_slices(self.network, episodes, self._colours)
        asked = self._prompt(episodes, seen["prompt"], corrected == 0, rng, scores)
        priors, anchors = (torch.stack(masks) for masks in walk_starts(episodes, asked.logits))
        begun = [episode.start is not None for episode in episodes]
        for jumped in (False, True):
            members = [i for i, b in enumerate(begun) if b == jumped]
            if not members:
                continue
            group = _Walk(
                [episodes[i] for i in members],
                {name: frame.pick(members) for name, frame in seen.items() if name != "start"},
            )
            distance = 0
            if "anchor" in group.seen:
                anchor = self._mask_memory(group.seen["anchor"], anchors[members])
            else:
                anchor = self._memory(group.seen["prompt"], asked.pick(members), prompted=True)
            tracked: dict[int, _Memory] = {}
            if jumped:
                # One number for all, which only the positions of the object pointers tell.
                distance = int(np.median([jump_of(episode) for episode in group.episodes]))
                tracked[distance] = self._mask_memory(seen["start"], priors[members])
            outputs = {"cond_frame_outputs": {0: anchor}, "non_cond_frame_outputs": tracked}
            self._walk(group, outputs, distance, corrected, rng, scores)
        return scores

    def _prompt(
        self,
        episodes: list[Episode],
        frame: Frame,
        correct: bool,
        rng: np.random.Generator,
        scores: MultimaskScores,
    ) -> "_Answer":
        """Ask for the anchors; clicks alone and boxes apart, for they get other masks."""
        order: list[int] = []
        answers: list[_Answer] = []
        for boxed in (False, True):
            members = [i for i, e in enumerate(episodes) if (e.box is not None) == boxed]
            if not members:
                continue
            chosen = [episodes[i] for i in members]
            part = frame.pick(members)
            points = prompt_inputs(chosen, self._size)
            truth = torch.stack([episode.truth for episode in chosen])
            answer = self._look(part, truth, "prompt", scores, points=points)
            if correct:
                self._correct_sam2(part, answer, truth, rng, scores, points)
            order += members
            answers.append(answer)
        return _Answer.joined(answers).pick(np.argsort(order).tolist())

    def _walk(
        self,
        group: "_Walk",
        outputs: dict[str, dict[int, "_Memory"]],
        known: int,
        corrected: int,
        rng: np.random.Generator,
        scores: MultimaskScores,
    ) -> None:
        before = torch.ones(len(group.episodes), dtype=torch.bool, device=self.device)
        for k in range(group.episodes[0].walk_truth.shape[0]):
            frame = group.seen[f"walk {k}"]
            truth = torch.stack([episode.walk_truth[k] for episode in group.episodes])
            there = (truth > 0.5).flatten(1).any(dim=1)
            valid = torch.tensor([e.walk_valid[k] for e in group.episodes], device=self.device)
            number = known + 1 + k
            weights = (valid & before).float()  # a walk has ended after the first empty slice
            answer = self._look(
                frame, truth, "walk", scores, weights=weights, number=number, outputs=outputs
            )
            if corrected == k + 1:
                self._correct_sam2(frame, answer, truth, rng, scores, None)
            memory = self._memory(frame, answer, prompted=False)
            lost = there & ~(answer.high > 0).flatten(1).any(dim=1)
            if bool(lost.any()):
                memory = self._found_again(memory, frame, truth, lost, rng)
            outputs["non_cond_frame_outputs"][number] = memory
            before = there

    def _found_again(
        self,
        memory: "_Memory",
        frame: Frame,
        truth: Tensor,
        lost: Tensor,
        rng: np.random.Generator,
    ) -> "_Memory":
        """Where all was lost a walk goes on from the truth, made inexact, as in `PromptTask`."""
        members = lost.nonzero()[:, 0]
        masks = torch.stack([inexact(truth[i].cpu(), rng) for i in members.tolist()])
        again = self._mask_memory(frame.pick(members.tolist()), masks.to(truth.device))
        return {
            "maskmem_pos_enc": memory["maskmem_pos_enc"],
            **{
                name: memory[name].index_copy(0, members, again[name].to(memory[name].dtype))
                for name in ("maskmem_features", "obj_ptr")
            },
        }

    def _correct_sam2(
        self,
        frame: Frame,
        answer: "_Answer",
        truth: Tensor,
        rng: np.random.Generator,
        scores: MultimaskScores,
        points: PointInputs | None,
    ) -> None:
        """Click into the largest errors and ask again, twice, like `PromptTask`."""
        present = (truth > 0.5).flatten(1).any(dim=1).float()
        first, latest = points is not None, answer
        for kind in ("correction", "second correction"):
            clicks = click_inputs(latest.logits > 0, truth > 0.5, rng, self._size)
            points = joined_points(points, clicks)
            output = self.network._forward_sam_heads(
                backbone_features=answer.pixels,
                point_inputs=points,
                mask_inputs=latest.low.clamp(-LOGIT_BOUND, LOGIT_BOUND),
                high_res_features=frame.fine(),
                multimask_output=self.network._use_multimask(first, points),
            )
            latest = self._scored(output, answer.pixels, truth, kind, scores, present)
            if rng.random() < 0.5:
                return

    # ------------------------------------------------------------------ one look
    def _look(
        self,
        frame: Frame,
        truth: Tensor,
        kind: str,
        scores: MultimaskScores,
        *,
        points: PointInputs | None = None,
        weights: Tensor | None = None,
        number: int = 0,
        outputs: Mapping[str, Mapping[int, "_Memory"]] | None = None,
    ) -> "_Answer":
        output, pixels = self._track(frame, number, points=points, outputs=outputs)
        weights = truth.new_ones(len(truth)) if weights is None else weights
        return self._scored(output, pixels, truth, kind, scores, weights)

    def _track(
        self,
        frame: Frame,
        number: int = 0,
        *,
        points: PointInputs | None = None,
        mask: Tensor | None = None,
        outputs: Mapping[str, Mapping[int, "_Memory"]] | None = None,
    ) -> tuple[Any, Tensor]:
        _, output, _, pixels = self.network._track_step(
            frame_idx=number,
            is_init_cond_frame=outputs is None,
            current_vision_feats=frame.maps,
            current_vision_pos_embeds=frame.positions,
            feat_sizes=frame.sizes,
            point_inputs=points,
            mask_inputs=mask,
            output_dict=outputs,
            num_frames=_MANY,
            track_in_reverse=False,  # episodes on the way down are told as those on the way up
            prev_sam_mask_logits=None,
        )
        return output, pixels

    def _scored(
        self,
        output: Any,
        pixels: Tensor,
        truth: Tensor,
        kind: str,
        scores: MultimaskScores,
        weights: Tensor,
    ) -> "_Answer":
        """Add what the heads say to the scores, and return it."""
        masks, self._decoded = self._decoded, None
        if masks is None:
            msg = "the mask decoder was not asked"
            raise RuntimeError(msg)
        _, _, ious, low, high, pointer, score = output
        looks = functional.interpolate(
            masks.float(), size=truth.shape[1:], mode="bilinear", align_corners=False
        )
        chosen = ious.argmax(dim=1)
        scores.add_masks(kind, looks, score.float()[:, 0], ious.float(), chosen, truth, weights)
        logits = looks[torch.arange(len(looks)), chosen].detach()
        return _Answer(logits, low, high, pointer, score, pixels)

    def _memory(self, frame: Frame, answer: "_Answer", *, prompted: bool) -> "_Memory":
        features, positions = self.network._encode_new_memory(
            current_vision_feats=frame.maps,
            feat_sizes=frame.sizes,
            pred_masks_high_res=answer.high,
            object_score_logits=answer.score,
            is_mask_from_pts=prompted,
        )
        return {
            "maskmem_features": features,
            "maskmem_pos_enc": positions,
            "obj_ptr": answer.pointer,
        }

    def _mask_memory(self, frame: Frame, masks: Tensor) -> "_Memory":
        """Return the memory of slices whose masks ``(n, s, s)`` are given."""
        whole = (resized(masks, self._size) >= 0.5).float()[:, None]
        output, pixels = self._track(frame, mask=whole)
        _, _, _, low, high, pointer, score = output
        self._decoded = None  # these masks are nobody's answer
        answer = _Answer(masks, low, high, pointer, score, pixels)
        return self._memory(frame, answer, prompted=False)

    def _keep_masks(self, module: Any, arguments: Any, output: tuple[Tensor, ...]) -> None:
        self._decoded = output[0]


#: What the stock code reads of an earlier slice.
_Memory = dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Answer:
    """What was found on slices.

    ``logits`` are look pixels ``(n, s, s)`` without gradients, not blanked by the object score;
    ``low``, ``high``, ``pointer`` and ``score`` are what the stock code returns; ``pixels`` are
    the features with memory that corrections are made on.
    """

    logits: Tensor
    low: Tensor
    high: Tensor
    pointer: Tensor
    score: Tensor
    pixels: Tensor

    def pick(self, members: list[int]) -> "_Answer":
        return _Answer(*(getattr(self, field.name)[members] for field in fields(self)))

    @classmethod
    def joined(cls, answers: "list[_Answer]") -> "_Answer":
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(answer, name) for answer in answers]) for name in names))


@dataclass(frozen=True, eq=False)
class _Walk:
    """Episodes that walk together, and what is seen of them."""

    episodes: list[Episode]
    seen: dict[str, Frame]
