"""The rows of tables: their units in the plan, and the records of these."""

from collections.abc import Iterator
from copy import copy
from typing import Any

import numpy as np

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm.benchmark.records import Record, StructureResult, ZhuResult
from napari_lungfm.benchmark.report.scores import TUMOUR, unscored
from napari_lungfm.benchmark.report.traced import TracedUnit
from napari_lungfm.benchmark.report.traced_values import PARTS, Key, Metric, Values, values_of
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.evaluation.prompt_protocols import NO_PROMPTS, is_zhu_validation


class PlannedUnits:
    """The units of a cohort.

    Parameters
    ----------
    run
        The run.
    cohort
        Which cohort.
    seed
        Only units of this seed.

    Raises
    ------
    UsageError
        If there is no such cohort or seed.
    """

    def __init__(self, run: RunFolder, cohort: str, seed: int | None) -> None:
        self.run = run
        self.cohort = cohort
        self._plan = run.read_plan()
        cohorts = list(dict.fromkeys(key.cohort for key, _ in self._plan))
        if cohort not in cohorts:
            msg = f"the run has no cohort '{cohort}'; there are: {', '.join(cohorts)}"
            raise UsageError(msg)
        own = [one for one in self._plan if one[0].cohort == cohort]
        self._units = [one for one in own if seed is None or one[0].seed == seed]
        if not self._units:
            seeds = sorted({key.seed for key, _ in own})
            msg = f"'{cohort}' has no seed {seed}; there are: {', '.join(map(str, seeds))}"
            raise UsageError(msg)

    def protocol_of(self, method: str, protocol: str, *, free: bool) -> str:
        """Return the protocol of a row; an automatic method stands beside all, if that is asked.

        Raises
        ------
        UsageError
            If the method is not there, or has no such protocol.
        """
        methods = list(dict.fromkeys(key.method for key, _ in self._units))
        if method not in methods:
            msg = f"the run has no method '{method}' on '{self.cohort}'; there are: "
            raise UsageError(msg + ", ".join(methods))
        names = list(dict.fromkeys(k.protocol for k, _ in self._units if k.method == method))
        if protocol in names:
            return protocol
        if free and names == [NO_PROMPTS]:
            return NO_PROMPTS
        msg = f"the run has no protocol '{protocol}' of '{method}'; there are: {', '.join(names)}"
        raise UsageError(msg)

    def records(self, method: str | None = None, protocol: str | None = None) -> list[Record]:
        """Return the finished units of a method, a protocol, or all."""
        found = (
            self.run.read_record(key, mark)
            for key, mark in self._units
            if (method is None or key.method == method)
            and (protocol is None or key.protocol == protocol)
        )
        return [record for record in found if record is not None]

    def beside(self, protocol: str) -> list[Record]:
        """Return what stands in a table of comparisons: a protocol, and automatic methods."""
        free = self.records(protocol=NO_PROMPTS) if protocol != NO_PROMPTS else []
        return [*self.records(protocol=protocol), *free]

    def compares(self, protocol: str) -> bool:
        """Whether tables of comparisons have a part for a protocol.

        Automatic methods stand beside every other protocol, and among themselves where there is
        none.
        """
        others = (
            self.run.record_file(key, mark).is_file()
            for key, mark in self._units
            if key.protocol != NO_PROMPTS and not is_zhu_validation(key.protocol)
        )
        return protocol != NO_PROMPTS or not any(others)

    def main_structure(self) -> str | None:
        """Return the structure that the run's tables of comparisons show, see `scores`."""
        first = None
        for name in self._structures():
            if name == TUMOUR:
                return name
            first = first or name
        return first

    def _structures(self) -> Iterator[str]:
        # One at a time: the first record has a tumour in nearly all runs.
        for key, mark in self._plan:
            record = self.run.read_record(key, mark)
            if record is not None:
                yield from (result.structure for result in record.structures)
                yield from (TUMOUR for _ in unscored([record]))


class Row:
    """One row of a table, or the part of it that a subgroup is.

    Parameters
    ----------
    plan
        The units of its cohort.
    method, protocol, structure
        Which row; ``None`` for all protocols of the method.
    cases
        Only these cases.

    Raises
    ------
    DataError
        If it has no finished unit.
    """

    def __init__(
        self,
        plan: PlannedUnits,
        method: str,
        protocol: str | None,
        structure: str,
        cases: set[str] | None = None,
    ) -> None:
        self.plan = plan
        self.method = method
        self.protocol = protocol or "all"
        self.structure = structure
        self.cases = cases
        records = plan.records(method, protocol)
        if not records:
            msg = (
                f"no unit of '{method}' under '{self.protocol}' on '{plan.cohort}' is finished; go "
                "on with: run"
            )
            raise DataError(msg)
        self.records = [r for r in records if cases is None or r.key.case in cases]
        if not self.records:
            msg = f"no case of the subgroup has a finished unit of '{method}' under '{protocol}'"
            raise DataError(msg)

    def only(self, units: set[Key]) -> "Row":
        """Return the row with the records of these units alone (case and seed)."""
        part = copy(self)
        part.records = [r for r in self.records if (r.key.case, r.key.seed) in units]
        return part

    def values(self, metric: Metric) -> Values:
        """Return the values of a metric; see `traced_values.values_of`."""
        return values_of(metric, self.records, self.structure)

    def units(self, values: Values, cases: set[str] | None = None) -> tuple[TracedUnit, ...]:
        """Return the records with their values, of all cases or some."""
        return tuple(
            self._unit(record, values.units[record.key.case, record.key.seed])
            for record in self.records
            if (record.key.case, record.key.seed) in values.units
            and (cases is None or record.key.case in cases)
        )

    def _unit(self, record: Record, value: float) -> TracedUnit:
        parts = PARTS.get(self.structure, (self.structure,))
        file = self.plan.run.record_file(record.key, record.fingerprint)
        results: tuple[StructureResult | ZhuResult, ...] = (*record.structures, *record.zhu)
        return TracedUnit(
            record.key.case,
            record.key.seed,
            record.status,
            record.error,
            finite(value),
            file.relative_to(self.plan.run.root).as_posix(),
            record.mask_file,
            {r.structure: r.prompts for r in results if r.structure in parts},
            dict(record.weights),
        )


def finite(value: Any) -> float | None:
    """Return a number as JSON can hold it: ``None`` where it is undefined or infinite."""
    return float(value) if value is not None and np.isfinite(value) else None
