"""The commands together, and what happens when one goes wrong."""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

import typer

from napari_lungfm._core.exceptions import LungFMError, LungFMWarning
from napari_lungfm.cli import (
    audit,
    bench,
    convert,
    datasets,
    doctor,
    evaluate,
    models,
    replay,
    report,
    segment,
    train,
)
from napari_lungfm.cli.console import complain, note

#: What typer returns after Ctrl-C, as shells do (128 + SIGINT).
_INTERRUPTED = 130

app = typer.Typer(
    name="napari-lungfm-bench",
    help="Delineate lung tumours in CT with promptable models, and measure how well it goes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="doctor")(doctor.doctor)
app.command(name="demo")(bench.demo)
app.command(name="convert")(convert.convert)
app.add_typer(models.app, name="models")
app.add_typer(datasets.app, name="datasets")
app.command(name="segment")(segment.segment)
app.command(name="replay")(replay.replay)
app.command(name="evaluate")(evaluate.evaluate)
app.command(name="train")(train.train)
app.command(name="run")(bench.run)
app.command(name="report")(report.report)
app.command(name="trace")(report.trace)
app.command(name="audit")(audit.audit)


def _print_version(value: bool) -> None:
    if value:
        from napari_lungfm import __version__

        typer.echo(f"napari-lungfm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Delineate lung tumours in CT with promptable models, and measure how well it goes."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line without exiting.

    Parameters
    ----------
    arguments
        What follows the program's name; ``None`` takes it from ``sys.argv``.

    Returns
    -------
    int
        The exit code: 0 = done, 1 = the work failed, 2 = the call was wrong.
    """
    warnings.showwarning = _show_warning
    try:
        return _call(arguments)
    except LungFMError as error:
        code, text = error.exit_code, str(error)
    except typer.TyperException as error:
        message = error.format_message()  # empty after a bare call, which prints the help
        code, text = error.exit_code, f"{message} (see --help)" if message else ""
    except MemoryError:
        code = 1
        text = "the machine ran out of memory; close other programs or use a smaller image"
    except UnicodeEncodeError as error:
        code = 1
        text = f"the output cannot show {error.object[error.start]!a}; set PYTHONIOENCODING=utf-8"
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        code, text = 1, ""
        _drop_stdout()
    except OSError as error:  # what no command expected: a full disk under stdout, for one
        place = f": {error.filename!r}" if error.filename else ""
        code, text = 1, f"{error.strerror or error}{place}"
        _drop_stdout()
    if text:
        complain(text)
    return code


def _call(arguments: Sequence[str] | None) -> int:
    try:
        result = app(list(arguments) if arguments is not None else None, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        result = _INTERRUPTED
    sys.stdout.flush()  # so that a full disk under it is noticed here and not at exit
    if result == _INTERRUPTED:
        complain("interrupted; finished results are kept, nothing half-written is left")
        return 1
    return result if isinstance(result, int) else 0


def _drop_stdout() -> None:
    """Point stdout at nothing, so that Python's flush at exit does not complain a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show our own warnings as one line; warnings of libraries say nothing to a user."""
    if issubclass(category, LungFMWarning):
        note(f"note: {message}")
