"""What a run would do, and what it would take: found out without doing or writing anything."""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_lungfm._core.exceptions import OutputError, UsageError
from napari_lungfm.benchmark.case_work import pending_tasks
from napari_lungfm.benchmark.config import BenchmarkConfig
from napari_lungfm.benchmark.methods import Method
from napari_lungfm.benchmark.plan import (
    Plan,
    Unit,
    build_cohorts,
    make_plan,
    refuse_output_among_inputs,
)
from napari_lungfm.benchmark.radii import Radii
from napari_lungfm.benchmark.records import UnitKey
from napari_lungfm.benchmark.seen import KnownHashes, refuse_seen
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.benchmark.training_size import training_size
from napari_lungfm.benchmark.trainings import Trained, Training, plan_trainings
from napari_lungfm.datasets.cases import Cohort
from napari_lungfm.models.automatic.published import needed_weights
from napari_lungfm.models.automatic.trained import is_trained_model, read_description
from napari_lungfm.models.catalogue import resolve
from napari_lungfm.models.registry import check_weights
from napari_lungfm.models.weights.errors import WeightsNotFoundError
from napari_lungfm.models.weights.store import WeightStore

#: Bytes that files of a run take where the run has none yet to go by: of a chest CT of 512 × 512 ×
#: 120 voxels, measured with all three structures.
USUAL_BYTES = {"masks": 200_000, "previews": 500_000, "records": 40_000}

#: The kind of files that a training removes at its end.
_PASSING = "features"


@dataclass(frozen=True)
class MissingWeights:
    """Weights that a run needs and that are not here.

    Parameters
    ----------
    name
        As `models fetch` takes it.
    size
        Bytes of the file, where the catalogue knows them.
    how
        How to get them.
    """

    name: str
    size: int | None
    how: str


@dataclass(frozen=True)
class PlannedTraining:
    """A training that a run asks for.

    Parameters
    ----------
    text
        What is trained on which cohort.
    folder
        Name of its folder in the run.
    cases
        Training patients of the cohort; a fine-tuning may take a part of them.
    state
        ``"done"``, ``"begun"`` or ``"to do"``.
    bytes_needed
        Estimated bytes that are still to be written, by kind; none once it is done.
    """

    text: str
    folder: str
    cases: int
    state: str
    bytes_needed: dict[str, int]

    @property
    def bytes_kept(self) -> int:
        """Of these what stays when it is done."""
        return sum(size for kind, size in self.bytes_needed.items() if kind != _PASSING)

    @property
    def bytes_while_running(self) -> int:
        """Of these what it needs only while it runs; trainings run one after the other."""
        return self.bytes_needed.get(_PASSING, 0)


@dataclass(frozen=True)
class UnitGroup:
    """The units of one method under one protocol on one cohort.

    Parameters
    ----------
    cohort, method, protocol
        What they have in common.
    units, pending
        All of them, and those that are not finished.
    seconds
        What the pending ones take, by records of the same method and protocol in the folder;
        ``None`` where there are none. Reading the case and scoring come on top.
    """

    cohort: str
    method: str
    protocol: str
    units: int
    pending: int
    seconds: float | None


@dataclass(frozen=True)
class Estimate:
    """What a run would do.

    Parameters
    ----------
    units
        Every unit with whether it is finished.
    groups
        Their counts, in the order of the configuration.
    cases
        Cases with something left to do.
    trainings
        The trainings.
    weights
        Weights that are missing.
    bytes_needed
        Bytes that the trainings, masks, previews and records still to be written take, by kind.
        Those of trainings are an estimate, see `training_size`.
    bytes_measured
        Whether the others go by files that are in the folder, and not by those of a usual chest
        CT.
    bytes_free
        Free bytes where the folder is.
    """

    units: tuple[tuple[Unit, bool], ...]
    groups: tuple[UnitGroup, ...]
    cases: int
    trainings: tuple[PlannedTraining, ...]
    weights: tuple[MissingWeights, ...]
    bytes_needed: dict[str, int]
    bytes_measured: bool
    bytes_free: int | None

    @property
    def pending(self) -> int:
        """Units that are not finished."""
        return sum(group.pending for group in self.groups)

    @property
    def seconds(self) -> float:
        """What the pending units of known methods take on one worker."""
        return sum(group.seconds or 0.0 for group in self.groups)

    @property
    def bytes_of_weights(self) -> int:
        """Bytes of the missing weights whose size is known; they go to another folder."""
        return sum(each.size or 0 for each in self.weights)

    @property
    def unknown(self) -> int:
        """Pending units that nothing is known of."""
        return sum(group.pending for group in self.groups if group.seconds is None)


