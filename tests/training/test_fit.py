import csv
import errno
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

from napari_lungfm._core.exceptions import ConfigError, OutputError, UsageError  # noqa: E402
from napari_lungfm.training.fit.checkpoints import load_weights  # noqa: E402
from napari_lungfm.training.fit.run import run_fit  # noqa: E402
from napari_lungfm.training.fit.sampler import StepSampler  # noqa: E402
from napari_lungfm.training.fit.settings import FitError, FitSettings  # noqa: E402
from napari_lungfm.training.lightning_import import pl  # noqa: E402


class Numbers(torch.utils.data.Dataset):
    """Items made from epoch and number alone."""

    def __len__(self):
        return 8

    def __getitem__(self, key):
        epoch, number = key
        generator = torch.Generator().manual_seed(1000 * epoch + number)
        return torch.rand(3, generator=generator)


class Regression(pl.LightningModule):
    """Learns the sum of three numbers through dropout."""

    def __init__(self, spoil=None):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
        )
        self.spoil = spoil

    def training_step(self, batch, number):
        loss = (self.net(batch)[:, 0] - batch.sum(dim=1)).square().mean()
        if self.global_step == self.spoil:
            loss = loss * float("nan")
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, number):
        self.log("validation/score", -(self.net(batch)[:, 0] - batch.sum(dim=1)).abs().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class InterruptionError(Exception):
    pass


def _loader(workers=0):
    return torch.utils.data.DataLoader(
        Numbers(),
        batch_size=2,
        sampler=StepSampler(8),
        num_workers=workers,
        generator=torch.Generator(),
    )


def _fit(out, *, workers=0, decided_by=None, module=None, validate=True, **changes):
    settings = FitSettings(
        **{"epochs": 3, "seed": 4, "validate_every": 2, **changes.pop("fit", {})}
    )
    module = module or Regression()
    validation = torch.utils.data.DataLoader(torch.rand(4, 3), batch_size=4) if validate else None
    result = run_fit(
        module,
        _loader(workers),
        validation,
        out=out,
        settings=settings,
        decided_by=decided_by or {"data": "numbers"},
        device="cpu",
        monitor="validation/score" if validate else None,
        **changes,
    )
    return module, result


def _weights(module):
    return [p.detach().clone() for p in module.parameters()]


def _stop_at(step):
    def listener(progress):
        if progress.step == step:
            raise InterruptionError

    return listener


@pytest.mark.parametrize(("step", "workers"), [(6, 0), (2, 0), (10, 1)])
def test_a_resumed_fit_is_bit_for_bit_the_same(tmp_path, step, workers):
    """Interrupted in the middle of an epoch: the epoch is done again, in the same way."""
    whole, _ = _fit(tmp_path / "whole")
    with pytest.raises(InterruptionError):
        _fit(tmp_path / "parts", listener=_stop_at(step))
    resumed, result = _fit(tmp_path / "parts", resume=True, workers=workers)
    assert result.notes == ()
    assert result.epochs == 3
    for a, b in zip(_weights(whole), _weights(resumed), strict=True):
        assert torch.equal(a, b)
    logs = [list(csv.DictReader((tmp_path / n / "log.csv").open())) for n in ("whole", "parts")]
    for log in logs:
        assert [row["epoch"] for row in log] == ["1", "2", "3"]
        for row in log:
            del row["seconds"]
    assert logs[0] == logs[1]
    assert logs[0][0]["validation/score"] == ""  # validated after every second epoch only


def test_checkpoints_and_progress(tmp_path):
    told = []
    module, result = _fit(tmp_path, listener=told.append)
    assert [p.step for p in told if not p.epoch_ended] == list(range(1, 13))
    assert [p.epoch for p in told if p.epoch_ended] == [1, 2, 3]
    assert told[-1].seconds_left == 0.0
    assert told[0].steps == 12
    assert told[-1].metrics["train/loss"] > 0
    assert result.best.is_file()
    loaded = Regression()
    load_weights(loaded, result.last)
    for a, b in zip(_weights(module), _weights(loaded), strict=True):
        assert torch.equal(a, b)
    if any(tmp_path.glob("tensorboard")):
        assert list((tmp_path / "tensorboard").glob("events.*"))


@pytest.mark.parametrize("every", [2, 5])
def test_the_last_checkpoint_is_of_the_last_epoch(tmp_path, every):
    module, result = _fit(tmp_path, fit={"checkpoint_every": every})
    loaded = Regression()
    load_weights(loaded, result.last)
    for a, b in zip(_weights(module), _weights(loaded), strict=True):
        assert torch.equal(a, b)


def test_between_checkpoints_a_fit_goes_on_from_the_one_before(tmp_path):
    whole, _ = _fit(tmp_path / "whole", fit={"checkpoint_every": 2})
    with pytest.raises(InterruptionError):
        _fit(tmp_path / "parts", fit={"checkpoint_every": 2}, listener=_stop_at(11))
    resumed, _ = _fit(tmp_path / "parts", fit={"checkpoint_every": 2}, resume=True)
    for a, b in zip(_weights(whole), _weights(resumed), strict=True):
        assert torch.equal(a, b)


def test_a_fit_shorter_than_its_validations_are_apart_is_validated_at_its_end(tmp_path):
    _, result = _fit(tmp_path, fit={"validate_every": 10})
    assert result.best.is_file()
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [bool(row["validation/score"]) for row in rows] == [False, False, True]


class Worse(Regression):
    """Its score falls with every validation."""

    def validation_step(self, batch, number):
        self.log("validation/score", torch.tensor(-float(self.current_epoch)))


def test_a_fit_that_stopped_early_is_not_gone_on_with(tmp_path):
    settings = {"epochs": 9, "validate_every": 1, "early_stopping": 2, "checkpoint_every": 4}
    first, result = _fit(tmp_path, module=Worse(), fit=settings)
    assert result.epochs == 3
    again, resumed = _fit(tmp_path, module=Worse(), fit=settings, resume=True)
    assert resumed.epochs == 3
    for a, b in zip(_weights(first), _weights(again), strict=True):
        assert torch.equal(a, b)


def test_a_fit_is_not_begun_twice_nor_resumed_with_other_settings(tmp_path):
    with pytest.raises(InterruptionError):
        _fit(tmp_path, listener=_stop_at(6))
    with pytest.raises(UsageError, match="--resume"):
        _fit(tmp_path)
    with pytest.raises(ConfigError, match=r"data was numbers, is letters"):
        _fit(tmp_path, resume=True, decided_by={"data": "letters"})
    with pytest.raises(ConfigError, match=r"fit\.seed was 4, is 5"):
        _fit(tmp_path, resume=True, fit={"seed": 5})


def test_it_says_why_a_resumed_fit_is_not_the_same(tmp_path):
    with pytest.raises(InterruptionError):
        _fit(tmp_path, listener=_stop_at(6))
    run = json.loads((tmp_path / "run.json").read_text())
    run["environment"]["version of torch"] = "0.1"
    (tmp_path / "run.json").write_text(json.dumps(run))
    _, result = _fit(tmp_path, resume=True)
    assert len(result.notes) == 1
    assert "not bit for bit: version of torch was 0.1" in result.notes[0]


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    with pytest.raises(InterruptionError):
        _fit(tmp_path, listener=_stop_at(6))
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"nonsense")
    with pytest.raises(FitError, match=r"last\.ckpt' cannot be read") as caught:
        _fit(tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_resuming_what_never_got_far_begins_anew(tmp_path):
    whole, _ = _fit(tmp_path / "whole")
    with pytest.raises(InterruptionError):
        _fit(tmp_path / "parts", listener=_stop_at(1))
    assert not (tmp_path / "parts" / "checkpoints" / "last.ckpt").exists()
    resumed, _ = _fit(tmp_path / "parts", resume=True)
    for a, b in zip(_weights(whole), _weights(resumed), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_not_finite_ends_the_fit(tmp_path):
    with pytest.raises(FitError, match="the loss became nan at step"):
        _fit(tmp_path, module=Regression(spoil=2))


def test_early_stopping_needs_something_to_watch(tmp_path):
    with pytest.raises(ConfigError, match="needs validation cases"):
        _fit(tmp_path, validate=False, fit={"early_stopping": 2})


def test_a_fit_that_was_moved_still_knows_its_best(tmp_path):
    often = {"fit": {"validate_every": 1}}
    with pytest.raises(InterruptionError):
        _fit(tmp_path / "here", module=Worse(), listener=_stop_at(10), **often)
    (tmp_path / "here").rename(tmp_path / "there")
    _, result = _fit(tmp_path / "there", module=Worse(), resume=True, **often)
    assert result.best.parent.parent == tmp_path / "there"
    assert torch.load(result.best, weights_only=True)["global_step"] == 4  # of the first epoch


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write, left = Path.write_bytes, iter([True, False])

    def write_bytes(path, data):
        if next(left):
            return write(path, data)
        write(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OutputError, match=r"last\.ckpt.*the disk is full"):
        _fit(tmp_path / "out", validate=False)
    checkpoints = tmp_path / "out" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["last.ckpt"]
    monkeypatch.setattr(Path, "write_bytes", write)
    resumed, _ = _fit(tmp_path / "out", validate=False, resume=True)
    whole, _ = _fit(tmp_path / "whole", validate=False)
    for a, b in zip(_weights(whole), _weights(resumed), strict=True):
        assert torch.equal(a, b)
