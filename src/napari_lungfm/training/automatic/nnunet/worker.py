"""The process that calls nnU-Net: measure, plan, resample, train, validate.

Started by `process.run_worker`, with nnU-Net's folders in its environment. Tells what it does as
JSON lines on what was its standard output; all that nnU-Net prints goes to standard error, which
is a log file. Every step leaves its result in the run folder and is not done a second time.
"""

import contextlib
import json
import math
import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from napari_lungfm._core.exceptions import ConfigError, LungFMError
from napari_lungfm._core.files import write_text
from napari_lungfm._core.seeding import stable_hash
from napari_lungfm._core.torchvision_ops import ensure_torchvision_ops
from napari_lungfm.models.automatic.nnunet_folders import write_nnunet_files, write_weights
from napari_lungfm.models.automatic.nnunet_settings import (
    DATASET,
    PLANS,
    SMALL_PLANS,
    SMALL_TRAINER,
)
from napari_lungfm.models.automatic.trained import WEIGHTS
from napari_lungfm.training.automatic.cohort_check import CohortError

#: Epochs between checkpoints to go on from; nnU-Net's own 50 are hours.
_CHECKPOINT_EVERY = 10
#: Preset → names of plans and of the trainer's class.
_NAMES = {
    "default": ("nnUNetPlans", "nnUNetTrainer"),
    "small": (SMALL_PLANS, SMALL_TRAINER),
}
_KINDS: tuple[tuple[type[LungFMError], str], ...] = (
    (ConfigError, "config"),
    (CohortError, "cohort"),
)


@dataclass(frozen=True)
class Request:
    """What the worker is to do.

    Parameters
    ----------
    dataset, dataset_id
        nnU-Net's name and number of the data set, exported to ``nnUNet_raw``.
    prepared
        Folder of what nnU-Net makes of it before training.
    names
        nnU-Net's identifier → name of the case.
    configuration, preset, epochs, iterations, validation_iterations, gpu_memory_gb, seed
        See `NNUNetTraining`.
    workers, processes
        Processes that prepare batches, and that measure and resample cases.
    device
        Kind of device.
    validate
        There are validation cases: nnU-Net predicts and scores them in its own way too.
    out
        Folder of the trained model.
    """

    dataset: str
    dataset_id: int
    prepared: str
    names: dict[str, str]
    configuration: str
    preset: str
    epochs: int
    iterations: int
    validation_iterations: int
    gpu_memory_gb: float
    seed: int
    workers: int
    processes: int
    device: str
    validate: bool
    out: str


