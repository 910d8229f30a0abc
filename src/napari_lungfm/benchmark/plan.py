"""From a configuration to the list of units, each with a fingerprint of all that decides it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_lungfm import __version__
from napari_lungfm.benchmark.config import BenchmarkConfig, MethodSpec
from napari_lungfm.benchmark.records import RECORD_SCHEMA, UnitKey
from napari_lungfm.datasets.cases import CaseSource, Cohort
from napari_lungfm.models.registry import model_card


@dataclass(frozen=True)
class Unit:
    """One case under one method with one seed, ready to be done."""

    key: UnitKey
    fingerprint: str
    model: str
    options: dict[str, Any]
    source: CaseSource


@dataclass(frozen=True)
class Plan:
    """All units of a run, grouped by case in the order in which they are done."""

    config: BenchmarkConfig
    cohorts: tuple[Cohort, ...]
    units: tuple[Unit, ...]

    def by_case(self) -> list[tuple[CaseSource, list[Unit]]]:
        """Return the units of each case, so that a case is read once."""
        groups: dict[tuple[str, str], tuple[CaseSource, list[Unit]]] = {}
        for unit in self.units:
            key = (unit.key.cohort, unit.key.case)
            groups.setdefault(key, (unit.source, []))[1].append(unit)
        return list(groups.values())


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
    units = [
        unit
        for cohort in cohorts
        for source in cohort.test
        for unit in _units_of_case(config, cohort, source, _point_radius(cohort, cohorts))
    ]
    return Plan(config, cohorts, tuple(units))


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
                    model=method.title,
                    protocol=protocol,
                    seed=seed,
                )
                parts = [key.model_dump(), method.model, options, case_mark]
                mark = _fingerprint([*parts, config.structures])
                units.append(Unit(key, mark, method.model, options, source))
    return units


def _point_radius(cohort: Cohort, cohorts: Sequence[Cohort]) -> float | None:
    """Radius for the baseline of clicks: of this cohort's training part, else of the first."""
    known = [c.point_radius_mm for c in (cohort, *cohorts) if c.point_radius_mm is not None]
    return known[0] if known else None


def _resolve_options(method: MethodSpec, point_radius_mm: float | None) -> dict[str, Any]:
    options = dict(method.options)
    if point_radius_mm is not None and model_card(method.model).kind == "prompt-only":
        options.setdefault("point_radius_mm", round(point_radius_mm, 4))
    return options


def _fingerprint(parts: list[Any]) -> str:
    text = json.dumps([__version__, RECORD_SCHEMA, *parts], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
