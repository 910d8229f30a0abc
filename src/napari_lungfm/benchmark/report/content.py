"""What all parts of a report are made from, read from the records once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pandas as pd
from pydantic_core import from_json

from napari_lungfm._core.exceptions import DataError
from napari_lungfm.benchmark.records import Record, StructureResult, UnitKey
from napari_lungfm.benchmark.report import corrections, figures
from napari_lungfm.benchmark.report.example import Example
from napari_lungfm.benchmark.report.fractions import Curve, curves
from napari_lungfm.benchmark.report.header import Header, make_header, read_config_text
from napari_lungfm.benchmark.report.paper import Table, table_two
from napari_lungfm.benchmark.report.prompting import jitter_points, prompt_points
from napari_lungfm.benchmark.report.scores import (
    case_scores,
    main_structure,
    scores_of,
    unscored,
)
from napari_lungfm.benchmark.report.subgroups import Division, divisions, subgroup_scores
from napari_lungfm.benchmark.report.summary import summarise_cases
from napari_lungfm.benchmark.store import RunFolder, costs_frame, results_frame, zhu_frame
from napari_lungfm.evaluation.prompt_protocols import is_zhu_validation

Tell: TypeAlias = Callable[[str], None]
Plan: TypeAlias = Sequence[tuple[UnitKey, str]]


@dataclass(frozen=True, eq=False)
class Content:
    """The records of a run in the forms that its report needs.

    Parameters
    ----------
    header
        What stands at the top.
    records
        All units, without the lists of their slices and prompts: those of ten thousand units do
        not fit into memory.
    own
        The same without units under ``zhu-validation``; everything but `zhu` and `costs` is made
        from them.
    results
        `store.results_frame`.
    units, cases
        `scores.scores_of` and `scores.case_scores`.
    summary
        `summary.summarise_cases`.
    structure
        The structure that the main tables show.
    looks
        How each (method, protocol) is drawn.
    config_text
        The configuration.
    effort, curves
        `corrections.case_effort` and `corrections.curves`.
    zhu
        `store.zhu_frame`.
    costs
        `store.costs_frame`.
    profile
        `figures.slice_profile`.
    command
        A command that segments a unit again.
    divisions, subgroups
        `subgroups.divisions` and `subgroups.subgroup_scores`.
    fractions
        `fractions.curves`.
    jitter, prompts
        `prompting.jitter_points` and `prompting.prompt_points`.
    paper
        The paper's Table II of the cohorts that it has, and all tables of training fractions.
    damaged
        Names of the files of records that cannot be read; their units count as not finished.
    """

    header: Header
    records: Sequence[Record]
    own: Sequence[Record]
    results: pd.DataFrame
    units: pd.DataFrame
    cases: pd.DataFrame
    summary: pd.DataFrame
    structure: str
    looks: figures.Rows
    config_text: str
    effort: pd.DataFrame
    curves: pd.DataFrame
    zhu: pd.DataFrame
    costs: pd.DataFrame
    profile: pd.DataFrame
    command: str | None
    divisions: Sequence[Division]
    subgroups: pd.DataFrame
    fractions: Sequence[Curve]
    jitter: pd.DataFrame
    prompts: pd.DataFrame
    paper: Sequence[Table]
    damaged: Sequence[str] = ()

    def part(self, frame: pd.DataFrame, cohort: str) -> pd.DataFrame:
        """Return the rows of one cohort and of the main structure."""
        wanted = frame["cohort"] == cohort
        if "structure" in frame.columns:
            wanted &= frame["structure"] == self.structure
        return frame[wanted]


def collect(run: RunFolder, tell: Tell) -> Content:
    """Read the records of a run, one at a time.

    Parameters
    ----------
    run
        The run.
    tell
        Called with one line before every step.

    Raises
    ------
    DataError
        If no unit of the run is finished.
    """
    tell("records")
    plan = run.read_plan()
    reading, results = _read(run, plan)
    records = reading.records
    tell("statistics")
    own = [record for record in records if not is_zhu_validation(record.key.protocol)]
    units = scores_of(results, unscored(own))
    cases = case_scores(units)
    costs = costs_frame(records)
    summary = summarise_cases(cases, costs)
    structure = main_structure(units)
    effort = corrections.case_effort(own, structure)
    config_text = read_config_text(run)
    main = cases[cases["structure"] == structure]
    shown = summary[summary["structure"] == structure]
    divided = divisions(run, own, main)
    tuned = curves(summary, main, units[units["structure"] == structure])
    return Content(
        make_header(run, config_text, [key for key, _ in plan], records),
        records,
        own,
        results,
        units,
        cases,
        summary,
        structure,
        figures.row_looks(summary),
        config_text,
        effort,
        corrections.curves(effort),
        zhu_frame(records),
        costs,
        reading.profiles.frame(structure),
        reading.example.command,
        divided,
        subgroup_scores(main, divided),
        tuned,
        jitter_points(shown),
        prompt_points(shown),
        _paper_tables(summary, tuned),
        tuple(reading.damaged),
    )


def _paper_tables(summary: pd.DataFrame, tuned: Sequence[Curve]) -> list[Table]:
    seconds = (table_two(summary, str(name)) for name in dict.fromkeys(summary["cohort"]))
    return [*(table for table in seconds if table is not None), *(c.table for c in tuned)]


class _Structure(StructureResult):
    """Slices and prompts as they stand in the file: making objects of them takes most of the time.

    Whoever wrote the record had them checked.
    """

    slices: tuple[Any, ...] = ()
    prompts: tuple[Any, ...] = ()


class _Whole(Record):
    structures: tuple[_Structure, ...]


class _Reading:
    """Takes from each record what its slices and prompts are needed for, and leaves them."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.damaged: list[str] = []
        self.profiles = figures.SliceProfiles()
        self.example = Example()

    def through(self, run: RunFolder, plan: Plan) -> Iterator[Record]:
        """Yield the finished records, whole."""
        for key, mark in plan:
            try:
                # Faster by half than model_validate_json, which keeps no strings for reuse.
                values = from_json(run.record_file(key, mark).read_bytes())
                record: _Whole | None = _Whole.model_validate(values)
            except FileNotFoundError:
                continue  # not finished
            except (OSError, ValueError):
                record = None
            if record is None or record.fingerprint != mark:
                self.damaged.append(run.record_file(key, mark).name)  # counts as not finished
                continue
            yield record
            self.profiles.add(record)
            self.example.consider(record)
            self.records.append(_slim(record))


def _read(run: RunFolder, plan: Plan) -> tuple[_Reading, pd.DataFrame]:
    """Read the finished records, and their scores as `results_frame` has them."""
    reading = _Reading()
    results = results_frame(reading.through(run, plan))
    if not reading.records:
        damaged = f", {len(reading.damaged)} records damaged" if reading.damaged else ""
        msg = (
            f"no unit of the run '{run.root}' is finished ({len(plan)} planned{damaged}), so there "
            "is nothing to report; start or go on with: run"
        )
        raise DataError(msg)
    return reading, results


def _slim(record: Record) -> Record:
    structures = tuple(
        result.model_copy(update={"slices": (), "prompts": ()}) for result in record.structures
    )
    # The prompts of validations are few, and are counted later.
    zhu = tuple(result.model_copy(update={"slices": ()}) for result in record.zhu)
    return record.model_copy(update={"structures": structures, "zhu": zhu})
