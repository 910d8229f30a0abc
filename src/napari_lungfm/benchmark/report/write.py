"""Write the whole report of a run."""

import gc
import json
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from napari_lungfm._core.files import slug
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report import html, paper_text, tables
from napari_lungfm.benchmark.report.absent import absent_line
from napari_lungfm.benchmark.report.comparisons import Family, families, pairs_frame, ranks_frame
from napari_lungfm.benchmark.report.content import Content, Tell, collect
from napari_lungfm.benchmark.report.folder import atomic_folder
from napari_lungfm.benchmark.report.fractions import curves_frame
from napari_lungfm.benchmark.report.header import Header
from napari_lungfm.benchmark.report.plots import Plots, draw_figure_one, draw_overlays
from napari_lungfm.benchmark.report.remarks import failures_frame, remarks
from napari_lungfm.benchmark.report.weights import weights_frame
from napari_lungfm.benchmark.report.zhu import zhu_markdown, zhu_rows
from napari_lungfm.benchmark.store import RunFolder

#: A second process needs two seconds to start; a run of fewer units is reported in a few.
_MANY_UNITS = 3000


@dataclass(frozen=True, eq=False)
class ReportFiles:
    """Where the parts of a report lie.

    Parameters
    ----------
    folder
        The folder of the report.
    html
        The page.
    results_csv, results_parquet
        Scores per unit and structure (`benchmark.store.results_frame`).
    costs_csv, summary_csv, comparisons_csv, corrections_csv
        Costs per unit, means with intervals, pairs of methods, mean Dice after each interaction
        (without rows where no protocol has corrections).
    zhu_csv
        Units under ``zhu-validation`` (`benchmark.store.zhu_frame`), which stand nowhere else.
    paper_csv
        Tables II, III and IV, ours and the paper's (`paper_text.table_rows`).
    summary
        What ``summary.csv`` holds.
    n_planned, n_done
        Units of the plan, and those with a record.
    failures
        Records of failed units, without the lists of their slices and prompts.
    damaged
        Names of the files of records that cannot be read; their units count as not finished.
    tables
        Markdown and LaTeX tables, two per cohort, and one of its units under ``zhu-validation``.
    figures
        Plots as SVG and PNG.
    """

    folder: Path
    html: Path
    results_csv: Path
    results_parquet: Path
    costs_csv: Path
    summary_csv: Path
    comparisons_csv: Path
    corrections_csv: Path
    zhu_csv: Path
    paper_csv: Path
    summary: pd.DataFrame
    n_planned: int
    n_done: int
    failures: tuple[Record, ...]
    damaged: tuple[str, ...]
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]


def write_report(
    run: RunFolder,
    *,
    out: Path | None = None,
    overlay_cases: int = 20,
    processes: int = 1,
    progress: Tell | None = None,
) -> ReportFiles:
    """Write the report of a run: page, tables, figures and the numbers behind them.

    Needs only the folder of the run (records, masks, previews), neither images nor models. The
    same records give the same files. The report is built beside its place and swapped in, so
    that an interrupted call leaves the old one.

    Parameters
    ----------
    run
        The run, finished or not.
    out
        Folder of the report; by default ``report`` in the folder of the run.
    overlay_cases
        Most cases of each cohort with overlays; 0 for none.
    processes
        With 2, a second process draws half of the figures of a large run. As with every use of
        `multiprocessing`, a script that asks for it must begin its work under
        ``if __name__ == "__main__":``.
    progress
        Called with one line before every step.

    Raises
    ------
    DataError
        If no unit of the run is finished.
    OutputError
        If the report cannot be written, or its folder holds other files.
    """
    tell = progress or (lambda line: None)
    target = out if out is not None else run.root / "report"
    with (
        atomic_folder(Path(target)) as folder,
        _helper(run, processes) as helper,
        _content(run, tell) as content,
    ):
        drawing = Plots(content, helper)
        tell("tables")
        compared = families(content.cases[content.cases["structure"] == content.structure])
        _write_frames(folder, content, compared)
        _write_tables(folder, content)
        tell("figures")
        plots = drawing.write(folder / "figures")
        drawn, rule = draw_overlays(run, content, overlay_cases, tell)
        plots += draw_figure_one(folder / "figures", content, drawn)
        tell("page")
        page = html.Page(content, compared, plots, drawn, rule)
        (folder / "report.html").write_text(html.render(page), encoding="utf-8", newline="\n")
    return _files(Path(target), content)


@contextmanager
def _helper(run: RunFolder, processes: int) -> Iterator[Executor | None]:
    """Start a second process where the run is large enough to pay for it.

    It starts before the records are read, and imports what it needs meanwhile.
    """
    if processes < 2 or len(run.read_plan()) < _MANY_UNITS:
        yield None
        return
    helper = ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
    try:
        helper.submit(_ready)
        yield helper
    finally:
        helper.shutdown(wait=False, cancel_futures=True)


