"""The units of one case, done one after the other: what a worker does, wherever it runs."""

import gc
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from napari_lungfm import io
from napari_lungfm._core.exceptions import DataError, InputFileError, LungFMError
from napari_lungfm.benchmark.events import UnitNews
from napari_lungfm.benchmark.loaded import AutomaticMask, Models
from napari_lungfm.benchmark.plan import Plan, Unit
from napari_lungfm.benchmark.previews import Preview
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.benchmark.units import count_unit, do_unit, unread_record
from napari_lungfm.datasets.cases import Case, CaseSource
from napari_lungfm.geometry import Structure


@dataclass(frozen=True)
class CaseTask:
    """What is left to do on one case; it travels to a worker.

    Parameters
    ----------
    cohort
        Name of the cohort.
    source
        The case.
    units
        Its units that were not finished when the run began, in the order in which they are done;
        none where only the preview is missing.
    targets
        The structures that the run is about.
    """

    cohort: str
    source: CaseSource
    units: tuple[Unit, ...]
    targets: tuple[Structure, ...]

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.cohort}/{self.source.name}"


def pending_tasks(plan: Plan, folder: RunFolder) -> Iterator[tuple[str, int, CaseTask | None]]:
    """Yield for each case its name, how many of its units are finished, and what is left to do.

    Parameters
    ----------
    plan
        The plan.
    folder
        The folder of the run; nothing is written.
    """
    for source, units in plan.by_case():
        cohort = units[0].key.cohort
        left = tuple(unit for unit in units if not is_finished(folder, unit))
        task = CaseTask(cohort, source, left, plan.config.targets)
        needed = left or not has_preview(folder, cohort, source.name)
        yield task.name, len(units) - len(left), task if needed else None


def is_finished(folder: RunFolder, unit: Unit) -> bool:
    """Tell whether a unit has a record that is no failure, and its mask."""
    return _finished(folder, unit) is not None


def _finished(folder: RunFolder, unit: Unit) -> Record | None:
    record = folder.read_record(unit.key, unit.fingerprint)
    if record is None or record.status != "ok":
        return None
    here = record.mask_file is None or (folder.root / record.mask_file).is_file()
    return record if here else None


def has_preview(folder: RunFolder, cohort: str, case: str) -> bool:
    """Tell whether a case has a preview that can be read."""
    try:
        Preview.load(folder.preview_file(cohort, case))
    except InputFileError:
        return False
    return True


class CaseWork:
    """Does what is left of a case; the models stay for the next one.

    Each unit is written as it ends: its mask, then its record. Whatever is interrupted, no unit
    that has its record is done again.

    Parameters
    ----------
    folder
        The folder of the run.
    models
        The models of this process.
    tell
        Called as each unit ends.
    """

    def __init__(self, folder: RunFolder, models: Models, tell: Callable[[UnitNews], None]) -> None:
        self._folder = folder
        self._models = models
        self._tell = tell
        self._masks: dict[str, AutomaticMask] = {}

    def do(self, task: CaseTask) -> tuple[UnitNews, ...]:
        """Do the units of a case that are not finished.

        Returns
        -------
        tuple of UnitNews
            Of each unit, those included that were found finished.

        Raises
        ------
        OutputError
            If something cannot be written. What was finished before stays.
        """
        # Another worker may have finished some of them before it died.
        finished = {u.fingerprint: _finished(self._folder, u) for u in task.units}
        found = tuple(_news(u, record) for u in task.units if (record := finished[u.fingerprint]))
        left = [unit for unit in task.units if finished[unit.fingerprint] is None]
        if not left and has_preview(self._folder, task.cohort, task.source.name):
            return found
        try:
            return found + self._on_case(task, left)
        finally:
            self._models.close_case()
            self._masks.clear()
            gc.collect()  # drop the case's voxels before the next one is read

    def _on_case(self, task: CaseTask, units: list[Unit]) -> tuple[UnitNews, ...]:
        try:
            case = task.source.load()
            if units:
                _check_structures(case, task.targets)
        # Files are other people's too: one case that cannot be read must not end a long run.
        except Exception as error:  # noqa: BLE001
            return tuple(self._finish(unit, unread_record(unit, error)) for unit in units)
        Preview.of_case(case).save(self._folder.preview_file(task.cohort, task.source.name))
        case_hash = hash_case(case)
        return tuple(self._do_unit(unit, case, case_hash) for unit in units)

    def _do_unit(self, unit: Unit, case: Case, case_hash: str) -> UnitNews:
        mask = self._automatic_mask(unit.prompted_by)
        record, label_map = do_unit(unit, case, case_hash, self._models, mask)
        if unit.counted and record.status == "ok":
            macs = count_unit(unit, case, self._models, mask)
            record = record.model_copy(
                update={"cost": record.cost.model_copy(update={"macs": macs})}
            )
        path = self._folder.mask_file(unit.key, unit.fingerprint)
        io.write_label_map(label_map, path)
        file = path.relative_to(self._folder.root).as_posix()
        return self._finish(unit, record.model_copy(update={"mask_file": file}))

    def _automatic_mask(self, unit: Unit | None) -> AutomaticMask | None:
        """Return what an automatic unit left, in this call or before; read once a case."""
        if unit is None:
            return None
        if unit.fingerprint not in self._masks:
            self._masks[unit.fingerprint] = self._read_mask(unit)
        return self._masks[unit.fingerprint]

    def _read_mask(self, unit: Unit) -> AutomaticMask:
        record = self._folder.read_record(unit.key, unit.fingerprint)
        if record is None or record.status != "ok" or record.mask_file is None:
            problem = record.error if record is not None else "it has no record"
            return AutomaticMask(unit.key.method, None, 0.0, problem)
        try:
            labels = io.read_label_map(self._folder.root / record.mask_file)
        except LungFMError as error:
            return AutomaticMask(unit.key.method, None, 0.0, str(error))
        cost = record.cost
        return AutomaticMask(unit.key.method, labels.array, cost.seconds, macs=cost.macs)

    def _finish(self, unit: Unit, record: Record) -> UnitNews:
        before = self._folder.read_record(unit.key, unit.fingerprint)
        failed_before = before.tries if before is not None and before.status == "failed" else 0
        record = record.model_copy(update={"tries": failed_before + 1})
        self._folder.write_record(record)
        news = _news(unit, record)
        self._tell(news)
        return news


def _news(unit: Unit, record: Record) -> UnitNews:
    failed = record.status == "failed"
    # What a training or a crash left undone, another try on the case cannot mend.
    return UnitNews(unit.fingerprint, unit_text(record), failed, failed and not unit.problem)


def unit_text(record: Record) -> str:
    """Return in a line what came of a unit."""
    key = record.key
    scores = " ".join(f"{s.structure} {s.dice:.3f}" for s in record.structures if s.dice)
    if record.zhu:
        known = (f"{s.structure} IoU {s.iou:.3f}" for s in record.zhu if s.iou is not None)
        scores = " ".join(known) or "no structure on the evaluated slices"
    outcome = record.error or scores or "no overlap"
    return f"{key.case} {key.method} {key.protocol}: {outcome}"


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
