"""Cases that are kept for whoever asks next."""

import numpy as np
import pytest

from napari_lungfm.datasets.cases import Case
from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.datasets.recent_cases import RecentCases
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry

BYTES = 4 * 4 * 4 * 3  # int16 and uint8


def make_case(name: str) -> Case:
    geometry = VolumeGeometry(shape=(4, 4, 4), spacing=(1.0, 1.0, 1.0))
    volume = Volume(np.zeros((4, 4, 4), dtype=np.int16), geometry)
    labels = LabelMap(np.zeros((4, 4, 4), dtype=np.uint8), geometry, {3: "tumour"})
    return Case(name, volume, labels)


def test_the_last_ones_are_kept_up_to_the_bytes_that_are_allowed() -> None:
    recent, made = RecentCases(2 * BYTES), []

    def ask(name: str) -> Case:
        return recent.get(name, lambda: made.append(name) or make_case(name))

    first = ask("a")
    assert ask("a") is first
    ask("b")
    ask("a")
    ask("c")  # b is the one that nobody asked for lately
    assert made == ["a", "b", "c"]
    ask("a")
    ask("b")
    assert made == ["a", "b", "c", "b"]


def test_what_is_too_large_is_made_and_not_kept() -> None:
    recent, made = RecentCases(BYTES - 1), []
    for _ in range(2):
        recent.get("a", lambda: made.append(1) or make_case("a"))
    assert made == [1, 1]


def test_a_shared_case_cannot_be_written_to() -> None:
    case = RecentCases(BYTES).get("a", lambda: make_case("a"))
    with pytest.raises(ValueError, match="read-only"):
        case.volume.array[0, 0, 0] = 1


def test_a_phantom_is_made_once_for_all_who_ask() -> None:
    values = {"name": "x", "n_test": 1, "shape": (12, 40, 40), "spacings": ((5.0, 2.5, 2.5),)}
    one, other = (PhantomCohort(**values).build(base=None).test[0] for _ in range(2))
    assert one.load() is other.load()
