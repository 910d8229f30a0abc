"""From raw patients to a cohort: one folder per case, a split, and a report on the quality."""

import hashlib
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from napari_lungfm import io
from napari_lungfm._core.exceptions import (
    DataError,
    LungFMError,
    LungFMWarning,
    MissingDependencyError,
    OutputError,
)
from napari_lungfm._core.files import atomic_path, make_folder, slug
from napari_lungfm._core.types import LabelArray, PathInput
from napari_lungfm.benchmark.cohorts import checks
from napari_lungfm.benchmark.cohorts.cohort_file import (
    COHORT_FILE,
    claim_folder,
    write_cohort,
    write_split,
)
from napari_lungfm.benchmark.cohorts.lungs import LungSource
from napari_lungfm.benchmark.cohorts.quality import write_quality
from napari_lungfm.benchmark.cohorts.raw import RawCase, Reading, check_tumour
from napari_lungfm.benchmark.cohorts.report import CaseReport, load_report
from napari_lungfm.benchmark.cohorts.split import (
    SEED,
    CohortSplit,
    given_split,
    split_of_present,
    split_patients,
)
from napari_lungfm.benchmark.cohorts.thumbnails import thumbnail
from napari_lungfm.benchmark.cohorts.twins import on_one_side, twins, with_hash, with_twins
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Structure
from napari_lungfm.io.dicom_objects import atomic_folder
from napari_lungfm.models.automatic.protocol import SegmentationCancelledError
from napari_lungfm.models.automatic.trained import hash_image

#: Raised when prepared cases would come out differently: all are then prepared anew.
PREPARED_VERSION = 1
CT, REFERENCE, REPORT, THUMBNAIL = "ct.nii.gz", "reference.nii.gz", "case.json", "thumbnail.jpg"
#: What is wrong with the machine and not with a patient.
_NOT_THE_PATIENT = (OutputError, MissingDependencyError, SegmentationCancelledError)

#: Called before each patient with its number, how many there are, and its name.
Listener: TypeAlias = Callable[[int, int, str], None]


@dataclass(frozen=True)
class CohortPlan:
    """What a cohort is called and how it is split.

    Parameters
    ----------
    name, title
        As in the benchmark's configuration; the title has the licence.
    n_test, n_train
        Numbers of patients; see `split_patients`.
    seed
        Of the split.
    published
        All patients of the published data that can be used; see `split_of_present`.
    """

    name: str
    title: str
    n_test: int
    n_train: int
    seed: int = SEED
    published: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedCohort:
    """What `prepare_cohort` left.

    Parameters
    ----------
    root
        The folder.
    reports
        What became of each patient, sorted by name.
    split
        Who is in which part.
    done
        How many were prepared now; the others were there.
    moved
        Patients that an earlier split of the folder had in another part.
    """

    root: Path
    reports: tuple[CaseReport, ...]
    split: CohortSplit
    done: int
    moved: tuple[str, ...]

    @property
    def cohort_file(self) -> Path:
        """What the benchmark reads."""
        return self.root / COHORT_FILE

    def of(self, status: str) -> tuple[CaseReport, ...]:
        """Return the reports of one status."""
        return tuple(each for each in self.reports if each.status == status)


def prepare_cohort(
    cases: Sequence[RawCase],
    out: PathInput,
    plan: CohortPlan,
    lungs: LungSource,
    *,
    listener: Listener | None = None,
) -> PreparedCohort:
    """Prepare the patients of a cohort, those that were not yet; then split and report.

    A patient whose files and options are those of an earlier call is left as it is. One that
    cannot be used is excluded, with the reason. Where a CT is there under two names, both are
    flagged, and in a split that is drawn neither is trained on if the other is tested. What is
    there when the call is interrupted stays, and the same call goes on from there.

    Parameters
    ----------
    cases
        The patients.
    out
        Folder for ``cases/NAME/``, ``excluded/NAME.json``, ``cohort.yaml``, ``split.yaml``,
        ``prepared.json``, ``quality.csv`` and ``quality.html``.
    plan
        Name and split of the cohort.
    lungs
        Where the lungs of the reference come from.
    listener
        Told of each patient before its turn.

    Raises
    ------
    DataError
        If none of the patients can be used; the quality report says why.
    OutputError
        If something cannot be written.
    UsageError
        If two patients have one name, or the folder holds another cohort.
    """
    root = make_folder(out)
    # Refuses names that come twice before any work is done.
    split_patients(plan.name, [c.name for c in cases], n_test=plan.n_test, n_train=plan.n_train)
    claim_folder(root, plan.name, lungs.name)
    reports: list[CaseReport] = []
    done = 0
    for number, case in enumerate(sorted(cases, key=lambda each: each.name)):
        if listener is not None:
            listener(number, len(cases), case.name)
        report, now = _prepare(case, root, lungs)
        reports.append(with_hash(report, root))
        done += now
    _forget_others(root, reports)
    prepared = [each for each in reports if each.status == "prepared"]
    drawn, same = _split(plan, cases, prepared), twins(prepared)
    split = on_one_side(drawn, same)
    reports = with_twins(reports, same, drawn, split)
    prepared = [each for each in reports if each.status == "prepared"]
    write_quality(root, plan.title, reports, split, lungs.name)
    if not prepared:
        msg = f"none of the {len(reports)} patients can be used; '{root}/quality.html' says why"
        raise DataError(msg)
    moved = write_split(root, split)
    write_cohort(root, plan.name, plan.title, prepared, split)
    return PreparedCohort(root, tuple(reports), split, done, tuple(moved))


