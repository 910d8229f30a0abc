"""Where the units of a run are done: in this process, on workers beside it, or on a cluster."""

import contextlib
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_lungfm._core.config import parse_model, read_yaml
from napari_lungfm._core.environment import available_cores, hardware
from napari_lungfm._core.exceptions import (
    LungFMError,
    MissingDependencyError,
    UsageError,
)
from napari_lungfm._core.imports import is_available, require
from napari_lungfm._core.types import PathInput

if TYPE_CHECKING:
    from distributed import Client

#: Memory (GiB) that a worker has to have before another one is started: a large CT with its masks,
#: a model, and the gibibyte of features that is kept of it.
GIB_PER_WORKER = 4.0
_PURPOSE = "a run on several workers"
#: Whoever logs what happens to connections and processes; Dask gives each a level.
_TALKERS = ("distributed", "distributed.client", "tornado", "tornado.application")
#: Seconds to wait for a scheduler to answer.
_ANSWER_SECONDS = 20
#: What Dask's nannies set for their processes, in the process that they live in.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_")


class ClusterSpec(BaseModel):
    """A cluster as a YAML file describes it.

    Parameters
    ----------
    kind
        ``"slurm"``.
    jobs
        How many jobs are asked for.
    options
        Every other key: keyword arguments of `dask_jobqueue.SLURMCluster`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: Literal["slurm"]
    jobs: int = Field(default=1, ge=1)

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the cluster's class."""
        return dict(self.model_extra or {})


def load_cluster(path: PathInput) -> ClusterSpec:
    """Read the description of a cluster.

    Raises
    ------
    InputFileError
        If the file cannot be read.
    ConfigError
        If it describes no cluster.
    """
    file = Path(path)
    return parse_model(ClusterSpec, read_yaml(file), str(file))


@dataclass(frozen=True)
class Workplace:
    """Where units are done.

    Parameters
    ----------
    workers
        Processes on this machine; with one, the units are done in the calling process. ``None``:
        one for each GPU, else as many as cores and memory allow.
    scheduler
        Address of a Dask scheduler that is running.
    cluster
        A cluster to start workers on.

    Raises
    ------
    UsageError
        If more than one place is named, or the number of workers makes no sense.
    """

    workers: int | None = 1
    scheduler: str | None = None
    cluster: ClusterSpec | None = None

    def __post_init__(self) -> None:
        if self.scheduler is not None and self.cluster is not None:
            msg = "units are done in one place: give either a scheduler or a cluster"
            raise UsageError(msg)
        if self.workers is not None and self.workers < 1:
            msg = f"{self.workers} workers cannot do anything; give 1 or more"
            raise UsageError(msg)

    @property
    def elsewhere(self) -> bool:
        """Whether workers are on other machines, as far as is known."""
        return self.scheduler is not None or self.cluster is not None

    def count(self, cases: int, *, on_gpus: bool) -> int:
        """Return how many processes of this machine work on so many cases.

        Parameters
        ----------
        cases
            Cases with something left to do. A case is done by one worker.
        on_gpus
            Whether models may run on GPUs.
        """
        if self.workers is not None:
            return max(1, min(self.workers, cases))
        if not is_available("distributed"):
            return 1
        gpus = len(visible_gpus()) if on_gpus else 0
        return max(1, min(gpus or sensible_workers(), cases))


