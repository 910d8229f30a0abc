"""Run a fit with lightning, whatever is fitted: seeds, logs, checkpoints, exact resume.

What a fit keeps in its folder:

- ``run.json``: what decides the fit, and the machine and versions it began with;
- ``checkpoints/last.ckpt`` and, where something is monitored, ``best.ckpt``;
- ``log.csv``: one row per epoch; ``tensorboard/``: the same and every few steps.

A resumed fit is the same as one that was never interrupted, bit for bit, because nothing random
depends on what happened before: each step draws from a generator seeded by its own number, and the
data must do alike (see `sampler.StepSampler`). Where that cannot hold, `FitResult.notes` says why.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.files import make_folder, write_json
from napari_lungfm._core.imports import is_available
from napari_lungfm.training.fit.callbacks import EpochLog, StepSeeds, Teller, early_stopping
from napari_lungfm.training.fit.checkpoints import (
    BestCheckpoint,
    LastCheckpoint,
    WholeCheckpoints,
    read_checkpoint,
)
from napari_lungfm.training.fit.devices import (
    accelerator,
    devices_of,
    is_helper_process,
    precision_of,
)
from napari_lungfm.training.fit.sampler import start_sampler
from napari_lungfm.training.fit.settings import FitListener, FitSettings
from napari_lungfm.training.fit.start import FitStart
from napari_lungfm.training.lightning_import import Callback, Logger, TensorBoardLogger, pl


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
    log = EpochLog(out / "log.csv")
    best = BestCheckpoint(
        dirpath=last.parent,
        filename="best",
        monitor=monitor,
        mode="max",
        save_top_k=1,
        enable_version_counter=False,
    )
    trainer = pl.Trainer(
        accelerator=accelerator(device),
        devices=devices_of(device, settings),
        precision=precision_of(settings.precision, device),
        max_epochs=settings.epochs,
        deterministic=settings.deterministic,
        # A short fit is validated once, after its last epoch.
        check_val_every_n_epoch=min(settings.validate_every, settings.epochs),
        limit_val_batches=None if validation is not None else 0,
        gradient_clip_val=settings.clip_gradients,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # StepSampler shares the items out itself
        logger=_logger(out),
        plugins=[WholeCheckpoints()],
        log_every_n_steps=10,
        callbacks=[
            *callbacks,
            StepSeeds(settings.seed),
            log,
            Teller(settings.epochs, listener),
            *([best] if monitor is not None else []),
            *early_stopping(settings, monitor),
            LastCheckpoint(last, settings.checkpoint_every),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if goes_on:
        start_sampler(train, read_checkpoint(last))
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
