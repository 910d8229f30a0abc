import pytest
import yaml

from napari_lungfm._core.exceptions import ConfigError, InputFileError
from napari_lungfm.training.finetune.config import (
    is_fine_tuning,
    load_fine_tuning,
    parse_fine_tuning,
    shipped_fine_tunings,
)


def test_shipped_configurations_are_whole_and_come_back_from_yaml(tmp_path):
    assert {"medsam-box", "medsam-point", "lungfm-s-finetune"} <= set(shipped_fine_tunings())
    for name in shipped_fine_tunings():
        config = load_fine_tuning(name)
        assert config.summary
        (tmp_path / "again.yaml").write_text(config.to_yaml())
        assert load_fine_tuning(tmp_path / "again.yaml") == config
        assert is_fine_tuning(name)
        assert is_fine_tuning(tmp_path / "again.yaml")


def test_the_defaults_are_the_publishers():
    config = load_fine_tuning("medsam-box")
    recipe = config.recipe
    assert (recipe.learning_rate, recipe.weight_decay, recipe.jitter) == (1e-4, 0.01, 20)
    assert (recipe.batch_size, recipe.least_pixels, recipe.train_encoder) == (2, 100, True)
    assert config.fit_settings().epochs == 1000
    assert config.fit_settings().clip_gradients is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fraction": 0}, "fraction: 0 % of the patients is zero-shot: nothing is trained"),
        ({"fraction": 120}, "fraction: "),
        ({"recipe": {"name": "other"}}, "recipe: .*'other'"),
        ({"recipe": {"name": "medsam", "walk": 3}}, "recipe.medsam.walk: Extra inputs"),
        ({"prompts": "lasso"}, "prompts: "),
        ({"window": "bright"}, "window: there is no window 'bright'"),
        ({"validation": 0, "keep": "best"}, "set validation above 0"),
        ({"validation": 0, "fit": {"early_stopping": 2}}, "set validation above 0"),
        ({"structures": ["kidney"]}, "there is no structure 'kidney'"),
        ({"postprocessing": ["largest-components"]}, "promptable models have none"),
        ({"fit": {"epochs": 3}}, "fit.epochs: Extra inputs"),
        ({"bases": "x"}, "bases: Extra inputs"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_key(tiny_values, changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_fine_tuning({**tiny_values, **changes})


def test_other_trainings_are_no_fine_tunings(tmp_path):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"kind": "automatic"}))
    (tmp_path / "y.yaml").write_text("a: [")
    assert not any(map(is_fine_tuning, (tmp_path / "x.yaml", tmp_path / "y.yaml", "unet")))
    with pytest.raises(InputFileError, match=r"no fine-tuning .unet.*medsam-box"):
        load_fine_tuning("unet")


def test_a_cohort_can_be_given_beside_it(tmp_path):
    path = tmp_path / "cohort.yaml"
    path.write_text(yaml.safe_dump({"kind": "phantom", "name": "p", "n_test": 1, "n_train": 2}))
    config = load_fine_tuning("medsam-box", path)
    assert config.cohort is not None
    assert config.cohort.name == "p"
    assert "cohort" not in str(config.decided_by()["configuration"].keys())