def sensible_workers() -> int:
    """Return how many CPU workers this machine has cores and memory for."""
    try:
        by_memory = int(float(hardware()["memory_gib"]) // GIB_PER_WORKER)
    except ValueError:  # unknown
        by_memory = 1
    return max(1, min(available_cores(), by_memory))


def visible_gpus() -> tuple[str, ...]:
    """Return the names of the CUDA devices that this process may use, without loading torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(name.strip() for name in given.split(",") if name.strip() not in ("", "-1"))
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in found.stdout.splitlines() if line.strip().isdigit())


def check_workplace(place: Workplace) -> None:
    """Make sure that the place can be reached, before hours of training: no unit is done there.

    A scheduler has to answer; a cluster has to take its options, and its jobs are not asked for.

    Parameters
    ----------
    place
        Where units are to be done.

    Raises
    ------
    MissingDependencyError
        If Dask, or what starts jobs on the cluster, is not installed.
    LungFMError
        If the scheduler does not answer, or the cluster cannot be started.
    """
    if place.elsewhere or (place.workers or 1) > 1:
        require("distributed", purpose=_PURPOSE)
    with _quiet():
        if place.scheduler is not None:
            with _client(place.scheduler):
                return
        if place.cluster is not None:
            with _slurm(place.cluster, ask=False):
                if shutil.which("sbatch") is None:
                    msg = (
                        "the SLURM cluster cannot be started: there is no command sbatch here; "
                        "run on a machine that submits jobs to it"
                    )
                    raise LungFMError(msg)


@contextlib.contextmanager
def connect(place: Workplace, workers: int, *, on_gpus: bool) -> "Iterator[Client]":
    """Yield a Dask client whose workers do the units; end what was started for it.

    Parameters
    ----------
    place
        Where units are done.
    workers
        How many workers are started on this machine, if it is here.
    on_gpus
        Whether each worker here gets a GPU of its own.

    Raises
    ------
    MissingDependencyError
        If Dask, or what starts jobs on the cluster, is not installed.
    LungFMError
        If the scheduler does not answer, or the cluster cannot be started.
    """
    require("distributed", purpose=_PURPOSE)
    with _quiet(), contextlib.ExitStack() as stack:
        if place.scheduler is not None:
            target: Any = place.scheduler
        elif place.cluster is not None:
            target = stack.enter_context(_slurm(place.cluster))
        else:
            target = stack.enter_context(_local(workers, visible_gpus() if on_gpus else ()))
        yield stack.enter_context(_client(target))


@contextlib.contextmanager
def _client(target: Any) -> "Iterator[Client]":
    from distributed import Client  # noqa: PLC0415

    try:
        client = Client(target, timeout=_ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        msg = (
            f"no Dask scheduler answers at '{target}' ({' '.join(str(error).split())[:200]}); "
            "start one with: dask scheduler"
        )
        raise LungFMError(msg) from error
    try:
        yield client
    finally:
        client.close(timeout=2)


@contextlib.contextmanager
def _local(workers: int, gpus: tuple[str, ...]) -> Iterator[Any]:
    """Yield a cluster on this machine: a process with one thread for tasks per worker."""
    import dask  # noqa: PLC0415
    from distributed import Nanny, Scheduler, SpecCluster  # noqa: PLC0415

    threads = max(1, available_cores() // workers)
    spec = {
        number: {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                # A unit may need most of the memory; Dask's limits are for data that it keeps.
                "memory_limit": 0,
                "env": {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {},
                "silence_logs": logging.CRITICAL,
                "dashboard": False,
                "preload": ["napari_lungfm.benchmark.worker_setup"],
            },
        }
        for number in range(workers)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": None},
    }
    settings: dict[str, Any] = {
        f"distributed.nanny.pre-spawn-environ.{name}": os.environ.get(name, threads)
        for name in _THREADS[:3]
    }
    # Models may start processes of their own, which daemons may not.
    settings["distributed.worker.daemon"] = False
    with dask.config.set(settings), _same_environment(_THREADS):
        cluster = SpecCluster(scheduler=scheduler, workers=spec, silence_logs=logging.CRITICAL)
        try:
            yield cluster
        finally:
            cluster.close(timeout=10)


@contextlib.contextmanager
def _slurm(spec: ClusterSpec, *, ask: bool = True) -> Iterator[Any]:
    """Yield a cluster; without ``ask`` no job is asked for, and it has no workers."""
    try:
        from dask_jobqueue import SLURMCluster  # noqa: PLC0415
    except ImportError as error:
        msg = (
            f"a run on SLURM needs the module 'dask_jobqueue', which cannot be imported ({error}); "
            "install it with: pip install dask-jobqueue"
        )
        raise MissingDependencyError(msg) from error
    # One case at a time in a process: a unit's memory and time are those of its process.
    options: Mapping[str, Any] = {"processes": 1, **spec.options}
    try:
        cluster = SLURMCluster(**options)
        if ask:
            cluster.scale(jobs=spec.jobs)
        else:
            cluster.job_script()  # as it would be submitted: wrong options show
    # Whatever its keywords meet with: unknown ones, a missing sbatch, a refused queue.
    except Exception as error:
        msg = f"the SLURM cluster cannot be started: {' '.join(str(error).split())[:300]}"
        raise LungFMError(msg) from error
    try:
        yield cluster
    finally:
        cluster.close(timeout=30)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask from telling on stderr, with tracebacks, what the run says in a line."""
    loggers = [logging.getLogger(name) for name in _TALKERS]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _same_environment(names: tuple[str, ...]) -> Iterator[None]:
    """Put variables of this process back: nannies set them here for their children."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
