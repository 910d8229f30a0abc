"""The recipes' values, and which combinations are refused."""

import pytest
from pydantic import ValidationError

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.config import parse_fine_tuning, shipped_fine_tunings
from napari_lungfm.training.finetune.recipe import MedSAMRecipe
from napari_lungfm.training.finetune.sam2 import make_task
from napari_lungfm.training.finetune.sam2.config import MaRecipe, OursRecipe, ZhuRecipe
from napari_lungfm.training.finetune.sam2.ma import MaTask
from napari_lungfm.training.finetune.sam2.ours import OursTask
from napari_lungfm.training.finetune.sam2.zhu import ZhuTask


def configured(recipe: dict[str, object]) -> object:
    return parse_fine_tuning({"name": "x", "base": "b", "kind": "finetune", "recipe": recipe})


def test_the_defaults_are_the_publishers() -> None:
    zhu, ma = ZhuRecipe(), MaRecipe()
    assert (zhu.clip, zhu.prompt_every, zhu.positive_weight) == (2, 2, 2.0)
    assert (zhu.learning_rate, zhu.memory_learning_rate) == (1e-4, 1e-8)
    assert (ma.clip, ma.batch_size, ma.epochs) == (8, 8, 75)
    assert (ma.learning_rate, ma.encoder_learning_rate, ma.layer_decay) == (5e-5, 3e-5, 0.9)
    assert (ma.weight_decay, ma.clip_gradients, ma.corrections) == (0.1, 0.1, 7)
    assert (ma.mask_prompts, ma.degrees, ma.shear) == (0.5, 25.0, 20.0)


def test_clips_without_a_slice_to_track_are_refused() -> None:
    with pytest.raises(ValidationError, match="left to track"):
        MaRecipe(clip=2)
    with pytest.raises(ValidationError, match="4 corrected"):
        MaRecipe(clip=3, corrected_slices=4)
    with pytest.raises(ValidationError, match="corrected_slices"):
        MaRecipe(corrected_slices=1)


def test_a_clip_of_one_slice_has_nothing_to_track() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        ZhuRecipe(clip=1)


@pytest.mark.parametrize(("name", "kind"), [("zhu", ZhuTask), ("ma", MaTask), ("ours", OursTask)])
def test_every_recipe_has_its_task(name: str, kind: type, base: BaseNetwork) -> None:
    config = configured({"name": name})
    assert type(make_task(config, base, 10)) is kind


def test_a_recipe_of_another_network_is_refused(base: BaseNetwork) -> None:
    config = configured({"name": MedSAMRecipe().name})
    with pytest.raises(ConfigError, match="none of SAM 2's"):
        make_task(config, base, 10)


def test_shipped_configurations_are_those_of_all_three() -> None:
    shipped = {name for name in shipped_fine_tunings() if name.startswith("medsam2-")}
    assert {"medsam2-zhu", "medsam2-ma", "medsam2-ours"} <= shipped
    assert OursRecipe().rank == 8
