from pathlib import Path

import pytest
import torch

from napari_lungfm._core.exceptions import ConfigError, DataError, InputFileError
from napari_lungfm.models.lungfm.look import CHANNELS
from napari_lungfm.models.lungfm.model import read_network, write_network
from napari_lungfm.models.lungfm.network import NetworkConfig, PromptNetwork
from napari_lungfm.training.fit import load_weights
from napari_lungfm.training.promptable.config import PromptTrainingConfig, shipped_config
from napari_lungfm.training.promptable.fit import begin_from, fit_promptable
from napari_lungfm.training.promptable.run import WEIGHTS, train_promptable
from napari_lungfm.training.promptable.task import PromptTask
from napari_lungfm.training.synthetic import fill_bank

SMALL = PromptTrainingConfig.model_validate(
    {
        "clips": 3,
        "validation_clips": 1,
        "epochs": 2,
        "steps": 2,
        "batch": 2,
        "walk": 2,
        "warm_up": 1,
        "average": 0.5,
        "precision": "float32",
        "network": {"widths": [8, 16, 16, 24], "blocks": [1, 1, 1, 1], "detail": 8},
    }
)


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    fill_bank(folder, 5, range(3), "scene")
    return folder


def fit(bank: Path, out: Path, *, resume: bool = False) -> dict[str, torch.Tensor]:
    """Return the averaged weights that a fit ends with."""
    result = fit_promptable(
        SMALL, out, bank=bank, validation_bank=bank, device="cpu", workers=0, resume=resume
    )
    task = PromptTask(SMALL.network.config(), seed=1, steps=1)
    load_weights(task, result.last)
    return task.state_dict()


class Killed(BaseException):
    """A kill in the middle of a fit."""


@pytest.mark.slow
def test_a_fit_that_was_killed_and_resumed_ends_like_an_unbroken_one(bank, tmp_path) -> None:
    whole = fit(bank, tmp_path / "whole")
    original = PromptTask.training_step

    def step(self, episodes, number):
        if self.global_step >= 3:
            raise Killed
        return original(self, episodes, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptTask, "training_step", step)
        with pytest.raises(Killed):
            fit(bank, tmp_path / "broken")
    resumed = fit(bank, tmp_path / "broken", resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    log = (tmp_path / "whole" / "log.csv").read_text().splitlines()
    assert len(log) == 3
    assert "validation/loss" in log[0]
    assert "train/loss" in log[0]
    first = PromptTask(SMALL.network.config(), seed=1, steps=1).state_dict()
    assert any(not torch.equal(whole[name], first[name]) for name in whole)


def test_missing_clips_are_named_before_anything_is_done(bank, tmp_path) -> None:
    config = SMALL.model_copy(update={"clips": 5})
    with pytest.raises(DataError, match=r"2 of 5 training clips are missing.* number 3"):
        fit_promptable(config, tmp_path / "out", bank=bank, validation_bank=bank, device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_configuration_is_checked(tmp_path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("steps: 10\nnetwork: {detail: 8}\n")
    assert PromptTrainingConfig.from_yaml(file).steps == 10
    for text, message in (
        ("steps: 0", "steps"),
        ("stepz: 3", "stepz"),
        ("[", "not valid YAML"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            PromptTrainingConfig.from_yaml(file)
    with pytest.raises(InputFileError, match="missing"):
        PromptTrainingConfig.from_yaml(tmp_path / "missing.yaml")


@pytest.mark.slow
def test_a_training_in_two_parts_goes_on_with_the_weights_of_the_first(tmp_path) -> None:
    small = {"clips": 2, "steps": 1, "epochs": 1}
    first = SMALL.model_copy(update={**small, "lone_clicks": False, "schedule_epochs": 3})
    both = SMALL.model_copy(update={**small, "seed": 2, "learning_rate": 1e-9, "first": first})
    weights = train_promptable(both, tmp_path, device="cpu", workers=1)
    network = read_network(weights)
    begun = read_network(tmp_path / "first" / WEIGHTS)
    for p, q in zip(network.parameters(), begun.parameters(), strict=True):
        assert torch.allclose(p, q, atol=2e-4)
    assert "train/click" not in (tmp_path / "first" / "run" / "log.csv").read_text()
    assert "train/click" in (tmp_path / "run" / "log.csv").read_text()
    assert PromptTrainingConfig.from_yaml(tmp_path / "config.yaml") == both


def network(*, answers_see_mask: bool, detail: int = 8) -> PromptNetwork:
    torch.manual_seed(3 + answers_see_mask)
    return PromptNetwork(
        NetworkConfig(CHANNELS, (8, 16, 16, 24), (1, 1, 1, 1), detail, answers_see_mask)
    )


def test_answers_that_begin_to_see_the_mask_are_the_same_at_first(tmp_path) -> None:
    blind, seeing = network(answers_see_mask=False), network(answers_see_mask=True)
    write_network(blind, tmp_path / "blind.safetensors", {})
    begin_from(seeing, tmp_path / "blind.safetensors")
    looks = torch.randn(2, CHANNELS, 32, 32)
    with torch.no_grad():
        pairs = zip(seeing(looks), read_network(tmp_path / "blind.safetensors")(looks), strict=True)
        assert all(torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in pairs)
    again = network(answers_see_mask=False)
    write_network(seeing, tmp_path / "seeing.safetensors", {})
    with pytest.raises(ConfigError, match="answers see the mask; set `network"):
        begin_from(again, tmp_path / "seeing.safetensors")
    with pytest.raises(ConfigError, match="other sizes"):
        begin_from(network(answers_see_mask=True, detail=16), tmp_path / "seeing.safetensors")


def test_the_shipped_configuration_is_read() -> None:
    config = PromptTrainingConfig.from_yaml(shipped_config())
    parts = [config]
    while (before := parts[-1].first) is not None:
        parts.append(before)
    assert [part.schedule_steps for part in parts] == [800, 2400, 2000, 1600, 3200]