def estimate_run(config: BenchmarkConfig, out: Path, *, base: Path) -> Estimate:
    """Find out what `run_benchmark` would do.

    Parameters
    ----------
    config
        What to run.
    out
        Folder of the run, which need not exist.
    base
        Folder that relative paths in the configuration count from.

    Raises
    ------
    OutputError
        If the folder, or one above it, is a file.
    SeenPatientError
        If a model is to be scored on patients that are named as some it was trained on.
    LungFMError
        If a case's files are not here, or a cohort to train on has no training part.
    """
    _refuse_file(Path(out))
    methods, cohorts = config.look_up(base), build_cohorts(config, base)
    folder = RunFolder(Path(out))
    refuse_output_among_inputs(out, cohorts)
    # By name, and by the images that an earlier call has read.
    refuse_seen(methods, cohorts, KnownHashes(folder.images_file))
    trainings, trained = _trainings(config, methods, cohorts, folder)
    plan = make_plan(config, methods, cohorts, trained, Radii(folder.radii_file, measure=False).of)
    pending: set[str] = set()
    cases = 0
    for _, _, task in pending_tasks(plan, folder):
        if task is not None:
            cases += 1
            pending |= {unit.fingerprint for unit in task.units}
    needed, measured = _disk(len(pending), cases, folder)
    needed = {"trainings": _bytes_of(trainings), **needed}
    return Estimate(
        tuple((unit, unit.fingerprint not in pending) for unit in plan.units),
        _groups(plan, pending, folder),
        cases,
        trainings,
        _missing(methods),
        needed,
        measured,
        _free(out),
    )


def _refuse_file(out: Path) -> None:
    """Refuse what the run could not write into; nothing is tried out, which would write."""
    there = next((path for path in (out, *out.absolute().parents) if path.exists()), None)
    if there is not None and not there.is_dir():
        msg = f"cannot write to '{out}': '{there}' is a file, and a run needs a folder"
        raise OutputError(msg)


def _trainings(
    config: BenchmarkConfig,
    methods: Sequence[Method],
    cohorts: Sequence[Cohort],
    folder: RunFolder,
) -> tuple[tuple[PlannedTraining, ...], Trained]:
    """List the trainings, and the methods whose models are there."""
    planned: dict[str, PlannedTraining] = {}
    shapes = {spec.name: getattr(spec, "shape", None) for spec in config.cohorts}
    trained: Trained = {}
    for method in methods:
        for training in plan_trainings([method], cohorts):
            place = folder.trainings / training.folder_name
            done = is_trained_model(place)
            begun = (place / "run").is_dir()
            planned[training.folder_name] = PlannedTraining(
                training.text,
                training.folder_name,
                len(training.cohort.train),
                "done" if done else "begun" if begun else "to do",
                {} if done else _still_needed(training, place, shapes),
            )
            if done:
                model = method.after_training(place, read_description(place))
                for cohort in cohorts:
                    trained_on = method.spec.trained_on or cohort.name
                    if method.takes(cohort.name) and training.cohort.name == trained_on:
                        trained[method.name, cohort.name] = model
    return tuple(planned.values()), trained


