"""LungFM-S on clips of a cohort: the same episodes that it learnt from, of real cases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm._core.seeding import generator
from napari_lungfm.models.lungfm.look import AIR_HU
from napari_lungfm.models.lungfm.network import PromptNetwork
from napari_lungfm.models.lungfm.window import Window
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.config import FineTuning, PromptKind
from napari_lungfm.training.finetune.recipe import LungFMRecipe
from napari_lungfm.training.finetune.samples import FineTuneClip
from napari_lungfm.training.finetune.task import FineTuneTask
from napari_lungfm.training.promptable.episodes import Episode, augmented, draw_episode
from napari_lungfm.training.promptable.task import PromptTask
from napari_lungfm.training.synthetic import Clip
from napari_lungfm.training.synthetic.clips import SIDE

#: Side of a clip as a multiple of its object: least and most; as in the training of the base.
_MARGIN = (2.0, 2.8)
#: Looks whose Dice is what the validation is about.
_COUNTED = ("prompt", "click", "walk")
#: Draws until an episode has the wanted kind of prompt; boxes come up in seven of ten.
_TRIES = 200


@dataclass(frozen=True)
class EpisodePreparation:
    """Makes episodes of clips.

    Parameters
    ----------
    prompts
        Kind of prompt; ``"mixed"`` is what LungFM-S itself was trained with.
    walk
        Slices of every walk.
    """

    prompts: PromptKind
    walk: int

    def __call__(self, clip: FineTuneClip, rng: np.random.Generator) -> Episode:
        """Return an episode of a clip."""
        seen = augmented(central_clip(clip, rng), rng)
        for _ in range(_TRIES):
            episode = draw_episode(seen, rng, self.walk)
            if self.prompts == "mixed" or (episode.box is not None) == (self.prompts == "box"):
                return episode
        msg = f"case '{clip.case}': no episode with a {self.prompts} came up in {_TRIES} draws"
        raise RuntimeError(msg)


def central_clip(clip: FineTuneClip, rng: np.random.Generator) -> Clip:
    """Cut a clip around its object, to the size that episodes are drawn from.

    Large objects are seen more coarsely, as LungFM-S sees them after zooming.
    """
    rows, columns = (np.flatnonzero(clip.mask.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    extent = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
    side = max(float(SIDE), extent * float(rng.uniform(*_MARGIN)))
    y, x = ((each[0] + each[-1] + 1) / 2 + rng.normal(0.0, 0.05) * side for each in (rows, columns))
    window = Window.around(y, x, side)
    image = window.look(torch.from_numpy(clip.image), AIR_HU).numpy()
    cover = window.look(torch.from_numpy(clip.mask).float(), 0.0).numpy()
    mask = cover > 0.5
    z_mm, y_mm, x_mm = clip.spacing
    scale = window.side / SIDE
    return Clip(
        image=np.rint(image).astype(np.int16),
        mask=mask if mask.any() else cover >= cover.max(),
        spacing=(z_mm, y_mm * scale, x_mm * scale),
        source="phantom",
    )


class LungFMTask(PromptTask, FineTuneTask):
    """Trains LungFM-S on a cohort.

    Parameters
    ----------
    base
        The network that it begins as.
    recipe
        How.
    prompts
        What it is prompted with.
    seed
        Of the draws in every step.
    steps
        Optimiser steps of the whole training; the learning rate ends at zero there.
    """

    def __init__(
        self, base: BaseNetwork, recipe: LungFMRecipe, prompts: PromptKind, seed: int, steps: int
    ) -> None:
        network = cast("PromptNetwork", base.network)
        super().__init__(
            network.config,
            seed=seed,
            steps=steps,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            warm_up=recipe.warm_up,
            lone_clicks=prompts != "box",
        )
        self.network.load_state_dict(network.state_dict())
        self.prepare = EpisodePreparation(prompts, recipe.walk)

    def validation_step(self, episodes: list[Episode], number: int) -> None:
        """Log the scores of a batch, and the mean Dice over prompted slices and walks."""
        scores = self._run(episodes, generator("looks", "validation", number))
        metrics = scores.metrics()
        values = {f"validation/{name}": value for name, value in metrics.items()}
        values["validation/loss"] = scores.loss()
        counted = [metrics[name] for name in _COUNTED if name in metrics]
        if counted:
            values["validation/dice"] = torch.stack(counted).mean()
        self.log_dict(values, batch_size=len(episodes), sync_dist=True)

    def result_state(self) -> Mapping[str, Tensor]:
        """Return the state dict of the network."""
        return self.network.state_dict()


def make_task(config: FineTuning, base: BaseNetwork, steps: int) -> LungFMTask:
    """Make the task of a configuration."""
    recipe = config.recipe
    if not isinstance(recipe, LungFMRecipe):
        msg = f"recipe: '{recipe.name}' is not LungFM-S's"
        raise ConfigError(msg)
    return LungFMTask(base, recipe, config.prompts, config.seed, steps)
