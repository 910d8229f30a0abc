"""How LungFM-S learns from episodes."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from napari_lungfm._core.seeding import generator, stable_hash
from napari_lungfm.models.lungfm.look import Look
from napari_lungfm.models.lungfm.network import NetworkConfig, PromptNetwork
from napari_lungfm.models.lungfm.window import spots
from napari_lungfm.training.lightning_import import pl
from napari_lungfm.training.promptable.episodes import Episode, inexact
from napari_lungfm.training.promptable.losses import iou, mask_loss
from napari_lungfm.training.synthetic.clips import SIDE

#: Weights of "is it there" and of the estimated IoU beside the mask's loss.
PRESENCE_WEIGHT, QUALITY_WEIGHT = 0.5, 0.5


class PromptTask(pl.LightningModule):
    """Trains a `PromptNetwork`: prompts, walks and corrections in every step.

    Predictions become the priors of the next looks without gradients, as they do in use.

    Parameters
    ----------
    network
        Sizes of the network.
    seed
        Of the first weights, and of the draws in every step.
    steps
        Optimiser steps of the whole training; the learning rate ends at zero there.
    learning_rate, weight_decay
        Of AdamW.
    warm_up
        Steps until the full learning rate.
    lone_clicks
        Show every anchor slice a second time with one click alone.
    """

    def __init__(
        self,
        network: NetworkConfig,
        *,
        seed: int,
        steps: int,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.02,
        warm_up: int = 100,
        lone_clicks: bool = True,
    ) -> None:
        super().__init__()
        torch.manual_seed(stable_hash("weights of LungFM-S", seed) % 2**63)
        self._seed, self._lone_clicks = seed, lone_clicks
        self.network = PromptNetwork(network)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._steps, self._warm_up = steps, warm_up
        self._learning_rate, self._weight_decay = learning_rate, weight_decay

    def configure_optimizers(self) -> Any:
        """AdamW without decay of biases and norms; linear warm-up, then half a cosine."""
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self._weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self._learning_rate, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        if step < self._warm_up:
            return (step + 1) / self._warm_up
        done = (step - self._warm_up) / max(1, self._steps - self._warm_up)
        return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))

    def training_step(self, episodes: list[Episode], number: int) -> Tensor:
        """Return the mean loss of all looks of a batch."""
        scores = self._run(episodes, generator("looks", self._seed, self.global_step))
        loss = scores.loss()
        values = {f"train/{name}": value for name, value in scores.metrics().items()}
        values["train/loss"] = loss.detach()
        self.log_dict(values, on_step=True, on_epoch=True, batch_size=len(episodes))
        return loss

    def validation_step(self, episodes: list[Episode], number: int) -> None:
        """Log the scores of a batch."""
        scores = self._run(episodes, generator("looks", "validation", number))
        values = {f"validation/{name}": value for name, value in scores.metrics().items()}
        values["validation/loss"] = scores.loss()
        self.log_dict(values, batch_size=len(episodes))

    def transfer_batch_to_device(
        self, batch: list[Episode], device: torch.device, dataloader_idx: int
    ) -> list[Episode]:
        """Move the images of all episodes."""
        return [episode.to(device) for episode in batch]

    # ------------------------------------------------------------------ one batch
    def _run(self, episodes: list[Episode], rng: np.random.Generator) -> "_Scores":
        scores = _Scores()
        corrected = int(rng.integers(1 + episodes[0].walk_truth.shape[0]))
        first = [_anchor_look(e) for e in episodes]
        truth = torch.stack([e.truth for e in episodes])
        logits = self._ask(first, truth, "prompt", scores, None)
        if self._lone_clicks:
            lone = torch.stack([e.lone_truth for e in episodes])
            self._ask([_lone_look(e) for e in episodes], lone, "click", scores, None)
        if corrected == 0:
            self._correct(first, logits, truth, rng, scores)
        priors, anchors = _starts(episodes, logits)
        for k in range(episodes[0].walk_truth.shape[0]):
            looks = [
                _walk_look(e, k, prior, anchor)
                for e, prior, anchor in zip(episodes, priors, anchors, strict=True)
            ]
            truth = torch.stack([e.walk_truth[k] for e in episodes])
            weights = torch.tensor(
                [
                    float(e.walk_valid[k] and bool(prior.any()))
                    for e, prior in zip(episodes, priors, strict=True)
                ],
                device=truth.device,
            )
            logits = self._ask(looks, truth, "walk", scores, weights)
            if corrected == k + 1:
                self._correct(looks, logits, truth, rng, scores)
            priors = [
                _next_prior(e, k, found, rng)
                for e, found in zip(episodes, (logits > 0).float(), strict=True)
            ]
        return scores

    def _ask(
        self,
        looks: list[Look],
        truth: Tensor,
        kind: str,
        scores: "_Scores",
        weights: Tensor | None,
    ) -> Tensor:
        """Ask the network, add what it says to the scores, return logits without gradients."""
        channels = torch.stack([look.channels() for look in looks])
        channels = channels.contiguous(memory_format=torch.channels_last)
        answers: tuple[Tensor, Tensor, Tensor] = self.network(channels)
        logits, presence, quality = (answer.float() for answer in answers)
        scores.add(kind, logits, presence, quality, truth, weights)
        return logits.detach()

    def _correct(
        self,
        looks: list[Look],
        logits: Tensor,
        truth: Tensor,
        rng: np.random.Generator,
        scores: "_Scores",
    ) -> None:
        """Click into the largest errors and ask again, twice."""
        current = [
            replace(look, prior=(found > 0).float(), prior_kind="same")
            for look, found in zip(looks, logits, strict=True)
        ]
        present = truth.amax(dim=(1, 2)) > 0.5
        latest = logits
        for kind in ("correction", "second correction"):
            current = [
                _clicked(look, found > 0, wanted > 0.5, rng)
                for look, found, wanted in zip(current, latest, truth, strict=True)
            ]
            latest = self._ask(current, truth, kind, scores, present.float())
            if rng.random() < 0.5:
                return


class _Scores:
    """Losses and overlaps of the looks of one batch."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._dice: dict[str, list[Tensor]] = {}

    def add(
        self,
        kind: str,
        logits: Tensor,
        presence: Tensor,
        quality: Tensor,
        truth: Tensor,
        weights: Tensor | None,
    ) -> None:
        """Add looks; those of weight 0 do not count."""
        present = (truth.amax(dim=(1, 2)) > 0.5).float()
        overlap = iou(logits, truth)
        losses = mask_loss(logits, truth)
        losses = losses + PRESENCE_WEIGHT * functional.binary_cross_entropy_with_logits(
            presence, present, reduction="none"
        )
        losses = losses + QUALITY_WEIGHT * (quality - overlap).square()
        weights = torch.ones_like(losses) if weights is None else weights
        self._losses.append(losses)
        self._weights.append(weights)
        counted = (weights > 0) & (present > 0)
        self._dice.setdefault(kind, []).append((2 * overlap / (1 + overlap))[counted])
        if kind == "walk":
            right = ((presence > 0).float() == present).float()[weights > 0]
            self._dice.setdefault("presence", []).append(right)

    def loss(self) -> Tensor:
        """Return the mean over all looks that count."""
        losses, weights = torch.cat(self._losses), torch.cat(self._weights)
        mean: Tensor = (losses * weights).sum() / weights.sum().clamp(min=1)
        return mean

    def metrics(self) -> dict[str, Tensor]:
        """Return mean Dice by kind of look, and how often presence was told rightly."""
        joined = {kind: torch.cat(values) for kind, values in self._dice.items()}
        return {
            kind.replace(" ", "_"): values.mean() for kind, values in joined.items() if len(values)
        }


