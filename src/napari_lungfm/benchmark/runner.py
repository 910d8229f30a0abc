"""Do the units of a plan, one case at a time, and never one twice."""

import gc
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from napari_lungfm import io
from napari_lungfm._core.environment import hardware, package_versions
from napari_lungfm._core.exceptions import DataError, InputFileError, LungFMError
from napari_lungfm._core.measure import Meter
from napari_lungfm._core.seeding import generator
from napari_lungfm.benchmark.config import BenchmarkConfig
from napari_lungfm.benchmark.plan import Plan, Unit, make_plan, refuse_output_among_inputs
from napari_lungfm.benchmark.previews import Preview
from napari_lungfm.benchmark.records import (
    Cost,
    InteractionResult,
    Record,
    SliceScore,
    StructureResult,
)
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.datasets.cases import Case
from napari_lungfm.evaluation.prompt_protocols import parse_protocol
from napari_lungfm.evaluation.scoring import StructureScores, score_structure
from napari_lungfm.evaluation.simulation import Simulation, simulate
from napari_lungfm.geometry import (
    LUNG_LABELS,
    LabelMap,
    Structure,
    VolumeGeometry,
    axis_codes,
    to_axial,
)
from napari_lungfm.models.prompts import to_dict
from napari_lungfm.models.protocols import PromptableModel
from napari_lungfm.models.registry import check_weights, create_model, model_card


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
    _Runner(plan, folder, _Models(device), listener or (lambda event: None)).run()
    return folder


class _Models:
    """The models of a run; the one used last stays loaded, since weights take time to read."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._held: tuple[str, PromptableModel] | None = None

    def get(self, unit: Unit) -> PromptableModel:
        """Return the model of a unit."""
        key = json.dumps([unit.key.model, unit.options], sort_keys=True, default=str)
        if self._held is None or self._held[0] != key:
            self._held = None  # two large models need not fit into memory together
            here = self._device if model_card(unit.key.model).kind == "foundation" else "auto"
            self._held = (key, create_model(unit.key.model, device=here, **unit.options))
        return self._held[1]


class _Runner:
    """State of one call of `run_benchmark`."""

    def __init__(
        self, plan: Plan, folder: RunFolder, models: "_Models", listener: Listener
    ) -> None:
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
                cost = Cost(seconds=0.0, peak_rss_mb=None, n_prompts=0, parameters=None)
                self._finish(_record(unit, None, (), cost, error=_one_line(error)))
            return
        self._preview(first, case)
        case_hash = hash_case(case)
        for unit in units:
            record, label_map = _do_unit(
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


def _do_unit(
    unit: Unit, case: Case, case_hash: str, targets: tuple[Structure, ...], models: _Models
) -> tuple[Record, LabelMap]:
    """Segment and score; whatever the model raises becomes a failed record."""
    wanted = [structure for structure in targets if structure in case.structures]
    done: dict[Structure, Simulation] = {}
    error: str | None = None
    with Meter() as meter:
        try:
            for structure in wanted:
                done[structure] = _delineate(unit, models.get(unit), case, structure)
        # A model is other people's code: one that fails on one case must not end a long run.
        except Exception as problem:  # noqa: BLE001
            error = _one_line(problem)
    array = np.zeros(case.volume.shape, dtype=np.uint8)
    if error is None:  # a failure is scored as an empty prediction, as the protocol says
        for structure, simulation in done.items():
            # In the order of the structures: the tumour comes last and wins where they overlap.
            array[simulation.mask] = int(structure)
    label_map = LabelMap(array, case.volume.geometry, LUNG_LABELS)
    results = tuple(
        _result(structure, label_map, case, done.get(structure)) for structure in wanted
    )
    cost = Cost(
        seconds=meter.seconds,
        peak_rss_mb=meter.peak_rss_mb,
        n_prompts=sum(len(simulation.prompts) for simulation in done.values()),
        parameters=model_card(unit.key.model).parameters,
    )
    return _record(unit, case, results, cost, case_hash=case_hash, error=error), label_map


def _delineate(unit: Unit, model: PromptableModel, case: Case, structure: Structure) -> Simulation:
    # The stream does not depend on the model: every method sees the same user.
    rng = generator(unit.key.seed, case.name, unit.key.protocol, structure.title)
    protocol = parse_protocol(unit.key.protocol)
    return simulate(model, case.volume, case.reference.mask(int(structure)), protocol, rng)


def _result(
    structure: Structure, prediction: LabelMap, case: Case, simulation: Simulation | None
) -> StructureResult:
    label = int(structure)
    seen, wanted = to_axial(prediction), to_axial(case.reference)
    scores = score_structure(seen.mask(label), wanted.mask(label), wanted.geometry)
    prompts = simulation.prompts if simulation else ()
    looks = simulation.interactions if simulation else ()
    return StructureResult(
        structure=structure.title,
        prompts=tuple(to_dict(prompt) for prompt in prompts),
        interactions=tuple(InteractionResult(**asdict(look)) for look in looks),
        slices=_slice_scores(scores, case.volume.geometry),
        **{name: value for name, value in scores.to_dict().items() if name in _SCORES},
    )


_SCORES = set(StructureResult.model_fields) - {"structure", "prompts", "interactions", "slices"}


def _slice_scores(scores: StructureScores, geometry: VolumeGeometry) -> tuple[SliceScore, ...]:
    """Scores by the case's own slice numbers; they were computed on axial slices, feet first."""
    upside_down = axis_codes(geometry)[0] == "I"
    own = {geometry.shape[0] - 1 - z if upside_down else z: d for z, d in scores.slice_dice.items()}
    # On one slice IoU = Dice / (2 - Dice), both being functions of the same three counts.
    return tuple(
        SliceScore(z=z, dice=dice, iou=dice / (2.0 - dice)) for z, dice in sorted(own.items())
    )


def _record(
    unit: Unit,
    case: Case | None,
    results: tuple[StructureResult, ...],
    cost: Cost,
    *,
    case_hash: str = "",
    error: str | None = None,
) -> Record:
    """Put a record together; without a case it could not be read, and there are no scores."""
    return Record(
        key=unit.key,
        fingerprint=unit.fingerprint,
        status="ok" if error is None else "failed",
        error=error,
        options=unit.options,
        structures=results,
        case_hash=case_hash,
        case_shape=case.volume.shape if case else (0, 0, 0),
        case_spacing_mm=case.volume.spacing if case else (0.0, 0.0, 0.0),
        case_attributes=dict(case.attributes) if case else {},
        case_notes=tuple(case.volume.metadata.get("notes", ())) if case else (),
        mask_file=None,
        cost=cost,
        versions=package_versions(),
        hardware=hardware(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, LungFMError) else f"{type(error).__name__}: {text}"
