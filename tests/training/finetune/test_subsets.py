from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm.training.finetune.subsets import nested_subset


@dataclass(frozen=True)
class Known:
    name: str
    image: str = ""
    reference: str = ""


patients = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=40, unique=True).map(
    lambda names: [Known(name) for name in names]
)
percents = st.floats(0, 100, exclude_min=True)
seeds = st.integers(0, 2**32)


@given(patients, percents, percents, seeds)
def test_a_smaller_part_lies_inside_every_larger_one(cases, one, other, seed):
    small, large = (nested_subset(cases, p, seed) for p in sorted((one, other)))
    assert set(small) <= set(large) <= set(cases)


@given(patients, percents, seeds, st.randoms(use_true_random=False))
def test_a_part_has_its_size_and_does_not_depend_on_the_order_of_cases(
    cases, percent, seed, random
):
    part = nested_subset(cases, percent, seed)
    assert len(part) == len(set(part)) >= 1
    assert abs(len(part) - len(cases) * percent / 100) <= 0.5 or len(part) == 1
    assert [case for case in cases if case in part] == list(part)  # the order stays
    mixed = random.sample(cases, len(cases))
    assert set(nested_subset(mixed, percent, seed)) == set(part)


@given(patients, seeds)
def test_all_is_all(cases, seed):
    assert nested_subset(cases, 100, seed) == tuple(cases)


def test_halves_are_rounded_up_and_seeds_differ():
    cases = [Known(f"{n:02d}") for n in range(10)]
    assert [len(nested_subset(cases, p, 0)) for p in (25, 50, 75, 100)] == [3, 5, 8, 10]
    parts = {nested_subset(cases, 50, seed) for seed in range(20)}
    assert len(parts) > 10


@pytest.mark.parametrize("percent", [0, -5, 101])
def test_a_part_out_of_range_is_refused(percent):
    with pytest.raises(ValueError, match="more than 0 and at most 100"):
        nested_subset([Known("a")], percent, 0)
