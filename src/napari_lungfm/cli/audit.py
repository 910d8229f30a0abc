"""``audit``: published tables, checked by arithmetic."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.cli.console import note, print_json, shows_unicode, stdout_console

if TYPE_CHECKING:
    from napari_lungfm.benchmark.published import Audit

_SUFFIXES = (".csv", ".json", ".md")
#: For terminals that show no more.
_ASCII = str.maketrans({"×": "x", "·": "*", "−": "-"})


def audit(
    table: Annotated[
        Path | None,
        typer.Argument(
            help="Tables of a publication as CSV: row (or method, model), <structure> <metric>, "
            "... and, where there are several, table and group. By default the paper that this "
            "benchmark reproduces."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights of the structures in averages, as Lungs=2,Tumor=1. By default equal."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the findings to a .csv, .json or .md file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check published tables by arithmetic alone: no images, no models.

    Averages that do not follow from their rows, mean Dice that no mean IoU allows, differences
    that never vary, wrong bold and underlined values. A finding is a question, not a verdict.
    """
    from napari_lungfm.benchmark import published

    if out is not None and out.suffix.lower() not in _SUFFIXES:
        msg = f"'{out}': findings are written as {', '.join(_SUFFIXES)}"
        raise UsageError(msg)
    if out is not None and table is not None and out.resolve() == table.resolve():
        msg = f"'{out}' would overwrite the input; choose another output"
        raise UsageError(msg)
    if table is None:
        if weights is not None:
            msg = "--weights is for tables of your own; those of the paper are known"
            raise UsageError(msg)
        tables = published.read_paper()
    else:
        tables = published.read_tables(table, _weights(weights))
    result = published.audit(tables)
    if out is not None:
        _write(result, out)
    if as_json:
        print_json(result.to_dict())
    else:
        _print(result)


def _weights(text: str | None) -> dict[str, float]:
    weights = {}
    for part in (text or "").split(","):
        if not part.strip() and text is None:
            continue
        name, _, number = part.partition("=")
        try:
            weights[name.strip()] = float(number)
        except ValueError:
            weights[name.strip()] = -1.0
        if not name.strip() or not 0 < weights[name.strip()] < float("inf"):
            msg = f"--weights {part.strip()!r} is not NAME=WEIGHT with a weight above 0"
            raise UsageError(msg)
    return weights


def _print(result: "Audit") -> None:
    from napari_lungfm.benchmark.published import CHECKS

    console = stdout_console()

    def say(text: str, style: str | None = None) -> None:
        plain = text if shows_unicode() else text.translate(_ASCII).encode("ascii", "replace")
        line = plain if isinstance(plain, str) else plain.decode()
        console.print(line, style=style, markup=False, soft_wrap=True)

    say(result.source)
    for check, tested in result.tested.items():
        found = result.of(check)
        count = f"{len(found)} of {tested}" if check != "constant-difference" else len(found)
        say(f"\n{CHECKS[check]}  [{check}: {count}]", "bold")
        for finding in found:
            say(f"  {finding.severity}: {finding.sentence}")
        if not found:
            say("  nothing found" if tested else "  nothing to test")
    for warning in result.warnings:
        note(f"warning: {warning}")
    note(result.summary)


def _write(result: "Audit", path: Path) -> None:
    from napari_lungfm._core.files import write_json, write_text

    suffix = path.suffix.lower()
    if suffix == ".json":
        write_json(path, result.to_dict())
    elif suffix == ".csv":
        write_text(path, _as_csv(result))
    else:
        write_text(path, _as_markdown(result))
    note(f"written: {path}")


def _as_csv(result: "Audit") -> str:
    columns = ("check", "severity", "table", "group", "row", "column", "sentence")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for finding in result.findings:
        writer.writerow([getattr(finding, column) for column in columns])
    return text.getvalue()


def _as_markdown(result: "Audit") -> str:
    from napari_lungfm.benchmark.published import CHECKS

    lines = [f"# Audit: {result.source}", "", f"{result.summary[0].upper()}{result.summary[1:]}."]
    lines += ["", *(f"- Warning: {warning}." for warning in result.warnings)]
    lines += [""] if result.warnings else []
    for check, tested in result.tested.items():
        lines += [f"## {CHECKS[check]}", ""]
        found = result.of(check)
        lines += [f"- {finding.severity}: {finding.sentence}" for finding in found]
        lines += [] if found else ["Nothing found." if tested else "Nothing to test."]
        lines += [""]
    return "\n".join(lines)
