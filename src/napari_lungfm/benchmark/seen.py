"""No model is scored on a patient that it was trained on: looked into before any unit is run."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm._core.files import write_json
from napari_lungfm.benchmark.methods import Method
from napari_lungfm.datasets.cases import CaseSource, Cohort
from napari_lungfm.datasets.phantom_cohort import PhantomCaseSource
from napari_lungfm.models.automatic.trained import SeenPatientError, TrainedModel, hash_image

_SCHEMA = 1
#: How many patients a message names.
_SHOWN = 10


class ImageHashes:
    """Hashes of CTs by which patients are known under any name; each image is read once.

    Parameters
    ----------
    file
        Where hashes of images on disk are kept between calls; it is read here and written by
        `save`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = _read(file)
        self._new: dict[str, str | None] = {}

    def of(self, source: CaseSource) -> str | None:
        """Return `hash_image` of a case; ``None`` where it cannot be read (its units say so)."""
        found = self.known(source)
        mark = source.fingerprint()
        if found is None and mark not in self._new:
            try:
                found = hash_image(source.load().volume)
            except LungFMError:
                found = None
            self._new[mark] = found
            if found is not None and source.inputs():  # phantoms depend on the program as well
                self._known[mark] = found
        return found

    def known(self, source: CaseSource) -> str | None:
        """Return `of` where it was asked for before; ``None`` elsewhere, and nothing is read."""
        mark = source.fingerprint()
        return self._known.get(mark) or self._new.get(mark)

    def save(self) -> None:
        """Write the hashes of images on disk."""
        if self._known:
            write_json(self._file, {"schema_version": _SCHEMA, "images": self._known})


class KnownHashes(ImageHashes):
    """Hashes of images that were read before; nothing is read, nothing is written."""

    def of(self, source: CaseSource) -> str | None:
        """Return `ImageHashes.known`."""
        return self.known(source)


def refuse_seen(methods: Iterable[Method], cohorts: Sequence[Cohort], images: ImageHashes) -> None:
    """Refuse to score trained models on patients that they have seen, or are going to see.

    Parameters
    ----------
    methods
        The methods.
    cohorts
        All cohorts.
    images
        Tells images apart.

    Raises
    ------
    SeenPatientError
        If there are such patients; the message names them.
    """
    for method in methods:
        scored = [cohort for cohort in cohorts if method.takes(cohort.name)]
        if method.description is not None:
            # What this run trains is looked at before, and what was not read then need not be.
            look = images.of if method.spec.train is None else images.known
            problems = _seen_by(method.description, scored, look)
        elif method.training is not None:
            problems = _seen_in_training(method, scored, cohorts, images)
        else:
            continue
        if problems:
            shown = ", ".join(problems[:_SHOWN])
            more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            verb = "is to be" if method.training is not None else "was"
            msg = (
                f"the method '{method.title}' {verb} trained on patients that it is to be scored "
                f"on: {shown}{more}; a score on them would say nothing, leave them out"
            )
            raise SeenPatientError(msg)


def _seen_by(
    model: TrainedModel | None,
    scored: Sequence[Cohort],
    look: Callable[[CaseSource], str | None],
) -> list[str]:
    if model is None or not model.seen:
        return []
    found = []
    for cohort in scored:
        for source in cohort.test:
            patient = model.seen_patient(source.name, cohort=cohort.name, image=look(source))
            if patient is not None:
                known = patient.is_named(source.name, cohort.name)
                there = "" if known else f" (there '{patient.case}' of '{patient.cohort}')"
                found.append(f"'{source.name}' of '{cohort.name}'{there}")
    return found


def _seen_in_training(
    method: Method, scored: Sequence[Cohort], cohorts: Sequence[Cohort], images: ImageHashes
) -> list[str]:
    found = []
    for cohort in scored:
        trained_on = method.spec.trained_on or cohort.name
        sources = next(other.train for other in cohorts if other.name == trained_on)
        train, test = _perhaps_the_same(sources, cohort.test)
        seen = {images.of(source): source.name for source in train}
        for source in test:
            image = images.of(source)
            if image is not None and image in seen:
                found.append(
                    f"'{source.name}' of '{cohort.name}' ('{seen[image]}' of '{trained_on}')"
                )
    # What a fine-tuning begins with has seen stays in its weights.
    return found + _seen_by(method.earlier, scored, images.of)


def _perhaps_the_same(
    train: Sequence[CaseSource], test: Sequence[CaseSource]
) -> tuple[Sequence[CaseSource], Sequence[CaseSource]]:
    """Leave out phantoms of patients that the other part has not: each takes seconds to make."""
    if not all(isinstance(source, PhantomCaseSource) for source in (*train, *test)):
        return train, test
    both = _patients(train) & _patients(test)
    return _of_patients(train, both), _of_patients(test, both)


def _patients(sources: Sequence[CaseSource]) -> set[int]:
    return {source.patient for source in sources if isinstance(source, PhantomCaseSource)}


def _of_patients(sources: Sequence[CaseSource], wanted: set[int]) -> list[CaseSource]:
    return [s for s in sources if isinstance(s, PhantomCaseSource) and s.patient in wanted]


def _read(file: Path) -> dict[str, str]:
    """Return the hashes that an earlier call kept; a damaged file counts as none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        images = content["images"] if content["schema_version"] == _SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if not isinstance(images, Mapping):
        return {}
    return {str(mark): str(image) for mark, image in images.items()}
