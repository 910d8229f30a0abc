"""Who is tested on and who is trained on: by a seed and the names of the patients alone."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.seeding import stable_hash
from napari_lungfm.training.finetune.subsets import nested_subset

#: Seed of the splits of this project.
SEED = 0
#: Parts of the training patients (%) that learning curves are drawn over.
PERCENTS = (25, 50, 75, 100)
SCHEMA_VERSION = 1
RULE = (
    "patients in the order of a 128-bit hash of cohort, seed and name; the first are tested, the "
    "next trained on, the rest spare; where there are fewer patients than the study had, both "
    "numbers shrink alike; patients who cannot be used are drawn with the others and left out "
    "afterwards, so that nobody moves"
)
#: Where fewer than this part of the published patients are there, they are a sample of their own.
SAMPLE_SHARE = 0.5


@dataclass(frozen=True)
class CohortSplit:
    """Names of the patients of each part, each in alphabetical order.

    Parameters
    ----------
    cohort
        Name of the cohort.
    seed
        What the rule started from; ``None`` where the parts were given.
    test, train, spare
        The parts; spare patients are neither tested nor trained on.
    unusable
        Patients who were excluded; they are in no part.
    """

    cohort: str
    seed: int | None
    test: tuple[str, ...]
    train: tuple[str, ...]
    spare: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()

    def keep(self, usable: Iterable[str], unusable: Iterable[str] = ()) -> "CohortSplit":
        """Return the split with the usable patients alone, each in the part that they had.

        Parameters
        ----------
        usable
            Who stays.
        unusable
            Who is there and cannot be used; kept for the record.
        """
        kept = set(usable)
        return CohortSplit(
            self.cohort,
            self.seed,
            tuple(name for name in self.test if name in kept),
            tuple(name for name in self.train if name in kept),
            tuple(name for name in self.spare if name in kept),
            tuple(sorted(unusable)),
        )

    @property
    def hash(self) -> str:
        """SHA-256 of who is in which part."""
        lines = [
            f"{part}:{name}\n"
            for part in ("test", "train", "spare")
            for name in sorted(getattr(self, part))
        ]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def subsets(self) -> Mapping[int, tuple[str, ...]]:
        """Per cent of the training patients → their names; each within the next larger one."""
        named = [_Named(name) for name in self.train]
        seed = SEED if self.seed is None else self.seed
        return MappingProxyType(
            {
                percent: tuple(each.name for each in nested_subset(named, percent, seed))
                for percent in PERCENTS
                if named
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a file that a person can read."""
        return {
            "schema_version": SCHEMA_VERSION,
            "cohort": self.cohort,
            "rule": RULE if self.seed is not None else "as given",
            "seed": self.seed,
            "sha256": self.hash,
            "counts": {
                "test": len(self.test), "train": len(self.train), "spare": len(self.spare),
            },
            "test": list(self.test),
            "train": list(self.train),
            "spare": list(self.spare),
            **({"unusable": list(self.unusable)} if self.unusable else {}),
            "train_subsets_percent": {k: list(v) for k, v in self.subsets().items()},
        }  # fmt: skip


def split_patients(
    cohort: str, names: Iterable[str], *, n_test: int, n_train: int, seed: int = SEED
) -> CohortSplit:
    """Split patients by the rule, the same on every machine.

    Parameters
    ----------
    cohort
        Name of the cohort; another one is split independently.
    names
        The patients, in any order.
    n_test, n_train
        Numbers of the study. With fewer patients than both together, the tested part keeps its
        share (at least one), and the others are trained on.
    seed
        Decides who is where.

    Raises
    ------
    UsageError
        If a name comes twice.
    """
    ordered = sorted(names)
    if len(set(ordered)) < len(ordered):
        twice = sorted({name for name in ordered if ordered.count(name) > 1})
        msg = f"these patients of '{cohort}' are there more than once: {', '.join(twice)}"
        raise UsageError(msg)
    ordered.sort(key=lambda name: (stable_hash("cohort split", cohort, seed, name), name))
    if len(ordered) < n_test + n_train:
        share = int(len(ordered) * n_test / (n_test + n_train) + 0.5)
        n_test = min(len(ordered), max(1, share))
        n_train = len(ordered) - n_test
    test, rest = ordered[:n_test], ordered[n_test:]
    train, spare = rest[:n_train], rest[n_train:]
    return CohortSplit(
        cohort, seed, tuple(sorted(test)), tuple(sorted(train)), tuple(sorted(spare))
    )


def split_of_present(
    cohort: str,
    present: Sequence[str],
    usable: Sequence[str],
    *,
    published: Sequence[str] = (),
    n_test: int,
    n_train: int,
    seed: int = SEED,
) -> CohortSplit:
    """Split the patients of a folder so that nobody moves when one of them is excluded.

    Parts are drawn with the published patients, where at least `SAMPLE_SHARE` of these are
    there: with seed 0 that is the committed list. Otherwise they are drawn with all who are
    there. Only where excluding leaves nobody to test, or to train on, are they drawn with the
    usable ones. Patients that are not among the published ones are spare beside these.

    Parameters
    ----------
    cohort, n_test, n_train, seed
        As in `split_patients`.
    present
        All patients of the folder.
    usable
        Those of them who are not excluded.
    published
        All patients of the published data that can be used by what is known of them.

    Raises
    ------
    UsageError
        If a name comes twice.
    """

    def drawn(names: Iterable[str]) -> CohortSplit:
        return split_patients(cohort, names, n_test=n_test, n_train=n_train, seed=seed)

    unusable = set(present) - set(usable)
    there = len(set(published).intersection(present))
    if there and there >= SAMPLE_SHARE * len(published):
        split = drawn(published)
        split = replace(
            split, spare=tuple(sorted({*split.spare, *usable} - {*split.test, *split.train}))
        )
    else:
        split = drawn(present)
    split = split.keep(usable, unusable)
    if usable and not (split.test and (split.train or len(usable) == 1)):
        return drawn(usable).keep(usable, unusable)
    return split


def given_split(cohort: str, parts: Mapping[str, str | None]) -> CohortSplit:
    """Return a split that somebody made: patient → ``train``, ``test`` or ``None`` (spare)."""

    def of(part: str | None) -> tuple[str, ...]:
        return tuple(sorted(name for name, given in parts.items() if given == part))

    return CohortSplit(cohort, None, of("test"), of("train"), of(None))


def moved_patients(old: Mapping[str, Any], new: CohortSplit) -> Sequence[str]:
    """List the patients that an earlier split, as `CohortSplit.to_dict`, had in another part."""
    before = {
        name: part for part in ("test", "train", "spare") for name in old.get(part) or () if name
    }
    now = {name: part for part in ("test", "train", "spare") for name in getattr(new, part)}
    return sorted(name for name in before if name in now and before[name] != now[name])


@dataclass(frozen=True)
class _Named:
    """A patient of whom only the name counts."""

    name: str
    image: str = ""
    reference: str = ""
