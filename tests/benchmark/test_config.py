import pytest
import yaml

from napari_lungfm._core.exceptions import ConfigError, InputFileError
from napari_lungfm.benchmark.config import load_config, parse_config
from napari_lungfm.benchmark.demo import demo_config
from napari_lungfm.geometry import Structure


def test_yaml_gives_the_same_configuration_back(make_config, tmp_path):
    config = make_config(seeds=[3, 4], structures=["left lung", "tumor"])
    file = tmp_path / "c.yaml"
    file.write_text(config.to_yaml())
    assert load_config(file) == config
    assert config.targets == (Structure.LEFT_LUNG, Structure.TUMOUR)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": []}, "methods"),
        ({"methods": [{"model": "nope", "protocols": ["box-one"]}]}, "no model 'nope'"),
        ({"methods": [{"model": "prompt-box", "protocols": ["box-two"]}]}, "box-two"),
        (
            {"methods": [{"model": "prompt-box", "protocols": ["box-one"], "options": {"a": 1}}]},
            "no option 'a'",
        ),
        ({"methods": [{"model": "prompt-box", "protocols": ["box-one"]}] * 2}, "more than once"),
        ({"structures": ["spleen"]}, "no structure 'spleen'"),
        ({"sedes": [1]}, "sedes"),
        ({"seeds": [0, 0]}, "more than once as seed: 0"),
        ({"structures": ["tumour", "tumor"]}, "more than once as structure: tumour"),
        ({"schema_version": 99}, "schema_version"),
        ({"cohorts": [{"kind": "astral", "name": "x"}]}, "astral"),
        ({"cohorts": [{"kind": "phantom", "name": "x", "n_test": 1, "kinds": ["x"]}]}, "kind 'x'"),
    ],
)
def test_wrong_configurations_are_explained(make_config, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make_config(**changes)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(InputFileError, match="No such file"):
        load_config(tmp_path / "no.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(bad)
    bad.write_text("- 1\n")
    with pytest.raises(ConfigError, match="holds no configuration"):
        load_config(bad)


def test_the_demo_takes_the_real_cases_that_are_there(tmp_path):
    assert [c.name for c in demo_config(None).cohorts] == ["phantoms"]
    assert [c.name for c in demo_config(tmp_path).cohorts] == ["phantoms"]
    (tmp_path / "deeplesion").mkdir()
    (tmp_path / "deeplesion" / "000009_ct.nii.gz").touch()
    real = demo_config(tmp_path).cohorts[1]
    assert [case.name for case in real.cases] == ["deeplesion-000009"]
    assert parse_config(yaml.safe_load(demo_config(tmp_path).to_yaml())) == demo_config(tmp_path)


def test_the_demo_trains_the_five_automatic_rows_of_the_paper(tmp_path):
    config = demo_config(None)
    methods = config.look_up(tmp_path)
    automatic = [method for method in methods if method.automatic]
    assert [method.model for method in automatic] == [
        "unet-small",
        "deeplabv3-small",
        "nnunet-2d-small",
        "nnunet-3d_lowres-small",
        "nnunet-3d_fullres-small",
    ]
    assert all(method.small and method.takes("phantoms") for method in automatic)
    assert not any(method.takes("real") for method in automatic)
    assert all(set(config.targets) <= set(method.structures) for method in automatic)
    assert len(config.cohorts[0].build(tmp_path).train) >= 5


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5])
def test_seeds_that_no_generator_takes_are_refused(make_config, seed):
    with pytest.raises(ConfigError, match="seeds"):
        parse_config({**make_config().model_dump(mode="json"), "seeds": [seed]})
    assert make_config(seeds=[2**32 - 1]).seeds == (2**32 - 1,)


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "..", "", " a", "a\nb"])
def test_names_of_cohorts_are_no_paths(make_config, name):
    values = make_config().model_dump(mode="json")
    values["cohorts"][0]["name"] = name
    with pytest.raises(ConfigError, match="is no name"):
        parse_config(values)
    phantoms = {"kind": "phantom", "name": name, "n_test": 1}
    with pytest.raises(ConfigError, match="is no name"):
        parse_config({**values, "cohorts": [phantoms]})
