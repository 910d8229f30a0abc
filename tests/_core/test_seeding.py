import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm._core.seeding import generator, stable_hash

PINNED_HASH = 301125947843756908514072202498788701232
PINNED_DRAWS = [922, 760, 705, 469, 732]
PARTS = st.lists(
    st.one_of(st.text(max_size=4), st.integers(), st.floats(allow_nan=False)), max_size=4
)


def test_values_are_pinned():
    """Records and splits depend on them: a change here changes every published number."""
    assert stable_hash("a", 1, 2.5) == PINNED_HASH
    assert generator("box", 7).integers(0, 1000, 5).tolist() == PINNED_DRAWS


def test_another_process_agrees():
    code = "from napari_lungfm._core.seeding import stable_hash; print(stable_hash('a', 1, 2.5))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "123", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout) == PINNED_HASH


@given(PARTS, PARTS)
def test_different_purposes_differ(one, other):
    same = [(type(p), repr(p)) for p in one] == [(type(p), repr(p)) for p in other]
    assert (stable_hash(*one) == stable_hash(*other)) == same


def test_order_types_and_boundaries_matter():
    hashes = [
        stable_hash(*parts)
        for parts in [
            ("a", "b"),
            ("b", "a"),
            ("ab",),
            ("a", "b", ""),
            (1,),
            (1.0,),
            ("1",),
            (True,),
        ]
    ]
    assert len(set(hashes)) == len(hashes)


def test_generators_are_independent_of_the_order_of_calls():
    first = generator("case 1", 0).random(4)
    generator("case 2", 0).random(100)
    np.testing.assert_array_equal(generator("case 1", 0).random(4), first)
    assert not np.array_equal(generator("case 1", 1).random(4), first)
