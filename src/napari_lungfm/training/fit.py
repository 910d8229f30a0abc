"""Run a fit with lightning, whatever is fitted: seeds, logs, checkpoints, exact resume.

What a fit keeps in its folder:

- ``run.json``: what decides the fit, and the machine and versions it began with;
- ``checkpoints/last.ckpt`` and, where something is monitored, ``best.ckpt``;
- ``log.csv``: one row per epoch; ``tensorboard/``: the same and every few steps.

A resumed fit is the same as one that was never interrupted, bit for bit, because nothing random
depends on what happened before: each step draws from a generator seeded by its own number, and the
data must do alike (see `StepSampler`). Where that cannot hold, `FitResult.notes` says why.
"""

import contextlib
import csv
import hashlib
import json
import logging
import math
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from napari_lungfm._core.environment import package_versions, source_hash
from napari_lungfm._core.exceptions import ConfigError, LungFMError, UsageError
from napari_lungfm._core.files import make_folder, write_json, write_text
from napari_lungfm._core.imports import is_available
from napari_lungfm._core.seeding import stable_hash
from napari_lungfm.models.foundation.runtime import pick_device
from napari_lungfm.training.lightning_import import (
    Callback,
    Checkpoint,
    EarlyStopping,
    Logger,
    ModelCheckpoint,
    TensorBoardLogger,
    pl,
)
from napari_lungfm.training.values import Count, Positive, WholeNumber

SCHEMA_VERSION = 1


class FitError(LungFMError):
    """A fit went wrong: the loss is not finite, or a checkpoint cannot be used."""


class FitSettings(BaseModel):
    """How a fit is run.

    Parameters
    ----------
    epochs
        How often the training data are gone through.
    seed
        Decides weights, order and augmentation.
    devices
        Number of devices; more than one trains data-parallel.
    precision
        ``"auto"``: bfloat16 mixed precision on CUDA devices that have it, float32 elsewhere.
    deterministic
        Take deterministic kernels only: on a GPU slower, but the same at every run.
    validate_every, checkpoint_every
        Epochs. A fit of fewer epochs is validated after its last one, where the last checkpoint
        is written too.
    early_stopping
        Validations without improvement after which to stop; ``None``: never.
    clip_gradients
        Largest norm of the gradients; ``None``: not clipped.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Count
    seed: WholeNumber = 0
    devices: Count = 1
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    deterministic: bool = False
    validate_every: Count = 1
    checkpoint_every: Count = 1
    early_stopping: Count | None = None
    clip_gradients: Positive | None = None


@dataclass(frozen=True)
class FitProgress:
    """What a fit tells while it runs.

    ``step`` of ``steps`` is done, in epoch ``epoch`` (from 1) of ``epochs``. ``metrics`` are those
    of the last finished epoch; ``epoch_ended`` marks the first event after one.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    seconds_left: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    epoch_ended: bool = False


FitListener = Callable[[FitProgress], None]


@dataclass(frozen=True)
class FitResult:
    """What a fit left.

    Parameters
    ----------
    last, best
        Checkpoints; ``best`` is ``None`` where nothing was monitored.
    epochs, seconds
        What was done, over all starts.
    notes
        Why the result is not what an uninterrupted fit would have given, if so.
    """

    last: Path
    best: Path | None
    epochs: int
    seconds: float
    notes: tuple[str, ...] = ()


class StepSampler(torch.utils.data.Sampler[tuple[int, int]]):
    """Gives ``(epoch, number)`` instead of bare numbers.

    A dataset that makes its item from these two alone gives the same items after an interruption,
    with any number of workers and devices. Lightning calls `set_epoch`.

    Parameters
    ----------
    length
        Items per epoch, of all devices together.
    """

    def __init__(self, length: int) -> None:
        self._length, self._epoch = length, 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length // _world()[1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rank, world = _world()
        for number in range(len(self)):
            yield self._epoch, number * world + rank


