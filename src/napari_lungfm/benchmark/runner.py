"""Do the units of a plan, one case at a time, and never one twice."""

import gc
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from napari_lungfm import io
from napari_lungfm._core.exceptions import DataError, InputFileError, LungFMError
from napari_lungfm.benchmark.config import BenchmarkConfig
from napari_lungfm.benchmark.loaded import AutomaticMask, Models
from napari_lungfm.benchmark.plan import (
    Plan,
    Unit,
    build_cohorts,
    make_plan,
    refuse_output_among_inputs,
)
from napari_lungfm.benchmark.previews import Preview
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.seen import ImageHashes, refuse_seen
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.benchmark.trainings import Training, do_trainings, plan_trainings
from napari_lungfm.benchmark.units import do_unit, unread_record
from napari_lungfm.datasets.cases import Case
from napari_lungfm.geometry import Structure
from napari_lungfm.models.registry import check_options, check_weights

EventKind: TypeAlias = Literal["training", "step", "start", "case", "unit", "skip", "end"]


@dataclass(frozen=True)
class RunEvent:
    """What the runner tells while it works.

    ``done`` units of ``total`` are finished, ``failed`` of them failed; ``text`` is one line. While
    models are trained, ``step`` and, now and then, ``training`` count the steps of a training.
    """

    kind: EventKind
    done: int
    total: int
    failed: int
    text: str


Listener = Callable[[RunEvent], None]


def run_benchmark(
    config: BenchmarkConfig,
    out: Path,
    *,
    base: Path,
    device: str = "auto",
    listener: Listener | None = None,
) -> RunFolder:
    """Train what the configuration wants trained, then do every unit that has no record yet.

    Each unit is written as it ends, so an interruption loses at most the unit in flight and the
    same call goes on from there. A unit whose configuration, case or program code changed is
    done anew; a unit that failed is tried again.

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
        If a case's files or a model's weights are not here, before anything is done; or whatever a
        training raises.
    """
    tell = listener or (lambda event: None)
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
    images.save()
    trained = do_trainings(
        methods,
        cohorts,
        config,
        folder.trainings,
        base=base,
        device=device,
        listener=lambda *news: tell(_training_event(*news)),
    )
    refuse_seen(trained.values(), cohorts, images)
    for method in trained.values():
        if method.runs is not None:
            check_options(method.runs, method.spec.options)
    plan = make_plan(config, methods, cohorts, trained)
    folder.write_plan(config.to_yaml(), [(u.key, u.fingerprint) for u in plan.units])
    _Runner(plan, folder, Models(device), tell).run()
    return folder


def _training_event(training: Training, text: str, done: int, total: int, keep: bool) -> RunEvent:
    kind: EventKind = "training" if keep else "step"
    return RunEvent(kind, done, total, 0, f"training {training.text}: {text}")


