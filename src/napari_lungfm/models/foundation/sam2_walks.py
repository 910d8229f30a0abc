"""Which slices are reached from which prompted slice."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class PlannedWalk:
    """One way from a prompted slice.

    Parameters
    ----------
    anchor
        The prompted slice.
    targets
        The slices to track, in order.
    open
        Nothing lies at its end: where the object is no longer found the walk is over.
    """

    anchor: int
    targets: range
    open: bool

    @property
    def reverse(self) -> bool:
        """It goes to lower slice numbers."""
        return self.targets.step < 0


def plan_walks(prompted: Mapping[int, bool], slices: range) -> list[PlannedWalk]:
    """Plan the walks of one propagation.

    Slices between two prompted ones are tracked from the nearer one (the lower one in the
    middle), those beyond the first and last from these. A prompted slice without the object, a
    hole marked by hand, is a wall: nothing starts from it and nothing goes through.

    Parameters
    ----------
    prompted
        Prompted slice → the object is on it.
    slices
        The slices that the object may occupy.

    Returns
    -------
    list of PlannedWalk
        Gaps first, from low to high, then down and up beyond the prompts; none is empty.
    """
    order = sorted(prompted)
    if not order:
        return []
    walks: list[PlannedWalk] = []
    for low, high in pairwise(order):
        both = prompted[low] and prompted[high]
        middle = (low + high) // 2 if both else (high - 1 if prompted[low] else low)
        if prompted[low]:
            walks.append(PlannedWalk(low, range(low + 1, middle + 1), open=not both))
        if prompted[high]:
            walks.append(PlannedWalk(high, range(high - 1, middle, -1), open=not both))
    first, last = order[0], order[-1]
    if prompted[first]:
        walks.append(PlannedWalk(first, range(first - 1, slices.start - 1, -1), open=True))
    if prompted[last]:
        walks.append(PlannedWalk(last, range(last + 1, slices.stop), open=True))
    return [walk for walk in walks if walk.targets]
