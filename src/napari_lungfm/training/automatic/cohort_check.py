"""Which cases can be trained on: everything is looked at before hours are spent."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from napari_lungfm._core.exceptions import DataError, LungFMError, LungFMWarning
from napari_lungfm.datasets.cases import Case, CaseSource, Cohort
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Structure
from napari_lungfm.models.automatic.protocol import AutomaticModel
from napari_lungfm.models.weights import WeightsNotFoundError
from napari_lungfm.preprocessing import told_if_no_hu

#: A slice network needs a volume, not a slice or two.
SMALLEST_DEPTH = 3
#: How many cases a message names.
_SHOWN = 5
_LUNGS = (Structure.LEFT_LUNG, Structure.RIGHT_LUNG)


class CohortError(DataError):
    """A cohort cannot be trained on; the message names the cases and what is wrong with them."""


def check_size(cohort: Cohort) -> None:
    """Refuse a cohort without at least two training cases, before any is read.

    Raises
    ------
    CohortError
        If there are fewer.
    """
    if len(cohort.train) >= 2:
        return
    listed = f"only case '{cohort.train[0].name}'" if cohort.train else "no case"
    msg = (
        f"cohort '{cohort.name}' has {listed} to train on, two are the least; "
        "say which cases are for training (part: train)"
    )
    raise CohortError(msg)


def load_for_training(
    source: CaseSource,
    structures: Sequence[Structure],
    lungs: AutomaticModel | None = None,
) -> Case:
    """Read a case and make sure that it can be learnt from.

    Parameters
    ----------
    source
        The case.
    structures
        What it must have.
    lungs
        Completes references that have neither lung; ``None``: they are refused. References with
        one lung only are never completed.

    Raises
    ------
    CohortError
        If the case cannot be read, its image and reference do not belong together, its image is
        one value all over, its reference has unknown values, or a structure is missing; the
        message names it.
    WeightsNotFoundError
        If lungs have to be found and the weights for that are not here.

    Warns
    -----
    LungFMWarning
        If the image does not look like HU.
    """
    try:
        case = source.load()
    except LungFMError as error:
        text = str(error)
        msg = text if source.name in text else f"case '{source.name}': {text}"
        raise CohortError(msg) from error
    _refuse_no_image(case)
    if lungs is not None and set(structures) & set(_LUNGS) and not set(_LUNGS) & {*case.structures}:
        try:
            case = with_lungs(case, lungs)
        except WeightsNotFoundError as error:
            msg = (
                f"the reference of case '{case.name}' has no lungs, and missing_lungs: "
                f"{lungs.name} finds them with weights that are not here: {error}; or write "
                "missing_lungs: lungs-classical, or refuse"
            )
            raise WeightsNotFoundError(msg) from error
    if case.volume.shape[0] < SMALLEST_DEPTH:
        msg = f"case '{case.name}': only {case.volume.shape[0]} slices, {SMALLEST_DEPTH} are needed"
        raise CohortError(msg)
    missing = [structure.title for structure in structures if structure not in case.structures]
    if missing:
        present = ", ".join(s.title for s in case.structures) or "nothing"
        msg = f"case '{case.name}': the reference has no {' and no '.join(missing)}, only {present}"
        raise CohortError(msg)
    return case


def _refuse_no_image(case: Case) -> None:
    told = told_if_no_hu(case.volume)
    if told is None:
        return
    if case.volume.array.min() == case.volume.array.max():
        msg = f"case '{case.name}': {told}"
        raise CohortError(msg)
    warnings.warn(f"case '{case.name}': {told}", LungFMWarning, stacklevel=3)


def with_lungs(case: Case, model: AutomaticModel) -> Case:
    """Complete a reference by the lungs that a model finds; the tumour wins where they overlap.

    Parameters
    ----------
    case
        A case.
    model
        Finds left and right lung.
    """
    found = model.segment(case.volume)
    array = case.reference.array.copy()
    for structure in _LUNGS:
        lung = found.mask(int(structure)) & (array == 0)
        array[lung] = int(structure)
    reference = LabelMap(array, case.reference.geometry, LUNG_LABELS)
    attributes = {**case.attributes, "lungs": model.name}
    return replace(case, reference=reference, attributes=attributes)


def for_each_case(
    cohort: Cohort,
    work: Callable[[CaseSource], None],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Do something with every training case, and name all cases that cannot be used at once.

    Parameters
    ----------
    cohort
        The cases.
    work
        Raises `CohortError` for a case that cannot be used.
    progress
        Called with the cases done and all of them.

    Raises
    ------
    CohortError
        If there is such a case, after all were looked at.
    """
    check_size(cohort)
    problems: list[str] = []
    for number, source in enumerate(cohort.train, start=1):
        try:
            work(source)
        except CohortError as error:
            problems.append(str(error))
        if progress is not None:
            progress(number, len(cohort.train))
    if problems:
        shown = "; ".join(problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        msg = (
            f"cohort '{cohort.name}' cannot be trained on, {len(problems)} of "
            f"{len(cohort.train)} cases: {shown}{more}; mend these cases or leave them out"
        )
        raise CohortError(msg)


def labels_as_classes(labels: LabelMap, structures: Sequence[Structure]) -> np.ndarray:
    """Return the class ``(z, y, x)`` of every voxel, uint8: 0 is everything else."""
    table = np.zeros(256, dtype=np.uint8)
    for number, structure in enumerate(structures, start=1):
        table[int(structure)] = number
    classes: np.ndarray = table[labels.array]
    return classes
