"""Write the whole report of a run."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from napari_lungfm._core.exceptions import DataError
from napari_lungfm._core.files import slug
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report import canvas, corrections, figures, html, montage, tables
from napari_lungfm.benchmark.report.comparisons import Family, families, pairs_frame
from napari_lungfm.benchmark.report.folder import atomic_folder
from napari_lungfm.benchmark.report.header import Header, make_header, read_config_text
from napari_lungfm.benchmark.report.overlays import CaseOverlay, choose_cases, overlays
from napari_lungfm.benchmark.report.remarks import remarks
from napari_lungfm.benchmark.report.scores import case_scores, main_structure, unit_scores
from napari_lungfm.benchmark.report.summary import summarise
from napari_lungfm.benchmark.report.zhu import zhu_markdown, zhu_rows
from napari_lungfm.benchmark.store import RunFolder, costs_frame, results_frame, zhu_frame
from napari_lungfm.evaluation.prompt_protocols import is_zhu_validation

Tell = Callable[[str], None]


@dataclass(frozen=True)
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
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class _Content:
    """What all parts of the report are made from.

    ``records`` are those of all units; ``own`` leaves those under ``zhu-validation`` out, and
    everything but ``zhu`` and the costs is made from them.
    """

    header: Header
    records: Sequence[Record]
    own: Sequence[Record]
    units: pd.DataFrame
    cases: pd.DataFrame
    summary: pd.DataFrame
    structure: str
    looks: figures.Rows
    config_text: str
    effort: pd.DataFrame
    curves: pd.DataFrame
    zhu: pd.DataFrame

    def part(self, frame: pd.DataFrame, cohort: str) -> pd.DataFrame:
        """Rows of one cohort and of the main structure."""
        wanted = frame["cohort"] == cohort
        if "structure" in frame.columns:
            wanted &= frame["structure"] == self.structure
        return frame[wanted]


def write_report(
    run: RunFolder,
    *,
    out: Path | None = None,
    overlay_cases: int = 20,
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
    content = _collect(run, tell)
    with atomic_folder(Path(target)) as folder:
        tell("tables")
        compared = families(content.cases[content.cases["structure"] == content.structure])
        _write_frames(folder, content, compared)
        _write_tables(folder, content)
        tell("figures")
        plots = _draw_plots(folder, content)
        drawn, rule = _draw_overlays(run, content, overlay_cases, tell)
        _draw_montages(folder / "figures", content, drawn)
        tell("page")
        page = html.Page(
            content.header,
            content.summary,
            content.units,
            content.structure,
            costs_frame(content.records),
            compared,
            plots,
            drawn,
            rule,
            content.records,
            content.looks,
            content.config_text,
            content.effort,
            content.zhu,
        )
        (folder / "report.html").write_text(html.render(page), encoding="utf-8", newline="\n")
    return _files(Path(target))


def _files(folder: Path) -> ReportFiles:
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
        tables=tuple(sorted((folder / "tables").iterdir())),
        figures=tuple(sorted((folder / "figures").iterdir())),
    )


def _collect(run: RunFolder, tell: Tell) -> _Content:
    tell("records")
    plan = run.read_plan()
    records = run.load()
    if not records:
        msg = (
            f"no unit of the run '{run.root}' is finished ({len(plan)} planned), so there is "
            "nothing to report; start or go on with: run"
        )
        raise DataError(msg)
    tell("statistics")
    config_text = read_config_text(run)
    own = [record for record in records if not is_zhu_validation(record.key.protocol)]
    units = unit_scores(own)
    summary = summarise(records)
    structure = main_structure(units)
    effort = corrections.case_effort(own, structure)
    return _Content(
        make_header(run, config_text, [key for key, _ in plan], records),
        records,
        own,
        units,
        case_scores(units),
        summary,
        structure,
        figures.row_looks(summary),
        config_text,
        effort,
        corrections.curves(effort),
        zhu_frame(records),
    )


# ---------------------------------------------------------------------- numbers
def _write_frames(folder: Path, content: _Content, compared: list[Family]) -> None:
    results = plain(results_frame(content.own))
    _write_csv(results, folder / "results.csv")
    results.to_parquet(folder / "results.parquet", index=False, compression="zstd")
    _write_csv(plain(costs_frame(content.records)), folder / "costs.csv")
    _write_csv(content.summary, folder / "summary.csv")
    _write_csv(pairs_frame(compared), folder / "comparisons.csv")
    _write_csv(content.curves, folder / "corrections.csv")
    _write_csv(content.zhu, folder / "zhu-validation.csv")


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
def _write_tables(folder: Path, content: _Content) -> None:
    place = folder / "tables"
    place.mkdir()
    for note in content.header.cohorts:
        notes = [*_table_notes(content.header), *remarks(content.records, note.name)]
        arguments = (content.summary, note.name, note.title, notes)
        for suffix, make in ((".md", tables.markdown), (".tex", tables.latex)):
            path = place / f"{slug(note.name)}{suffix}"
            path.write_text(make(*arguments), encoding="utf-8", newline="\n")
        rows = zhu_rows(content.zhu, costs_frame(content.records), note.name)
        if rows:
            path = place / f"{slug(note.name)}--zhu-validation.md"
            path.write_text(zhu_markdown(rows, note.name), encoding="utf-8", newline="\n")


def _table_notes(header: Header) -> list[str]:
    notes = [
        "Mean over cases, 95 % BCa bootstrap interval in brackets.",
        "Best values are bold, second-best ones underlined, within a prompt protocol.",
        "Counts are of cases: with a Dice (n), with a failed unit, with both masks empty.",
    ]
    if header.n_missing:
        notes.append(f"Incomplete: {header.n_missing} of {header.n_planned} units are missing.")
    return notes


# ---------------------------------------------------------------------- figures
def _draw_plots(folder: Path, content: _Content) -> list[html.Plot]:
    place = folder / "figures"
    place.mkdir()
    profile = figures.slice_profile(content.own, content.structure)
    plots = []
    for number, note in enumerate(content.header.cohorts, 1):
        with canvas.style():
            for name, title, caption, figure in _figures_of(content, profile, note.name):
                svg = _save_figure(figure, place, f"{slug(note.name)}--{name}")
                ids = f"f{number}-{name}"
                plots.append(html.Plot(ids, svg, note.name, title, caption, name))
    return plots


def _save_figure(figure: Figure, place: Path, stem: str) -> str:
    svg = canvas.to_svg(figure)
    (place / f"{stem}.svg").write_text(svg, encoding="utf-8", newline="\n")
    (place / f"{stem}.png").write_bytes(canvas.to_png(figure))
    return svg


def _figures_of(
    content: _Content, profile: pd.DataFrame, cohort: str
) -> list[tuple[str, str, str, Figure]]:
    cases = content.part(content.cases, cohort)
    if cases.empty:
        return []
    summary = content.part(content.summary, cohort)
    own_profile = profile[profile["cohort"] == cohort]
    curve = content.curves[content.curves["cohort"] == cohort]
    parameters = content.part(costs_frame(content.own), cohort)
    counts = parameters.groupby("method")["parameters"].max().astype(float).dropna().to_dict()
    return [
        (name, title, caption, figure)
        for name, title, caption, figure in (
            (
                "dice",
                "Dice by method",
                "Every dot is a case (seeds averaged). Grey: prompt-only baselines.",
                figures.dice_by_method(cases, summary, content.looks),
            ),
            (
                "volume",
                "Dice by size",
                "Small structures lose more Dice to the same error in mm.",
                figures.dice_by_volume(cases, content.looks),
            ),
            (
                "slices",
                "Dice along the slices",
                "Mean slice Dice from the first to the last slice of the reference, in order of "
                "the slice index. Slices added beyond the ends are not shown.",
                figures.dice_along_axis(own_profile, content.looks) if len(own_profile) else None,
            ),
            (
                "cost",
                "Dice and time",
                "Mean Dice over mean seconds per case; larger marks have more parameters.",
                figures.cost(summary, {str(k): float(v) for k, v in counts.items()}, content.looks),
            ),
            (
                "corrections",
                "Dice after each interaction",
                "Mean over cases (band: 95 % CI) after the first prompts and after each "
                "correction. Where nothing was left to correct, the last Dice stands for the rest.",
                corrections.curve_figure(curve, content.looks) if len(curve) else None,
            ),
        )
        if figure is not None
    ]


def _draw_overlays(
    run: RunFolder, content: _Content, most: int, tell: Tell
) -> tuple[list[CaseOverlay], str]:
    chosen: list[tuple[str, str]] = []
    rules = []
    for note in content.header.cohorts:
        cases = content.part(content.cases, note.name)
        if cases.empty:
            continue
        first = cases.iloc[0]
        own = cases[(cases["method"] == first["method"]) & (cases["protocol"] == first["protocol"])]
        dice = [(str(v.case), float(v.dice)) for v in own.itertuples(index=False)]
        names = choose_cases(dice, most)
        chosen += [(note.name, name) for name in names]
        if len(names) < len(dice):
            rules.append(
                f"{note.name}: {len(names)} of {len(dice)} cases, chosen by their Dice under "
                f"{first['method']} ({first['protocol']}): best, median, worst and evenly spaced "
                "ranks between."
            )
    return overlays(run, content.own, chosen, tell) if chosen else [], " ".join(rules)


def _draw_montages(place: Path, content: _Content, drawn: list[CaseOverlay]) -> None:
    for note in content.header.cohorts:
        own = [overlay for overlay in drawn if overlay.cohort == note.name]
        with canvas.style():
            figure = montage.montage(own, content.looks)
            if figure is not None:
                _save_figure(figure, place, f"{slug(note.name)}--overlays")
