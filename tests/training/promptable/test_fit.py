import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from napari_lungfm._core.exceptions import ConfigError, DataError, InputFileError, UsageError
from napari_lungfm.models.lungfm.look import CHANNELS
from napari_lungfm.models.lungfm.model import read_network, write_network
from napari_lungfm.models.lungfm.network import NetworkConfig, PromptNetwork
from napari_lungfm.training.fit.checkpoints import load_weights
from napari_lungfm.training.fit.devices import count_devices
from napari_lungfm.training.lock import LockedError, hold
from napari_lungfm.training.promptable.config import PromptTrainingConfig, shipped_config
from napari_lungfm.training.promptable.episodes import EpisodeSource
from napari_lungfm.training.promptable.fit import begin_from, fit_promptable, measured_episodes
from napari_lungfm.training.promptable.run import WEIGHTS, train_promptable
from napari_lungfm.training.promptable.task import PromptTask
from napari_lungfm.training.synthetic import ClipBank, fill_bank

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
        ("network: {widths: []}", r"network: widths: 0 levels; give 1 to 6"),
        ("network: {widths: [8, 16], blocks: [1]}", "network: blocks: 1 numbers for 2 widths"),
        ("network: {widths: [8, -8, 16, 16]}", "network: widths: .* multiple of 8"),
        ("network: {detail: 0}", "network: detail: 0 channels"),
        ("learning_rate: .inf", r"learning_rate: .*finite number"),
        ("learning_rate: .nan", "learning_rate"),
        ("weight_decay: .inf", r"weight_decay: .*finite number"),
        ("clip_gradients: .inf", r"clip_gradients: .*finite number"),
        ("average: .nan", "average"),
        ("seed: -1", "seed"),
        ("clip_seed: -1", "clip_seed"),
        ("validation_seed: -2", "validation_seed"),
        ("clip_seed: 2", "clip_seed and validation_seed are the same"),
        ("walk: 33", "walk"),
        ("epochs: 5\nschedule_epochs: 4", "schedule_epochs: 4, fewer than the 5 epochs"),
        ("epochs: 1\nsteps: 50", "warm_up: 100 steps, more than the 50 of the training"),
        ("devices: 0", "devices"),
        ("devices: 3", "batch: 8 episodes cannot be shared out among 3 devices"),
        ("first: {clip_seed: 3, validation_seed: 1}", "clip_seed and validation_seed are the same"),
        ("first: {devices: 2}", "first.devices: 2, not 1 as in the part after it"),
        ("first: {network: {detail: 8}}", "first.network: other sizes"),
        ("first: {network: {answers_see_mask: true}}", "network.answers_see_mask: false after"),
        ("first: {epochs: 3, schedule_epochs: 2}", "first: schedule_epochs: 2, fewer"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message) as problem:
            PromptTrainingConfig.from_yaml(file)
        assert "\n" not in str(problem.value)
    with pytest.raises(InputFileError, match="missing"):
        PromptTrainingConfig.from_yaml(tmp_path / "missing.yaml")


def test_parts_of_a_training_measure_the_same_episodes(bank) -> None:
    parts = [SMALL.model_copy(update={"seed": seed, "learning_rate": 1e-5}) for seed in (1, 7)]
    one, other = (measured_episodes(part, ClipBank(bank))[0, 0] for part in parts)
    assert torch.equal(one.planes, other.planes)
    assert torch.equal(one.walk_truth, other.walk_truth)
    assert torch.equal(one.lone_clicks, other.lone_clicks)
    moved = SMALL.model_copy(update={"validation_seed": 9})
    another = measured_episodes(moved, ClipBank(bank))[0, 0]
    assert not torch.equal(one.planes, another.planes)


def test_more_devices_than_there_are_get_one_line(monkeypatch) -> None:
    settings = SMALL.model_copy(update={"devices": 2}).fit_settings()
    assert settings.devices == 2
    assert count_devices("cpu", settings) == 1
    monkeypatch.setattr("napari_lungfm.training.fit.devices.pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="devices: 2, but this machine has 1"):
        count_devices("cuda", settings)
    assert count_devices("cuda:0", settings) == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert count_devices("cuda", settings) == 2


#: Trains on processes in place of GPUs, and writes what each of them saw and ended with.
ON_TWO_PROCESSES = """
import os, sys
from pathlib import Path
import torch
from napari_lungfm.training.fit import devices
devices.count_devices = lambda device, settings: settings.devices
from napari_lungfm.training.promptable import run
from napari_lungfm.training.lock import LockedError, hold
from napari_lungfm.training.promptable.config import PromptTrainingConfig
from napari_lungfm.training.promptable.task import PromptTask

def main(config, out):
    rank, seen = os.environ.get("LOCAL_RANK", "0"), []
    original = PromptTask.training_step
    def step(self, episodes, number):
        seen.append([float(e.planes.double().sum()) for e in episodes])
        kept.append(self)
        return original(self, episodes, number)
    kept = []
    PromptTask.training_step = step
    config = PromptTrainingConfig.from_yaml(config)
    path = run.train_promptable(config, out, device="cpu", workers=1)
    ended = torch.cat([p.detach().flatten() for p in kept[-1].network.parameters()])
    torch.save({"seen": seen, "ended": ended, "path": str(path)}, out / f"process-{rank}.pt")

if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
"""


@pytest.mark.slow
def test_two_devices_share_the_episodes_and_end_with_the_same_weights(tmp_path) -> None:
    part = {"clips": 2, "validation_clips": 2, "epochs": 1, "steps": 2, "devices": 2}
    first = SMALL.model_copy(update=part)
    both = SMALL.model_copy(update={**part, "seed": 2, "first": first})
    files = {"config": tmp_path / "c.yaml", "script": tmp_path / "train.py"}
    files["config"].write_text(both.to_yaml())
    files["script"].write_text(ON_TWO_PROCESSES)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, str(files["script"]), str(files["config"]), str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (torch.load(out / f"process-{rank}.pt") for rank in (0, 1))
    assert torch.equal(one["ended"], two["ended"])
    assert [len(batch) for batch in one["seen"] + two["seen"]] == [1] * 8
    assert (one["path"], two["path"]) == (str(out / WEIGHTS), "None")
    assert len((out / "run" / "log.csv").read_text().splitlines()) == 2
    bank = ClipBank(out / f"clips-{both.clip_seed}")
    for place, seed in ((0, 1), (2, 2)):  # the steps of the first part, then of the second
        source = EpisodeSource(bank, range(2), seed, both.walk, 4)
        wanted = [float(source[0, n].planes.double().sum()) for n in range(4)]
        shared = [s["seen"][place + step][0] for step in (0, 1) for s in (one, two)]
        assert shared == pytest.approx(wanted)


def test_a_folder_with_another_training_stays_as_it_was(bank, tmp_path) -> None:
    (tmp_path / "first" / "run").mkdir(parents=True)
    (tmp_path / "first" / "run" / "run.json").write_text("{}")
    both = SMALL.model_copy(update={"first": SMALL})
    with pytest.raises(UsageError, match="holds a training already; continue it with --resume"):
        train_promptable(both, tmp_path, device="cpu", workers=1)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["run.json"]


def test_two_trainings_do_not_share_a_folder(tmp_path) -> None:
    with (
        hold(tmp_path / "run"),
        pytest.raises(LockedError, match=f"is being trained in by process {os.getpid()}"),
    ):
        train_promptable(SMALL, tmp_path, device="cpu", workers=1)
    assert {path.name for path in tmp_path.rglob("*")} == {"run", "lock"}


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
