"""What is known of the object while a walk goes from slice to slice of an episode."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from napari_lungfm.training.promptable.episodes import Episode, inexact
from napari_lungfm.training.synthetic.clips import SIDE


def walk_starts(episodes: Iterable[Episode], logits: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return what is known before the walks, and the mask on the anchor in the walks' windows.

    Parameters
    ----------
    episodes
        The batch.
    logits
        What was found on the anchors, in the prompts' windows ``(n, s, s)``.

    Returns
    -------
    tuple of (list of Tensor, list of Tensor)
        Masks ``(s, s)``, 0 to 1: the first priors, and the anchors.
    """
    priors, anchors = [], []
    for episode, found in zip(episodes, logits, strict=True):
        mask = episode.window.back(found[None], (SIDE, SIDE), -10.0) > 0
        mask = episode.walk_window.look(mask.float(), 0.0)[0]
        if not bool((mask > 0.5).any()):  # a walk needs something to begin with
            mask = episode.anchor_truth
        anchors.append(mask)
        priors.append(mask if episode.start is None else episode.start)
    return priors, anchors


def next_prior(episode: Episode, k: int, found: Tensor, rng: np.random.Generator) -> Tensor:
    """Return what the next look knows: what was found, or the truth where all was lost.

    Parameters
    ----------
    episode
        The episode.
    k
        Number of the slice of the walk that was just seen.
    found
        The mask found there ``(s, s)``, 0 or 1.
    rng
        The draws.

    Returns
    -------
    Tensor
        A mask ``(s, s)``; if it is empty, the walk has ended.
    """
    truth = episode.walk_truth[k]
    if not bool((truth > 0.5).any()):
        # A walk that found nothing has ended; one that went on too far still has to.
        return found if episode.kind == "beside" else torch.zeros_like(truth)
    if episode.start is not None and episode.kind == "between":
        following = min(k + 1, episode.walk_truth.shape[0] - 1)
        wanted = episode.walk_truth[following]
        return inexact(wanted if bool((wanted > 0.5).any()) else truth, rng)
    if bool(found.any()):
        return found
    return inexact(truth, rng)
