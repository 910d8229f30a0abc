"""``cohort.yaml``, which the benchmark reads, and ``split.yaml``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from napari_lungfm._core.config import read_yaml
from napari_lungfm._core.exceptions import ConfigError, InputFileError, LungFMError
from napari_lungfm._core.files import slug, write_text
from napari_lungfm._core.types import PathInput
from napari_lungfm.benchmark.cohorts.report import CaseReport
from napari_lungfm.benchmark.cohorts.split import CohortSplit, moved_patients
from napari_lungfm.datasets.cases import Part
from napari_lungfm.datasets.file_cohort import FileCase, FileCohort
from napari_lungfm.geometry import LUNG_LABELS

COHORT_FILE, SPLIT_FILE = "cohort.yaml", "split.yaml"
#: Facts that become columns of the results.
_ATTRIBUTES = ("tumour_ml", "tumour_components", "tumour_in_lungs", "spacing_z_mm")
_HEAD = """\
# A cohort for napari-lungfm-bench: an entry of `cohorts` in a configuration.
# Paths count from this file's folder (root); copied elsewhere, give `root` the path of it.
"""


def write_cohort(
    root: Path, name: str, title: str, prepared: Sequence[CaseReport], split: CohortSplit
) -> None:
    """Write ``cohort.yaml`` with the tested and the training cases; spare ones are left out."""
    part = cast("dict[str, Part]", dict.fromkeys(split.test, "test"))
    part |= cast("dict[str, Part]", dict.fromkeys(split.train, "train"))
    cases = [
        FileCase(
            name=each.name,
            image=f"cases/{slug(each.name)}/ct.nii.gz",
            mask=f"cases/{slug(each.name)}/reference.nii.gz",
            values=dict(LUNG_LABELS),
            part=part[each.name],
            attributes=_attributes(each),
        )
        for each in prepared
        if each.name in part
    ]
    cohort = FileCohort(kind="files", name=name, title=title, root=".", cases=tuple(cases))
    values = cohort.model_dump(mode="json", exclude_unset=True)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    write_text(root / COHORT_FILE, _HEAD + text)


def read_cohort(path: PathInput) -> FileCohort:
    """Read a ``cohort.yaml``, or the one of a prepared folder; its root becomes absolute.

    Raises
    ------
    InputFileError
        If it cannot be read.
    ConfigError
        If it is no cohort.
    """
    file = Path(path) / COHORT_FILE if Path(path).is_dir() else Path(path)
    values = _read_yaml(file)
    try:
        cohort = FileCohort.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        msg = f"'{file}' is no cohort ({place}: {first['msg']}); prepare it again"
        raise ConfigError(msg) from error
    root = (file.resolve().parent / Path(cohort.root).expanduser()).resolve()
    return cohort.model_copy(update={"root": str(root)})


def write_split(root: Path, split: CohortSplit) -> Sequence[str]:
    """Write ``split.yaml``; return the patients that an earlier one had in another part."""
    path = root / SPLIT_FILE
    moved: Sequence[str] = ()
    if path.is_file():
        moved = moved_patients(read_split(root), split)
    text = yaml.safe_dump(split.to_dict(), sort_keys=False, allow_unicode=True)
    write_text(path, text)
    return moved


def read_split(root: PathInput) -> dict[str, Any]:
    """Return what ``split.yaml`` of a prepared folder says; see `CohortSplit.to_dict`.

    Raises
    ------
    InputFileError
        If there is none that can be read.
    """
    return _read_yaml(Path(root) / SPLIT_FILE)


def _attributes(report: CaseReport) -> dict[str, str | float | int | bool]:
    known = {key: report.facts.get(key) for key in _ATTRIBUTES}
    measured = {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in known.items()
        if value is not None
    }
    return {**measured, **report.attributes, "tumour_source": report.source}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        return read_yaml(path)
    except LungFMError as error:
        msg = f"{error}; prepare the cohort again"
        raise InputFileError(msg) from error
