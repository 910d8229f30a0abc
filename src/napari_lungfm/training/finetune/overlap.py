"""Nobody is in a cohort twice: not by a name, not by a CT under another name."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm._core.files import write_json
from napari_lungfm.datasets.cases import CaseSource, Cohort
from napari_lungfm.models.automatic.trained import TrainedModel, hash_image
from napari_lungfm.training.automatic.cohort_check import CohortError
from napari_lungfm.training.finetune.cases import StoredCase


def refuse_twins(cohort: Cohort, cases: Sequence[StoredCase]) -> None:
    """Refuse a training set that has one CT under two names.

    One of them could be set aside to validate what the other one taught, and would count twice in
    the parts of a learning curve.

    Parameters
    ----------
    cohort
        The cohort.
    cases
        The training cases.

    Raises
    ------
    CohortError
        If there is such a CT; the message names its cases.
    """
    names: dict[str, list[str]] = {}
    for case in cases:
        names.setdefault(case.image, []).append(case.name)
    twins = [" and ".join(f"'{name}'" for name in same) for same in names.values() if len(same) > 1]
    if twins:
        msg = (
            f"cohort '{cohort.name}' would train on one CT under several names: "
            f"{'; '.join(twins)}; leave out all but one of each"
        )
        raise CohortError(msg)


def refuse_test_patients(
    cohort: Cohort,
    cases: Sequence[StoredCase],
    known: Path,
    *,
    base: TrainedModel | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Refuse a training set with a test patient of its cohort in it, and a base that saw one.

    Parameters
    ----------
    cohort
        The cohort; of its test cases the images are read, to know them under other names.
    cases
        The training cases.
    known
        File that keeps the hashes of test images.
    base
        What is known of the base, where it was trained here.
    progress
        Called with the test cases done and all of them.

    Raises
    ------
    CohortError
        If a patient is in both parts, or a test case cannot be read; the message names it.
    SeenPatientError
        If the base was trained on a test patient.
    OutputError
        If the hashes cannot be kept.
    """
    hashes = _read(known)
    names = {case.name.casefold(): case.name for case in cases}
    images = {case.image: case.name for case in cases}
    problems: list[str] = []
    for number, source in enumerate(cohort.test, start=1):
        mark = source.fingerprint()
        if mark not in hashes:
            hashes[mark] = _hash(source)
        image = hashes[mark]
        if source.name.casefold() in names:
            problems.append(f"'{names[source.name.casefold()]}' (test case '{source.name}')")
        elif image in images:
            problems.append(f"'{images[image]}' (the same CT as test case '{source.name}')")
        if base is not None:
            base.refuse_seen(source.name, cohort=cohort.name, image=image)
        if progress is not None:
            progress(number, len(cohort.test))
    # Images that are made and not read may differ with the program: their hashes are not kept.
    on_disk = {source.fingerprint() for source in cohort.test if source.inputs()}
    write_json(known, {mark: image for mark, image in hashes.items() if mark in on_disk})
    if problems:
        msg = (
            f"cohort '{cohort.name}' would train on patients that it tests on: "
            f"{', '.join(problems)}; take them out of one part"
        )
        raise CohortError(msg)


def _hash(source: CaseSource) -> str:
    try:
        return hash_image(source.load().volume)
    except LungFMError as error:
        msg = f"test case '{source.name}' cannot be told from the training cases: {error}"
        raise CohortError(msg) from error


def _read(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
