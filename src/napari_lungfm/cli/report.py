"""``report`` and ``trace``: what a run found, and where each number comes from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lungfm.cli.console import (
    note,
    print_json,
    shows_unicode,
    stderr_console,
    stdout_console,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from napari_lungfm.benchmark.records import Record
    from napari_lungfm.benchmark.report import OtherRow, Trace, TracedUnit
    from napari_lungfm.benchmark.store import RunFolder

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
#: Failed units, and rows of a comparison, that are shown here; files have all of them.
_SHOWN_FAILURES, _SHOWN_ROWS = 5, 40


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    other: Annotated[
        Path | None, typer.Argument(help="Folder of another run, to compare the two.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write; the run's own folder by default. Needed for two runs."),
    ] = None,
    overlay_cases: Annotated[
        int | None,
        typer.Option(
            min=0, help="Show the masks of at most so many cases of each cohort; 20 by default."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Write report.html, tables and figures of a run, or compare two runs on the same cases."""
    from napari_lungfm._core.exceptions import UsageError
    from napari_lungfm.benchmark.store import RunFolder

    first = RunFolder.open(folder)
    if other is None:
        return write_and_close(
            first, out, as_json, overlay_cases=20 if overlay_cases is None else overlay_cases
        )
    if out is None:
        msg = "a comparison of two runs belongs to neither: say where to write it with --out FOLDER"
        raise UsageError(msg)
    if overlay_cases is not None:
        msg = "a comparison of two runs shows no masks; leave --overlay-cases out"
        raise UsageError(msg)
    return _compare(first, RunFolder.open(other), out, as_json)


