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
        ({"recipe": {"name": "medsam", "walk": 3}}, "recipe has no key 'walk'"),
        ({"prompts": "lasso"}, "prompts: "),
        ({"window": "bright"}, "window: there is no window 'bright'"),
        ({"validation": 0, "keep": "best"}, "set validation above 0"),
        ({"validation": 0, "fit": {"early_stopping": 2}}, "set validation above 0"),
        ({"structures": ["kidney"]}, "there is no structure 'kidney'"),
        ({"postprocessing": ["largest-components"]}, "promptable models have none"),
        ({"fit": {"epochs": 3}}, "fit has no key 'epochs'"),
        ({"bases": "x"}, "there is no key 'bases'; did you mean 'base'"),
        ({"seed": -1}, "seed: "),
        ({"validation_prompts": ["one-slice"] * 2}, "validation_prompts: .* each once"),
        (
            {"prompts": "point", "recipe": {"name": "medsam", "jitter": 5}},
            "jitter: moves the sides",
        ),
        ({"recipe": {"name": "ours", "encoder": "adapters", "rank": 5000}}, "rank: "),
        ({"recipe": {"name": "medsam", "learning_rate": float("inf")}}, "learning_rate: .*finite"),
        ({"recipe": {"name": "medsam", "weight_decay": -0.1}}, "weight_decay: "),
        ({"recipe": {"name": "medsam", "jitter": -1}}, "jitter: "),
        ({"recipe": {"name": "medsam", "clip_gradients": float("inf")}}, "clip_gradients: .*fin"),
        ({"recipe": {"name": "lungfm", "warm_up": -1}}, "warm_up: "),
        ({"recipe": {"name": "lungfm", "weight_decay": float("inf")}}, "weight_decay: .*finite"),
        ({"recipe": {"name": "lungfm", "clip": 3}}, "walk: 4 slices .* clip is 3"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_key(tiny_values, changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_fine_tuning({**tiny_values, **changes})


@pytest.mark.parametrize(
    ("batch", "accumulate", "devices", "shares"),
    [
        (2, 1, 1, (2, 1)),
        (2, 4, 1, (2, 4)),
        (8, 1, 2, (4, 1)),
        (8, 2, 2, (4, 2)),
        (1, 2, 2, (1, 1)),
        (1, 8, 2, (1, 4)),
        (3, 2, 2, (1, 3)),
    ],
)
def test_a_step_has_as_many_samples_on_any_number_of_devices(
    tiny_values, batch, accumulate, devices, shares
):
    recipe = {**tiny_values["recipe"], "batch_size": batch}
    config = parse_fine_tuning(
        {**tiny_values, "recipe": recipe, "accumulate": accumulate, "fit": {"devices": devices}}
    )
    assert config.shares(devices) == shares
    assert shares[0] * shares[1] * devices == batch * accumulate


def test_room_for_features_decides_nothing(tiny_values):
    def decided(**recipe):
        values = {**tiny_values, "recipe": {"name": "zhu", **recipe}}
        return parse_fine_tuning(values).decided_by()

    assert decided() == decided(feature_mb=5, feature_disk_gb=0)
    assert decided() != decided(feature_precision="float16")


def test_patients_are_validated_in_the_ways_that_the_recipe_trains(tiny_values):
    def ways(**values):
        return parse_fine_tuning({**tiny_values, **values}).ways_to_validate

    assert ways() == ("every-slice",)
    assert ways(recipe={"name": "ours"}) == ("every-slice", "one-slice")
    assert ways(recipe={"name": "ours"}, validation_prompts=["one-slice"]) == ("one-slice",)
    assert ways(recipe={"name": "ours"}, validation_prompts=[]) == ()


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
