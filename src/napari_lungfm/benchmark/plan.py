"""From a configuration to the list of units, each with a fingerprint of all that decides it."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_lungfm._core.environment import source_hash
from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.benchmark.config import BenchmarkConfig
from napari_lungfm.benchmark.methods import Method, recorded_protocol
from napari_lungfm.benchmark.records import RECORD_SCHEMA, UnitKey
from napari_lungfm.benchmark.trainings import Trained
from napari_lungfm.datasets.cases import CaseSource, Cohort
from napari_lungfm.evaluation.prompt_protocols import NO_PROMPTS, parse_protocol
from napari_lungfm.geometry import Structure


@dataclass(frozen=True)
class Unit:
    """One case under one method with one seed, ready to be done.

    Parameters
    ----------
    key, fingerprint
        What it is called, and a hash of all that decides it.
    options
        Options of the model.
    source
        The case.
    runs
        What the registry makes the model from: a name or a folder.
    structures
        What is segmented and scored, of those that the case has.
    automatic
        The model takes no prompts: one run of it gives all structures.
    prompted_by
        The automatic unit of the same case whose mask the prompts are drawn from.
    problem
        Why it cannot be done.
    counted
        Its multiply-accumulates are counted, which takes a second run of it.
    weights
        sha256 of all files that the model is made from, `weights.weight_hashes`.
    config_hash
        sha256 of the configuration that it was planned from, as ``config.yaml`` has it.
    """

    key: UnitKey
    fingerprint: str
    options: dict[str, Any]
    source: CaseSource
    runs: str
    structures: tuple[Structure, ...]
    automatic: bool = False
    prompted_by: "Unit | None" = None
    problem: str | None = None
    counted: bool = False
    weights: Mapping[str, str] = field(default_factory=dict)
    config_hash: str = ""

    @property
    def model_id(self) -> str:
        """What units of one model share: what it is made from, and its options."""
        return json.dumps([self.runs, self.options], sort_keys=True, default=str)


@dataclass(frozen=True)
class Plan:
    """All units of a run, in the order of the configuration, case by case."""

    config: BenchmarkConfig
    cohorts: tuple[Cohort, ...]
    units: tuple[Unit, ...]

    def by_case(self) -> list[tuple[CaseSource, list[Unit]]]:
        """Return the units of each case in the order in which they are done.

        A case is read once. Automatic units come first, for others draw prompts from their
        masks; the units of a model stand together, so that it is loaded once for a case and
        encodes each slice once.
        """
        groups: dict[tuple[str, str], tuple[CaseSource, dict[str, list[Unit]]]] = {}
        for unit in self.units:
            key = (unit.key.cohort, unit.key.case)
            by_model = groups.setdefault(key, (unit.source, {}))[1]
            by_model.setdefault(unit.model_id, []).append(unit)
        return [
            (source, [unit for units in _automatic_first(by_model.values()) for unit in units])
            for source, by_model in groups.values()
        ]


def _automatic_first(by_model: Iterable[list[Unit]]) -> list[list[Unit]]:
    return sorted(by_model, key=lambda units: not units[0].automatic)


def _measured_radius(cohort: Cohort) -> float | None:
    return cohort.measure_radius()


def make_plan(
    config: BenchmarkConfig,
    methods: Sequence[Method],
    cohorts: Sequence[Cohort],
    trained: Trained | None = None,
    radius: Callable[[Cohort], float | None] = _measured_radius,
) -> Plan:
    """List the units of a configuration.

    Parameters
    ----------
    config
        What to run.
    methods
        Its methods, `BenchmarkConfig.look_up`.
    cohorts
        Its cohorts.
    trained
        The methods that were trained for it, `do_trainings`.
    radius
        Gives the mean radius (mm) of the tumours of a cohort's training part.
    """
    units: list[Unit] = []
    config_hash = hashlib.sha256(config.to_yaml().encode()).hexdigest()
    for cohort in cohorts:
        # Each cohort has models of its own where it is trained on.
        own = [(trained or {}).get((m.name, cohort.name), m) for m in methods]
        own = [method for method in own if method.takes(cohort.name)]
        point = _point_radius(cohort, cohorts, radius) if _needs_radius(own) else None
        for number, source in enumerate(cohort.test):
            of_case = _CaseUnits(config, cohort, source, own, point, config_hash).units()
            units += _counted(of_case) if config.count_macs and number == 0 else of_case
    return Plan(config, tuple(cohorts), tuple(units))


def _counted(units: Sequence[Unit]) -> list[Unit]:
    """Return units of a case with the first seed of each method and protocol marked."""
    seen: set[tuple[str, str]] = set()
    marked = []
    for unit in units:
        row = (unit.key.method, unit.key.protocol)
        marked.append(replace(unit, counted=row not in seen))
        seen.add(row)
    return marked


def build_cohorts(config: BenchmarkConfig, base: Path) -> tuple[Cohort, ...]:
    """Return the cohorts of a configuration.

    Parameters
    ----------
    config
        The configuration.
    base
        Folder that relative paths in it count from.

    Raises
    ------
    InputFileError
        If a case's files are missing.
    """
    return tuple(spec.build(base) for spec in config.cohorts)


def refuse_output_among_inputs(out: Path, cohorts: Sequence[Cohort]) -> None:
    """Refuse an output folder inside a case's own folder, whose files it would change.

    Raises
    ------
    UsageError
        If there is such a case.
    """
    for cohort in cohorts:
        for source in (*cohort.test, *cohort.train):
            for path in source.inputs():
                if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
                    msg = (
                        f"the output '{out}' lies inside '{path}', from which case "
                        f"'{source.name}' is read; choose another folder"
                    )
                    raise UsageError(msg)


@dataclass(frozen=True)
class _CaseUnits:
    """Makes the units of one case."""

    config: BenchmarkConfig
    cohort: Cohort
    source: CaseSource
    methods: Sequence[Method]
    point_radius_mm: float | None
    config_hash: str

    def units(self) -> list[Unit]:
        """Return them in the order of the configuration."""
        mark = self.source.fingerprint()
        # First the automatic ones: others are decided by them too.
        automatic = {m.name: self._automatic(m, mark) for m in self.methods if m.automatic}
        units: list[Unit] = []
        for method in self.methods:
            if method.automatic:
                units.append(automatic[method.name])
                continue
            options = _resolve_options(method, self.point_radius_mm)
            for protocol in method.protocols:
                by = parse_protocol(protocol).prompted_by
                # Prompts cannot come from a method that is not scored on this cohort.
                if by is None or by in automatic:
                    units += self._prompted(
                        method, protocol, options, mark, automatic.get(by or "")
                    )
        return units

    def _prompted(
        self,
        method: Method,
        protocol: str,
        options: dict[str, Any],
        case_mark: str,
        prompted_by: Unit | None,
    ) -> list[Unit]:
        structures = self.config.targets if prompted_by is None else prompted_by.structures
        units = []
        for seed in method.seeds or self.config.seeds:
            key = self._key(method, recorded_protocol(protocol, self.methods), seed)
            parts = [key.model_dump(), options, case_mark, self.config.structures]
            parts += [] if prompted_by is None else [prompted_by.fingerprint]
            parts.append(method.weights)
            units.append(
                Unit(
                    key,
                    _fingerprint(parts),
                    options,
                    self.source,
                    method.runs or "",
                    structures,
                    prompted_by=prompted_by,
                    problem=method.problem,
                    weights=method.weights,
                    config_hash=self.config_hash,
                )
            )
        return units

    def _automatic(self, method: Method, case_mark: str) -> Unit:
        # Nothing is drawn by chance: one seed says all.
        key = self._key(method, NO_PROMPTS, self.config.seeds[0])
        structures = tuple(s for s in self.config.targets if s in method.structures)
        parts = [key.model_dump(), method.spec.options, case_mark, self.config.structures]
        parts.append(method.weights)
        return Unit(
            key,
            _fingerprint(parts),
            dict(method.spec.options),
            self.source,
            method.runs or "",
            structures,
            automatic=True,
            problem=method.problem,
            weights=method.weights,
            config_hash=self.config_hash,
        )

    def _key(self, method: Method, protocol: str, seed: int) -> UnitKey:
        return UnitKey(
            cohort=self.cohort.name,
            case=self.source.name,
            model=method.model,
            label=method.spec.label,
            state=method.state,
            protocol=protocol,
            seed=seed,
        )


def _needs_radius(methods: Sequence[Method]) -> bool:
    return any(
        method.prompt_only
        and "point_radius_mm" not in method.spec.options
        and any("point" in protocol for protocol in method.protocols)
        for method in methods
    )


def _point_radius(
    cohort: Cohort, cohorts: Sequence[Cohort], radius: Callable[[Cohort], float | None]
) -> float | None:
    """Radius for the baseline of clicks: of this cohort's training part, else of the first."""
    found = (radius(candidate) for candidate in (cohort, *cohorts) if candidate.train)
    return next((each for each in found if each is not None), None)


def _resolve_options(method: Method, point_radius_mm: float | None) -> dict[str, Any]:
    options = dict(method.spec.options)
    if point_radius_mm is not None and method.prompt_only:
        options.setdefault("point_radius_mm", round(point_radius_mm, 4))
    return options


def _fingerprint(parts: list[Any]) -> str:
    text = json.dumps([source_hash(), RECORD_SCHEMA, *parts], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
