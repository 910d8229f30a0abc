"""Who is trained on and who is set aside, of the training part of a cohort."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from napari_lungfm._core.seeding import generator
from napari_lungfm.models.automatic.trained import SeenPatient, hash_parts
from napari_lungfm.training.automatic.cohort_check import CohortError

#: The parts of a `Split`.
PARTS: tuple[Literal["train", "validation"], ...] = ("train", "validation")


class KnownCase(Protocol):
    """A case that was read: its name, and hashes of its CT and of its reference."""

    @property
    def name(self) -> str:
        """Name of the case."""
        ...

    @property
    def image(self) -> str:
        """`hash_image` of its CT."""
        ...

    @property
    def reference(self) -> str:
        """Hash of its reference."""
        ...


C = TypeVar("C", bound=KnownCase)


@dataclass(frozen=True)
class Split(Generic[C]):
    """The cases of either part."""

    train: tuple[C, ...]
    validation: tuple[C, ...]


def split_cases(cases: Sequence[C], fraction: float, seed: int) -> Split[C]:
    """Set validation cases aside, by the seed and the names of the cases alone.

    At least one is set aside where any is wanted, and at least one is left. Cases that are the
    same CT stay together.

    Parameters
    ----------
    cases
        The training part of a cohort.
    fraction
        Part of them to set aside.
    seed
        Decides which.

    Raises
    ------
    CohortError
        If all cases are the same CT, so that none can be set aside.
    """
    if fraction == 0:
        return Split(tuple(cases), ())
    count = min(max(1, round(fraction * len(cases))), len(cases) - 1)
    ordered = sorted(cases, key=lambda case: case.name)
    order = generator("validation split", seed).permutation(len(ordered))
    aside: set[str] = set()
    for n in order:
        same = {case.name for case in ordered if case.image == ordered[n].image}
        if len(aside) < count and len(aside | same) < len(cases):
            aside |= same
    if not aside:
        msg = "all training cases are the same CT: there is none to set aside for validation"
        raise CohortError(msg)
    return Split(
        tuple(case for case in cases if case.name not in aside),
        tuple(case for case in cases if case.name in aside),
    )


def told_of_same_images(cases: Sequence[KnownCase]) -> tuple[str, ...]:
    """Return a line for every CT that stands in a training under several names."""
    names: dict[str, list[str]] = {}
    for case in cases:
        names.setdefault(case.image, []).append(case.name)
    return tuple(
        f"cases {', '.join(map(repr, sorted(same)))} are the same CT: it counts {len(same)} times"
        for same in names.values()
        if len(same) > 1
    )


def hash_cases(cases: Sequence[KnownCase]) -> str:
    """Return a hash of the images and references of cases."""
    return hash_parts({case.name: [case.image, case.reference] for case in cases})


def hash_split(split: Split[C]) -> str:
    """Return a hash of who is in which part."""
    return hash_parts({part: [case.name for case in getattr(split, part)] for part in PARTS})


def seen_patients(split: Split[C], cohort: str) -> tuple[SeenPatient, ...]:
    """Return what a trained model says of the cases of a split."""
    return tuple(
        SeenPatient(cohort=cohort, case=case.name, part=part, image=case.image)
        for part in PARTS
        for case in getattr(split, part)
    )
