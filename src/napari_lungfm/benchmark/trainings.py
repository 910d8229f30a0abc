"""Trainings that a benchmark's configuration asks for: done before the units, and once."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lungfm._core.exceptions import ConfigError, LungFMError, OutputError
from napari_lungfm._core.files import slug
from napari_lungfm.benchmark.config import BenchmarkConfig
from napari_lungfm.benchmark.methods import Method
from napari_lungfm.benchmark.records import one_line
from napari_lungfm.datasets.cases import Cohort
from napari_lungfm.models.automatic.trained import (
    TrainedModel,
    is_trained_model,
    read_description,
)
from napari_lungfm.models.registry import check_weights

if TYPE_CHECKING:  # torch comes with it
    from napari_lungfm.training.automatic.config import AnyTraining
    from napari_lungfm.training.finetune.config import FineTuning
    from napari_lungfm.training.fit.settings import FitListener, FitProgress

#: What does not change the model: where it is computed, what it is called, how it is described.
_NOT_DECIDING = {"cohort", "summary", "workers"}

#: A training tells a line to be kept after every epoch, and at least so often, in seconds.
_KEPT_EVERY_S = 60.0


@dataclass(frozen=True)
class Training:
    """One training of a run.

    Parameters
    ----------
    method
        What is trained.
    cohort
        Its training part is trained on.
    fingerprint
        Hash of the configuration and the cases. The program's code is no part of it: hours of
        training are not thrown away for a change elsewhere, and the model says what trained it.
    """

    method: Method
    cohort: Cohort
    fingerprint: str

    @property
    def folder_name(self) -> str:
        """Name of its folder: readable, safe on every file system, unique."""
        method = self.method
        parts = [self.cohort.name, _to_do(method).name]
        prompts = _prompts(method)
        parts += [prompts] if prompts and prompts not in _to_do(method).name.split("-") else []
        parts += [] if method.percent is None else [f"{method.percent:g}"]
        parts += [f"seed-{seed}" for seed in method.seeds]
        return "--".join(slug(part) for part in parts) + f"--{self.fingerprint[:10]}"

    @property
    def text(self) -> str:
        """What it is, in a line."""
        prompts = _prompts(self.method)
        fit = f", {prompts} prompts" if prompts else ""
        fit += "".join(f", seed {seed}" for seed in self.method.seeds)
        return f"{self.method.title}{fit} on {self.cohort.name}"


#: Told of a training: itself, one line on how far it is, steps done and all of them, and whether
#: the line is worth keeping.
TrainingListener = Callable[[Training, str, int, int, bool], None]
#: Method name and cohort → the method with its trained model.
Trained = dict[tuple[str, str], Method]


def check_bases(methods: Sequence[Method]) -> None:
    """Refuse fine-tunings whose bases have no weights here.

    Raises
    ------
    LungFMError
        If there is one; the message says how to get them.
    """
    for name in dict.fromkeys(m.base for m in methods if m.training is not None and m.base):
        check_weights(name, {})


def plan_trainings(methods: Sequence[Method], cohorts: Sequence[Cohort]) -> tuple[Training, ...]:
    """List the trainings of a run, each once.

    Raises
    ------
    ConfigError
        If a cohort to train on has no training part.
    """
    found: dict[str, Training] = {}
    for method, cohort in _scored(methods, cohorts):
        training = _training(method, _trained_on(method, cohort, cohorts))
        found.setdefault(training.folder_name, training)
    return tuple(found.values())


def _scored(methods: Sequence[Method], cohorts: Sequence[Cohort]) -> list[tuple[Method, Cohort]]:
    """Methods to train, with each cohort that they are scored on."""
    to_train = [method for method in methods if method.training is not None]
    return [(m, cohort) for m in to_train for cohort in cohorts if m.takes(cohort.name)]


def do_trainings(
    methods: Sequence[Method],
    cohorts: Sequence[Cohort],
    config: BenchmarkConfig,
    folder: Path,
    *,
    base: Path,
    device: str,
    listener: TrainingListener,
) -> Trained:
    """Train what is not trained yet; a training that was interrupted is gone on with.

    A training that fails does not end the run: the units of its method fail with what it said,
    and the next call tries it again.

    Parameters
    ----------
    methods, cohorts
        Those of the run.
    config
        Its configuration.
    folder
        Where trained models are kept.
    base
        Folder that relative paths in the configuration count from.
    device
        Where to train.
    listener
        Told what is being done.

    Returns
    -------
    dict
        For every method to train and cohort to score it on: the method with its model.

    Raises
    ------
    OutputError
        If the folder cannot be written. What was finished before stays.
    LungFMError
        If weights that a fine-tuning begins with are missing, before anything is trained.
    """
    check_bases(methods)
    problems: dict[str, str] = {}
    for training in plan_trainings(methods, cohorts):
        try:
            _train(training, config, folder / training.folder_name, base, device, listener)
        except OutputError:
            raise
        # Networks are other people's code: one that cannot be trained must not end a long run.
        except Exception as error:  # noqa: BLE001
            text = f"the training failed: {one_line(error)}"
            problems[training.folder_name] = text
            listener(training, text, 0, 0, True)
    trained: Trained = {}
    for method, cohort in _scored(methods, cohorts):
        name = _training(method, _trained_on(method, cohort, cohorts)).folder_name
        done = replace(method, problem=problems.get(name))
        if name not in problems:
            done = method.after_training(folder / name, read_description(folder / name))
        trained[method.name, cohort.name] = done
    return trained


def _train(
    training: Training,
    config: BenchmarkConfig,
    out: Path,
    base: Path,
    device: str,
    listener: TrainingListener,
) -> None:
    if is_trained_model(out):
        return
    to_do = _to_do(training.method)
    spec = next(cohort for cohort in config.cohorts if cohort.name == training.cohort.name)
    listener(training, "begins", 0, 0, True)
    description = _trainer(to_do)(
        to_do.model_copy(update={"cohort": spec}),
        out,
        base=base,
        device=device,
        resume=(out / "run").is_dir(),
        listener=_told(training, listener),
        stages=lambda stage, done, total: listener(training, f"{stage} cases", done, total, False),
    )
    if description is None:  # a further process of a training on several devices
        raise SystemExit(0)
    listener(training, f"done in {description.seconds:.0f} s", 1, 1, True)


def _trainer(training: "AnyTraining | FineTuning") -> "Callable[..., TrainedModel | None]":
    # lightning comes with it, which takes seconds that a run without trainings does not have.
    from napari_lungfm.training.automatic.run import train_automatic  # noqa: PLC0415
    from napari_lungfm.training.finetune.run import fine_tune  # noqa: PLC0415

    return fine_tune if training.kind == "finetune" else train_automatic


def _told(
    training: Training, listener: TrainingListener, clock: Callable[[], float] = time.monotonic
) -> "FitListener":
    """Return what tells of every step; of ends of epochs, and now and then, to be kept."""
    last = clock()

    def tell(progress: "FitProgress") -> None:
        nonlocal last
        keep = progress.epoch_ended or clock() - last >= _KEPT_EVERY_S
        if keep:
            last = clock()
        text = f"epoch {progress.epoch} of {progress.epochs}"
        text += f", step {progress.step} of {progress.steps}"
        if progress.seconds_left is not None:
            text += f", {_time(progress.seconds_left)} left"
        listener(training, text, progress.step, progress.steps, keep)

    return tell


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _trained_on(method: Method, cohort: Cohort, cohorts: Sequence[Cohort]) -> Cohort:
    name = method.spec.trained_on or cohort.name
    found = next(other for other in cohorts if other.name == name)
    if not found.train:
        hint = (
            "say which cases are for training (part: train)"
            if method.spec.trained_on
            else "mark cases of it (part: train), leave it out (cohorts: [...]) or name another to "
            "train on (trained_on: NAME)"
        )
        msg = (
            f"method '{method.name}' is to be trained on '{name}', which has no case to train on; "
        )
        raise ConfigError(msg + hint)
    return found


def _prompts(method: Method) -> str | None:
    """Return what a fine-tuning is prompted with; two of one base may differ by that alone."""
    training = _to_do(method)
    return training.prompts if training.kind == "finetune" else None


def _to_do(method: Method) -> "AnyTraining | FineTuning":
    if method.training is None:
        msg = f"method '{method.name}' is not to be trained"
        raise ConfigError(msg)
    return method.training


def _training(method: Method, cohort: Cohort) -> Training:
    values: dict[str, Any] = _to_do(method).model_dump(mode="json", exclude=_NOT_DECIDING)
    cases = sorted((source.name, source.fingerprint()) for source in cohort.train)
    parts: list[Any] = [values, cohort.name, cases]
    parts += [] if method.base is None else [_base_hash(method.base)]
    text = json.dumps(parts, sort_keys=True)
    return Training(method, cohort, hashlib.blake2b(text.encode(), digest_size=16).hexdigest())


def _base_hash(name: str) -> str | None:
    """Hash of the weights that a fine-tuning begins with; ``None`` where they are not here."""
    from napari_lungfm.training.finetune.base import base_hash  # noqa: PLC0415

    try:
        return base_hash(name)
    except LungFMError:
        return None
