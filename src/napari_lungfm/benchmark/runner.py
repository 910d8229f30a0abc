"""Train what a configuration wants trained, then do every unit once, here or on workers."""

import time
from collections.abc import Sequence
from pathlib import Path

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.benchmark.case_work import CaseTask, pending_tasks
from napari_lungfm.benchmark.config import BenchmarkConfig
from napari_lungfm.benchmark.events import EventKind, Listener, RunEvent, Tally
from napari_lungfm.benchmark.plan import (
    Plan,
    build_cohorts,
    make_plan,
    refuse_output_among_inputs,
)
from napari_lungfm.benchmark.radii import Radii
from napari_lungfm.benchmark.seen import ImageHashes, refuse_seen
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.benchmark.sweeping import QUIET_SECONDS, sweep
from napari_lungfm.benchmark.trainings import Training, do_trainings, plan_trainings
from napari_lungfm.benchmark.workers import do_in_this_process, do_on_workers
from napari_lungfm.benchmark.workplace import Workplace, check_workplace, connect
from napari_lungfm.models.registry import check_device, check_options, check_weights

__all__ = ["Listener", "RunEvent", "Workplace", "run_benchmark"]


def run_benchmark(
    config: BenchmarkConfig,
    out: Path,
    *,
    base: Path,
    device: str = "auto",
    listener: Listener | None = None,
    workplace: Workplace | None = None,
) -> RunFolder:
    """Train what the configuration wants trained, then do every unit that has no record yet.

    Each unit is written as it ends, so an interruption loses at most the units in flight and the
    same call goes on from there. A unit whose configuration, case or program code changed is
    done anew; a unit that failed is tried once more, and again by the next call.

    Parameters
    ----------
    config
        What to run.
    out
        Folder of the run; made if need be.
    base
        Folder that relative paths in the configuration count from.
    device
        Where models run that can run elsewhere than on the CPU.
    listener
        Called on every event.
    workplace
        Where the units are done: in this process by default. Trainings are done in this process
        in any case.

    Returns
    -------
    RunFolder
        The folder with all records.

    Raises
    ------
    OutputError
        If the folder cannot be written. What was finished before stays.
    SeenPatientError
        If a model is to be scored on patients that it was trained on, before anything is done.
    LungFMError
        If a case's files or a model's weights are not here, or the workplace cannot be reached,
        before anything is done; or whatever a training raises, or the workers.
    """
    listener = listener or (lambda event: None)
    begun = time.time()
    place = workplace or Workplace()
    check_workplace(place)
    plan, folder = _prepare(config, out, base, device, listener)
    tally = Tally(len(plan.units), listener)
    tally.tell("start", f"{len(plan.units)} units")
    tasks = _pending(plan, folder, tally)
    _do(tasks, folder, device, tally, place)
    sweep(folder, begun)
    tally.tell("end", f"{tally.done} units, {tally.failed} failed")
    return folder


def _prepare(
    config: BenchmarkConfig, out: Path, base: Path, device: str, listener: Listener
) -> tuple[Plan, RunFolder]:
    """Check everything, train, and write the plan."""
    methods, cohorts = config.look_up(base), build_cohorts(config, base)
    refuse_output_among_inputs(out, cohorts)
    for method in methods:
        if method.runs is not None:
            check_weights(method.runs, method.spec.options)
    folder = RunFolder(Path(out))
    plan_trainings(methods, cohorts)  # refuses what cannot be trained
    images = ImageHashes(folder.images_file)
    refuse_seen(methods, cohorts, images)
    RunFolder.create(out)
    sweep(folder, time.time() - QUIET_SECONDS)
    images.save()
    trained = do_trainings(
        methods,
        cohorts,
        config,
        folder.trainings,
        base=base,
        device=device,
        listener=lambda *news: listener(_training_event(*news)),
    )
    refuse_seen(trained.values(), cohorts, images)
    for method in trained.values():
        if method.runs is not None:
            check_options(method.runs, method.spec.options)
    radii = Radii(folder.radii_file)
    plan = make_plan(config, methods, cohorts, trained, radii.of)
    radii.save()
    folder.write_plan(config.to_yaml(), [(u.key, u.fingerprint) for u in plan.units])
    return plan, folder


def _training_event(training: Training, text: str, done: int, total: int, keep: bool) -> RunEvent:
    kind: EventKind = "training" if keep else "step"
    return RunEvent(kind, done, total, 0, f"training {training.text}: {text}")


def _pending(plan: Plan, folder: RunFolder, tally: Tally) -> list[CaseTask]:
    tasks = []
    for name, finished, task in pending_tasks(plan, folder):
        tally.skip(finished)
        if task is not None:
            tasks.append(task)
        if task is None or not task.units:
            tally.tell("skip", f"{name} is finished")
    return tasks


def _do(
    tasks: Sequence[CaseTask], folder: RunFolder, device: str, tally: Tally, place: Workplace
) -> None:
    if not tasks:
        return
    # A device with a number is one GPU, which all workers then share.
    on_gpus = device in ("auto", "cuda") and _use_gpus(tasks)
    workers = place.count(len(tasks), on_gpus=on_gpus)
    if workers == 1 and not place.elsewhere:
        do_in_this_process(tasks, folder, device, tally)
        return
    if not place.elsewhere:
        tally.tell("worker", f"{workers} workers on this machine")
    with connect(place, workers, on_gpus=on_gpus) as client:
        do_on_workers(tasks, folder, device, tally, client)


def _use_gpus(tasks: Sequence[CaseTask]) -> bool:
    names = {unit.runs for task in tasks for unit in task.units if unit.problem is None}
    return any(_can_use_gpu(name) for name in names)


def _can_use_gpu(model: str) -> bool:
    try:
        check_device(model, "cuda")
    except UsageError:  # it runs on the CPU only
        return False
    return True
