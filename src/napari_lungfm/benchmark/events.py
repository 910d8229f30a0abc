"""What a run tells while it works: units, their rate, the time that is left, and failures."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

EventKind: TypeAlias = Literal[
    "training", "step", "start", "case", "unit", "retry", "skip", "worker", "end"
]


@dataclass(frozen=True)
class RunEvent:
    """What the runner tells while it works.

    ``done`` units of ``total`` are finished, ``failed`` of them failed; ``text`` is one line. While
    models are trained, ``step`` and, now and then, ``training`` count the steps of a training.
    ``retry`` is a unit that failed and is going to be tried once more, ``worker`` news of the
    processes that do the work.

    ``per_minute`` is the rate at which this call finishes units, and ``seconds_left`` what the
    others take at this rate; ``None`` until a unit is finished. Events may come from another
    thread than the caller's, one at a time.
    """

    kind: EventKind
    done: int
    total: int
    failed: int
    text: str
    per_minute: float | None = None
    seconds_left: float | None = None


Listener = Callable[[RunEvent], None]


@dataclass(frozen=True)
class UnitNews:
    """A unit that ended, as a worker tells of it.

    Parameters
    ----------
    unit
        Fingerprint of the unit.
    text
        One line: case, method, protocol, and the scores or the error.
    failed
        Whether it failed.
    again
        Whether another try may mend it.
    """

    unit: str
    text: str
    failed: bool
    again: bool


class Tally:
    """Counts the units of a run as they end, and tells the listener; safe between threads.

    News of a unit may come twice (as it ends, and with the result of its case) and in any order:
    what was counted is not counted again.

    Parameters
    ----------
    total
        Units of the run.
    listener
        Called on every event.
    clock
        Seconds since any moment.
    """

    def __init__(
        self, total: int, listener: Listener, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total = total
        self._listener = listener
        self._clock = clock
        self._started = clock()
        self._before = 0
        self._failed_here: dict[str, bool] = {}
        self._tried: set[str] = set()
        self._lock = threading.RLock()

    @property
    def done(self) -> int:
        """Units that are finished, those of earlier calls included."""
        return self._before + len(self._failed_here)

    @property
    def failed(self) -> int:
        """Units that failed for good."""
        return sum(self._failed_here.values())

    def skip(self, units: int) -> None:
        """Count units that an earlier call had finished."""
        self._before += units

    def tell(self, kind: EventKind, text: str) -> None:
        """Tell the listener something."""
        with self._lock:
            rate, left = self._pace()
            self._listener(RunEvent(kind, self.done, self.total, self.failed, text, rate, left))

    def unit(self, news: UnitNews) -> None:
        """Count a unit that ended well, or failed and is going to be tried again."""
        with self._lock:
            if news.unit in self._failed_here:
                return
            if not news.failed:
                self._failed_here[news.unit] = False
                self.tell("unit", news.text)
            elif news.unit not in self._tried:
                self._tried.add(news.unit)
                if news.again:
                    self.tell("retry", f"{news.text}; it is tried once more")

    def failure(self, news: UnitNews) -> None:
        """Count a unit that failed for good."""
        with self._lock:
            if news.unit not in self._failed_here:
                self._failed_here[news.unit] = True
                self.tell("unit", news.text)

    def _pace(self) -> tuple[float | None, float | None]:
        seconds = self._clock() - self._started
        here = len(self._failed_here)
        if not here or seconds <= 0:
            return None, None
        return 60.0 * here / seconds, (self.total - self.done) * seconds / here
