"""``cohort.yaml``, which the benchmark reads, ``split.yaml`` and ``prepared.json``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from napari_lungfm._core.config import read_yaml
from napari_lungfm._core.exceptions import ConfigError, InputFileError, LungFMError, UsageError
from napari_lungfm._core.files import slug, write_json, write_text
from napari_lungfm._core.types import PathInput
from napari_lungfm.benchmark.cohorts.report import CaseReport
from napari_lungfm.benchmark.cohorts.split import CohortSplit, moved_patients
from napari_lungfm.datasets.cases import Part
from napari_lungfm.datasets.file_cohort import FileCase, FileCohort
from napari_lungfm.geometry import LUNG_LABELS

COHORT_FILE, SPLIT_FILE, PREPARED_FILE = "cohort.yaml", "split.yaml", "prepared.json"
_SCHEMA_VERSION = 1
#: Facts that become columns of the results.
_ATTRIBUTES = ("tumour_ml", "tumour_components", "tumour_in_lungs", "spacing_z_mm")
_HEAD = """\
# A cohort for napari-lungfm-bench: an entry of `cohorts` in a configuration.
# Paths count from this file's folder (root); copied elsewhere, give `root` the path of it.
"""


def claim_folder(root: Path, name: str, lungs: str) -> None:
    """Write into a folder, before any case, which cohort it is for and whose its lungs are.

    Parameters
    ----------
    root
        The folder.
    name
        Of the cohort.
    lungs
        Where the lungs of the references come from; see `lungs.lung_source`.

    Raises
    ------
    UsageError
        If it holds another cohort.
    """
    there = _cohort_in(root)
    if there not in (None, name):
        msg = f"'{root}' holds the cohort '{there}', not '{name}'; choose another folder"
        raise UsageError(msg)
    values = {"schema_version": _SCHEMA_VERSION, "cohort": name, "lungs": lungs}
    write_json(root / PREPARED_FILE, values)


def prepared_lungs(root: PathInput) -> str | None:
    """Return where the lungs of a prepared folder come from; ``None`` where that is not known."""
    return _prepared(Path(root)).get("lungs")


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


def _cohort_in(root: Path) -> str | None:
    """Name of the cohort that a folder holds, finished or not."""
    name = _prepared(root).get("cohort")
    if name is None and (root / COHORT_FILE).is_file():
        return read_cohort(root).name
    return name


def _prepared(root: Path) -> dict[str, str]:
    try:
        values = json.loads((root / PREPARED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


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
