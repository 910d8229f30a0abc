"""Any folder of images and masks as a cohort, by a small YAML file."""

import re
from collections.abc import Callable, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_lungfm._core.config import parse_model, read_yaml
from napari_lungfm._core.exceptions import ConfigError, InputFileError
from napari_lungfm._core.types import PathInput
from napari_lungfm.benchmark.cohorts.lungs import NONE, OWN
from napari_lungfm.benchmark.cohorts.prepare import CohortPlan
from napari_lungfm.benchmark.cohorts.raw import FileRawCase
from napari_lungfm.benchmark.cohorts.split import SEED
from napari_lungfm.benchmark.delimited import read_delimited
from napari_lungfm.datasets.cases import Part
from napari_lungfm.datasets.file_cohort import FileCase
from napari_lungfm.datasets.names import CohortName, Seed

ValueT = TypeVar("ValueT")
_CASE = "{case}"
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_PARTS: Mapping[str, Part | None] = {
    "train": "train", "training": "train", "test": "test", "spare": None, "": None,
}  # fmt: skip
#: So many patients that the rule of `split_patients` always keeps shares, not numbers.
_SHARES = 1_000_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TableSpec(_Strict):
    """A CSV file with a row per case; its path counts from the YAML file.

    Cells may be parted by commas, semicolons or tabulators.

    Parameters
    ----------
    table
        The file.
    case
        The column with the names of the cases.
    columns
        Columns that are taken.
    """

    table: str
    case: str = "case"
    columns: Annotated[tuple[str, ...], Field(min_length=1)]


class SplitSpec(_Strict):
    """A CSV file with the part of each case, or a share that a seeded rule draws.

    Parameters
    ----------
    table, case, column
        The CSV file, its column with the names of the cases, and that with ``train``, ``test``
        or nothing (a spare case).
    test
        Share of the cases that are tested, where there is no table.
    seed
        Decides which.
    """

    table: str | None = None
    case: str = "case"
    column: str = "split"
    test: Annotated[float, Field(gt=0, le=1)] = 0.2
    seed: Seed = SEED


class ImportConfig(_Strict):
    """How a folder is read.

    ``image`` and one of ``mask``, ``rtstruct`` and ``seg`` are paths within the folder in which
    ``{case}`` stands for the name of a case and ``*`` for anything within one name.
    """

    schema_version: Literal[1] = 1
    name: CohortName
    title: str = ""
    image: str
    mask: str | None = None
    values: dict[int, str] | None = None
    rtstruct: str | None = None
    rois: dict[str, str] | None = None
    seg: str | None = None
    segments: dict[str, str] | None = None
    lungs: str | None = None
    split: SplitSpec = SplitSpec()
    attributes: TableSpec | None = None
    exclude: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        for pattern in (self.image, self.reference[1]):
            if _CASE not in pattern:
                msg = f"'{pattern}' has no {_CASE}, which stands for the name of a case"
                raise ValueError(msg)
            if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                msg = f"'{pattern}' must be a path within the folder"
                raise ValueError(msg)
        # FileCase knows what makes sense for values, rois and segments.
        _file_case(self, "example", self.image, self.reference[1])
        return self

    @property
    def reference(self) -> tuple[str, str]:
        """Which kind of reference there is, and the pattern of its files."""
        given = [
            (kind, pattern)
            for kind in ("mask", "rtstruct", "seg")
            if (pattern := getattr(self, kind)) is not None
        ]
        if len(given) != 1:
            what = " and ".join(kind for kind, _ in given) or "none"
            msg = f"exactly one of mask, rtstruct and seg is needed; given: {what}"
            raise ValueError(msg)
        return given[0]

    @property
    def lung_source(self) -> str:
        """Where the lungs come from; by default from the reference, where it has both."""
        if self.lungs is not None:
            return self.lungs
        names = {str(v).lower() for m in (self.values, self.rois, self.segments) if m
                 for v in m.values()}  # fmt: skip
        return OWN if any("left" in n for n in names) and any("right" in n for n in names) else NONE


