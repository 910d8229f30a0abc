"""Cases as tasks of dask.distributed: what a worker runs, and who hands the cases out."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from napari_lungfm._core.environment import source_hash
from napari_lungfm._core.exceptions import InputFileError, LungFMError, UsageError
from napari_lungfm.benchmark.case_work import CaseTask, CaseWork, is_finished
from napari_lungfm.benchmark.events import Tally, UnitNews
from napari_lungfm.benchmark.loaded import Models
from napari_lungfm.benchmark.records import one_line
from napari_lungfm.benchmark.store import RunFolder

if TYPE_CHECKING:
    from distributed import Client, Future

#: How often a case whose units failed is tried again within a run.
RETRIES = 1
#: How often a case is handed out anew before it is blamed for deaths that it may not have caused.
_PATIENCE = 2

# A unit's time and memory are those of its process: one case at a time, however many threads
# someone's worker has.
_ONE_CASE = threading.Lock()
#: Run → its models, kept from case to case. Only the latest run has any.
_MODELS: dict[str, Models] = {}


class UnitsFailedError(LungFMError):
    """Units of a case failed; Dask then gives the case out once more.

    Parameters
    ----------
    news
        Of all units that were done.
    """

    def __init__(self, news: tuple[UnitNews, ...]) -> None:
        super().__init__(news)
        self.news = news


def do_in_this_process(
    tasks: Sequence[CaseTask], folder: RunFolder, device: str, tally: Tally
) -> None:
    """Do cases one after the other, here.

    Parameters
    ----------
    tasks
        The cases.
    folder
        The folder of the run.
    device
        Where models run that can run elsewhere than on the CPU.
    tally
        Counts the units.
    """
    work = CaseWork(folder, Models(device), tally.unit)
    for task in tasks:
        tally.tell("case", task.name)
        for left in range(RETRIES, -1, -1):
            news = work.do(task)
            if not left or not any(each.again for each in news):
                break
        _count(news, tally)


def do_on_workers(
    tasks: Sequence[CaseTask], folder: RunFolder, device: str, tally: Tally, client: "Client"
) -> None:
    """Hand cases out to the workers of a client and wait for them.

    A case whose worker dies is given to another one, which does what is not finished. If that
    happens too often (``distributed.scheduler.allowed-failures``), the unit that was being done
    counts as failed and the others of its case are done.

    Parameters
    ----------
    tasks, folder, device, tally
        See `do_in_this_process`. Every worker must see the folder under its absolute path.
    client
        The client.

    Raises
    ------
    LungFMError
        If the scheduler is gone, a worker cannot do any case, or nothing can be written. What was
        finished before stays.
    """
    _Foreman(folder, device, tally, client).do(tasks)


class _Foreman:
    """Hands out the cases of one run."""

    def __init__(self, folder: RunFolder, device: str, tally: Tally, client: "Client") -> None:
        self._folder = folder
        self._tally = tally
        self._client = client
        self._run = f"benchmark-{uuid4().hex[:12]}"
        self._fixed = (str(folder.root.resolve()), device, self._run, source_hash())
        self._tasks: dict[Any, CaseTask] = {}
        self._begun: Counter[str] = Counter()
        self._again: Counter[str] = Counter()

    def do(self, tasks: Sequence[CaseTask]) -> None:
        from distributed import as_completed  # noqa: PLC0415

        self._client.subscribe_topic(self._run, self._heard)
        self._client.subscribe_topic("all", self._heard_of_workers)
        if not self._client.scheduler_info()["workers"]:
            self._tally.tell("worker", "there is no worker yet; waiting for one")
        futures = self._hand_out(tasks)
        try:
            waiting = as_completed(futures, loop=self._client.loop)
            for future in waiting:
                again = self._ended(future)
                if again is not None:
                    waiting.update(self._hand_out([again]))
        finally:
            self._client.unsubscribe_topic("all")
            self._client.unsubscribe_topic(self._run)
            # No case is begun any more when this is left by an error or an interruption.
            self._client.cancel(list(self._tasks), force=True)

    def _hand_out(self, tasks: Sequence[CaseTask]) -> "list[Future]":
        # Tuples are keys of one group, whose tasks wait at the scheduler until a worker is free.
        keys = [(self._run, f"{task.name} {uuid4().hex[:6]}") for task in tasks]
        self._tasks |= dict(zip(keys, tasks, strict=True))
        futures: list[Future] = self._client.map(
            _do_case, tasks, key=keys, retries=RETRIES, pure=False, fixed=self._fixed
        )
        return futures

    def _ended(self, future: "Future") -> CaseTask | None:
        """Count what came of a case; return what of it has to be handed out again."""
        from distributed import KilledWorker  # noqa: PLC0415

        task = self._tasks.pop(future.key)
        if future.status == "finished":
            _count(future.result(), self._tally)
            return None
        if future.status == "cancelled":
            msg = (
                f"the scheduler is gone; {self._tally.done} of {self._tally.total} units are "
                "finished, the same command goes on"
            )
            raise LungFMError(msg)
        error = future.exception()
        if isinstance(error, UnitsFailedError):
            _count(error.news, self._tally)
            return None
        if isinstance(error, KilledWorker):
            return self._after_deaths(task, error.allowed_failures + 1)
        if isinstance(error, LungFMError):
            raise error
        msg = f"a worker could not do case {task.name}: {one_line(error)}"
        raise LungFMError(msg) from error

    def _after_deaths(self, task: CaseTask, deaths: int) -> CaseTask | None:
        """Return what is to be done of a case whose workers died too often."""
        self._again[task.name] += 1
        # Dask counts the deaths of workers that a case waited at, too. Words of its beginning are
        # lost where it kills at once.
        if self._begun[task.name] < deaths and self._again[task.name] <= _PATIENCE:
            return task
        return self._without_culprit(task, deaths)

    def _without_culprit(self, task: CaseTask, deaths: int) -> CaseTask | None:
        """Blame the first unit that has no record: units are done in order."""
        left = [unit for unit in task.units if not is_finished(self._folder, unit)]
        if not left:
            return None
        tried = {u.fingerprint for u in left if self._folder.read_record(u.key, u.fingerprint)}
        culprit = next((u for u in left if u.fingerprint not in tried), left[0])
        times = "once" if deaths == 1 else f"{deaths} times"
        problem = f"the worker died {times} on this case (out of memory?)"
        units = tuple(replace(u, problem=problem) if u is culprit else u for u in left)
        self._tally.tell("worker", f"{task.name}: {problem}; the unit in work counts as failed")
        return replace(task, units=units)

    def _heard(self, event: tuple[float, dict[str, Any]]) -> None:
        message = event[1]  # Dask adds keys of its own to it
        if "case" in message:
            self._begun[message["case"]] += 1
            self._tally.tell("case", message["case"])
        elif "news" in message:
            self._tally.unit(UnitNews(**message["news"]))

    def _heard_of_workers(self, event: tuple[float, Any]) -> None:
        message = event[1]
        if not isinstance(message, dict) or message.get("action") != "remove-worker":
            return
        lost = [self._tasks[key].name for key in _keys(message) if key in self._tasks]
        for name in lost:
            self._tally.tell("worker", f"a worker died; another one goes on with {name}")


def _keys(message: dict[str, Any]) -> Iterator[Any]:
    for key in message.get("processing-tasks", ()):
        yield tuple(key) if isinstance(key, list) else key


def _count(news: Sequence[UnitNews], tally: Tally) -> None:
    for each in news:
        if each.failed:
            tally.failure(each)
        else:
            tally.unit(each)


# ---------------------------------------------------------------------- on a worker
def _do_case(task: CaseTask, *, fixed: tuple[str, str, str, str]) -> tuple[UnitNews, ...]:
    """Do a case in the process of a worker."""
    from distributed import get_worker  # noqa: PLC0415

    root, device, run, code = fixed
    worker = get_worker()
    with _ONE_CASE:
        folder = _shared_folder(root)
        if source_hash() != code:
            msg = (
                f"the worker on '{socket.gethostname()}' has another version of napari-lungfm's "
                "code than this computer; install the same one there"
            )
            raise UsageError(msg)
        worker.log_event(run, {"case": task.name})

        def tell(news: UnitNews) -> None:
            worker.log_event(run, {"news": asdict(news)})

        news = CaseWork(folder, _models(run, device), tell).do(task)
    if any(each.again for each in news):
        raise UnitsFailedError(news)
    return news


def _models(run: str, device: str) -> Models:
    if run not in _MODELS:
        _MODELS.clear()  # a training of an earlier run may have been replaced since
        _MODELS[run] = Models(device)
    return _MODELS[run]


def _shared_folder(root: str) -> RunFolder:
    try:
        return RunFolder.open(Path(root))
    except InputFileError as error:
        msg = (
            f"the worker on '{socket.gethostname()}' does not see '{root}'; the folder of the run "
            "and the images must lie where all workers can reach them under the same path"
        )
        raise InputFileError(msg) from error