def case_folder(root: Path, name: str) -> Path:
    """Return the folder of a prepared case."""
    return root / "cases" / slug(name)


def _excluded_file(root: Path, name: str) -> Path:
    return root / "excluded" / f"{slug(name)}.json"


def _prepare(case: RawCase, root: Path, lungs: LungSource) -> tuple[CaseReport, bool]:
    """Return what became of a patient, and whether that was found out now."""
    folder, excluded = case_folder(root, case.name), _excluded_file(root, case.name)
    fingerprint = ""
    try:
        fingerprint = _fingerprint(case, lungs)
        kept = load_report(folder / REPORT) or load_report(excluded)
        if kept is not None and kept.fingerprint == fingerprint and _is_whole(folder, kept):
            return kept, False
        if case.excluded is not None:
            raise DataError(case.excluded)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", LungFMWarning)
            reading = case.read()
            check_tumour(reading.tumour, reading.source)
            found = lungs.find(reading)
        notes = [str(w.message) for w in caught if issubclass(w.category, LungFMWarning)]
        facts = {**checks.measure(reading, found), "image_hash": hash_image(reading.volume)}
        report = CaseReport(
            case.name, "prepared", fingerprint, "", reading.source, facts, checks.flags(facts),
            [*reading.notes, *dict.fromkeys(notes)], dict(case.attributes),
        )  # fmt: skip
        _write(folder, reading, _combined(reading, found), report)
    except _NOT_THE_PATIENT:
        raise
    except LungFMError as error:
        report = CaseReport(case.name, "excluded", fingerprint, str(error))
        report.save(excluded)
        shutil.rmtree(folder, ignore_errors=True)
        return report, True
    excluded.unlink(missing_ok=True)
    return report, True


def _fingerprint(case: RawCase, lungs: LungSource) -> str:
    parts = [
        str(PREPARED_VERSION), case.name, case.excluded or "", case.fingerprint(), lungs.identity,
        repr(sorted(case.attributes.items())),
    ]  # fmt: skip
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()


def _is_whole(folder: Path, report: CaseReport) -> bool:
    names = (CT, REFERENCE, THUMBNAIL) if report.status == "prepared" else ()
    return all((folder / name).is_file() for name in names)


def _combined(reading: Reading, lungs: LabelArray | None) -> LabelMap:
    """Lungs and tumour in one label map; the tumour wins where they overlap."""
    array = np.zeros(reading.volume.shape, dtype=np.uint8)
    if lungs is not None:
        array[:] = lungs
    array[reading.tumour] = int(Structure.TUMOUR)
    return LabelMap(array, reading.volume.geometry, LUNG_LABELS)


def _write(folder: Path, reading: Reading, reference: LabelMap, report: CaseReport) -> None:
    """Write the folder of a case under another name; it gets its own when all is there."""
    shutil.rmtree(folder, ignore_errors=True)
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with atomic_folder(folder) as temporary:
        io.write_image(reading.volume, temporary / CT)
        io.write_label_map(reference, temporary / REFERENCE)
        with atomic_path(temporary / THUMBNAIL) as picture:
            picture.write_bytes(thumbnail(reading.volume, reference))
        report.save(temporary / REPORT)


def _forget_others(root: Path, reports: Sequence[CaseReport]) -> None:
    """Remove the reports of excluded patients that are not asked for any more."""
    names = {_excluded_file(root, each.name).name for each in reports}
    for path in (root / "excluded").glob("*.json"):
        if path.name not in names:
            path.unlink()


def _split(
    plan: CohortPlan, cases: Sequence[RawCase], prepared: Sequence[CaseReport]
) -> CohortSplit:
    given = {case.name: case.part for case in cases}
    names = [each.name for each in prepared]
    if any(part is not None for part in given.values()):
        return given_split(plan.name, {name: given[name] for name in names})
    return split_of_present(
        plan.name, list(given), names,
        published=plan.published, n_test=plan.n_test, n_train=plan.n_train, seed=plan.seed,
    )  # fmt: skip
