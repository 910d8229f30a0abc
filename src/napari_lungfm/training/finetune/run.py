"""From a configuration, a base and a cohort to the folder of a fine-tuned model."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from napari_lungfm._core.environment import available_cores
from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm._core.files import make_folder, write_text
from napari_lungfm.models.automatic.trained import TrainedModel
from napari_lungfm.training.around import build_cohort, weights_drawn_by
from napari_lungfm.training.automatic.finish import StageListener, lungs_model, refuse_used
from napari_lungfm.training.automatic.split import Split, hash_cases, hash_split, split_cases
from napari_lungfm.training.finetune.base import BaseNetwork, load_base
from napari_lungfm.training.finetune.cases import StoredCase, store_cohort
from napari_lungfm.training.finetune.config import FineTuning
from napari_lungfm.training.finetune.finish import Ending, copied_state, finish
from napari_lungfm.training.finetune.overlap import refuse_test_patients
from napari_lungfm.training.finetune.samples import ClipSource, FixedClips, as_list
from napari_lungfm.training.finetune.subsets import nested_subset
from napari_lungfm.training.finetune.task import FineTuneTask
from napari_lungfm.training.finetune.telemetry import Telemetry
from napari_lungfm.training.fit import (
    FitListener,
    StepSampler,
    count_devices,
    is_helper_process,
    load_weights,
    run_fit,
)
from napari_lungfm.training.lightning_import import Callback, pl

#: Metric by which weights are chosen and early stopping works.
MONITORED = "validation/dice"
#: Name of a recipe → module with its ``make_task(config, base, steps)``.
_RECIPES = {
    "medsam": "napari_lungfm.training.finetune.medsam",
    "lungfm": "napari_lungfm.training.finetune.lungfm",
    "zhu": "napari_lungfm.training.finetune.sam2",
    "ma": "napari_lungfm.training.finetune.sam2",
    "ours": "napari_lungfm.training.finetune.sam2",
}


def fine_tune(
    config: FineTuning,
    out: Path,
    *,
    base: Path,
    device: str = "auto",
    resume: bool = False,
    listener: FitListener | None = None,
    stages: StageListener | None = None,
) -> TrainedModel | None:
    """Fine-tune a promptable model and leave the folder of a trained model.

    Parameters
    ----------
    config
        The fine-tuning, with a cohort. Only the cohort's training part is trained on; of its
        test part images are read, to refuse patients that are in both.
    out
        Folder; ``run/`` inside it holds what is needed to go on after an interruption.
    base
        Folder that relative paths in the configuration count from.
    device
        See `run_fit`.
    resume
        Go on with the training in `out`.
    listener
        Called after every step of the fit.
    stages
        Called as cases are prepared and, at the end, validated.

    Returns
    -------
    TrainedModel or None
        ``None`` in the helper processes of a training on several devices.

    Raises
    ------
    ConfigError
        If the configuration has no cohort, the base does not fit the recipe, or a training is to
        be resumed with another configuration.
    UsageError
        If the folder holds a training and `resume` is false.
    CohortError
        If cases cannot be trained on, or a test patient is among them; the message names them.
    SeenPatientError
        If the base was trained on a test patient.
    FitError
        If the fit goes wrong.
    OutputError
        If the folder cannot be written. What was finished before stays.
    """
    cohort = build_cohort(config.name, config.cohort, base)
    if not is_helper_process():
        refuse_used(out, resume)
    tell = stages or (lambda stage, done, total: None)
    start = load_base(config.base, config.recipe.networks, place=base, window=config.window)
    make_folder(out)
    cases = store_cohort(
        cohort,
        out / "run" / "cases",
        structures=config.targets,
        lungs=lungs_model(config, device),
        progress=lambda done, total: tell("preparing", done, total),
    )
    refuse_test_patients(
        cohort,
        cases,
        out / "run" / "test-images.json",
        base=start.description,
        progress=lambda done, total: tell("preparing", done, total),
    )
    split = _part(cases, config)
    write_text(out / "config.yaml", config.to_yaml())
    before = copied_state(start.network)
    parameters = sum(p.numel() for p in start.network.parameters())
    plan = _Plan.of(config, split, count_devices(device, config.fit_settings()))
    task = _task(config, start, plan.steps)
    result = run_fit(
        task,
        plan.training(task),
        plan.validation(task),
        out=out / "run",
        settings=config.fit_settings(),
        decided_by={
            **config.decided_by(),
            "base": start.sha256,
            "cohort": hash_cases(cases),
            "split": hash_split(split),
        },
        device=device,
        resume=resume,
        monitor=MONITORED if split.validation else None,
        callbacks=_callbacks(config, task),
        listener=listener,
    )
    if is_helper_process():
        return None
    chosen = result.best if config.keep == "best" and result.best is not None else result.last
    load_weights(task, chosen)
    ending = Ending(config, cohort, cases, split, start, before, parameters, out, device, tell)
    return finish(ending, task.result_state(), result, plan.notes)


def _part(cases: Sequence[StoredCase], config: FineTuning) -> Split[StoredCase]:
    """Choose who is trained on; validation patients are the same for every fraction."""
    split = split_cases(cases, config.validation, config.seed)
    return Split(nested_subset(split.train, config.fraction, config.seed), split.validation)


def _task(config: FineTuning, base: BaseNetwork, steps: int) -> FineTuneTask:
    module = importlib.import_module(_RECIPES[config.recipe.name])
    with weights_drawn_by(config.seed):  # new ones, such as adapters
        task: FineTuneTask = module.make_task(config, base, steps)
    return task


def _callbacks(config: FineTuning, task: FineTuneTask) -> list[Callback]:
    callbacks: list[Callback] = [Telemetry(config.recipe.clip)]
    if config.accumulate > 1 and task.automatic_optimization:
        callbacks.append(pl.callbacks.GradientAccumulationScheduler({0: config.accumulate}))
    return callbacks


@dataclass(frozen=True)
class _Plan:
    """How many samples and steps there are, and the loaders that give them.

    Parameters
    ----------
    config
        The fine-tuning.
    split
        Who is trained on.
    devices
        How many devices share a batch.
    samples, steps
        Samples of an epoch, optimiser steps of the whole fit.
    notes
        What the result has to say of the data.
    """

    config: FineTuning
    split: Split[StoredCase]
    devices: int
    samples: int
    steps: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, config: FineTuning, split: Split[StoredCase], devices: int) -> "_Plan":
        source = _source(config, split)
        # Whole steps only; what one epoch has beyond its share, the next one has less of.
        step = config.recipe.batch_size * config.accumulate
        per_epoch = max(1, round((config.samples_per_epoch or len(source)) / step))
        steps = per_epoch * config.fit_settings().epochs
        return cls(config, split, devices, per_epoch * step, steps, _notes(source, config))

    def training(self, task: FineTuneTask) -> DataLoader[Any]:
        """Return the loader of the training."""
        config = self.config
        workers = _workers(config)
        return DataLoader(
            _source(config, self.split, self.samples, task),
            batch_size=max(1, config.recipe.batch_size // self.devices),
            sampler=StepSampler(self.samples),
            collate_fn=as_list,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # workers' seeds; the fit's own generator is not touched
        )

    def validation(self, task: FineTuneTask) -> DataLoader[Any] | None:
        """Return the loader of the validation; ``None`` where no patient was set aside."""
        if not self.split.validation:
            return None
        config = self.config
        clips = FixedClips(
            self.split.validation,
            config.structures,
            config.recipe.clip,
            config.seed,
            config.validation_clips,
            least_pixels=config.recipe.least_pixels,
            prepare=task.prepare,
        )
        if not len(clips):
            names = ", ".join(case.name for case in self.split.validation)
            msg = f"the validation patients ({names}) have no slice with enough of any structure; "
            raise ConfigError(msg + "take another seed or a smaller least_pixels")
        return DataLoader(
            clips,
            batch_size=1,
            sampler=StepSampler(len(clips)),
            collate_fn=as_list,
            generator=torch.Generator(),
        )


def _source(
    config: FineTuning,
    split: Split[StoredCase],
    samples: int | None = None,
    task: FineTuneTask | None = None,
) -> ClipSource:
    recipe = config.recipe
    return ClipSource(
        split.train,
        config.structures,
        recipe.clip,
        config.seed,
        samples,
        turn=recipe.turn,
        least_pixels=recipe.least_pixels,
        prepare=None if task is None else task.prepare,
    )


def _notes(source: ClipSource, config: FineTuning) -> tuple[str, ...]:
    if not source.left_out:
        return ()
    names = ", ".join(f"'{name}'" for name in source.left_out)
    least = config.recipe.least_pixels
    return (
        f"nothing was learnt from {names}: no slice with {least} pixels of "
        f"{' or '.join(config.structures)} (recipe: least_pixels)",
    )


def _workers(config: FineTuning) -> int:
    if config.workers is not None:
        return config.workers
    if not torch.cuda.is_available():  # the network itself needs the cores
        return 0
    return max(1, min(12, available_cores() - 2))
