"""What a number in a table is made from: its records, their values, prompts and masks."""

from dataclasses import dataclass, field
from typing import Any


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
class OtherRow:
    """The row that a number is counted from or compared with.

    Parameters
    ----------
    method, protocol
        Which row.
    mean
        Its mean over the cases that both rows have.
    units
        Its records of these cases.
    """

    method: str
    protocol: str
    mean: float | None
    units: tuple[TracedUnit, ...]


@dataclass(frozen=True)
class Trace:
    """The records that a number in a table is made from.

    Parameters
    ----------
    cohort, method, protocol, structure, metric, subgroup
        The number.
    value
        The number as the table has it: a mean, a limit of its interval, a count, a skill, ...
    mean
        Mean of the values as tables have it: seeds averaged per case, undefined ones left out. Of
        skill it is the mean Dice over the cases that the baseline has too.
    n, n_undefined
        Cases (of costs: units) in the mean, and those left out.
    units
        The records, case by case.
    other
        Of skill the baseline; with ``against`` the other method.
    comparison
        With ``against``: differences and tests, as in ``comparisons.csv``.
    """

    cohort: str
    method: str
    protocol: str
    structure: str
    metric: str
    value: float | None
    mean: float | None
    n: int
    n_undefined: int
    units: tuple[TracedUnit, ...] = field(default=())
    subgroup: str | None = None
    other: OtherRow | None = None
    comparison: dict[str, float | None] | None = None