class Work:
    """The steps, in order.

    Parameters
    ----------
    request
        What to do.
    tell
        Takes an event.
    """

    def __init__(self, request: Request, tell: Callable[..., None]) -> None:
        self._request, self._tell = request, tell
        self._plans_name, self._trainer_name = _NAMES[request.preset]
        self._prepared = Path(request.prepared)
        self._step = "starting"

    @property
    def step(self) -> str:
        """What is being done, for messages."""
        return self._step

    def run(self) -> None:
        """Do everything that is not done yet, and tell of the end."""
        self._step = "measuring the cases"
        self._measure()
        self._step = "planning"
        plans = self._plan()
        self._step = "resampling the cases"
        self._resample(plans)
        self._step = "training"
        trainer = self._train()
        if self._request.validate:
            self._step = "validating"
            self._validate(trainer)
        self._step = "writing the model"
        self._tell("done", **self._write(trainer))

    def _measure(self) -> None:
        from nnunetv2.experiment_planning.dataset_fingerprint import (  # noqa: PLC0415
            fingerprint_extractor,
        )
        from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: PLC0415
            extract_fingerprint_dataset,
        )

        is_whole(self._prepared / "dataset_fingerprint.json")  # nnU-Net takes what is there
        fingerprint_extractor.tqdm = self._bar("measuring")
        extract_fingerprint_dataset(
            self._request.dataset_id,
            num_processes=self._request.processes,
            clean=False,
            verbose=False,
        )

    def _plan(self) -> dict[str, Any]:
        from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (  # noqa: PLC0415
            ExperimentPlanner,
        )
        from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: PLC0415
            plan_experiment_dataset,
        )

        from napari_lungfm.training.automatic.nnunet.planner import SmallPlanner  # noqa: PLC0415

        path = self._prepared / f"{self._plans_name}.json"
        if not is_whole(path):
            small = self._request.preset == "small"
            plan_experiment_dataset(
                self._request.dataset_id,
                SmallPlanner if small else ExperimentPlanner,
                gpu_memory_target_in_gb=None if small else self._request.gpu_memory_gb,
                overwrite_plans_name=self._plans_name,
            )
        plans: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self._refuse_missing(plans["configurations"])
        return plans

    def _refuse_missing(self, planned: dict[str, Any]) -> None:
        """nnU-Net makes 3d_lowres only for volumes that are much larger than a patch."""
        wanted = self._request.configuration
        if wanted in planned:
            return
        if "3d_fullres" not in planned:
            msg = f"nnU-Net planned no {wanted} for this cohort, only {', '.join(planned)}"
            raise ConfigError(msg)
        full = planned["3d_fullres"]
        patch, volume = full["patch_size"], full["median_image_size_in_voxels"]
        part = 100 * math.prod(patch) / math.prod(volume)
        shown = " x ".join(f"{round(n)}" for n in volume)
        msg = (
            f"nnU-Net planned no {wanted} for this cohort: a patch of 3d_fullres, "
            f"{' x '.join(map(str, patch))} voxels, covers {part:.0f} % of the median volume of "
            f"{shown}, and it is made only where that is under a quarter and halving the volume "
            "does not suffice; take 3d_fullres"
        )
        raise ConfigError(msg)

    def _resample(self, plans: dict[str, Any]) -> None:
        from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: PLC0415
            preprocess_dataset,
        )
        from nnunetv2.preprocessing.preprocessors import default_preprocessor  # noqa: PLC0415

        configuration = self._request.configuration
        done = self._prepared / f"{configuration}.done"
        if not done.is_file():
            default_preprocessor.tqdm = self._bar("resampling")
            preprocess_dataset(
                self._request.dataset_id,
                self._plans_name,
                [configuration],
                [self._request.processes],
            )
            self._refuse_lost(plans["configurations"][configuration]["data_identifier"])
            write_text(done, "")

    def _refuse_lost(self, identifier: str) -> None:
        labels = json.loads((self._prepared / DATASET).read_text(encoding="utf-8"))["labels"]
        titles = {value: title for title, value in labels.items() if value}
        lost = []
        for path in sorted((self._prepared / identifier).glob("*.pkl")):
            with path.open("rb") as stream:  # written by ourselves a moment ago
                found = pickle.load(stream)["class_locations"]
            gone = [title for value, title in titles.items() if not len(found[value])]
            if gone:
                lost.append(f"case '{self._request.names[path.stem]}': {' and '.join(gone)}")
        if lost:
            msg = (
                f"vanished when resampled for {self._request.configuration}: {'; '.join(lost[:5])}"
            )
            raise CohortError(f"{msg}; leave these cases out")

    def _train(self) -> Any:
        from nnunetv2.run.run_training import (  # noqa: PLC0415
            get_trainer_from_args,
            maybe_load_checkpoint,
        )

        request = self._request
        os.environ["nnUNet_n_proc_DA"] = str(request.workers)  # noqa: SIM112
        seed_everything(request.seed, "weights")
        trainer = get_trainer_from_args(
            request.dataset,
            request.configuration,
            0,
            self._trainer_name,
            self._plans_name,
            continue_training=True,
            device=torch.device(request.device),
        )
        trainer.num_epochs = request.epochs
        trainer.num_iterations_per_epoch = request.iterations
        trainer.num_val_iterations_per_epoch = request.validation_iterations
        trainer.save_every = min(trainer.save_every, _CHECKPOINT_EVERY)
        watch(trainer, request, self._tell)
        maybe_load_checkpoint(trainer, True, False)
        if trainer.current_epoch < request.epochs:
            trainer.run_training()
        return trainer

    def _validate(self, trainer: Any) -> None:
        summary = Path(trainer.output_folder) / "validation" / "summary.json"
        if not is_whole(summary):
            # It would predict for the cascade too, on a grid that was never made.
            trainer.configuration_manager.configuration.pop("next_stage", None)
            trainer.perform_actual_validation(False)

    def _write(self, trainer: Any) -> dict[str, Any]:
        out = Path(self._request.out)
        final = Path(trainer.output_folder) / "checkpoint_final.pth"
        checkpoint = torch.load(final, map_location="cpu", weights_only=False)  # our own file
        state = checkpoint["network_weights"]
        write_weights(out / WEIGHTS, state)
        base = Path(trainer.output_folder_base)
        plans, dataset = (
            json.loads((base / name).read_text(encoding="utf-8")) for name in (PLANS, DATASET)
        )
        write_nnunet_files(out, plans, dataset)
        write_text(out / "log.csv", log_of(trainer))
        axes = checkpoint["inference_allowed_mirroring_axes"]
        return {
            "trainer": self._trainer_name,
            "mirroring": None if axes is None else [int(axis) for axis in axes],
            "epochs": int(trainer.current_epoch),
            "seconds": sum(_durations(trainer)),
            "parameters": sum(p.numel() for p in trainer.network.parameters()),
        }

    def _bar(self, stage: str) -> type:
        """Return what stands in for nnU-Net's progress bars: it tells our caller."""
        tell = self._tell

        class Bar:
            def __init__(self, *_: Any, total: int = 0, **__: Any) -> None:
                self._done, self._total = 0, total

            def __enter__(self) -> "Bar":
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def update(self) -> None:
                self._done += 1
                tell("stage", stage=stage, done=self._done, total=self._total)

        return Bar


