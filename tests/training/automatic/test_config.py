import pytest
import yaml

pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

from napari_lungfm._core.exceptions import ConfigError, InputFileError
from napari_lungfm.training.automatic.config import (
    load_training,
    parse_training,
    shipped_configs,
)

COHORT = {"kind": "phantom", "name": "p", "n_test": 1, "n_train": 2}


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_shipped_configurations_are_valid_and_survive_writing(name):
    training = load_training(name)
    assert training.summary
    narrow = getattr(training, "preset", None) == "small"
    assert training.small == (narrow or name.endswith("-small"))
    assert parse_training(yaml.safe_load(training.to_yaml())) == training


@pytest.mark.parametrize("name", ["unet-paper", "deeplabv3-paper"])
def test_the_papers_setting_is_the_papers(name):
    training = load_training(name)
    assert training.fit.epochs == 300
    assert training.optimiser.learning_rate == 1e-4
    assert training.optimiser.schedule == "constant"
    assert training.inputs.spacing == (3.0, 1.0, 1.0)
    assert training.inputs.neighbours == 0
    assert (training.augmentation, training.loss, training.keep) == (
        "none",
        "cross-entropy",
        "last",
    )
    assert training.fit.early_stopping is None
    assert training.postprocessing == ()
    assert training.structures == ("left lung", "right lung", "tumour")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3}, "epochs"),
        ({"network": {"architecture": "vnet"}}, "network"),
        ({"structures": ["liver"]}, "there is no structure 'liver'"),
        ({"structures": ["tumour", "tumor"]}, "listed twice"),
        ({"postprocessing": ["magic"]}, "no post-processing 'magic'"),
        ({"keep": "best", "validation": 0.0}, "need validation cases"),
        ({"sampling": {"kind": "foreground", "slices_per_epoch": 4, "tumour": 0.9}}, "more than"),
        ({"inputs": {"size": [100, 96]}}, "inputs.size"),
        ({"network": {"architecture": "deeplabv3"}, "inputs": {"neighbours": 2}}, "0 or 1"),
        ({"network": {"architecture": "deeplabv3"}, "batch_size": 1}, "2 or more"),
        ({"cohort": {"kind": "files", "name": "x"}}, "cohort"),
        ({"batch_size": 40}, "12 slices an epoch, fewer than a batch of 40"),
        ({"fit": {"epochs": 1, "devices": 3}}, "4 cannot be shared out among fit.devices: 3"),
        (
            {"network": {"architecture": "deeplabv3"}, "fit": {"epochs": 1, "devices": 4}},
            "2 or more on every device",
        ),
        ({"structures": ["tumour"], "postprocessing": ["lung-constraint"]}, "needs a lung"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(tiny_values, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_training({**tiny_values, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("configuration", ["2d", "3d_lowres", "3d_fullres"])
def test_the_default_pipeline_of_nnunet_is_left_as_it_is(configuration):
    training = load_training(f"nnunet-{configuration}")
    assert training.configuration == configuration
    assert (training.preset, training.gpu_memory_gb) == ("default", 8.0)
    assert (training.epochs, training.iterations, training.validation_iterations) == (1000, 250, 50)
    assert training.validation == 0.2  # one of nnU-Net's five folds
    assert load_training(f"nnunet-{configuration}-small").preset == "small"
    assert load_training(training.architecture) == training  # nnunet-3d-lowres, as models are named


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"configuration": "3d_cascade_fullres"}, "configuration"),
        ({"fit": {"epochs": 3}}, "'fit'|fit:"),
        ({"kind": "magic"}, "no training 'magic'"),
        ({"structures": ["tumour", "tumour"]}, "listed twice"),
        ({"epochs": 0}, "epochs"),
        ({"preset": "small", "small": False}, "small: false does not go with preset: small"),
    ],
)
def test_wrong_settings_of_nnunet_are_named(changes, message):
    values = {"kind": "nnunet", "name": "n", "configuration": "2d"}
    assert parse_training(values).targets
    with pytest.raises(ConfigError, match=message) as caught:
        parse_training({**values, **changes})
    assert "\n" not in str(caught.value)


def test_the_small_preset_of_nnunet_is_always_said_to_be_small():
    values = {"kind": "nnunet", "name": "n", "configuration": "2d"}
    assert parse_training(values).small is False
    assert parse_training({**values, "preset": "small"}).small is True


def test_a_cohort_may_come_from_a_file_of_its_own(tmp_path):
    cohort, several = tmp_path / "cohort.yaml", tmp_path / "several.yaml"
    cohort.write_text(yaml.safe_dump(COHORT))
    assert load_training("unet-small", cohort).cohort.name == "p"
    several.write_text(yaml.safe_dump({"name": "bench", "cohorts": [COHORT]}))
    assert load_training("unet-small", several).cohort.name == "p"
    several.write_text(yaml.safe_dump({"cohorts": [COHORT, COHORT]}))
    with pytest.raises(ConfigError, match="has 2 cohorts"):
        load_training("unet-small", several)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"n_tset": 3}, "n_tset"), ({"kind": "prepared"}, "kind: there is no cohort 'prepared'")],
)
def test_what_is_wrong_in_a_cohort_file_is_said_of_that_file(tmp_path, change, message):
    path = tmp_path / "cohort.yaml"
    for text in ({**COHORT, **change}, {"cohorts": [{**COHORT, **change}]}):
        path.write_text(yaml.safe_dump(text))
        with pytest.raises(ConfigError, match=rf"'.*cohort\.yaml'.*{message}"):
            load_training("unet-small", path)


@pytest.mark.parametrize(
    ("text", "error"), [("a: [", ConfigError), ("- a", ConfigError), (None, InputFileError)]
)
def test_files_that_cannot_be_read(tmp_path, text, error):
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=r"c\.yaml"):
        load_training(path)
