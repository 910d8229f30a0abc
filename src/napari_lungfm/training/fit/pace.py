"""How long what is left of a fit takes, by the pace of its later half."""

import time
from collections.abc import Callable

#: Marks that are kept; when there are more, every second one is forgotten.
_MOST = 256


class Pace:
    """Estimates the time left from the steps that were done lately.

    The first step, which loads, compiles and warms up, is never counted; of the others the later
    half is, so that a slow beginning is forgotten while validations between epochs stay in.

    Parameters
    ----------
    clock
        Seconds since any moment.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._marks: list[tuple[int, float]] = []

    def left(self, step: int, steps: int) -> float | None:
        """Take note of a step that has ended and return the seconds that are left.

        Parameters
        ----------
        step, steps
            Steps done, those of earlier starts included, and all of them.

        Returns
        -------
        float or None
            ``None`` until two steps were done here.
        """
        now = self._clock()
        if not self._marks or step > self._marks[-1][0]:
            self._marks.append((step, now))
        if len(self._marks) > _MOST:
            del self._marks[1::2]
        if step >= steps:
            return 0.0
        first, since = self._marks[(len(self._marks) - 1) // 2]
        return (now - since) / (step - first) * (steps - step) if step > first else None
