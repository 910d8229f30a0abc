"""Do the units of a plan, one case at a time, and never one twice."""

import gc
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from napari_lungfm import io
from napari_lungfm._core.exceptions import DataError, InputFileError
from napari_lungfm.benchmark.config import BenchmarkConfig
from napari_lungfm.benchmark.plan import Plan, Unit, make_plan, refuse_output_among_inputs
from napari_lungfm.benchmark.previews import Preview
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.benchmark.units import Models, do_unit, unread_record
from napari_lungfm.datasets.cases import Case
from napari_lungfm.geometry import Structure
from napari_lungfm.models.registry import check_weights


@dataclass(frozen=True)
class RunEvent:
    """What the runner tells while it works.

    ``done`` units of ``total`` are finished, ``failed`` of them failed; ``text`` is one line.
    """

    kind: Literal["start", "case", "unit", "skip", "end"]
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
    """Do every unit that has no finished record yet.

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
    LungFMError
        If a case's files or a model's weights are not here, before anything is done.
    """
    plan = make_plan(config, base)
    refuse_output_among_inputs(out, plan)
    for method in config.methods:
        check_weights(method.model, method.options)
    folder = RunFolder.create(out)
    folder.write_plan(config.to_yaml(), [(u.key, u.fingerprint) for u in plan.units])
    _Runner(plan, folder, Models(device), listener or (lambda event: None)).run()
    return folder


class _Runner:
    """State of one call of `run_benchmark`."""

    def __init__(self, plan: Plan, folder: RunFolder, models: Models, listener: Listener) -> None:
        self.plan = plan
        self.folder = folder
        self.models = models
        self.listener = listener
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

    def _do_units(self, units: list[Unit], case: Case, case_hash: str) -> None:
        for unit in units:
            record, label_map = do_unit(
                unit, case, case_hash, self.plan.config.targets, self.models
            )
            path = self.folder.mask_file(unit.key, unit.fingerprint)
            io.write_label_map(label_map, path)
            file = path.relative_to(self.folder.root).as_posix()
            self._finish(record.model_copy(update={"mask_file": file}))

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

    def _tell(self, kind: Literal["start", "case", "unit", "skip", "end"], text: str) -> None:
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