def run_fit(
    module: pl.LightningModule,
    train: Any,
    validation: Any | None,
    *,
    out: Path,
    settings: FitSettings,
    decided_by: Mapping[str, Any],
    device: str = "auto",
    resume: bool = False,
    monitor: str | None = None,
    callbacks: Sequence[Callback] = (),
    listener: FitListener | None = None,
) -> FitResult:
    """Fit a module, or go on with a fit that was interrupted.

    Parameters
    ----------
    module
        What to fit; it logs its metrics with ``self.log``.
    train, validation
        Data loaders; ``None``: nothing is validated.
    out
        Folder of the fit.
    settings
        How to run it.
    decided_by
        Plain values that decide the fit beside `settings` (configuration, hash of the data). A
        fit is only resumed with the same.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    resume
        Go on from the last checkpoint, where there is one.
    monitor
        Metric, larger is better, by which ``best.ckpt`` is chosen and early stopping works.
    callbacks
        Further callbacks of lightning, such as weight averaging.
    listener
        Called after every step.

    Returns
    -------
    FitResult
        Where the checkpoints are.

    Raises
    ------
    UsageError
        If the folder holds a fit and `resume` is false, or there is no such device.
    ConfigError
        If a fit is to be resumed with another configuration.
    FitError
        If the loss becomes NaN or infinite, or a checkpoint cannot be read.
    OutputError
        If the folder cannot be written.
    """
    _quiet()
    last = out / "checkpoints" / "last.ckpt"
    start = FitStart.now(settings, decided_by, device)
    if not resume and not is_helper_process() and (out / "run.json").is_file():
        msg = f"'{out}' holds a training already; continue it with --resume or choose another"
        raise UsageError(msg)
    make_folder(out)
    notes = start.compare(out / "run.json") if resume and (out / "run.json").is_file() else ()
    # A helper process may be here first, where one fit follows another.
    if not is_helper_process() and not (out / "run.json").is_file():
        write_json(out / "run.json", start.to_dict())
    goes_on = resume and last.is_file()
    log = _EpochLog(out / "log.csv")
    best = ModelCheckpoint(
        dirpath=last.parent,
        filename="best",
        monitor=monitor,
        mode="max",
        save_top_k=1,
        enable_version_counter=False,
    )
    trainer = pl.Trainer(
        accelerator=_accelerator(device),
        devices=_devices(device, settings),
        precision=_precision(settings.precision, device),
        max_epochs=settings.epochs,
        deterministic=settings.deterministic,
        # A short fit is validated once, after its last epoch.
        check_val_every_n_epoch=min(settings.validate_every, settings.epochs),
        limit_val_batches=None if validation is not None else 0,
        gradient_clip_val=settings.clip_gradients,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # StepSampler shares the items out itself
        logger=_logger(out),
        log_every_n_steps=10,
        callbacks=[
            *callbacks,
            _StepSeeds(settings.seed),
            log,
            _Teller(settings.epochs, listener),
            *([best] if monitor is not None else []),
            *_early_stopping(settings, monitor),
            _LastCheckpoint(last, settings.checkpoint_every),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if goes_on:
        _start_sampler(train, _read_checkpoint(last))
    with _interrupts(trainer):
        trainer.fit(
            module,
            train,
            validation,
            ckpt_path=str(last) if goes_on else None,
            weights_only=True if goes_on else None,
        )
    return FitResult(
        last=last,
        best=last.with_name("best.ckpt") if monitor is not None else None,
        epochs=log.epochs,
        seconds=log.seconds,
        notes=notes,
    )


def count_devices(device: str, settings: FitSettings) -> int:
    """Return how many devices a fit really runs on: several only of CUDA, and if none is named.

    Raises
    ------
    ConfigError
        If the machine has fewer.
    """
    picked = pick_device(device)
    if picked.type != "cuda" or picked.index is not None:
        return 1
    there = torch.cuda.device_count()
    if settings.devices > there:
        msg = f"devices: {settings.devices}, but this machine has {there}; give {there} or fewer"
        raise ConfigError(msg)
    return settings.devices


def is_helper_process() -> bool:
    """Tell whether this is one of the further processes of a fit on several devices.

    Lightning starts the whole command once more for each; only the first one writes results.
    """
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def wait_for_all() -> None:
    """Let the processes of a fit on several devices catch up with each other."""
    if _world()[1] > 1:
        torch.distributed.barrier()


def load_weights(module: torch.nn.Module, checkpoint: Path) -> None:
    """Put the weights of a checkpoint of `run_fit` into its module.

    Raises
    ------
    FitError
        If the checkpoint cannot be read.
    """
    module.load_state_dict(_read_checkpoint(checkpoint)["state_dict"])


# ---------------------------------------------------------------------------- what decides a fit
@dataclass(frozen=True)
class FitStart:
    """What decides a fit, and where it runs.

    Parameters
    ----------
    decided_by
        Plain values; a fit is only resumed with the same.
    environment
        Machine and versions, by what they are called in notes.
    deterministic
        The same steps give the same result here.
    """

    decided_by: dict[str, Any]
    environment: dict[str, str]
    deterministic: bool

    @classmethod
    def now(cls, settings: FitSettings, decided_by: Mapping[str, Any], device: str) -> "FitStart":
        """Return that of a fit which begins now; see `run_fit`."""
        picked = pick_device(device)
        environment = {
            **{f"version of {name}": version for name, version in package_versions().items()},
            "code": source_hash(),
            "kind of device": picked.type,
            "number of threads": str(torch.get_num_threads()),
        }
        if picked.type == "cuda":
            environment["GPU"] = torch.cuda.get_device_name(picked)
        values = {"fit": settings.model_dump(mode="json"), **decided_by}
        plain = json.loads(json.dumps(values))
        return cls(plain, environment, settings.deterministic or picked.type == "cpu")

    def to_dict(self) -> dict[str, Any]:
        """Return it as ``run.json`` keeps it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "decided_by": self.decided_by,
            "environment": self.environment,
        }

    def compare(self, path: Path) -> tuple[str, ...]:
        """Compare with a ``run.json``; return why the result will not be the same bit for bit.

        Raises
        ------
        ConfigError
            If something else is to be resumed.
        FitError
            If the file cannot be read.
        """
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            decided, environment = before["decided_by"], before["environment"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"'{path}' cannot be read, so the training cannot be resumed; start anew"
            raise FitError(msg) from error
        changed = _differences(decided, self.decided_by)
        if changed:
            msg = (
                f"the training in '{path.parent}' was begun with other settings: "
                f"{'; '.join(changed[:4])}; resume it with the same, or choose another folder"
            )
            raise ConfigError(msg)
        other = _differences(environment, self.environment)
        notes = [f"resumed, not bit for bit: {text}" for text in other]
        if not self.deterministic:
            notes.append(
                "resumed, not bit for bit: kernels of this device are not deterministic "
                "(fit: deterministic: true makes them so)"
            )
        return tuple(notes)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> list[str]:
    found: list[str] = []
    for key in dict.fromkeys((*before, *now)):
        old, new = before.get(key), now.get(key)
        name = f"{place}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, f"{name}.")
        elif old != new:
            found.append(f"{name} was {_short(old)}, is {_short(new)}")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


# ---------------------------------------------------------------------------- callbacks
class _StepSeeds(Callback):
    """Seed torch anew at every step, by the step's number: dropout does not depend on the past."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        parts = (self._seed, "step", trainer.global_step, trainer.global_rank)
        torch.manual_seed(stable_hash(*parts) % 2**63)


class _EpochLog(Callback):
    """Writes ``log.csv``; rows of epochs that are done again are replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds, self.epochs = 0.0, 0
        self._since = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Keep the time of all starts, and how far the fit was."""
        return {"seconds": self.seconds, "epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.seconds, self.epochs = state_dict["seconds"], state_dict["epochs"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if loss is not None and not bool(torch.isfinite(loss)):
            msg = (
                f"the loss became {float(loss)} at step {trainer.global_step}; "
                "lower the learning rate, or take float32"
            )
            raise FitError(msg)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        self.epochs = trainer.current_epoch + 1
        if trainer.is_global_zero:
            row = {"epoch": self.epochs, "step": trainer.global_step, "seconds": self.seconds}
            self._write({**row, **_metrics(trainer)})

    def _write(self, row: Mapping[str, float]) -> None:
        rows: list[dict[str, Any]] = []
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as stream:
                rows = [r for r in csv.DictReader(stream) if int(r["epoch"]) < row["epoch"]]
        rows.append({key: f"{value:.6g}" for key, value in row.items()})
        columns = list(dict.fromkeys(key for each in rows for key in each))
        lines = [",".join(columns)]
        lines += [",".join(str(each.get(key) or "") for key in columns) for each in rows]
        write_text(self.path, "\n".join(lines) + "\n")


class _Teller(Callback):
    """Tells the listener of every step, with the time left."""

    def __init__(self, epochs: int, listener: FitListener | None) -> None:
        self._epochs, self._listener = epochs, listener
        self._began, self._first, self._steps = 0.0, 0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began, self._first = time.perf_counter(), trainer.global_step
        self._steps = int(trainer.estimated_stepping_batches)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._tell(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer, ended=True)

    def _tell(self, trainer: pl.Trainer, *, ended: bool = False) -> None:
        if self._listener is None or not trainer.is_global_zero:
            return
        done = trainer.global_step - self._first
        pace = (time.perf_counter() - self._began) / done if done else None
        left = None if pace is None else pace * max(0, self._steps - trainer.global_step)
        self._listener(
            FitProgress(
                trainer.global_step,
                self._steps,
                trainer.current_epoch + 1,
                self._epochs,
                left,
                _metrics(trainer) if ended else {},
                ended,
            )
        )


def _metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Return what was measured in this epoch, means of the epoch and not of its last step."""
    every = trainer.check_val_every_n_epoch or 1
    validated = (trainer.current_epoch + 1) % every == 0
    values = {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if not name.endswith(("_step", "_epoch"))
        and (validated or not name.startswith("validation/"))  # lightning keeps old ones
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}


class _LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` every few epochs, and always after the epoch that ends the fit."""

    def __init__(self, path: Path, every: int) -> None:
        self._path, self._every = path, every

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self._every == 0 or epoch == trainer.max_epochs or trainer.should_stop:
            trainer.save_checkpoint(self._path)


class _EarlyStopping(EarlyStopping):
    """Stops a fit that had stopped before it was interrupted, instead of one epoch later."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


def _early_stopping(settings: FitSettings, monitor: str | None) -> list[Callback]:
    if settings.early_stopping is None:
        return []
    if monitor is None:
        msg = "early stopping needs validation cases; set some aside or leave it out"
        raise ConfigError(msg)
    return [_EarlyStopping(monitor, mode="max", patience=settings.early_stopping)]


# ---------------------------------------------------------------------------- lightning's ways
def _accelerator(device: str) -> str:
    return {"cuda": "gpu", "cpu": "cpu", "mps": "mps"}[pick_device(device).type]


def _devices(device: str, settings: FitSettings) -> int | list[int]:
    picked = pick_device(device)
    if picked.type == "cuda" and picked.index is not None:
        return [picked.index]
    return count_devices(device, settings)


def _precision(wanted: str, device: str) -> Any:
    picked = pick_device(device)
    mixed = picked.type == "cuda" and torch.cuda.is_bf16_supported()
    if wanted == "bfloat16" and picked.type == "mps":
        msg = "bfloat16 is not for the device 'mps'; take float32 or auto"
        raise ConfigError(msg)
    return "bf16-mixed" if wanted == "bfloat16" or (wanted == "auto" and mixed) else "32-true"


def _logger(out: Path) -> list[Logger]:
    if not is_available("tensorboard"):
        return []
    return [TensorBoardLogger(out, name="tensorboard", version="", default_hp_metric=False)]


def _quiet() -> None:
    """Lightning tells about its own products and about settings that are chosen on purpose."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")


@contextlib.contextmanager
def _interrupts(trainer: pl.Trainer) -> Iterator[None]:
    """Lightning ends the program on Ctrl-C; the caller is to see the interruption instead."""
    try:
        yield
    except SystemExit as error:
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint: tensors and plain values only, no pickled code is run."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        msg = f"the checkpoint '{path}' cannot be read ({reason}); start the training anew"
        raise FitError(msg) from error
    return content


def _start_sampler(loader: Any, checkpoint: Mapping[str, Any]) -> None:
    """Say to the sampler which epoch comes first.

    On resuming lightning lets the loader's processes begin before it calls `set_epoch`, so that
    they would prepare the items of the very first epoch.
    """
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, StepSampler):
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        sampler.set_epoch(int(progress["current"]["processed"]))


def _world() -> tuple[int, int]:
    """Rank of this process, and number of processes that train together."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
