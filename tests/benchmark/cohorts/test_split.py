import hashlib
from pathlib import Path

import pytest
import yaml

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.benchmark.cohorts import split as module
from napari_lungfm.benchmark.cohorts.split import given_split, moved_patients, split_patients
from napari_lungfm.datasets.sources import LUNG1

USABLE = [n for n in (f"LUNG1-{i:03d}" for i in range(1, 423)) if n != "LUNG1-128"]


def lung1(names=USABLE, **options):
    return split_patients("lung1", names, n_test=58, n_train=246, **options)


def test_the_published_split_of_lung1_never_changes():
    split = lung1()
    assert (len(split.test), len(split.train), len(split.spare)) == (58, 246, 117)
    assert sorted((*split.test, *split.train, *split.spare)) == USABLE
    assert split.hash == "2c20ba330df8efda6624c02caf52883c16e426364fb3ab6a78a9cedf6eb709f5"
    lines = "".join(f"{part}:{n}\n" for part in ("test", "train", "spare")
                    for n in getattr(split, part))  # fmt: skip
    assert split.hash == hashlib.sha256(lines.encode()).hexdigest()
    assert [n for n, p in LUNG1.bad.items() if p.excludes] == ["LUNG1-128"]


def test_the_committed_list_of_lung1_is_that_of_the_rule():
    path = Path(module.__file__).with_name("splits") / "lung1.yaml"
    assert yaml.safe_load(path.read_text()) == lung1().to_dict()


def test_the_order_of_the_names_does_not_matter_but_the_seed_does():
    assert lung1(USABLE[::-1]) == lung1()
    assert lung1(seed=1).test != lung1().test
    other = split_patients("another", USABLE, n_test=58, n_train=246)
    assert other.test != lung1().test


def test_a_missing_patient_is_replaced_by_one_other():
    full = lung1()
    without = lung1([n for n in USABLE if n != full.test[0]])
    assert len(set(full.test) - set(without.test)) == 1
    assert len(set(without.test) - set(full.test)) == 1
    assert len(without.train) == 246


@pytest.mark.parametrize(("n", "test"), [(1, 1), (2, 1), (10, 2), (63, 12), (31, 6)])
def test_fewer_patients_keep_the_share(n, test):
    split = split_patients("c", [f"p{i}" for i in range(n)], n_test=12, n_train=51)
    assert (len(split.test), len(split.train), len(split.spare)) == (test, n - test, 0)


def test_parts_of_the_training_lie_within_one_another():
    subsets = lung1().subsets()
    assert {percent: len(names) for percent, names in subsets.items()} == {
        25: 62, 50: 123, 75: 185, 100: 246,
    }  # fmt: skip
    assert set(subsets[25]) < set(subsets[50]) < set(subsets[75]) < set(subsets[100])
    assert set(subsets[100]) == set(lung1().train)


def test_a_given_split_is_kept_as_it_is():
    split = given_split("c", {"a": "test", "b": "train", "c": None, "d": "train"})
    assert (split.test, split.train, split.spare) == (("a",), ("b", "d"), ("c",))
    assert split.to_dict()["rule"] == "as given"


def test_who_moved_is_known():
    old = given_split("c", {"a": "test", "b": "train", "gone": "train"}).to_dict()
    new = given_split("c", {"a": "train", "b": "train", "new": "test"})
    assert moved_patients(old, new) == ["a"]


def test_a_name_that_comes_twice_is_refused():
    with pytest.raises(UsageError, match="more than once: a"):
        split_patients("c", ["a", "b", "a"], n_test=1, n_train=1)
