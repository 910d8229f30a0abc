"""From a configuration, a base and a cohort to the folder of a fine-tuned model."""

import importlib
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from napari_lungfm.datasets.cases import Cohort
from napari_lungfm.models.automatic.trained import TrainedModel
from napari_lungfm.training.around import build_cohort, weights_drawn_by
from napari_lungfm.training.automatic.finish import (
    UNMEASURED,
    StageListener,
    begin,
    decided_by,
    lungs_model,
    refuse_used,
    told_if_short,
)
from napari_lungfm.training.automatic.kept import remove_others
from napari_lungfm.training.automatic.split import Split, split_cases
from napari_lungfm.training.finetune.base import BaseNetwork, load_base
from napari_lungfm.training.finetune.cases import PARTS, StoredCase, store_cohort
from napari_lungfm.training.finetune.config import FineTuning
from napari_lungfm.training.finetune.finish import (
    Ending,
    copied_state,
    finish,
    notes_on_validation,
)
from napari_lungfm.training.finetune.overlap import refuse_test_patients, refuse_twins
from napari_lungfm.training.finetune.plan import Plan
from napari_lungfm.training.finetune.samples import refuse_short
from napari_lungfm.training.finetune.subsets import nested_subset
from napari_lungfm.training.finetune.task import FineTuneTask
from napari_lungfm.training.finetune.telemetry import Telemetry
from napari_lungfm.training.fit.checkpoints import load_weights
from napari_lungfm.training.fit.devices import count_devices, is_helper_process
from napari_lungfm.training.fit.run import FitResult, run_fit
from napari_lungfm.training.fit.settings import FitListener
from napari_lungfm.training.fit.start import FitStart
from napari_lungfm.training.lightning_import import Callback, pl
from napari_lungfm.training.lock import hold

#: Metric by which weights are chosen and early stopping works.
MONITORED = "validation/dice"
#: Folder of cases made ready, in that of the fit.
_CASES = "cases"
#: Folder of features of frozen encoders, there too.
_FEATURES = "features"
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
        If the configuration has no cohort, the base does not fit the recipe, there are fewer
        devices, or a training is to be resumed with another configuration or other cases.
    UsageError
        If the folder holds a training and `resume` is false, or another process is training in
        it.
    CohortError
        If cases cannot be trained on, a test patient is among them, or one CT is there under two
        names; the message names them.
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
    devices = count_devices(device, config.fit_settings())
    start = load_base(config.base, config.recipe.networks, place=base, window=config.window)
    tell = stages or (lambda stage, done, total: None)
    with nullcontext() if is_helper_process() else hold(out / "run"):
        cases = _cases(config, cohort, start, out / "run", device, tell)
        # Of all parts alike: a curve over fractions is not to end at its last point.
        refuse_short(cases, config.recipe.clip)
        plan = Plan.of(config, _part(cases, config), devices)
        before = copied_state(start.network)
        parameters = sum(p.numel() for p in start.network.parameters())
        task = _task(config, start, plan.steps)
        result = _fit(task, plan, start, cases, out, device, resume, listener)
        if is_helper_process():
            return None
        ending = Ending(
            config, cohort, cases, plan.split, start, before, parameters, trained_modules(task),
            out, device, tell,
        )  # fmt: skip
        return _end(task, plan, result, ending)


def _cases(
    config: FineTuning,
    cohort: Cohort,
    start: BaseNetwork,
    run: Path,
    device: str,
    tell: StageListener,
) -> tuple[StoredCase, ...]:
    """Store the training cases, and refuse those that must not be trained on."""
    cases = store_cohort(
        cohort,
        run / _CASES,
        structures=config.targets,
        lungs=lungs_model(config, device),
        progress=lambda done, total: tell("preparing", done, total),
    )
    refuse_twins(cohort, cases)
    refuse_test_patients(
        cohort,
        cases,
        run / "test-images.json",
        base=start.description,
        progress=lambda done, total: tell("preparing", done, total),
    )
    return cases


def _fit(
    task: FineTuneTask,
    plan: Plan,
    start: BaseNetwork,
    cases: Sequence[StoredCase],
    out: Path,
    device: str,
    resume: bool,
    listener: FitListener | None,
) -> FitResult:
    config, run = plan.config, out / "run"
    settings = config.fit_settings()
    decided = {**decided_by(config, cases, plan.split), "base": start.sha256}
    if not is_helper_process():
        begin(config, cases, FitStart.now(settings, decided, device), out, resume)
        remove_others([case.stem for case in cases], run / _CASES, PARTS)
    if task.features is not None:
        plan.keep_features(task.features, run / _FEATURES, start, cases, device)
    return run_fit(
        task,
        plan.training(task),
        plan.validation(task),
        out=run,
        settings=settings,
        decided_by=decided,
        device=device,
        resume=resume,
        monitor=MONITORED if plan.split.validation else None,
        callbacks=_callbacks(task, plan),
        listener=listener,
    )


def _end(task: FineTuneTask, plan: Plan, result: FitResult, ending: Ending) -> TrainedModel:
    run = ending.out / "run"
    best = result.best if ending.config.keep == "best" else None
    load_weights(task, result.last if best is None else best)
    shutil.rmtree(run / _FEATURES, ignore_errors=True)  # gigabytes that nobody reads any more
    told = [] if task.features is None else [*task.features.notes]  # when it was found
    log = run / "log.csv"
    told += [*told_if_short(log), *([] if plan.split.validation else [UNMEASURED])]
    on_validation = notes_on_validation(log, MONITORED, best=best is not None)
    return finish(ending, task.result_state(), result, plan.notes, (*told, *on_validation))


def _part(cases: Sequence[StoredCase], config: FineTuning) -> Split[StoredCase]:
    """Choose who is trained on; validation patients are the same for every fraction."""
    split = split_cases(cases, config.validation, config.seed)
    return Split(nested_subset(split.train, config.fraction, config.seed), split.validation)


def trained_modules(task: FineTuneTask) -> frozenset[str]:
    """Return the modules of the network of which anything is trained."""
    weights = task.network.named_parameters()
    return frozenset(name.partition(".")[0] for name, each in weights if each.requires_grad)


def _task(config: FineTuning, base: BaseNetwork, steps: int) -> FineTuneTask:
    module = importlib.import_module(_RECIPES[config.recipe.name])
    with weights_drawn_by(config.seed):  # new ones, such as adapters
        task: FineTuneTask = module.make_task(config, base, steps)
    return task


def _callbacks(task: FineTuneTask, plan: Plan) -> list[Callback]:
    callbacks: list[Callback] = [Telemetry(plan.config.recipe.clip, task.features)]
    if plan.batches > 1:
        callbacks.append(pl.callbacks.GradientAccumulationScheduler({0: plan.batches}))
    return callbacks
