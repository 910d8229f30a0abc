"""From a configuration and a cohort to the folder of a trained model."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from napari_lungfm import __version__
from napari_lungfm._core.environment import (
    available_cores,
    hardware,
    package_versions,
    source_hash,
)
from napari_lungfm._core.exceptions import ConfigError, LungFMWarning, UsageError
from napari_lungfm._core.files import atomic_path, make_folder, write_text
from napari_lungfm._core.imports import require
from napari_lungfm._core.seeding import generator, stable_hash
from napari_lungfm.datasets.cases import CaseSource, Cohort
from napari_lungfm.metrics import count_overlap
from napari_lungfm.models.automatic.loading import SLICE_NETWORK, SliceNetworkSettings
from napari_lungfm.models.automatic.networks import count_parameters
from napari_lungfm.models.automatic.protocol import AutomaticModel
from napari_lungfm.models.automatic.slice_network import SliceNetworkModel
from napari_lungfm.models.automatic.trained import (
    WEIGHTS,
    SeenPatient,
    TrainedModel,
    file_sha256,
    hash_parts,
    is_trained_model,
    write_description,
)
from napari_lungfm.models.registry import create_automatic_model
from napari_lungfm.training.automatic.cohort_check import load_for_training
from napari_lungfm.training.automatic.config import AutomaticTraining
from napari_lungfm.training.automatic.module import MONITORED, SliceModule
from napari_lungfm.training.automatic.prepared import PreparedCase, prepare_cohort
from napari_lungfm.training.automatic.slices import TrainingSlices, WholeCases
from napari_lungfm.training.fit import (
    FitListener,
    FitResult,
    StepSampler,
    count_devices,
    is_helper_process,
    load_weights,
    run_fit,
)

#: The parts of a `Split`.
PARTS: tuple[Literal["train", "validation"], ...] = ("train", "validation")
Stage = Literal["preparing", "training", "validating"]
#: Called with the stage, the cases done and all of them.
StageListener = Callable[[Stage, int, int], None]


@dataclass(frozen=True)
class Split:
    """Who is trained on and who is set aside, of the training part of a cohort."""

    train: tuple[PreparedCase, ...]
    validation: tuple[PreparedCase, ...]


def train_automatic(
    config: AutomaticTraining,
    out: Path,
    *,
    base: Path,
    device: str = "auto",
    resume: bool = False,
    listener: FitListener | None = None,
    stages: StageListener | None = None,
) -> TrainedModel | None:
    """Train a U-Net or DeepLabV3 and leave the folder of a trained model.

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
    if config.cohort is None:
        msg = f"the configuration '{config.name}' has no cohort; give one with --cohort FILE"
        raise ConfigError(msg)
    if not is_helper_process():
        _refuse_used(out, resume)
    cohort = config.cohort.build(base)
    tell = stages or (lambda stage, done, total: None)
    make_folder(out)
    cases = prepare_cohort(
        cohort,
        out / "run" / "prepared",
        inputs=config.inputs,
        structures=config.targets,
        lungs=_lungs(config, device),
        progress=lambda done, total: tell("preparing", done, total),
    )
    split = split_cases(cases, config)
    write_text(out / "config.yaml", config.to_yaml())
    module = _module(config, split)
    result = run_fit(
        module,
        _training_loader(config, split, count_devices(device, config.fit)),
        _validation_loader(split),
        out=out / "run",
        settings=config.fit,
        decided_by={**config.decided_by(), "cohort": _hash_cases(cases), "split": _hash(split)},
        device=device,
        resume=resume,
        monitor=MONITORED if split.validation else None,
        listener=listener,
    )
    if is_helper_process():
        return None
    return _finish(config, cohort, cases, split, module, result, out, device, tell)


def split_cases(cases: Sequence[PreparedCase], config: AutomaticTraining) -> Split:
    """Set validation cases aside, by the seed and the names of the cases alone.

    At least one is set aside where the configuration wants any, and at least one is left.
    """
    if config.validation == 0:
        return Split(tuple(cases), ())
    count = min(max(1, round(config.validation * len(cases))), len(cases) - 1)
    ordered = sorted(cases, key=lambda case: case.name)
    order = generator("validation split", config.fit.seed).permutation(len(ordered))
    aside = {ordered[n].name for n in order[:count]}
    return Split(
        tuple(case for case in cases if case.name not in aside),
        tuple(case for case in cases if case.name in aside),
    )


