"""Parts of the training patients, each inside the next larger one: learning curves need them."""

from collections.abc import Sequence
from typing import TypeVar

from napari_lungfm._core.seeding import generator
from napari_lungfm.training.automatic.split import KnownCase

C = TypeVar("C", bound=KnownCase)


def nested_subset(cases: Sequence[C], percent: float, seed: int) -> tuple[C, ...]:
    """Return a part of the training patients, by the seed and their names alone.

    With one seed every smaller part lies inside every larger one, whatever order the cases come
    in, so that a curve over 25, 50, 75 and 100 % adds patients and never exchanges any.

    Parameters
    ----------
    cases
        Training cases; one per patient.
    percent
        How many of them, above 0 to 100; rounded to the nearest number, at least one.
    seed
        Decides which.

    Raises
    ------
    ValueError
        If the percentage is out of range.
    """
    if not 0 < percent <= 100:
        msg = f"a part of the patients is more than 0 and at most 100 %, not {percent:g} %"
        raise ValueError(msg)
    ordered = sorted(case.name for case in cases)
    order = generator("training subset", seed).permutation(len(ordered))
    # Half is rounded up: round() would make 2.5 a 2 and 3.5 a 4.
    count = max(1, int(len(ordered) * percent / 100 + 0.5))
    chosen = {ordered[n] for n in order[:count]}
    return tuple(case for case in cases if case.name in chosen)
