"""``run``, ``report`` and ``demo``: the benchmark."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_lungfm.cli.console import (
    note,
    print_json,
    shows_unicode,
    stderr_console,
    stdout_console,
)

if TYPE_CHECKING:
    from napari_lungfm.benchmark.config import BenchmarkConfig
    from napari_lungfm.benchmark.runner import Listener, RunEvent
    from napari_lungfm.benchmark.store import RunFolder

DeviceOption = Annotated[
    str, typer.Option(help="auto, cpu, cuda or mps; for models that can run on them.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def run(
    config: Annotated[Path, typer.Argument(help="Configuration, a YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; an old one is gone on with.")],
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Run a benchmark: every case under every method, resuming where an earlier call stopped.

    Methods that the configuration wants trained are trained first. Paths in the configuration
    count from its own folder.
    """
    from napari_lungfm.benchmark.config import load_config

    loaded = load_config(config)
    folder = _run(loaded, out, config.resolve().parent, device)
    return _close(folder, None, as_json)


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; the run's own folder by default.")
    ] = None,
    overlay_cases: Annotated[
        int, typer.Option(min=0, help="Show the masks of at most so many cases of each cohort.")
    ] = 20,
    as_json: JsonOption = False,
) -> int:
    """Write report.html, tables and figures of a run."""
    from napari_lungfm.benchmark.store import RunFolder

    run_folder = RunFolder.open(folder)
    return _close(run_folder, _write_report(run_folder, out, overlay_cases), as_json)


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("lungfm-demo"),
    real_data: Annotated[
        Path | None, typer.Option(help="Folder of the public real cases, if you have them.")
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Run a small benchmark on synthetic chest CTs, and on real cases where they are there.

    The automatic models are trained for real, each for a minute or so, on phantoms: their rows show
    that the software works, not what such models can do.
    """
    from napari_lungfm.benchmark.demo import demo_config

    started = time.perf_counter()
    config = demo_config(real_data)
    names = ", ".join(cohort.name for cohort in config.cohorts)
    trained = ", ".join(method.train for method in config.methods if method.train)
    note(f"demo on: {names}; trained first: {trained}")
    if real_data is not None and len(config.cohorts) == 1:
        note(f"there are no public real cases at {real_data}: phantoms only")
    folder = _run(config, out, Path.cwd(), device)
    code = _close(folder, _write_report(folder, None), as_json)
    note(f"the demo took {time.perf_counter() - started:.0f} s")
    return code


def _run(config: "BenchmarkConfig", out: Path, base: Path, device: str) -> "RunFolder":
    from napari_lungfm.benchmark.runner import run_benchmark
    from napari_lungfm.models.devices import check_device_name

    check_device_name(device)
    with _progress() as listener:
        return run_benchmark(config, out, base=base, device=device, listener=listener)


def _write_report(folder: "RunFolder", out: Path | None, overlay_cases: int = 20) -> Path:
    from napari_lungfm.benchmark.report import write_report

    note("writing the report")
    with stderr_console().status("writing the report") as status:
        files = write_report(folder, out=out, overlay_cases=overlay_cases, progress=status.update)
    return files.html


def _close(folder: "RunFolder", html: Path | None, as_json: bool) -> int:
    """Print the table and say where everything is; 1 when a unit failed or is missing."""
    from napari_lungfm.benchmark.report import print_table, summarise

    records = folder.load()
    planned = len(folder.read_plan())
    failed = [record for record in records if record.status == "failed"]
    if as_json:
        summary = summarise(records)
        rows = summary.astype(object).where(summary.notna(), None).to_dict("records")
        print_json(
            {
                "run": str(folder.root),
                "report": str(html) if html else None,
                "units": {"planned": planned, "finished": len(records), "failed": len(failed)},
                "summary": rows,
            }
        )
    elif records:
        stdout_console().print(print_table(summarise(records), ascii_only=not shows_unicode()))
    for record in failed[:5]:
        key = record.key
        note(f"failed: {key.cohort}/{key.case} {key.method} {key.protocol}: {record.error}")
    if len(failed) > 5:
        note(f"... and {len(failed) - 5} more; all are in {folder.records}")
    where = f"report: {html}" if html else f"now: napari-lungfm-bench report {folder.root}"
    note(f"{len(records)} of {planned} units done, {len(failed)} failed; {where}")
    return 1 if failed or len(records) < planned else 0


@contextmanager
def _progress() -> "Iterator[Listener]":
    """Show a progress bar on a terminal, plain lines elsewhere (a log has no cursor)."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = stderr_console()
    if not console.is_terminal:
        yield _plain_listener()
        return
    columns = (
        TextColumn("{task.description}", table_column=None),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def listen(event: "RunEvent") -> None:
            text = f"{event.text}  ({event.failed} failed)" if event.failed else event.text
            total = event.total or None  # unknown when a training begins
            bar.update(task, description=text[:80], completed=event.done, total=total)
            if event.kind == "training":
                bar.console.print(event.text, markup=False, highlight=False)

        yield listen


def _plain_listener() -> "Listener":
    def listen(event: "RunEvent") -> None:
        if event.kind == "training":
            note(event.text)
        elif event.kind in ("unit", "skip", "end"):
            note(f"[{event.done}/{event.total}] {event.text}")

    return listen
