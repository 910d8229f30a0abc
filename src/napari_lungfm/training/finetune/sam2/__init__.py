"""Three ways of fine-tuning SAM 2: two published recipes and one of our own."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_lungfm.training.finetune.base import BaseNetwork
    from napari_lungfm.training.finetune.config import FineTuning
    from napari_lungfm.training.finetune.task import FineTuneTask


def make_task(config: "FineTuning", base: "BaseNetwork", steps: int) -> "FineTuneTask":
    """Make the task of a configuration.

    Parameters
    ----------
    config
        The fine-tuning; its recipe is one of ``zhu``, ``ma`` and ``ours``.
    base
        The network that is fine-tuned.
    steps
        Optimiser steps of the whole fit.

    Raises
    ------
    ConfigError
        If the recipe is another one, or does not fit the network.
    """
    # Configurations are read without torch; it comes with the tasks.
    from napari_lungfm.training.finetune.sam2.make import task_of  # noqa: PLC0415

    return task_of(config, base, steps)
