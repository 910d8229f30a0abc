"""From a configuration and a cohort to the folder of a trained model."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from napari_lungfm._core.environment import available_cores
from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm.datasets.cases import Cohort
from napari_lungfm.models.automatic.loading import SLICE_NETWORK, SliceNetworkSettings
from napari_lungfm.models.automatic.networks import UNetSpec, count_parameters
from napari_lungfm.models.automatic.slice_network import SliceNetworkModel
from napari_lungfm.models.automatic.trained import WEIGHTS, TrainedModel
from napari_lungfm.models.foundation.runtime import pick_device
from napari_lungfm.models.weights.files import write_tensors
from napari_lungfm.training.around import LOG, build_cohort, keep_log, weights_drawn_by
from napari_lungfm.training.automatic.config import (
    AnyTraining,
    AutomaticTraining,
    refuse_few_slices,
)
from napari_lungfm.training.automatic.finish import (
    Stage,
    StageListener,
    begin,
    decided_by,
    describe,
    doubts,
    lungs_model,
    refuse_used,
    validation_scores,
)
from napari_lungfm.training.automatic.kept import remove_others
from napari_lungfm.training.automatic.module import MONITORED, SliceModule
from napari_lungfm.training.automatic.nnunet.config import NNUNetTraining
from napari_lungfm.training.automatic.nnunet.run import train_nnunet
from napari_lungfm.training.automatic.overlap import refuse_test_images
from napari_lungfm.training.automatic.prepared import PARTS, PreparedCase, prepare_cohort
from napari_lungfm.training.automatic.slices import TrainingSlices, WholeCases
from napari_lungfm.training.automatic.split import (
    Split,
    split_cases,
    told_of_same_images,
)
from napari_lungfm.training.fit.checkpoints import load_weights
from napari_lungfm.training.fit.devices import count_devices, is_helper_process
from napari_lungfm.training.fit.run import FitResult, run_fit
from napari_lungfm.training.fit.sampler import StepSampler
from napari_lungfm.training.fit.settings import FitListener
from napari_lungfm.training.fit.start import FitStart
from napari_lungfm.training.lock import hold

__all__ = ["Stage", "StageListener", "train_automatic"]


def train_automatic(
    config: AnyTraining,
    out: Path,
    *,
    base: Path,
    device: str = "auto",
    resume: bool = False,
    listener: FitListener | None = None,
    stages: StageListener | None = None,
) -> TrainedModel | None:
    """Train a U-Net, DeepLabV3 or nnU-Net and leave the folder of a trained model.

    Parameters
    ----------
    config
        The training, with a cohort. Only the cohort's training part is trained on; of its test
        part the images are read that may be training cases under another name.
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
        If the configuration has no cohort or does not fit the device, or a training is to be
        resumed with another one.
    UsageError
        If there is no such device, the folder holds a training and `resume` is false, or
        another process is training in it.
    CohortError
        If cases cannot be trained on, or one is a test case too; the message names them.
    WeightsNotFoundError
        If lungs have to be found and the weights for that are not here.
    FitError
        If the fit goes wrong.
    OutputError
        If the folder cannot be written. What was finished before stays.
    """
    _check_device(config, device)
    cohort = build_cohort(config.name, config.cohort, base)
    if not is_helper_process():
        refuse_used(out, resume)
    tell = stages or (lambda stage, done, total: None)
    with nullcontext() if is_helper_process() else hold(out / "run"):
        if isinstance(config, NNUNetTraining):
            return train_nnunet(
                config, cohort, out, device=device, resume=resume, listener=listener, tell=tell
            )
        return _train(config, cohort, out, device, resume, listener, tell)


def _check_device(config: AnyTraining, device: str) -> None:
    """Refuse what the device cannot do before cases are prepared, which may take hours."""
    picked = pick_device(device)
    if isinstance(config, NNUNetTraining):
        return
    count_devices(device, config.fit)
    if config.fit.precision == "bfloat16" and picked.type == "mps":
        msg = "fit.precision: bfloat16 is not for the device 'mps'; take float32 or auto"
        raise ConfigError(msg)


def _train(
    config: AutomaticTraining,
    cohort: Cohort,
    out: Path,
    device: str,
    resume: bool,
    listener: FitListener | None,
    tell: StageListener,
) -> TrainedModel | None:
    prepared = out / "run" / "prepared"
    cases = prepare_cohort(
        cohort,
        prepared,
        inputs=config.inputs,
        structures=config.targets,
        lungs=lungs_model(config, device),
        progress=lambda done, total: tell("preparing", done, total),
    )
    split = split_cases(cases, config.validation, config.fit.seed)
    portions = _Portions.of(config, split, count_devices(device, config.fit))
    decided = decided_by(config, cases, split)
    if not is_helper_process():
        refuse_test_images(cohort, cases, out / "run")
        begin(config, cases, FitStart.now(config.fit, decided, device), out, resume)
        remove_others([case.stem for case in cases], prepared, PARTS)
    module = _module(config, split)
    result = run_fit(
        module,
        _training_loader(config, split, portions),
        _validation_loader(split),
        out=out / "run",
        settings=config.fit,
        decided_by=decided,
        device=device,
        resume=resume,
        monitor=MONITORED if split.validation else None,
        listener=listener,
    )
    if is_helper_process():
        return None
    notes = (*result.notes, *told_of_same_images(cases), *portions.notes)
    return _finish(config, cohort, cases, split, module, result, notes, out, device, tell)


def _module(config: AutomaticTraining, split: Split[PreparedCase]) -> SliceModule:
    with weights_drawn_by(config.fit.seed):
        return SliceModule(config, len(split.validation))


@dataclass(frozen=True)
class _Portions:
    """How the slices of an epoch come in batches.

    Parameters
    ----------
    batch
        Slices of a batch, on each device.
    drop_last
        The last batch of an epoch is left out.
    notes
        What the result has to say of it.
    """

    batch: int
    drop_last: bool
    notes: tuple[str, ...]

    @classmethod
    def of(cls, config: AutomaticTraining, split: Split[PreparedCase], devices: int) -> "_Portions":
        """Return those of a training.

        Raises
        ------
        ConfigError
            If an epoch has fewer slices than a batch.
        """
        slices = len(TrainingSlices(split.train, config))
        try:
            refuse_few_slices(slices, config.batch_size)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        batch = config.batch_size // devices
        each, over = divmod(slices, devices)
        network = config.network
        batch_norm = not isinstance(network, UNetSpec) or network.norm == "batch"
        # Batch normalisation cannot do with a single slice; all else is learnt from.
        drop_last = batch_norm and batch > 1 and each % batch == 1
        left = over + (devices if drop_last else 0)
        notes = () if not left else (
            f"{left} of the {slices} slices are left out of every epoch, others each time: what "
            "is left for a device is no batch",
        )  # fmt: skip
        return cls(batch, drop_last, notes)


def _training_loader(
    config: AutomaticTraining, split: Split[PreparedCase], portions: _Portions
) -> Any:
    slices = TrainingSlices(split.train, config)
    workers = _workers(config)
    return DataLoader(
        slices,
        batch_size=portions.batch,
        sampler=StepSampler(len(slices)),
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
        drop_last=portions.drop_last,
        generator=torch.Generator(),  # workers' seeds; the fit's own generator is not touched
    )


def _validation_loader(split: Split[PreparedCase]) -> Any | None:
    if not split.validation:
        return None
    return DataLoader(
        WholeCases(split.validation),
        batch_size=None,
        sampler=_Sharded(len(split.validation)),
        generator=torch.Generator(),
        collate_fn=_as_it_is,
    )


class _Sharded(StepSampler):
    """Numbers without epochs, shared out among devices, none twice."""

    def __iter__(self) -> Any:
        yield from (number for _, number in super().__iter__())


def _as_it_is(case: Any) -> Any:
    return case


def _workers(config: AutomaticTraining) -> int:
    if config.workers is not None:
        return config.workers
    cores = available_cores()
    if not torch.cuda.is_available():  # the network itself needs the cores
        return 0 if cores < 4 else 1
    return max(1, min(12, cores - 2))


def _finish(
    config: AutomaticTraining,
    cohort: Cohort,
    cases: Sequence[PreparedCase],
    split: Split[PreparedCase],
    module: SliceModule,
    result: FitResult,
    notes: tuple[str, ...],
    out: Path,
    device: str,
    tell: StageListener,
) -> TrainedModel:
    chosen = result.best if config.keep == "best" and result.best is not None else result.last
    load_weights(module, chosen)
    write_tensors(out / WEIGHTS, module.network.state_dict())
    keep_log(out)
    settings = SliceNetworkSettings(
        network=config.network, inputs=config.inputs, postprocessing=config.postprocessing
    )
    model = SliceNetworkModel(
        config.name,
        module.network,
        config.inputs,
        config.targets,
        device=device,
        postprocessing=config.postprocessing,
    )
    scores = validation_scores(model, config, cohort, split, device, tell)
    return describe(
        config,
        cohort,
        cases,
        split,
        out,
        files=(WEIGHTS,),
        notes=notes,
        doubtful=doubts(out / LOG, scores),
        family=SLICE_NETWORK,
        architecture=config.network.architecture,
        settings=settings.model_dump(mode="json"),
        parameters=count_parameters(module.network),
        epochs=result.epochs,
        seconds=result.seconds,
        validation=scores,
    )