def load_import_config(path: PathInput) -> ImportConfig:
    """Read a YAML file.

    Raises
    ------
    InputFileError
        If it cannot be read.
    ConfigError
        If it is not valid; the message names each wrong key.
    """
    file = Path(path)
    return parse_model(ImportConfig, read_yaml(file), f"'{file}'")


def import_cases(
    folder: PathInput, config: ImportConfig, base: PathInput
) -> tuple[tuple[FileRawCase, ...], CohortPlan]:
    """Find the cases of a folder.

    Parameters
    ----------
    folder
        Where the patterns count from.
    config
        How it is read.
    base
        Where the tables count from: the folder of the YAML file.

    Raises
    ------
    InputFileError
        If there is no such folder or table, or no image fits the pattern.
    ConfigError
        If a case is to be excluded that is not there, a part has an unknown name, or a table
        says two things of one case.
    DataError
        If a table is empty or its lines have different numbers of cells.
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        msg = f"cannot read '{folder}': there is no such folder"
        raise InputFileError(msg)
    images = _without_masks(root, config, _find(root, config.image))
    if not images:
        msg = f"nothing in '{folder}' fits the image '{config.image}'"
        raise InputFileError(msg)
    unknown = sorted(set(config.exclude) - set(images))
    if unknown:
        names = sorted(images)
        msg = (
            f"'exclude' names {', '.join(unknown)}, and there is no such case in '{folder}'; there "
            f"are {len(names)}, {names[0]} to {names[-1]}"
        )
        raise ConfigError(msg)
    attributes, parts = _attributes(config, Path(base)), _given_parts(config, Path(base))
    cases = tuple(
        _raw_case(root, config, name, found, attributes.get(name, {}), parts)
        for name, found in sorted(images.items())
    )
    test = round(config.split.test * _SHARES)
    title = config.title or f"images from {root.name}"
    return cases, CohortPlan(config.name, title, test, _SHARES - test, config.split.seed)


def _raw_case(
    root: Path,
    config: ImportConfig,
    name: str,
    images: Sequence[str],
    attributes: Mapping[str, Any],
    parts: Mapping[str, Part | None] | None,
) -> FileRawCase:
    kind, pattern = config.reference
    wanted = pattern.replace(_CASE, name)
    references = _references(root, pattern, name)
    excluded = config.exclude.get(name)
    for what, pat, found in (("image", config.image, images), (kind, pattern, references)):
        if len(found) != 1 and excluded is None:
            count = len(found) or "no"
            excluded = f"{count} files fit the {what} '{pat.replace(_CASE, name)}'"
    if parts is not None and name not in parts and excluded is None:
        excluded = f"'{config.split.table}' does not say which part it is in"
    case = _file_case(config, name, images[0], (references or [wanted])[0], attributes)
    part = parts.get(name) if parts is not None else None
    return FileRawCase(case, root, kind, part, excluded)


def _references(root: Path, pattern: str, name: str) -> list[str]:
    """Paths within the folder that fit the pattern of the references for one case.

    Without ``*`` there is just one, which may not be there: reading it will say so.
    """
    if "*" not in pattern:
        return [pattern.replace(_CASE, name)]
    places = root.glob(pattern.replace(_CASE, escape(name)))
    found = [path.relative_to(root).as_posix() for path in sorted(places)]
    return [path for path in found if not Path(path).name.startswith(".")]


def _without_masks(
    root: Path, config: ImportConfig, images: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """Leave out what fits the image, but is the reference of another case.

    Of ``p1.nii.gz`` and ``p1_seg.nii.gz`` both fit the image ``{case}.nii.gz``.
    """
    pattern = config.reference[1]
    owners: dict[str, set[str]] = {}
    for name in images:
        for path in _references(root, pattern, name):
            owners.setdefault(path, set()).add(name)
    kept = {
        name: [path for path in paths if not owners.get(path, set()) - {name}]
        for name, paths in images.items()
    }
    return {name: paths for name, paths in kept.items() if paths}


def _file_case(
    config: ImportConfig,
    name: str,
    image: str,
    reference: str,
    attributes: Mapping[str, Any] | None = None,
) -> FileCase:
    kind = config.reference[0]
    labels = {"mask": "values", "rtstruct": "rois", "seg": "segments"}[kind]
    given: dict[str, Any] = {"name": name, "image": image, kind: reference}
    if getattr(config, labels) is not None:
        given[labels] = getattr(config, labels)
    return FileCase.model_validate({**given, "attributes": dict(attributes or {})})


def _find(root: Path, pattern: str) -> dict[str, list[str]]:
    """Name of the case → paths within the folder that fit a pattern."""
    pieces, seen = [], False
    for piece in re.split(r"(\{case\}|\*)", pattern):
        if piece == _CASE:
            pieces.append("(?P=case)" if seen else "(?P<case>[^/]+?)")
            seen = True
        else:
            pieces.append("[^/]*" if piece == "*" else re.escape(piece))
    fits = re.compile("".join(pieces))
    found: dict[str, list[str]] = {}
    for path in sorted(root.glob(pattern.replace(_CASE, "*"))):
        within = path.relative_to(root).as_posix()
        match = fits.fullmatch(within)
        if match is not None and not match["case"].startswith("."):
            found.setdefault(match["case"], []).append(within)
    return found


def _attributes(config: ImportConfig, base: Path) -> dict[str, dict[str, Any]]:
    spec = config.attributes
    if spec is None:
        return {}
    return {
        name: {column: value for column, value in row.items() if value != ""}
        for name, row in _rows(base / spec.table, spec.case, spec.columns, _plain).items()
    }


def _given_parts(config: ImportConfig, base: Path) -> dict[str, Part | None] | None:
    spec = config.split
    if spec.table is None:
        return None
    rows = _rows(base / spec.table, spec.case, (spec.column,), _part_of(spec.table))
    return {name: row[spec.column] for name, row in rows.items()}


def _part_of(table: str) -> Callable[[str, str], Part | None]:
    def part(text: str, name: str) -> Part | None:
        word = text.lower()
        if word not in _PARTS:
            msg = f"'{table}': '{word}' of '{name}' is none of train, test and spare"
            raise ConfigError(msg)
        return _PARTS[word]

    return part


def _rows(
    path: Path, case: str, columns: Sequence[str], meaning: Callable[[str, str], ValueT]
) -> dict[str, dict[str, ValueT]]:
    """Name of the case → what the columns of its row mean.

    A case may have several rows (one for each lesion, say) as long as these columns agree.
    """
    table = read_delimited(path)
    missing = [column for column in (case, *columns) if column not in table.header]
    if missing:
        heads = ", ".join(table.header)
        msg = f"'{path}' has no column {', '.join(missing)}; there are: {heads}"
        raise InputFileError(msg)
    rows: dict[str, dict[str, ValueT]] = {}
    lines: dict[str, tuple[int, tuple[str, ...]]] = {}
    for number, cells in table.rows:
        texts = {column: cells[table.header.index(column)].strip() for column in (case, *columns)}
        name = texts[case]
        row = {column: meaning(texts[column], name) for column in columns}
        earlier = rows.setdefault(name, row)
        first, theirs = lines.setdefault(name, (number, cells))
        for column in columns:
            if earlier[column] != row[column]:
                other = theirs[table.header.index(column)].strip()
                msg = (
                    f"'{path}': '{name}' stands there twice with another '{column}': '{other}' in "
                    f"line {first} and '{texts[column]}' in line {number}"
                )
                raise ConfigError(msg)
    return rows


def _plain(text: str, _: str) -> str | float | int:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    # Where cells are parted by commas this stood in quotation marks.
    return float(text.replace(",", ".")) if _DECIMAL_COMMA.fullmatch(text) else text