def _refuse_used(out: Path, resume: bool) -> None:
    if is_trained_model(out):
        msg = f"'{out}' holds a trained model already; choose another folder or remove it"
        raise UsageError(msg)
    if not resume and (out / "run" / "run.json").is_file():
        msg = f"'{out}' holds a training already; continue it with --resume or choose another"
        raise UsageError(msg)


def _lungs(config: AutomaticTraining, device: str) -> AutomaticModel | None:
    if config.missing_lungs == "refuse":
        return None
    if config.missing_lungs == "lungmask":
        # A training on lungs of another kind than its configuration says would be a lie.
        return create_automatic_model("lungmask", device=device, fallback=False)
    return create_automatic_model(config.missing_lungs)


def _module(config: AutomaticTraining, split: Split) -> SliceModule:
    # Weights are drawn from a stream of their own; the caller's generator stays where it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_hash("weights", config.fit.seed) % 2**63)
        return SliceModule(config, len(split.validation))


def _training_loader(config: AutomaticTraining, split: Split, devices: int) -> Any:
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


def _validation_loader(split: Split) -> Any | None:
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
    split: Split,
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
    if (out / "run" / "log.csv").is_file():
        write_text(out / "log.csv", (out / "run" / "log.csv").read_text(encoding="utf-8"))
    for text in result.notes:
        warnings.warn(text, LungFMWarning, stacklevel=3)
    settings = SliceNetworkSettings(
        network=config.network, inputs=config.inputs, postprocessing=config.postprocessing
    )
    scores = _validate(config, cohort, split, module, device, tell) if split.validation else None
    description = TrainedModel(
        family=SLICE_NETWORK,
        architecture=config.network.architecture,
        title=config.name,
        small=config.small,
        settings=settings.model_dump(mode="json"),
        structures=tuple(int(structure) for structure in config.targets),
        files={WEIGHTS: file_sha256(out / WEIGHTS)},
        parameters=count_parameters(module.network),
        seen=tuple(
            SeenPatient(cohort=cohort.name, case=case.name, part=part, image=case.image)
            for part in PARTS
            for case in getattr(split, part)
        ),
        cohort=cohort.name,
        cohort_hash=_hash_cases(cases),
        split_hash=_hash(split),
        epochs=result.epochs,
        seconds=result.seconds,
        code_version=__version__,
        code_hash=source_hash(),
        versions=package_versions(),
        hardware=hardware(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        validation=scores,
        notes=result.notes,
    )
    write_description(out, description)
    return description


def _validate(
    config: AutomaticTraining,
    cohort: Cohort,
    split: Split,
    module: SliceModule,
    device: str,
    tell: StageListener,
) -> dict[str, dict[str, float | None]]:
    """Dice of validation cases on their own grids, segmented as users will."""
    model = SliceNetworkModel(
        config.name,
        module.network,
        config.inputs,
        config.targets,
        device=device,
        postprocessing=config.postprocessing,
    )
    lungs = _lungs(config, device)
    aside = {case.name for case in split.validation}
    sources: list[CaseSource] = [source for source in cohort.train if source.name in aside]
    scores: dict[str, dict[str, float | None]] = {}
    for number, source in enumerate(sources, start=1):
        case = load_for_training(source, config.targets, lungs)
        found = model.segment(case.volume)
        scores[source.name] = {
            structure.title: _or_none(
                count_overlap(found.mask(int(structure)), case.reference.mask(int(structure))).dice
            )
            for structure in config.targets
        }
        tell("validating", number, len(sources))
    return scores


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _hash_cases(cases: Sequence[PreparedCase]) -> str:
    return hash_parts({case.name: [case.image, case.reference] for case in cases})


def _hash(split: Split) -> str:
    return hash_parts({part: [case.name for case in getattr(split, part)] for part in PARTS})