def is_whole(path: Path) -> bool:
    """Tell whether a JSON file of nnU-Net's is there; half a one is removed, to be made again.

    Parameters
    ----------
    path
        Written by nnU-Net, and not whole where that was interrupted or the disk full.
    """
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        path.unlink()
        return False
    return True


def watch(trainer: Any, request: Request, tell: Callable[..., None]) -> None:
    """Make a trainer tell what it does, seed itself by epoch, and write checkpoints whole.

    nnU-Net's class stays as it is: methods of this one object are wrapped.

    Parameters
    ----------
    trainer
        nnU-Net's trainer.
    request
        What the worker does.
    tell
        Takes an event.
    """
    done = 0
    step, start_train, start_validation, end_epoch, save, transforms = (
        trainer.train_step,
        trainer.on_train_epoch_start,
        trainer.on_validation_epoch_start,
        trainer.on_epoch_end,
        trainer.save_checkpoint,
        trainer.get_training_transforms,
    )

    def train_step(batch: Any) -> Any:
        nonlocal done
        result = step(batch)
        done += 1
        tell("step", epoch=trainer.current_epoch + 1, step=done)
        return result

    def on_train_epoch_start() -> None:
        nonlocal done
        done = trainer.current_epoch * trainer.num_iterations_per_epoch
        seed_everything(request.seed, "epoch", trainer.current_epoch)
        start_train()

    def on_validation_epoch_start() -> None:
        seed_everything(request.seed, "validation", trainer.current_epoch)
        start_validation()

    def on_epoch_end() -> None:
        loss = float(trainer.logger.get_value("train_losses", step=-1))
        if not math.isfinite(loss):
            msg = f"the loss became {loss} in epoch {trainer.current_epoch + 1}"
            raise LungFMError(msg)
        end_epoch()
        tell("epoch", epoch=trainer.current_epoch, step=done, metrics=_last_metrics(trainer))

    def save_checkpoint(filename: str) -> None:
        save(f"{filename}.tmp")
        Path(f"{filename}.tmp").replace(filename)

    def get_training_transforms(*arguments: Any, **keywords: Any) -> Any:
        made = transforms(*arguments, **keywords)
        if request.workers == 0:
            _choose_without_clock(made)
        return made

    trainer.train_step = train_step
    trainer.on_train_epoch_start = on_train_epoch_start
    trainer.on_validation_epoch_start = on_validation_epoch_start
    trainer.on_epoch_end = on_epoch_end
    trainer.save_checkpoint = save_checkpoint
    trainer.get_training_transforms = get_training_transforms


