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
    weights
        File → sha256 of the weights that made it.
    """

    case: str
    seed: int
    status: str
    error: str | None
    value: float | None
    record_file: str
    mask_file: str | None
    prompts: dict[str, tuple[dict[str, Any], ...]]
    weights: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OtherRow:
    """A row that a number is counted from or compared with.

    Parameters
    ----------
    method, protocol
        Which row.
    mean
        Its mean over the cases that all these rows have.
    units
        Its records of these cases.
    run
        Folder of its run, where that is another.
    """

    method: str
    protocol: str
    mean: float | None
    units: tuple[TracedUnit, ...]
    run: str | None = None


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
        skill and ranks it is the mean Dice over the cases that the other rows have too.
    n, n_undefined
        Cases (of costs: units, of seeds: seeds) in the number, and those left out: undefined ones
        or, beside other rows, those that not all of the rows have.
    n_failed
        Cases or units that are left out because they failed; not beside other rows.
    units
        The records, case by case.
    others
        Of skill the baseline, of ranks all other methods, with ``against`` the other method, with
        ``against_run`` the same row of the other run.
    comparison
        With ``against``: differences and tests, as in ``comparisons.csv``; with ``against_run``:
        as in the ``comparison.csv`` of two runs; beside the paper: its value and the difference.
    origin
        How the number comes from the values of its records, in one sentence.
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
    n_failed: int = 0
    units: tuple[TracedUnit, ...] = field(default=())
    subgroup: str | None = None
    others: tuple[OtherRow, ...] = ()
    comparison: dict[str, float | None] | None = None
    origin: str = ""
