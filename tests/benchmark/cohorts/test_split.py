import hashlib
from pathlib import Path

import pytest
import yaml

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.benchmark.cohorts import split as module
from napari_lungfm.benchmark.cohorts.split import (
    given_split,
    moved_patients,
    split_of_present,
    split_patients,
)
from napari_lungfm.datasets.sources import LUNG1, TASK06

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


@pytest.mark.parametrize(
    ("card", "counts", "mark"),
    [
        (LUNG1, (58, 246, 117), "2c20ba330df8efda"),
        (TASK06, (12, 51, 0), "f60947b33a49ca94"),
    ],
)
def test_the_committed_lists_are_those_of_the_rule(card, counts, mark):
    split = split_patients(card.name, card.usable, n_test=card.n_test, n_train=card.n_train)
    path = Path(module.__file__).with_name("splits") / f"{card.name}.yaml"
    assert yaml.safe_load(path.read_text()) == split.to_dict()
    assert (len(split.test), len(split.train), len(split.spare)) == counts
    assert split.hash.startswith(mark)


def test_task06_has_63_labelled_cases():
    assert len(set(TASK06.patients)) == 63
    assert TASK06.patients == tuple(sorted(TASK06.patients))
    # Images of the challenge's own test part, as others name them, are not among them.
    assert not {f"lung_{n:03d}" for n in (2, 8, 11, 87, 91)} & set(TASK06.patients)


def present(card, there, usable, **options):
    return split_of_present(
        card.name, there, usable, published=card.usable, n_test=card.n_test, n_train=card.n_train,
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("card", [LUNG1, TASK06])
def test_nobody_moves_when_somebody_is_excluded_or_not_there(card):
    whole = split_patients(card.name, card.usable, n_test=card.n_test, n_train=card.n_train)
    out = {whole.test[0], whole.train[0]}
    usable = [name for name in card.patients if name in card.usable and name not in out]
    for there in (card.patients, usable):  # excluded, or not even downloaded
        split = present(card, there, usable)
        assert split.test == whole.test[1:]
        assert split.train == whole.train[1:]
        assert split.spare == whole.spare
        assert moved_patients(whole.to_dict(), split) == []
    assert set(present(card, card.patients, usable).unusable) >= out
    extra = present(card, [*card.usable, "x"], [*card.usable, "x"])
    assert (extra.test, extra.train) == (whole.test, whole.train)
    assert "x" in extra.spare


def test_a_sample_is_split_by_itself_and_nobody_in_it_moves():
    few = USABLE[:40]
    split = present(LUNG1, few, few)
    assert split == split_patients("lung1", few, n_test=58, n_train=246)
    less = present(LUNG1, few, [name for name in few if name != split.test[0]])
    assert (less.test, less.train) == (split.test[1:], split.train)
    assert less.unusable == (split.test[0],)
    three = present(LUNG1, USABLE[:3], USABLE[:3])
    (alone,) = three.test
    rest = present(LUNG1, USABLE[:3], list(three.train))  # nobody would be left to test
    assert len(rest.test) == len(rest.train) == 1
    assert alone not in (*rest.test, *rest.train)


def test_the_order_of_the_names_does_not_matter_but_the_seed_does():
    assert lung1(USABLE[::-1]) == lung1()
    assert lung1(seed=1).test != lung1().test
    other = split_patients("another", USABLE, n_test=58, n_train=246)
    assert other.test != lung1().test


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
