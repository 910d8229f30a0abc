"""Cases that take long to make, kept for whoever asks for them next."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from napari_lungfm.datasets.cases import Case


class RecentCases:
    """The cases that were asked for last, up to a number of bytes.

    Parameters
    ----------
    max_bytes
        Most bytes of voxels that are kept; a case that is larger alone is not kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._cases: OrderedDict[str, Case] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], Case]) -> Case:
        """Return the case of a key, made if it is not there; its arrays cannot be written to.

        Parameters
        ----------
        key
            Decides the case.
        make
            Makes it; called outside any lock.
        """
        with self._lock:
            if key in self._cases:
                self._cases.move_to_end(key)
                return self._cases[key]
        case = make()
        for array in (case.volume.array, case.reference.array):
            array.flags.writeable = False  # it is shared now
        with self._lock:
            if key not in self._cases:
                self._cases[key] = case
                self._bytes += _size(case)
            while self._bytes > self._max_bytes:
                _, dropped = self._cases.popitem(last=False)
                self._bytes -= _size(dropped)
        return case


def _size(case: Case) -> int:
    return case.volume.array.nbytes + case.reference.array.nbytes
