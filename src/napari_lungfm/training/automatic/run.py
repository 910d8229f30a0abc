"""From a configuration and a cohort to the folder of a trained model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from napari_lungfm._core.environment import available_cores
from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm._core.files import atomic_path, make_folder, write_text
from napari_lungfm._core.imports import require
from napari_lungfm.datasets.cases import Cohort
from napari_lungfm.models.automatic.loading import SLICE_NETWORK, SliceNetworkSettings
from napari_lungfm.models.automatic.networks import count_parameters
from napari_lungfm.models.automatic.slice_network import SliceNetworkModel
from napari_lungfm.models.automatic.trained import WEIGHTS, TrainedModel
from napari_lungfm.training.around import build_cohort, keep_log, weights_drawn_by
from napari_lungfm.training.automatic.config import AnyTraining, AutomaticTraining
from napari_lungfm.training.automatic.finish import (
    Stage,
    StageListener,
    describe,
    lungs_model,
    refuse_used,
    validation_scores,
)
from napari_lungfm.training.automatic.module import MONITORED, SliceModule
from napari_lungfm.training.automatic.nnunet.config import NNUNetTraining
from napari_lungfm.training.automatic.nnunet.run import train_nnunet
from napari_lungfm.training.automatic.prepared import PreparedCase, prepare_cohort
from napari_lungfm.training.automatic.slices import TrainingSlices, WholeCases
from napari_lungfm.training.automatic.split import Split, hash_cases, hash_split, split_cases
from napari_lungfm.training.fit import (
    FitListener,
    FitResult,
    StepSampler,
    count_devices,
    is_helper_process,
    load_weights,
    run_fit,
)

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
        The training, with a cohort. Only the cohort's training part is touched.
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
        If the configuration has no cohort, or a training is to be resumed with another one.
    UsageError
        If the folder holds a training and `resume` is false.
    CohortError
        If cases cannot be trained on; the message names them.
    FitError
        If the fit goes wrong.
    OutputError
        If the folder cannot be written. What was finished before stays.
    """
    cohort = build_cohort(config.name, config.cohort, base)
    if not is_helper_process():
        refuse_used(out, resume)
    tell = stages or (lambda stage, done, total: None)
    make_folder(out)
    if isinstance(config, NNUNetTraining):
        return train_nnunet(
            config, cohort, out, device=device, resume=resume, listener=listener, tell=tell
        )
    cases = prepare_cohort(
        cohort,
        out / "run" / "prepared",
        inputs=config.inputs,
        structures=config.targets,
        lungs=lungs_model(config, device),
        progress=lambda done, total: tell("preparing", done, total),
    )
    split = split_cases(cases, config.validation, config.fit.seed)
    write_text(out / "config.yaml", config.to_yaml())
    module = _module(config, split)
    result = run_fit(
        module,
        _training_loader(config, split, count_devices(device, config.fit)),
        _validation_loader(split),
        out=out / "run",
        settings=config.fit,
        decided_by={**config.decided_by(), "cohort": hash_cases(cases), "split": hash_split(split)},
        device=device,
        resume=resume,
        monitor=MONITORED if split.validation else None,
        listener=listener,
    )
    if is_helper_process():
        return None
    return _finish(config, cohort, cases, split, module, result, out, device, tell)


def _module(config: AutomaticTraining, split: Split[PreparedCase]) -> SliceModule:
    with weights_drawn_by(config.fit.seed):
        return SliceModule(config, len(split.validation))


def _training_loader(config: AutomaticTraining, split: Split[PreparedCase], devices: int) -> Any:
    slices = TrainingSlices(split.train, config)
    per_device = max(1, config.batch_size // devices)
    if len(slices) < config.batch_size:
        msg = (
            f"the training has {len(slices)} slices an epoch, fewer than a batch of "
            f"{config.batch_size}; take a smaller batch_size"
        )
        raise ConfigError(msg)
    workers = _workers(config)
    return DataLoader(
        slices,
        batch_size=per_device,
        sampler=StepSampler(len(slices)),
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
        drop_last=True,  # batch normalisation cannot do with a single slice
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
    out: Path,
    device: str,
    tell: StageListener,
) -> TrainedModel:
    chosen = result.best if config.keep == "best" and result.best is not None else result.last
    load_weights(module, chosen)
    library = require("safetensors.torch", purpose="writing weights")
    state = module.network.state_dict()
    tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}
    with atomic_path(out / WEIGHTS) as temporary:
        library.save_file(tensors, temporary)
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
    return describe(
        config,
        cohort,
        cases,
        split,
        out,
        files=(WEIGHTS,),
        notes=result.notes,
        family=SLICE_NETWORK,
        architecture=config.network.architecture,
        settings=settings.model_dump(mode="json"),
        parameters=count_parameters(module.network),
        epochs=result.epochs,
        seconds=result.seconds,
        validation=validation_scores(model, config, cohort, split, device, tell),
    )
