"""The states of trackers that are kept, within a number and within a memory."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

T = TypeVar("T")
#: Identity of an array, a tensor's storage or a byte string → its bytes.
Buffers: TypeAlias = Mapping[tuple[str, int], int]


class KeptStates(Generic[T]):
    """The states used last; the latest one is kept however large it is.

    States are immutable and share what they have in common, so that one more may cost next to
    nothing, or, after a propagation, as much as all before. What counts is what all kept ones
    hold together.

    Parameters
    ----------
    most
        How many are kept.
    most_bytes
        How much memory they may hold.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._states: OrderedDict[bytes, tuple[T, Buffers]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many states are kept."""
        return len(self._states)

    def __contains__(self, key: bytes) -> bool:
        """Tell whether a state is kept."""
        return key in self._states

    @property
    def nbytes(self) -> int:
        """Bytes that the kept states hold, what they share counted once."""
        held: dict[tuple[str, int], int] = {}
        for _, buffers in self._states.values():
            held.update(buffers)
        return sum(held.values())

    def get(self, key: bytes) -> T:
        """Return a kept state, which is used thereby."""
        self._states.move_to_end(key)
        return self._states[key][0]

    def keep(self, key: bytes, state: T) -> None:
        """Keep a state, and drop the oldest ones that there is no room for."""
        self._states[key] = (state, buffers_of(state))
        self._states.move_to_end(key)
        while len(self._states) > self._most:
            self._states.popitem(last=False)
        for _ in range(len(self._states) - self._count_that_fit()):
            self._states.popitem(last=False)

    def clear(self) -> None:
        """Drop all."""
        self._states.clear()

    def _count_that_fit(self) -> int:
        held: set[tuple[str, int]] = set()
        total = 0
        for count, (_, buffers) in enumerate(reversed(self._states.values())):
            total += sum(size for key, size in buffers.items() if key not in held)
            if count and total > self._most_bytes:
                return count
            held.update(buffers)
        return len(self._states)


def buffers_of(value: Any) -> Buffers:
    """Return the arrays, tensors and byte strings that are reachable from a value.

    Views count as what they are views of. Looks into containers and dataclasses, nothing else.
    """
    found: dict[tuple[str, int], int] = {}
    seen: set[int] = set()
    todo = [value]
    while todo:
        item = todo.pop()
        if item is None or isinstance(item, bool | int | float | str) or id(item) in seen:
            continue
        seen.add(id(item))
        buffer = _buffer(item)
        if buffer is not None:
            key, size = buffer
            found[key] = size
        else:
            todo += _parts(item)
    return found


def _buffer(item: Any) -> tuple[tuple[str, int], int] | None:
    if isinstance(item, bytes):
        return ("bytes", id(item)), len(item)
    if isinstance(item, np.ndarray):
        while isinstance(item.base, np.ndarray):
            item = item.base
        return ("array", id(item)), item.nbytes
    if hasattr(item, "untyped_storage"):  # a tensor, without loading torch
        storage = item.untyped_storage()
        return ("storage", storage.data_ptr()), storage.nbytes()
    return None


def _parts(item: Any) -> list[Any]:
    if isinstance(item, Mapping):
        return list(item.values())
    if isinstance(item, list | tuple | set | frozenset):
        return list(item)
    if is_dataclass(item) and not isinstance(item, type):
        return [getattr(item, each.name) for each in fields(item)]
    return []
