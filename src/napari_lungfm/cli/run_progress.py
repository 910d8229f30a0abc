"""How far a run is: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_lungfm.cli.console import note, stderr_console

if TYPE_CHECKING:
    from napari_lungfm.benchmark.events import Listener, RunEvent


class Finished:
    """Remembers how many units are finished, for the line that an interruption leaves."""

    def __init__(self) -> None:
        self._last: RunEvent | None = None

    def heard(self, event: "RunEvent") -> None:
        """Take note of an event; steps of trainings are no units."""
        if event.kind not in ("training", "step"):
            self._last = event

    @property
    def text(self) -> str:
        """What is finished, in words."""
        if self._last is None:
            return "no unit was begun, a training goes on where it was"
        return f"{self._last.done} of {self._last.total} units are finished"


@contextmanager
def progress(finished: Finished) -> "Iterator[Listener]":
    """Show a progress bar on a terminal, plain lines elsewhere (a log has no cursor)."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = stderr_console()
    if not console.is_terminal:
        yield _plain_listener(finished)
        return
    columns = (
        TextColumn("{task.description}", table_column=None),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None, pace="")

        def listen(event: "RunEvent") -> None:
            finished.heard(event)
            total = event.total or None  # unknown when a training begins
            text = event.text[:80]
            bar.update(task, description=text, completed=event.done, total=total, pace=pace(event))
            if event.kind in ("training", "retry", "worker"):
                bar.console.print(event.text, markup=False, highlight=False)

        yield listen


def pace(event: "RunEvent") -> str:
    """Return the rate, the time left and the failures of a run in a few words."""
    parts = []
    if event.per_minute is not None:
        parts.append(f"{event.per_minute:.3g}/min")
    if event.seconds_left:
        parts.append(f"{duration(event.seconds_left)} left")
    if event.failed:
        parts.append(f"{event.failed} failed")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a time in the units in which one would say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _plain_listener(finished: Finished) -> "Listener":
    def listen(event: "RunEvent") -> None:
        finished.heard(event)
        if event.kind in ("training", "worker"):
            note(event.text)
        elif event.kind in ("unit", "retry"):
            how = pace(event)
            note(f"[{event.done}/{event.total}{', ' if how else ''}{how}] {event.text}")
        elif event.kind in ("skip", "end"):
            note(f"[{event.done}/{event.total}] {event.text}")

    return listen