def _still_needed(
    training: Training, place: Path, shapes: Mapping[str, Sequence[int] | None]
) -> dict[str, int]:
    size = training_size(training, shapes.get(training.cohort.name))
    there = _size_of(place)
    needed = {"cases": size.cases, "checkpoints": size.checkpoints, "weights": size.weights}
    for kind, size_of_kind in needed.items():  # one that was interrupted has its cases first
        covered = min(size_of_kind, there)
        needed[kind] = size_of_kind - covered
        there -= covered
    return {**needed, _PASSING: size.features} if size.features else needed


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _bytes_of(trainings: Sequence[PlannedTraining]) -> int:
    """Add up trainings: what stays of each, and the most that one needs while it runs."""
    passing = max((each.bytes_while_running for each in trainings), default=0)
    return sum(each.bytes_kept for each in trainings) + passing


def _groups(plan: Plan, pending: set[str], folder: RunFolder) -> tuple[UnitGroup, ...]:
    all_units: Counter[tuple[str, str, str]] = Counter()
    left: Counter[tuple[str, str, str]] = Counter()
    for unit in plan.units:
        group = (unit.key.cohort, unit.key.method, unit.key.protocol)
        all_units[group] += 1
        left[group] += unit.fingerprint in pending
    known = _known_seconds(folder)
    found = []
    for (cohort, method, protocol), count in all_units.items():
        # Another cohort's cases are a worse guide than its own, and a better one than none.
        each = known.get((cohort, method, protocol)) or known.get(("", method, protocol))
        missing = left[cohort, method, protocol]
        seconds = missing * sum(each) / len(each) if each else (0.0 if not missing else None)
        found.append(UnitGroup(cohort, method, protocol, count, missing, seconds))
    return tuple(found)


def _known_seconds(folder: RunFolder) -> dict[tuple[str, str, str], list[float]]:
    """Return what units took that are in the folder, of whatever version of the program."""
    known: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for record in _read_records(folder):
        key = record["key"]
        for cohort in (key["cohort"], ""):
            known[cohort, key["method"], key["protocol"]].append(record["seconds"])
    return known


def _read_records(folder: RunFolder) -> Iterable[dict[str, Any]]:
    for path in sorted(folder.records.glob("*.json")) if folder.records.is_dir() else ():
        try:
            record = json.loads(path.read_bytes())
            key = UnitKey(**record["key"])
            if record["status"] == "ok":
                names = {"cohort": key.cohort, "method": key.method, "protocol": key.protocol}
                yield {"key": names, "seconds": float(record["cost"]["seconds"])}
        except (OSError, ValueError, KeyError, TypeError):  # damaged: it tells nothing
            continue


def _disk(units: int, cases: int, folder: RunFolder) -> tuple[dict[str, int], bool]:
    counts = {"masks": units, "previews": cases, "records": units}
    measured = {
        kind: _mean_size(getattr(folder, kind)) if units or cases else None for kind in counts
    }
    sizes = {kind: measured[kind] or USUAL_BYTES[kind] for kind in counts}
    needed = {kind: round(count * sizes[kind]) for kind, count in counts.items()}
    return needed, all(measured.values())


def _mean_size(folder: Path) -> float | None:
    sizes = [path.stat().st_size for path in folder.iterdir()] if folder.is_dir() else []
    return sum(sizes) / len(sizes) if sizes else None


def _free(out: Path) -> int | None:
    place = Path(out).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def _missing(methods: Sequence[Method]) -> tuple[MissingWeights, ...]:
    """List the weights that models and bases of fine-tunings need and that are not here."""
    found: dict[str, MissingWeights] = {}
    for method in methods:
        name = method.runs or method.base
        options = method.spec.options if method.runs is not None else {}
        if name is None:
            continue
        try:
            check_weights(name, options)
        except WeightsNotFoundError as error:
            for each in _needed(name):
                found.setdefault(each, MissingWeights(each, _size(each), str(error)))
    return tuple(found.values())


def _needed(name: str) -> Iterable[str]:
    store = WeightStore()
    try:
        names = needed_weights(name)
    except UsageError:
        return (name,)
    return tuple(each for each in names if not _is_here(store, each))


def _is_here(store: WeightStore, name: str) -> bool:
    try:
        store.find(name)
    except WeightsNotFoundError:
        return False
    return True


def _size(name: str) -> int | None:
    try:
        card, variant = resolve(name)
    except UsageError:
        return None
    published = card.published(variant)
    return None if published is None else published.size