class _Runner:
    """State of one call of `run_benchmark`."""

    def __init__(self, plan: Plan, folder: RunFolder, models: Models, listener: Listener) -> None:
        self.plan = plan
        self.folder = folder
        self.models = models
        self.listener = listener
        self.masks: dict[str, AutomaticMask] = {}
        self.done = 0
        self.failed = 0

    def run(self) -> None:
        self._tell("start", f"{len(self.plan.units)} units")
        for source, units in self.plan.by_case():
            pending = [unit for unit in units if not self._is_finished(unit)]
            self.done += len(units) - len(pending)
            if not pending and not self._has_preview(units[0]):
                self._preview(units[0], source.load())
            if not pending:
                self._tell("skip", f"{units[0].key.cohort}/{source.name} is finished")
                continue
            self._tell("case", f"{units[0].key.cohort}/{source.name}")
            self._run_case(pending)
            gc.collect()  # drop the case's voxels before the next one is read
        self._tell("end", f"{self.done} units, {self.failed} failed")

    def _preview(self, unit: Unit, case: Case) -> None:
        Preview.of_case(case).save(self.folder.preview_file(unit.key.cohort, unit.key.case))

    def _has_preview(self, unit: Unit) -> bool:
        try:
            Preview.load(self.folder.preview_file(unit.key.cohort, unit.key.case))
        except InputFileError:
            return False
        return True

    def _is_finished(self, unit: Unit) -> bool:
        record = self.folder.read_record(unit.key, unit.fingerprint)
        if record is None or record.status != "ok":
            return False
        return record.mask_file is None or (self.folder.root / record.mask_file).is_file()

    def _run_case(self, units: list[Unit]) -> None:
        first = units[0]
        try:
            case = first.source.load()
            _check_structures(case, self.plan.config.targets)
        # Files are other people's too: one case that cannot be read must not end a long run.
        except Exception as error:  # noqa: BLE001
            for unit in units:
                self._finish(unread_record(unit, error))
            return
        self._preview(first, case)
        case_hash = hash_case(case)
        try:
            self._do_units(units, case, case_hash)
        finally:
            self.models.close_case()
            self.masks.clear()

    def _do_units(self, units: list[Unit], case: Case, case_hash: str) -> None:
        for unit in units:
            mask = self._automatic_mask(unit.prompted_by)
            record, label_map = do_unit(unit, case, case_hash, self.models, mask)
            path = self.folder.mask_file(unit.key, unit.fingerprint)
            io.write_label_map(label_map, path)
            file = path.relative_to(self.folder.root).as_posix()
            self._finish(record.model_copy(update={"mask_file": file}))

    def _automatic_mask(self, unit: Unit | None) -> AutomaticMask | None:
        """Return what an automatic unit left, in this call or before; read once a case."""
        if unit is None:
            return None
        if unit.fingerprint not in self.masks:
            self.masks[unit.fingerprint] = self._read_mask(unit)
        return self.masks[unit.fingerprint]

    def _read_mask(self, unit: Unit) -> AutomaticMask:
        record = self.folder.read_record(unit.key, unit.fingerprint)
        if record is None or record.status != "ok" or record.mask_file is None:
            problem = record.error if record is not None else "it has no record"
            return AutomaticMask(unit.key.method, None, 0.0, problem)
        try:
            labels = io.read_label_map(self.folder.root / record.mask_file)
        except LungFMError as error:
            return AutomaticMask(unit.key.method, None, 0.0, str(error))
        return AutomaticMask(unit.key.method, labels.array, record.cost.seconds)

    def _finish(self, record: Record) -> None:
        self.folder.write_record(record)
        self.done += 1
        self.failed += record.status == "failed"
        key = record.key
        scores = " ".join(f"{s.structure} {s.dice:.3f}" for s in record.structures if s.dice)
        if record.zhu:
            known = (f"{s.structure} IoU {s.iou:.3f}" for s in record.zhu if s.iou is not None)
            scores = " ".join(known) or "no structure on the evaluated slices"
        outcome = scores or record.error or "no overlap"
        self._tell("unit", f"{key.case} {key.method} {key.protocol}: {outcome}")

    def _tell(self, kind: EventKind, text: str) -> None:
        self.listener(RunEvent(kind, self.done, len(self.plan.units), self.failed, text))


def _check_structures(case: Case, targets: tuple[Structure, ...]) -> None:
    if not set(targets) & set(case.structures):
        wanted = ", ".join(structure.title for structure in targets)
        present = ", ".join(structure.title for structure in case.structures) or "nothing"
        msg = f"case '{case.name}': the reference has {present}, but none of: {wanted}"
        raise DataError(msg)


def hash_case(case: Case) -> str:
    """Return a hash of the voxels, the reference and the grid of a case."""
    mark = hashlib.blake2b(digest_size=16)
    for array in (case.volume.array, case.reference.array):
        mark.update(str(array.dtype).encode())
        for plane in array:  # plane by plane: a turned volume is not contiguous
            mark.update(np.ascontiguousarray(plane).data)
    mark.update(repr(sorted(case.volume.geometry.to_dict().items())).encode())
    return mark.hexdigest()
