"""One persistent thread for everything that takes time, and the way back to the GUI's thread."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

ResultT = TypeVar("ResultT")
#: Runs a callable on the GUI's thread, soon; may be called from any thread.
Deliver: TypeAlias = Callable[[Callable[[], None]], None]


class JobContext:
    """What the work of a job may ask and tell while it runs.

    Parameters
    ----------
    cancel
        Set when the work should end soon.
    tell
        Hands a callable to the GUI's thread; dropped there when the job is out of date.
    """

    def __init__(self, cancel: threading.Event, tell: Callable[[Callable[[], None]], None]) -> None:
        self._cancel, self._tell = cancel, tell

    @property
    def cancelled(self) -> bool:
        """Whether the work should end soon."""
        return self._cancel.is_set()

    def report(self, callback: Callable[..., None], *values: Any) -> None:
        """Call ``callback(*values)`` on the GUI's thread, unless the job is out of date there."""
        self._tell(lambda: callback(*values))


@dataclass(eq=False)
class Job(Generic[ResultT]):
    """One piece of work.

    Parameters
    ----------
    work
        Runs on the worker thread.
    done, failed
        Run on the GUI's thread with the result, or with what went wrong.
    generation
        See `JobQueue`.
    cancel
        Set to ask the work to end.
    """

    work: Callable[[JobContext], ResultT]
    done: Callable[[ResultT], None]
    failed: Callable[[BaseException], None]
    generation: int
    cancel: threading.Event = field(default_factory=threading.Event)


class JobQueue:
    """Does jobs one after the other on one thread that lives as long as the queue.

    Every job carries the generation in which it was submitted. `renew` begins the next one: jobs
    that wait are dropped, and nothing that an older job still has to say reaches the GUI.

    Parameters
    ----------
    deliver
        How results get to the GUI's thread.
    on_busy
        Called on the GUI's thread when the number of jobs waiting or running changes.
    name
        Name of the thread.
    """

    def __init__(
        self,
        deliver: Deliver,
        on_busy: Callable[[int], None] | None = None,
        name: str = "lungfm-engine",
    ) -> None:
        self._deliver, self._on_busy = deliver, on_busy
        self._waiting: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._jobs: set[Job[Any]] = set()
        self._generation = 0
        self._closed = False
        # A daemon: a slice that a large model is at must not keep napari from quitting.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def generation(self) -> int:
        """Number of the present generation."""
        return self._generation

    @property
    def pending(self) -> int:
        """Number of jobs of this generation that wait or run."""
        return sum(job.generation == self._generation for job in self._jobs)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(
        self,
        work: Callable[[JobContext], ResultT],
        done: Callable[[ResultT], None],
        failed: Callable[[BaseException], None],
    ) -> Job[ResultT] | None:
        """Add a job; ``None`` when the queue is closed."""
        if self._closed:
            return None
        job = Job(work, done, failed, self._generation)
        self._jobs.add(job)
        self._waiting.put(job)
        self._tell_busy()
        return job

    def cancel(self) -> None:
        """Ask all jobs to end; what they did counts."""
        for job in self._jobs:
            job.cancel.set()

    def renew(self) -> None:
        """Begin a new generation; see the class."""
        self._generation += 1
        self.cancel()
        self._tell_busy()

    def close(self, timeout: float = 0.0) -> None:
        """Drop everything and end the thread, at the latest when its present work is done.

        Parameters
        ----------
        timeout
            Seconds to wait for that; the GUI should not.
        """
        if not self._closed:
            self._closed = True
            self.renew()
            self._waiting.put(None)
        if timeout:
            self._thread.join(timeout)

    # ------------------------------------------------------------------ worker thread
    def _run(self) -> None:
        while self._next():
            pass

    def _next(self) -> bool:
        """Do the next job. Nothing holds on to it, and to its images, while there is no other."""
        job = self._waiting.get()
        if job is None:
            return False
        if job.generation != self._generation:
            self._send(job, _nothing)
        else:
            self._do(job)
        return True

    def _do(self, job: Job[Any]) -> None:
        def tell(call: Callable[[], None]) -> None:
            self._deliver(lambda: call() if job.generation == self._generation else None)

        try:
            result = job.work(JobContext(job.cancel, tell))
        except BaseException as error:  # noqa: BLE001 - the GUI's thread says it to the user
            caught = error
            self._send(job, lambda: job.failed(caught))
        else:
            self._send(job, lambda: job.done(result))

    def _send(self, job: Job[Any], call: Callable[[], None]) -> None:
        def arrive() -> None:
            self._jobs.discard(job)
            if job.generation == self._generation:
                call()
            self._tell_busy()

        self._deliver(arrive)

    def _tell_busy(self) -> None:
        if self._on_busy is not None and not self._closed:
            self._on_busy(self.pending)


def _nothing() -> None:
    pass


class Mailbox:
    """A `Deliver` without a GUI: calls wait until `flush` runs them on the caller's thread."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def __call__(self, call: Callable[[], None]) -> None:
        """Keep a call."""
        self._calls.put(call)

    def flush(self, *, until: Callable[[], bool] | None = None, timeout: float = 30.0) -> None:
        """Run what waits; with ``until``, go on until it is true.

        Raises
        ------
        TimeoutError
            If it does not become true in time.
        """
        end = time.monotonic() + timeout
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._calls.get_nowait()()
            if until is None or until():
                return
            if time.monotonic() > end:
                msg = f"nothing happened for {timeout} s"
                raise TimeoutError(msg)
            with contextlib.suppress(queue.Empty):
                self._calls.get(timeout=0.05)()