def _anchor_look(episode: Episode) -> Look:
    return Look(
        planes=episode.planes,
        step=episode.step,
        side_mm=episode.side_mm,
        box=episode.box,
        clicks=episode.clicks,
    )


def _lone_look(episode: Episode) -> Look:
    return Look(
        planes=episode.lone_planes,
        step=episode.lone_step,
        side_mm=episode.lone_side_mm,
        clicks=episode.lone_clicks,
    )


def _starts(episodes: Iterable[Episode], logits: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return what is known before the walks, and the mask on the anchor in the walks' windows."""
    priors, anchors = [], []
    for episode, found in zip(episodes, logits, strict=True):
        mask = episode.window.back(found[None], (SIDE, SIDE), -10.0) > 0
        mask = episode.walk_window.look(mask.float(), 0.0)[0]
        if not bool((mask > 0.5).any()):  # a walk needs something to begin with
            mask = episode.anchor_truth
        anchors.append(mask)
        priors.append(mask if episode.start is None else episode.start)
    return priors, anchors


def _walk_look(episode: Episode, k: int, prior: Tensor, anchor: Tensor) -> Look:
    return Look(
        planes=episode.walk_planes[k],
        step=episode.walk_step,
        side_mm=episode.walk_side_mm,
        anchor=torch.stack([episode.anchor_plane, anchor]),
        anchor_distance=episode.walk_distance[k],
        prior=prior,
        prior_kind=episode.kind if episode.start is not None else "beside",
    )


def _next_prior(episode: Episode, k: int, found: Tensor, rng: np.random.Generator) -> Tensor:
    """Return what the next look knows: what was found, or the truth where all was lost."""
    truth = episode.walk_truth[k]
    if not bool((truth > 0.5).any()):
        return torch.zeros_like(truth)  # the walk has ended
    if episode.start is not None and episode.kind == "between":
        following = min(k + 1, episode.walk_truth.shape[0] - 1)
        wanted = episode.walk_truth[following]
        return inexact(wanted if bool((wanted > 0.5).any()) else truth, rng)
    if bool(found.any()):
        return found
    return inexact(truth, rng)


def _clicked(look: Look, found: Tensor, wanted: Tensor, rng: np.random.Generator) -> Look:
    """Add a click in the middle, or anywhere, of the largest error."""
    missed, extra = (wanted & ~found).cpu().numpy(), (found & ~wanted).cpu().numpy()
    positive = missed.sum() >= extra.sum()
    region = missed if positive else extra
    clicks = look.clicks
    if clicks is None:
        clicks = look.planes.new_zeros((2, *look.planes.shape[1:]))
    if region.any():
        parts, _ = ndimage.label(region)
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        depth = ndimage.distance_transform_edt(parts == int(np.argmax(sizes)))
        inside = np.argwhere(depth >= (0.9 if rng.random() < 0.7 else 0.01) * depth.max())
        y, x = inside[int(rng.integers(len(inside)))]
        spot = spots([(float(y) + 0.5, float(x) + 0.5)], look.planes)
        clicks = clicks.clone()
        channel = 0 if positive else 1
        clicks[channel] = torch.maximum(clicks[channel], spot)
    return replace(look, clicks=clicks)
