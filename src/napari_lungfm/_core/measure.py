"""What work costs: wall time and peak memory of a block."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass
class Meter:
    """Context manager that measures its block.

    Attributes
    ----------
    seconds
        Wall time of the block.
    peak_rss_mb
        Largest resident memory of the whole process during the block, in MiB; ``None`` where the
        system cannot tell (anything but Linux: ``getrusage`` knows only the peak of the whole
        run).
    """

    seconds: float = 0.0
    peak_rss_mb: float | None = None
    _start: float = 0.0
    _resettable: bool = False

    def __enter__(self) -> Self:
        """Reset the peak and start the clock."""
        self._resettable = _reset_peak()
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the clock and read the peak."""
        self.seconds = time.perf_counter() - self._start
        self.peak_rss_mb = _peak_mb() if self._resettable else None


def _reset_peak() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        _CLEAR_REFS.write_text("5")  # proc(5): 5 resets the peak resident set size, VmHWM
    except OSError:
        return False
    return True


def _peak_mb() -> float | None:
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
