"""From a number in a table back to its records, and from there to prompts and masks."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report.scores import (
    AVERAGE,
    LUNGS,
    SCORES,
    TUMOUR,
    case_scores,
    unit_scores,
)
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.evaluation.prompt_protocols import is_zhu_validation

#: Structure of a table → the structures of the records that it is made from.
_PARTS = {
    LUNGS: ("left lung", "right lung"),
    AVERAGE: ("left lung", "right lung", TUMOUR),
}


@dataclass(frozen=True)
class TracedUnit:
    """One record behind a number.

    Parameters
    ----------
    case, seed, status, error
        Which unit, and how it ended.
    value
        Its score; ``None`` where it is undefined.
    record_file, mask_file
        Paths within the folder of the run; no mask is kept where the case could not be read.
    prompts
        Structure → prompts, as recorded: zero-based voxel indices on the grid of the case.
    """

    case: str
    seed: int
    status: str
    error: str | None
    value: float | None
    record_file: str
    mask_file: str | None
    prompts: dict[str, tuple[dict[str, Any], ...]]


@dataclass(frozen=True)
class Trace:
    """The records whose mean is a number in a table.

    Parameters
    ----------
    cohort, method, protocol, structure, metric
        The number.
    mean
        The mean as tables have it: seeds averaged per case, undefined cases left out.
    n, n_undefined
        Cases in the mean, and cases left out.
    units
        The records, case by case.
    """

    cohort: str
    method: str
    protocol: str
    structure: str
    metric: str
    mean: float | None
    n: int
    n_undefined: int
    units: tuple[TracedUnit, ...] = field(default=())


def trace(
    run: RunFolder,
    *,
    cohort: str,
    method: str,
    protocol: str,
    structure: str = TUMOUR,
    metric: str = "dice",
) -> Trace:
    """Find the records whose mean a table shows.

    Parameters
    ----------
    run
        The run.
    cohort, method, protocol
        The row, named as in tables.
    structure
        ``lungs`` and ``avg`` too.
    metric
        A column of ``summary.csv`` that is a score, such as ``dice`` or ``hd95_mm``.

    Raises
    ------
    UsageError
        If there is no such score, cohort, method, protocol or structure; the message has those
        that there are.
    DataError
        If the row has no finished unit yet.
    """
    if metric not in SCORES:
        msg = f"there is no score '{metric}'; there are: {', '.join(SCORES)}"
        raise UsageError(msg)
    plan = [(key, mark) for key, mark in run.read_plan() if not is_zhu_validation(key.protocol)]
    chosen = plan
    for what, wanted in (("cohort", cohort), ("method", method), ("protocol", protocol)):
        names = list(dict.fromkeys(str(getattr(key, what)) for key, _ in chosen))
        if wanted not in names:
            msg = f"the run has no {what} '{wanted}'{_given(what, cohort, method)}; there are: "
            raise UsageError(msg + ", ".join(names))
        chosen = [(key, mark) for key, mark in chosen if getattr(key, what) == wanted]
    found = [record for record in (run.read_record(*one) for one in chosen) if record is not None]
    if not found:
        msg = f"no unit of '{method}' under '{protocol}' on '{cohort}' is finished; go on with: run"
        raise DataError(msg)
    return _traced(run, found, structure, metric)


def _given(what: str, cohort: str, method: str) -> str:
    """Say what was chosen before, where that leaves fewer names."""
    given = {"cohort": "", "method": f" on '{cohort}'", "protocol": f" of '{method}'"}
    return given[what]


def _traced(run: RunFolder, records: list[Record], structure: str, metric: str) -> Trace:
    units = unit_scores(records)
    own = units[units["structure"] == structure]
    if own.empty or metric not in own or (structure in _PARTS and own[metric].isna().all()):
        named = ", ".join(dict.fromkeys(units["structure"]))
        msg = f"these records have no '{metric}' of '{structure}'; structures: {named}"
        raise UsageError(msg)
    cases = case_scores(own)[metric].to_numpy(dtype=float)
    defined = cases[np.isfinite(cases)]
    keys = zip(own["case"].astype(str), own["seed"].astype(int), strict=True)
    values = dict(zip(keys, own[metric].astype(float), strict=True))
    key = records[0].key
    return Trace(
        key.cohort,
        key.method,
        key.protocol,
        structure,
        metric,
        float(defined.mean()) if len(defined) else None,
        len(defined),
        len(cases) - len(defined),
        tuple(
            _unit(run, record, values[record.key.case, record.key.seed], structure)
            for record in records
            if (record.key.case, record.key.seed) in values
        ),
    )


def _unit(run: RunFolder, record: Record, value: Any, structure: str) -> TracedUnit:
    parts = _PARTS.get(structure, (structure,))
    file = run.record_file(record.key, record.fingerprint)
    return TracedUnit(
        record.key.case,
        record.key.seed,
        record.status,
        record.error,
        None if pd.isna(value) else float(value),
        file.relative_to(run.root).as_posix(),
        record.mask_file,
        {r.structure: r.prompts for r in record.structures if r.structure in parts},
    )