def _ready() -> None:
    """Do nothing: whoever is sent this function has imported this module."""


@contextmanager
def _content(run: RunFolder, tell: Tell) -> Iterator[Content]:
    """Read the records, and keep Python from searching them for cycles of garbage.

    There are none, and among millions of objects each search takes half a second; statsmodels
    asks for one in every test.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        content = collect(run, tell)
        gc.freeze()
        if was_on:
            gc.enable()
        yield content
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()


def _files(folder: Path, content: Content) -> ReportFiles:
    return ReportFiles(
        folder,
        html=folder / "report.html",
        results_csv=folder / "results.csv",
        results_parquet=folder / "results.parquet",
        costs_csv=folder / "costs.csv",
        summary_csv=folder / "summary.csv",
        comparisons_csv=folder / "comparisons.csv",
        corrections_csv=folder / "corrections.csv",
        zhu_csv=folder / "zhu-validation.csv",
        paper_csv=folder / "paper.csv",
        summary=content.summary,
        n_planned=content.header.n_planned,
        n_done=content.header.n_done,
        failures=tuple(r for r in content.records if r.status == "failed"),
        damaged=tuple(content.damaged),
        tables=tuple(sorted((folder / "tables").iterdir())),
        figures=tuple(sorted((folder / "figures").iterdir())),
    )


# ---------------------------------------------------------------------- numbers
def _write_frames(folder: Path, content: Content, compared: list[Family]) -> None:
    results = plain(content.results)
    _write_csv(results, folder / "results.csv")
    results.to_parquet(folder / "results.parquet", index=False, compression="zstd")
    _write_csv(plain(content.costs), folder / "costs.csv")
    _write_csv(content.summary, folder / "summary.csv")
    _write_csv(pairs_frame(compared), folder / "comparisons.csv")
    _write_csv(content.curves, folder / "corrections.csv")
    _write_csv(content.zhu, folder / "zhu-validation.csv")
    _write_csv(ranks_frame(compared), folder / "ranks.csv")
    _write_csv(content.subgroups, folder / "subgroups.csv")
    _write_csv(content.jitter, folder / "jitter.csv")
    _write_csv(content.prompts, folder / "prompts.csv")
    _write_csv(curves_frame(content.fractions), folder / "fractions.csv")
    _write_csv(paper_text.table_rows(content.paper), folder / "paper.csv")
    _write_csv(failures_frame(content.records), folder / "failures.csv")
    _write_csv(weights_frame(content.records), folder / "weights.csv")


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    # Without a format, floats are written in the shortest form that reads back exactly.
    frame.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns each hold one plain type, as files need it.

    Case attributes may be anything that JSON holds: columns of lists, mappings or mixed types
    become text (JSON where it is not text already).
    """
    frame = frame.copy()
    for name in frame.columns:
        if frame[name].dtype == object:
            kinds = {type(value) for value in frame[name].dropna()}
            if not (len(kinds) == 1 and kinds <= {str, bool}) and kinds:
                frame[name] = frame[name].map(_text)
    frame.columns = frame.columns.astype(str)
    return frame


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return None
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


# ---------------------------------------------------------------------- tables
def _write_tables(folder: Path, content: Content) -> None:
    place = folder / "tables"
    place.mkdir()
    for note in content.header.cohorts:
        notes = [
            *_table_notes(content.header),
            *remarks(content.records, note.name),
            *absent_line(content.own, note.name, content.units),
        ]
        arguments = (content.summary, note.name, note.title, notes)
        for suffix, make in ((".md", tables.markdown), (".tex", tables.latex)):
            path = place / f"{slug(note.name)}{suffix}"
            path.write_text(make(*arguments), encoding="utf-8", newline="\n")
        rows = zhu_rows(content.zhu, content.costs, note.name)
        if rows:
            path = place / f"{slug(note.name)}--zhu-validation.md"
            path.write_text(zhu_markdown(rows, note.name), encoding="utf-8", newline="\n")
        own = [table for table in content.paper if table.cohort == note.name]
        if own:
            said = [f"{curve.title}: {curve.verdict}" for curve in content.fractions
                    if curve.cohort == note.name]  # fmt: skip
            texts = ((".md", paper_text.markdown(own, said)), (".tex", paper_text.latex(own)))
            for suffix, text in texts:
                path = place / f"{slug(note.name)}--paper{suffix}"
                path.write_text(text, encoding="utf-8", newline="\n")


def _table_notes(header: Header) -> list[str]:
    notes = [
        "Mean over cases, 95 % BCa bootstrap interval in brackets.",
        "Best values are bold, second-best ones underlined, within a prompt protocol.",
        "Counts are of cases: with a Dice (n), with a failed unit, with both masks empty.",
    ]
    if header.n_missing:
        notes.append(f"Incomplete: {header.n_missing} of {header.n_planned} units are missing.")
    return notes
