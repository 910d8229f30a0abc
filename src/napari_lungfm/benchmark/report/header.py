"""What stands at the top of a report: what was run, how far it is, on what."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from napari_lungfm.benchmark.records import Record, UnitKey
from napari_lungfm.benchmark.store import RunFolder


@dataclass(frozen=True)
class CohortNote:
    """A cohort: its name, one line on what it is, whether made by a program, and its cases."""

    name: str
    title: str
    synthetic: bool
    n_cases: int
    n_planned: int


@dataclass(frozen=True)
class Header:
    """Name, date of the newest record, counts, versions and hardware of a run."""

    name: str
    date: str
    n_planned: int
    n_done: int
    n_failed: int
    cohorts: tuple[CohortNote, ...]
    versions: tuple[tuple[str, str], ...]
    hardware: tuple[tuple[str, str], ...]

    @property
    def n_missing(self) -> int:
        """Units that have no record yet."""
        return self.n_planned - self.n_done

    @property
    def synthetic(self) -> bool:
        """Whether any cohort is synthetic."""
        return any(cohort.synthetic for cohort in self.cohorts)


def read_config_text(run: RunFolder) -> str:
    """Return the text of the run's configuration; empty if there is none."""
    try:
        return run.config_file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def make_header(
    run: RunFolder, config_text: str, plan: Sequence[UnitKey], records: Sequence[Record]
) -> Header:
    """Put the header together from the records, the plan and the configuration."""
    config = _parse(config_text)
    specs = cohort_specs(config_text)
    cases = {(r.key.cohort, r.key.case) for r in records}
    planned = {(key.cohort, key.case) for key in plan} | cases
    names = dict.fromkeys([*(key.cohort for key in plan), *(r.key.cohort for r in records)])
    notes = [
        CohortNote(
            name,
            str(specs.get(name, {}).get("title") or ""),
            _is_synthetic(specs.get(name, {})),
            sum(cohort == name for cohort, _ in cases),
            sum(cohort == name for cohort, _ in planned),
        )
        for name in names
    ]
    return Header(
        name=str(config.get("name") or run.root.resolve().name),
        date=max(record.finished for record in records),
        n_planned=max(len(plan), len(records)),
        n_done=len(records),
        n_failed=sum(record.status == "failed" for record in records),
        cohorts=tuple(notes),
        versions=_values([record.versions for record in records]),
        hardware=_values([record.hardware for record in records]),
    )


def _parse(text: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def cohort_specs(config_text: str) -> dict[str, dict[str, Any]]:
    """Return what a configuration says of each cohort, by name; empty where it is not one."""
    cohorts = _parse(config_text).get("cohorts")
    if not isinstance(cohorts, list):
        return {}
    return {str(c.get("name", "")): c for c in cohorts if isinstance(c, dict)}


def _is_synthetic(spec: dict[str, Any]) -> bool:
    # Phantoms that were written as files say so in their title. One "phantom" does not count: the
    # lung phantom of the IBSI is a patient.
    return spec.get("kind") == "phantom" or "phantoms" in str(spec.get("title", "")).lower()


def _values(found: Sequence[dict[str, str]]) -> tuple[tuple[str, str], ...]:
    """All values that each name has among the records, the commonest first."""
    names = dict.fromkeys(name for values in found for name in values)
    table = []
    for name in names:
        counts = Counter(values[name] for values in found if name in values)
        ranked = sorted(counts, key=lambda value: (-counts[value], value))
        table.append((name, ", ".join(ranked)))
    return tuple(table)
