"""``run`` and ``demo``: the benchmark."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_lungfm.cli.console import complain, note, print_json
from napari_lungfm.cli.report import JsonOption, close, write_and_close
from napari_lungfm.cli.run_progress import Finished, progress

if TYPE_CHECKING:
    from napari_lungfm.benchmark.config import BenchmarkConfig
    from napari_lungfm.benchmark.store import RunFolder
    from napari_lungfm.benchmark.workplace import Workplace

DeviceOption = Annotated[
    str, typer.Option(help="auto, cpu, cuda or mps; for models that can run on them.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Processes on this machine; by default one for each GPU, else as many as cores and "
        "memory allow.",
    ),
]


def run(
    config: Annotated[
        str | None,
        typer.Argument(help="Configuration: a YAML file, or a name that --list shows."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; an old one is gone on with.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change the configuration, as in cohorts.0.n_test=4; may be given again.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that relative paths in the configuration count from."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, and what it takes.")
    ] = False,
    workers: WorkersOption = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Dask scheduler that is running, for its workers."),
    ] = None,
    cluster: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML file with kind: slurm.")
    ] = None,
    device: DeviceOption = "auto",
    show_list: Annotated[
        bool, typer.Option("--list", help="List the configurations that come with the program.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Run a benchmark: every case under every method, resuming where an earlier call stopped.

    Methods that the configuration wants trained are trained first. Paths in the configuration
    count from its own folder, those of a shipped one from the current folder. Cases are done by
    several processes, on this machine or a cluster; results do not depend on it.
    """
    from napari_lungfm._core.exceptions import UsageError
    from napari_lungfm.benchmark.shipped import find_config

    if show_list:
        return _print_shipped(as_json)
    if config is None or out is None:
        missing = "a configuration (see --list)" if config is None else "--out FOLDER"
        msg = f"run needs {missing}"
        raise UsageError(msg)
    place = _workplace(workers, scheduler, cluster)
    found = find_config(config, changes=tuple(changes or ()), data=data)
    if dry_run:
        return _print_estimate(found.config, out, found.base, place, as_json)
    folder = _run(found.config, out, found.base, device, place)
    return close(folder, as_json)


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("lungfm-demo"),
    real_data: Annotated[
        Path | None, typer.Option(help="Folder of the public real cases, if you have them.")
    ] = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
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
    folder = _run(config, out, Path.cwd(), device, _workplace(workers, None, None))
    code = write_and_close(folder, None, as_json)
    note(f"the demo took {time.perf_counter() - started:.0f} s")
    return code


def _workplace(workers: int | None, scheduler: str | None, cluster: Path | None) -> "Workplace":
    from napari_lungfm._core.exceptions import UsageError
    from napari_lungfm.benchmark.workplace import Workplace, load_cluster

    if workers is not None and (scheduler is not None or cluster is not None):
        msg = "--workers starts processes here; a scheduler or cluster has its own"
        raise UsageError(msg)
    return Workplace(workers, scheduler, load_cluster(cluster) if cluster is not None else None)


def _run(
    config: "BenchmarkConfig", out: Path, base: Path, device: str, place: "Workplace"
) -> "RunFolder":
    from napari_lungfm.benchmark.runner import run_benchmark
    from napari_lungfm.models.devices import check_device_name

    check_device_name(device)
    finished = Finished()
    try:
        with progress(finished) as listener:
            return run_benchmark(
                config, out, base=base, device=device, listener=listener, workplace=place
            )
    except KeyboardInterrupt:
        complain(f"interrupted; {finished.text}, the same command goes on")
        raise typer.Exit(1) from None


def _print_shipped(as_json: bool) -> int:
    from napari_lungfm.benchmark.shipped import shipped_summaries

    found = shipped_summaries()
    if as_json:
        print_json(found)
    else:
        width = max(len(name) for name in found)
        for name, summary in found.items():
            print(f"{name:<{width}}  {summary}")
    return 0


def _print_estimate(
    config: "BenchmarkConfig", out: Path, base: Path, place: "Workplace", as_json: bool
) -> int:
    from napari_lungfm.benchmark.estimate import estimate_run
    from napari_lungfm.benchmark.workplace import check_workplace
    from napari_lungfm.cli.estimate_output import estimate_lines, estimate_values

    check_workplace(place)
    estimate = estimate_run(config, out, base=base)
    workers = None if place.elsewhere else place.count(estimate.cases, on_gpus=False)
    if as_json:
        print_json(estimate_values(estimate, workers))
    else:
        for line in estimate_lines(estimate, workers):
            print(line)
    return 0
