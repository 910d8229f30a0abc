"""From a configuration to the list of units, each with a fingerprint of all that decides it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_lungfm._core.environment import source_hash
from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.benchmark.config import BenchmarkConfig, MethodSpec
from napari_lungfm.benchmark.records import RECORD_SCHEMA, UnitKey
from napari_lungfm.datasets.cases import CaseSource, Cohort
from napari_lungfm.models.registry import model_card


@dataclass(frozen=True)
class Unit:
    """One case under one method with one seed, ready to be done."""

    key: UnitKey
    fingerprint: str
    options: dict[str, Any]
    source: CaseSource

    @property
    def model_id(self) -> str:
        """What units of one model share: its name and options."""
        return json.dumps([self.key.model, self.options], sort_keys=True, default=str)


@dataclass(frozen=True)
class Plan:
    """All units of a run, in the order of the configuration, case by case."""

    config: BenchmarkConfig
    cohorts: tuple[Cohort, ...]
    units: tuple[Unit, ...]

    def by_case(self) -> list[tuple[CaseSource, list[Unit]]]:
        """Return the units of each case in the order in which they are done.

        A case is read once. The units of a model stand together, so that it is loaded once for
        a case and encodes each slice once.
        """
        groups: dict[tuple[str, str], tuple[CaseSource, dict[str, list[Unit]]]] = {}
        for unit in self.units:
            key = (unit.key.cohort, unit.key.case)
            by_model = groups.setdefault(key, (unit.source, {}))[1]
            by_model.setdefault(unit.model_id, []).append(unit)
        return [
            (source, [unit for units in by_model.values() for unit in units])
            for source, by_model in groups.values()
        ]


def make_plan(config: BenchmarkConfig, base: Path) -> Plan:
    """List the units of a configuration.

    Parameters
    ----------
    config
        What to run.
    base
        Folder that relative paths in the configuration count from.

    Raises
    ------
    InputFileError
        If a case's files are missing.
    """
    cohorts = tuple(spec.build(base) for spec in config.cohorts)
    units: list[Unit] = []
    for cohort in cohorts:
        radius = _point_radius(cohort, cohorts) if _needs_radius(config) else None
        for source in cohort.test:
            units += _units_of_case(config, cohort, source, radius)
    return Plan(config, cohorts, tuple(units))


def refuse_output_among_inputs(out: Path, plan: Plan) -> None:
    """Refuse an output folder inside a case's own folder, whose files it would change.

    Raises
    ------
    UsageError
        If there is such a case.
    """
    for cohort in plan.cohorts:
        for source in (*cohort.test, *cohort.train):
            for path in source.inputs():
                if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
                    msg = (
                        f"the output '{out}' lies inside '{path}', from which case "
                        f"'{source.name}' is read; choose another folder"
                    )
                    raise UsageError(msg)


def _units_of_case(
    config: BenchmarkConfig, cohort: Cohort, source: CaseSource, point_radius_mm: float | None
) -> list[Unit]:
    case_mark = source.fingerprint()
    units = []
    for method in config.methods:
        options = _resolve_options(method, point_radius_mm)
        for protocol in method.protocols:
            for seed in config.seeds:
                key = UnitKey(
                    cohort=cohort.name,
                    case=source.name,
                    model=method.model,
                    label=method.label,
                    protocol=protocol,
                    seed=seed,
                )
                parts = [key.model_dump(), options, case_mark]
                mark = _fingerprint([*parts, config.structures])
                units.append(Unit(key, mark, options, source))
    return units


def _needs_radius(config: BenchmarkConfig) -> bool:
    return any(
        model_card(method.model).kind == "prompt-only"
        and "point_radius_mm" not in method.options
        and any("point" in protocol for protocol in method.protocols)
        for method in config.methods
    )


def _point_radius(cohort: Cohort, cohorts: Sequence[Cohort]) -> float | None:
    """Radius for the baseline of clicks: of this cohort's training part, else of the first."""
    for candidate in (cohort, *cohorts):
        radius = candidate.measure_radius() if candidate.train else None
        if radius is not None:
            return radius
    return None


def _resolve_options(method: MethodSpec, point_radius_mm: float | None) -> dict[str, Any]:
    options = dict(method.options)
    if point_radius_mm is not None and model_card(method.model).kind == "prompt-only":
        options.setdefault("point_radius_mm", round(point_radius_mm, 4))
    return options


def _fingerprint(parts: list[Any]) -> str:
    text = json.dumps([source_hash(), RECORD_SCHEMA, *parts], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
