"""How LungFM-S learns from episodes."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from napari_lungfm._core.seeding import stable_hash
from napari_lungfm.models.lungfm.look import Look
from napari_lungfm.models.lungfm.network import NetworkConfig, PromptNetwork
from napari_lungfm.training.promptable.corrections import clicked
from napari_lungfm.training.promptable.episode_task import EpisodeTask
from napari_lungfm.training.promptable.episodes import Episode
from napari_lungfm.training.promptable.scores import Scores
from napari_lungfm.training.promptable.walks import next_prior, walk_starts


class PromptTask(EpisodeTask):
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

    network: PromptNetwork

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
        torch.manual_seed(stable_hash("weights of LungFM-S", seed) % 2**63)
        built = PromptNetwork(network)
        built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(
            built,
            seed=seed,
            steps=steps,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warm_up=warm_up,
        )
        self._lone_clicks = lone_clicks

    # ------------------------------------------------------------------ one batch
    def _run(self, episodes: list[Episode], rng: np.random.Generator) -> Scores:
        scores = Scores()
        corrected = int(rng.integers(1 + episodes[0].walk_truth.shape[0]))
        first = [_anchor_look(e) for e in episodes]
        truth = torch.stack([e.truth for e in episodes])
        logits = self._ask(first, truth, "prompt", scores, None)
        if self._lone_clicks:
            lone = torch.stack([e.lone_truth for e in episodes])
            self._ask([_lone_look(e) for e in episodes], lone, "click", scores, None)
        if corrected == 0:
            self._correct(first, logits, truth, rng, scores)
        priors, anchors = walk_starts(episodes, logits)
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
                next_prior(e, k, found, rng)
                for e, found in zip(episodes, (logits > 0).float(), strict=True)
            ]
        return scores

    def _ask(
        self,
        looks: list[Look],
        truth: Tensor,
        kind: str,
        scores: Scores,
        weights: Tensor | None,
    ) -> Tensor:
        """Ask the network, add what it says to the scores, return logits without gradients.

        Looks of weight 0 are not asked about; their logits say that nothing is there.
        """
        asked = list(range(len(looks))) if weights is None else weights.nonzero()[:, 0].tolist()
        found = torch.full_like(truth, -10.0)
        if not asked:
            return found
        channels = torch.stack([looks[i].channels() for i in asked])
        channels = channels.contiguous(memory_format=torch.channels_last)
        answers: tuple[Tensor, Tensor, Tensor] = self.network(channels)
        logits, presence, quality = (answer.float() for answer in answers)
        scores.add(kind, logits, presence, quality, truth[asked], None)
        found[asked] = logits.detach()
        return found

    def _correct(
        self,
        looks: list[Look],
        logits: Tensor,
        truth: Tensor,
        rng: np.random.Generator,
        scores: Scores,
    ) -> None:
        """Click into the largest errors and ask again, up to twice.

        Where the object is not on the slice and something was found, a negative click says so.
        """
        current = [
            replace(look, prior=(found > 0).float(), prior_kind="same")
            for look, found in zip(looks, logits, strict=True)
        ]
        wrong = (truth.amax(dim=(1, 2)) > 0.5) | (logits.amax(dim=(1, 2)) > 0)
        latest = logits
        for kind in ("correction", "second correction"):
            current = [
                clicked(look, found > 0, wanted > 0.5, rng)
                for look, found, wanted in zip(current, latest, truth, strict=True)
            ]
            latest = self._ask(current, truth, kind, scores, wrong.float())
            if rng.random() < 0.5:
                return


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