def trace(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    cohort: Annotated[str, typer.Option(help="Cohort, as in the table.")],
    method: Annotated[str, typer.Option(help="Method, as in the table.")],
    protocol: Annotated[str, typer.Option(help="What the prompts came from, as in the table.")],
    structure: Annotated[
        str, typer.Option(help="Structure, or lungs, or avg for all three.")
    ] = "tumour",
    metric: Annotated[
        str,
        typer.Option(help="A column of summary.csv or of another table, such as skill or macs."),
    ] = "dice",
    subgroup: Annotated[
        str | None,
        typer.Option(metavar="DIVISION=GROUP", help="Some cases only, as in size=small."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Units of one seed only.")] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help="Another method: the pairs behind a p value."),
    ] = None,
    against_run: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Another run: a row of the report of two runs."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Show the records that a number in a table is made from, with their prompts and masks."""
    from napari_lungfm.benchmark.report import trace as find
    from napari_lungfm.benchmark.store import RunFolder

    found = find(
        RunFolder.open(folder),
        cohort=cohort,
        method=method,
        protocol=protocol,
        structure=structure,
        metric=metric,
        subgroup=subgroup,
        seed=seed,
        against=against,
        against_run=None if against_run is None else RunFolder.open(against_run),
    )
    if as_json:
        from dataclasses import asdict

        print_json(asdict(found))
    else:
        _print_trace(found)
    return 0


def write_and_close(
    folder: "RunFolder", out: Path | None, as_json: bool, *, overlay_cases: int = 20
) -> int:
    """Write the report of a run, then say how the run ended; see `close`."""
    from napari_lungfm._core.environment import available_cores
    from napari_lungfm.benchmark.report import write_report

    note("writing the report")
    with stderr_console().status("writing the report") as status:
        files = write_report(
            folder,
            out=out,
            overlay_cases=overlay_cases,
            processes=available_cores(),
            progress=status.update,
        )
    if files.damaged:
        shown = ", ".join(files.damaged[:_SHOWN_FAILURES])
        more = ", ..." if len(files.damaged) > _SHOWN_FAILURES else ""
        note(
            f"damaged records, which count as missing ('run' makes them anew): "
            f"{len(files.damaged)} in {folder.records}: {shown}{more}"
        )
    return _print_end(
        folder, files.html, files.summary, (files.n_planned, files.n_done), files.failures, as_json
    )


def close(folder: "RunFolder", as_json: bool) -> int:
    """Print the table of a run and how it ended; 1 when a unit failed or is missing."""
    from napari_lungfm.benchmark.report import summarise

    records = folder.load()
    failed = [record for record in records if record.status == "failed"]
    counts = (len(folder.read_plan()), len(records))
    return _print_end(folder, None, summarise(records), counts, failed, as_json)


def _print_end(
    folder: "RunFolder",
    html: Path | None,
    summary: "pd.DataFrame",
    counts: tuple[int, int],
    failed: "Sequence[Record]",
    as_json: bool,
) -> int:
    from napari_lungfm.benchmark.report import print_table

    planned, done = counts
    if as_json:
        print_json(
            {
                "run": str(folder.root),
                "report": str(html) if html else None,
                "units": {"planned": planned, "finished": done, "failed": len(failed)},
                "summary": _rows(summary),
            }
        )
    elif done:
        stdout_console().print(print_table(summary, ascii_only=not shows_unicode()))
    for record in failed[:_SHOWN_FAILURES]:
        key = record.key
        note(f"failed: {key.cohort}/{key.case} {key.method} {key.protocol}: {record.error}")
    if len(failed) > _SHOWN_FAILURES:
        note(f"... and {len(failed) - _SHOWN_FAILURES} more; all are in {folder.records}")
    where = f"report: {html}" if html else f"now: napari-lungfm-bench report {folder.root}"
    note(f"{done} of {planned} units done, {len(failed)} failed; {where}")
    return 1 if failed or done < planned else 0


def _compare(first: "RunFolder", second: "RunFolder", out: Path, as_json: bool) -> int:
    from napari_lungfm.benchmark.report import compare_runs

    files = compare_runs(first, second, out)
    if as_json:
        print_json(
            {
                "report": str(files.html),
                "comparison": _rows(files.table),
                "only_in_one": _rows(files.only),
            }
        )
    else:
        print(files.table.head(_SHOWN_ROWS).to_string(index=False, float_format="{:.3f}".format))
        if len(files.table) > _SHOWN_ROWS:
            print(f"... {len(files.table)} rows in all")
    note(f"{len(files.only)} units are in one run alone; report: {files.html}")
    return 0


def _print_trace(found: "Trace") -> None:
    cases = f", {found.subgroup}" if found.subgroup else ""
    # Of interactions that a target takes, none is enough where it is never reached.
    no = "not reached" if found.metric.startswith("interactions_to") else "undefined"
    print(
        f"{found.metric} of {found.structure}, {found.method} under {found.protocol} on "
        f"{found.cohort}{cases}: {_shown(found.value, no)} (n = {found.n}, {_left_out(found)})"
    )
    print(f"how: {found.origin}")
    if found.others:
        print(f"mean of {found.method}: {_shown(found.mean)}")
    for other in found.others:
        print(f"mean of {_named(other)} under {other.protocol}, same cases: {_shown(other.mean)}")
    for name, value in (found.comparison or {}).items():
        count = value is not None and (name == "n" or name.startswith("n_"))
        print(f"{name.replace('_', ' ')}: {f'{value:.0f}' if count else _shown(value)}")
    _print_units(found.units, found.method if found.others else "", no)
    for other in found.others:
        _print_units(other.units, _named(other), no)


def _left_out(found: "Trace") -> str:
    if found.others:
        return f"{found.n_undefined} left out"
    failed = f", {found.n_failed} failed" if found.n_failed else ""
    return f"{found.n_undefined} undefined{failed}"


def _named(row: "OtherRow") -> str:
    return row.method if row.run is None else f"{row.method} in {row.run}"


def _print_units(units: "Sequence[TracedUnit]", method: str, no: str) -> None:
    for unit in units:
        value = unit.error or _shown(unit.value, no)
        prompts = ", ".join(f"{len(given)} for {name}" for name, given in unit.prompts.items())
        print(f"  {method}{': ' if method else ''}{unit.case} (seed {unit.seed}): {value}")
        print(f"    record  {unit.record_file}")
        print(f"    mask    {unit.mask_file or 'none'}")
        print(f"    prompts {prompts or 'none'}; with --json one by one")


def _shown(value: float | None, no: str = "undefined") -> str:
    if value is None:
        return no
    if abs(value) < 1000:
        return f"{value:.4f}" if abs(value) >= 5e-5 or not value else f"{value:.2e}"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def _rows(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        frame.astype(object).where(frame.notna(), None).to_dict("records")  # type: ignore[assignment]
    )
    return rows
