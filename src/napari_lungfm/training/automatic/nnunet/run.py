"""From a configuration of nnU-Net and a cohort to the folder of a trained model."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from napari_lungfm._core.environment import available_cores
from napari_lungfm._core.files import make_folder, write_json
from napari_lungfm._core.imports import require
from napari_lungfm.datasets.cases import Cohort
from napari_lungfm.models.automatic.nnunet_settings import (
    DATASET,
    NNUNET,
    PLANS,
    NNUNetSettings,
)
from napari_lungfm.models.automatic.protocol import AutomaticModel
from napari_lungfm.models.automatic.trained import WEIGHTS, TrainedModel
from napari_lungfm.models.foundation.runtime import pick_device
from napari_lungfm.training.around import LOG
from napari_lungfm.training.automatic.finish import (
    StageListener,
    begin,
    decided_by,
    describe,
    doubts,
    lungs_model,
    validation_scores,
)
from napari_lungfm.training.automatic.nnunet.config import NNUNetTraining
from napari_lungfm.training.automatic.nnunet.export import (
    DATASET_ID,
    ExportedCase,
    dataset_name,
    export_cohort,
    remove_other_cases,
    write_dataset,
)
from napari_lungfm.training.automatic.nnunet.process import run_worker
from napari_lungfm.training.automatic.nnunet.worker import Request
from napari_lungfm.training.automatic.overlap import refuse_test_images
from napari_lungfm.training.automatic.split import (
    Split,
    split_cases,
    told_of_same_images,
)
from napari_lungfm.training.fit.pace import Pace
from napari_lungfm.training.fit.settings import FitListener, FitProgress, FitSettings
from napari_lungfm.training.fit.start import FitStart


def train_nnunet(
    config: NNUNetTraining,
    cohort: Cohort,
    out: Path,
    *,
    device: str,
    resume: bool,
    listener: FitListener | None,
    tell: StageListener,
) -> TrainedModel:
    """Train nnU-Net; called by `train_automatic`, which see.

    Parameters
    ----------
    config
        The training.
    cohort
        The cases.
    out
        Folder of the model. nnU-Net's folders are in ``run/`` inside it.
    device, resume, listener
        See `train_automatic`.
    tell
        Called as cases are prepared, measured, resampled and validated.

    Raises
    ------
    MissingDependencyError
        If nnU-Net is not installed.
    ConfigError, CohortError, FitError, OutputError
        See `train_automatic`; `ConfigError` too where nnU-Net plans no such configuration.
    """
    require("nnunetv2", purpose="training nnU-Net")
    picked = pick_device(device)
    run = make_folder(out / "run")
    name = dataset_name(cohort.name)
    raw = run / "nnUNet_raw" / name
    cases = export_cohort(
        cohort,
        raw,
        config.targets,
        lungs=lungs_model(config, device),
        progress=lambda done, total: tell("preparing", done, total),
    )
    split = split_cases(cases, config.validation, config.seed)
    refuse_test_images(cohort, cases, run)
    notes = _begin(config, cases, split, out, device, resume)
    remove_other_cases(raw.parent, name, cases)
    write_dataset(raw, split, config.targets)
    request = _request(config, name, split, picked, out)
    done = run_worker(request, run, picked, _Teller(config, listener, tell))
    settings = NNUNetSettings(
        configuration=config.configuration,
        trainer=done["trainer"],
        mirroring=done["mirroring"],
        weights=(WEIGHTS,),
        postprocessing=config.postprocessing,
    )
    files = (WEIGHTS, PLANS, DATASET)
    facts = {
        "family": NNUNET,
        "architecture": config.architecture,
        "settings": settings.model_dump(mode="json"),
        "parameters": done["parameters"],
        "epochs": done["epochs"],
        "seconds": done["seconds"],
    }
    scores = None
    if split.validation:
        model = _model(config, settings, out, device)
        scores = validation_scores(model, config, cohort, split, device, tell)
    return describe(
        config,
        cohort,
        cases,
        split,
        out,
        files=files,
        notes=(*notes, *told_of_same_images(cases)),
        doubtful=doubts(out / LOG, scores),
        validation=scores,
        **facts,
    )


def _begin(
    config: NNUNetTraining,
    cases: tuple[ExportedCase, ...],
    split: Split[ExportedCase],
    out: Path,
    device: str,
    resume: bool,
) -> tuple[str, ...]:
    """Refuse to resume another training; return why a resumed one will not be the same."""
    run = out / "run"
    start = FitStart.now(
        # What else there is to say about this device is said below.
        FitSettings(epochs=config.epochs, seed=config.seed, deterministic=True),
        decided_by(config, cases, split),
        device,
    )
    known = begin(config, cases, start, out, resume)
    if known is None:
        write_json(run / "run.json", start.to_dict())
        return ()
    notes = list(known)
    if not any(run.glob("nnUNet_results/*/*/fold_0/checkpoint_*.pth")):
        return ()  # nothing was trained yet
    if count_workers(config) > 0:
        notes.append(
            "resumed, not bit for bit: nnU-Net's own processes prepare batches at random "
            "(workers: 0 makes them seeded, and slow)"
        )
    if pick_device(device).type != "cpu":
        notes.append("resumed, not bit for bit: nnU-Net's kernels on a GPU are not deterministic")
    return tuple(notes)


def count_workers(config: NNUNetTraining) -> int:
    """Return the number of processes that prepare batches."""
    if config.workers is not None:
        return config.workers
    cores = available_cores()
    return 0 if cores < 4 else min(12, cores - 1)


def _request(
    config: NNUNetTraining,
    name: str,
    split: Split[ExportedCase],
    device: torch.device,
    out: Path,
) -> dict[str, Any]:
    cores = available_cores()
    request = Request(
        dataset=name,
        dataset_id=DATASET_ID,
        prepared=str((out / "run" / "nnUNet_preprocessed" / name).resolve()),
        names={case.identifier: case.name for case in (*split.train, *split.validation)},
        configuration=config.configuration,
        preset=config.preset,
        epochs=config.epochs,
        iterations=config.iterations,
        validation_iterations=config.validation_iterations,
        gpu_memory_gb=config.gpu_memory_gb,
        seed=config.seed,
        workers=count_workers(config),
        processes=1 if cores < 4 else min(8, cores - 1),
        device=device.type,
        validate=bool(split.validation),
        out=str(out.resolve()),
    )
    return asdict(request)


def _model(
    config: NNUNetTraining, settings: NNUNetSettings, out: Path, device: str
) -> AutomaticModel:
    """Return the model that was just trained, before it has a description."""
    from napari_lungfm.models.automatic.nnunet_model import open_nnunet  # noqa: PLC0415

    return open_nnunet(
        out,
        config.name,
        settings,
        tuple(int(structure) for structure in config.targets),
        device=device,
        postprocessing=settings.postprocessing,
    )


class _Teller:
    """Turns the worker's events into what listeners of a fit know."""

    def __init__(
        self, config: NNUNetTraining, listener: FitListener | None, tell: StageListener
    ) -> None:
        self._config, self._listener, self._tell = config, listener, tell
        self._pace = Pace()

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "stage":
            self._tell(event["stage"], event["done"], event["total"])
        elif event["event"] in ("step", "epoch") and self._listener is not None:
            self._listener(self._progress(event))

    def _progress(self, event: Mapping[str, Any]) -> FitProgress:
        steps = self._config.epochs * self._config.iterations
        step = int(event["step"])
        return FitProgress(
            step,
            steps,
            int(event["epoch"]),
            self._config.epochs,
            self._pace.left(step, steps),
            event.get("metrics", {}),
            event["event"] == "epoch",
        )
