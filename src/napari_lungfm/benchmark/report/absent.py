"""Cases that stand in no table of a structure, because their reference has none of it."""

from collections.abc import Iterable, Sequence

import pandas as pd

from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report.scores import main_structure

#: How many cases a line names.
_SHOWN = 20


def absent_units(records: Sequence[Record], cohort: str, structure: str) -> list[Record]:
    """Return the finished units of a cohort whose case has no reference of a structure.

    Units are looked at whose method was scored on the structure in other cases: a method that
    does not segment it says nothing about the reference.

    Parameters
    ----------
    records
        Of the run, without units under ``zhu-validation``.
    cohort, structure
        Which cohort, and which structure.
    """
    own = [record for record in records if record.key.cohort == cohort]
    scored = {record.key.method for record in own if _has(record, structure)}
    return [
        record
        for record in own
        if record.status == "ok" and record.key.method in scored and not _has(record, structure)
    ]


def absent_line(records: Sequence[Record], cohort: str, units: pd.DataFrame) -> list[str]:
    """Name the cases without the structure that the cohort's main table shows, in one line or none.

    Parameters
    ----------
    records
        Of the run, without units under ``zhu-validation``.
    cohort
        Which cohort.
    units
        `scores.scores_of` of the run.
    """
    structure = main_structure(units[units["cohort"] == cohort])
    names = _names(absent_units(records, cohort, structure))
    if not names:
        return []
    one = len(names) == 1
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [
        f"{len(names)} case{'' if one else 's'} without this structure ({structure}) in "
        f"{'its' if one else 'their'} reference, left out of its means: "
        f"{', '.join(names[:_SHOWN])}{more}."
    ]


def _names(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(record.key.case for record in records))


def _has(record: Record, structure: str) -> bool:
    return any(result.structure == structure for result in record.structures)
