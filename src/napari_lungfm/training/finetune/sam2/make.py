"""From a configuration to the task of its recipe."""

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.config import FineTuning
from napari_lungfm.training.finetune.sam2.config import MaRecipe, OursRecipe, ZhuRecipe
from napari_lungfm.training.finetune.sam2.ma import MaTask
from napari_lungfm.training.finetune.sam2.ours import OursTask
from napari_lungfm.training.finetune.sam2.task import Sam2FineTuneTask
from napari_lungfm.training.finetune.sam2.zhu import ZhuTask


def task_of(config: FineTuning, base: BaseNetwork, steps: int) -> Sam2FineTuneTask:
    """Make the task of a configuration; see `make_task` of the package.

    Raises
    ------
    ConfigError
        If the recipe is another one, or does not fit the network.
    """
    recipe, prompts, checkpoint = config.recipe, config.prompts, config.checkpoint_encoder
    if isinstance(recipe, ZhuRecipe):
        # There is nothing to compute twice: no gradients go through the encoder.
        return ZhuTask(base, recipe, prompts)
    if isinstance(recipe, MaRecipe):
        return MaTask(base, recipe, prompts, steps=steps, checkpoint_encoder=checkpoint)
    if isinstance(recipe, OursRecipe):
        return OursTask(base, recipe, prompts, steps=steps, checkpoint_encoder=checkpoint)
    msg = f"recipe: '{recipe.name}' is none of SAM 2's"
    raise ConfigError(msg)