def _choose_without_clock(transform: Any) -> None:
    """Keep transforms from timing two ways of computing the same and taking the faster one.

    Their results differ in the last bits, so that no two trainings would be the same.
    """
    if hasattr(transform, "benchmark"):
        transform.benchmark = False
    for child in [*getattr(transform, "transforms", ()), getattr(transform, "transform", None)]:
        if child is not None:
            _choose_without_clock(child)


def seed_everything(*parts: str | int) -> None:
    """Seed all generators that nnU-Net draws from, for one purpose; see `stable_hash`."""
    seed = stable_hash("nnunet", *parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the one that nnU-Net draws from
    torch.manual_seed(seed % 2**63)


def log_of(trainer: Any) -> str:
    """Return the course of a training as CSV, one row per epoch."""
    lines = ["epoch,step,seconds,train/loss,validation/loss,validation/dice"]
    seconds = 0.0
    columns = ("train_losses", "val_losses", "mean_fg_dice")
    values = [trainer.logger.get_value(name, step=None) for name in columns]
    for epoch, (duration, *row) in enumerate(zip(_durations(trainer), *values, strict=False), 1):
        seconds += duration
        numbers = [epoch, epoch * trainer.num_iterations_per_epoch, seconds, *map(float, row)]
        lines.append(",".join(f"{number:.6g}" for number in numbers))
    return "\n".join(lines) + "\n"


def _durations(trainer: Any) -> list[float]:
    began, ended = (
        trainer.logger.get_value(f"epoch_{which}_timestamps", step=None)
        for which in ("start", "end")
    )
    return [float(end - start) for start, end in zip(began, ended, strict=False)]


def _last_metrics(trainer: Any) -> dict[str, float]:
    names = {
        "train/loss": "train_losses",
        "validation/loss": "val_losses",
        "validation/dice": "mean_fg_dice",
    }
    values = {ours: float(trainer.logger.get_value(name, step=-1)) for ours, name in names.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}


class _ThreadContext:
    """A context of `multiprocessing` whose pools are threads.

    nnU-Net opens a pool of fresh processes for every step. With one process each, starting it,
    which imports torch anew, takes longer than the work on a few cases.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def Pool(self, processes: int | None = None) -> ThreadPool:  # noqa: N802
        """Return a pool of threads."""
        return ThreadPool(processes)


def use_threads() -> None:
    """Let pools of fresh processes be pools of threads, in this process."""
    original = multiprocessing.get_context

    def get_context(method: str | None = None) -> Any:
        context = original(method)
        return _ThreadContext(context) if method == "spawn" else context

    multiprocessing.get_context = get_context


def main(path: str) -> int:
    """Do what a request says; return the exit status."""
    tell = _channel()
    _end_with_parent()
    request = Request(**json.loads(Path(path).read_text(encoding="utf-8")))
    if request.processes == 1:
        use_threads()
    ensure_torchvision_ops()
    print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}: {request}", file=sys.stderr)  # noqa: T201
    work = Work(request, tell)
    try:
        work.run()
    # nnU-Net raises anything; the caller gets one line, the log all of it.
    except Exception as error:  # noqa: BLE001
        with contextlib.suppress(OSError):  # the log may be what fills the disk
            traceback.print_exc()
        kind = next((name for cls, name in _KINDS if isinstance(error, cls)), "fit")
        text = " ".join(str(error).split())[:400]
        ours = isinstance(error, LungFMError)
        said = text if ours else f"nnU-Net failed while {work.step}: {type(error).__name__}: {text}"
        tell("error", kind=kind, message=said)
        return 1
    return 0


def _channel() -> Callable[..., None]:
    """Take standard output for events; what is printed from now on goes to standard error."""
    stream: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def tell(event: str, **values: Any) -> None:
        with lock:
            stream.write(json.dumps({"event": event, **values}) + "\n")
            stream.flush()

    return tell


def _end_with_parent() -> None:
    """End with all processes of our own when whoever started us is gone."""

    def wait() -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(0, 1024):
                pass
        if os.name == "posix" and os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
