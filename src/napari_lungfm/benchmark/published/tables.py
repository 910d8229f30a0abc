"""Published tables as cells.

A file has one line per row of a table, with columns ``table`` and ``group`` (both may be left
out) and ``row``, and then one column per structure and metric, ``Lungs IoU`` for instance. A value
in ``**bold**`` or ``<b>bold</b>`` was printed as the best of its column, one in ``__underlined__``
or ``<u>underlined</u>`` as the second-best. An empty cell was not reported. Values are compared
with each other within a table and a group.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np

from napari_lungfm._core.exceptions import DataError, InputFileError

#: What a value's print says of it.
Mark: TypeAlias = Literal["best", "second", ""]
#: Columns that say where a value stands.
PLACES = ("table", "group", "row")
_MARKED: tuple[tuple[re.Pattern[str], Mark], ...] = (
    (re.compile(r"^(?:\*\*|<b>)(.+?)(?:\*\*|</b>)$"), "best"),
    (re.compile(r"^(?:__|<u>)(.+?)(?:__|</u>)$"), "second"),
)
_AVERAGES = frozenset({"avg", "average", "mean", "overall", "all"})
_METRICS = MappingProxyType(
    {"jaccard": "iou", "miou": "iou", "dsc": "dice", "f1": "dice", "dice score": "dice"}
)
_SMALLER_IS_BETTER = ("hd", "hd95", "assd", "asd", "msd", "rmse", "mae", "error", "distance")


@dataclass(frozen=True)
class Cell:
    """One published value.

    Parameters
    ----------
    table, group, row
        Where it stands; values of one table and group are compared with each other.
    structure, metric
        What was measured, as printed.
    value
        The value; a fraction where the file has per cent.
    error
        Half of its last printed digit: how far rounding may have moved it.
    printed
        The value as printed.
    mark
        Whether it was printed as the best or the second-best of its column.
    """

    table: str
    group: str
    row: str
    structure: str
    metric: str
    value: float
    error: float
    printed: str
    mark: Mark = ""

    @property
    def is_average(self) -> bool:
        """Whether it averages the other structures of its row."""
        return self.structure.strip(" .").lower() in _AVERAGES

    @property
    def kind(self) -> str:
        """The metric's plain name: ``iou``, ``dice``, or its own in lower case."""
        name = self.metric.strip(" ↑↓").lower()
        return _METRICS.get(name, name)

    @property
    def larger_is_better(self) -> bool:
        """Whether the column's best value is its largest."""
        if "↓" in self.metric or "↑" in self.metric:
            return "↑" in self.metric
        return not self.kind.startswith(_SMALLER_IS_BETTER)

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return ", ".join(part for part in (self.table, self.group, self.row) if part)

    @property
    def column(self) -> str:
        """Structure and metric, in words."""
        return f"{self.structure} {self.metric}".strip()


@dataclass(frozen=True)
class PublishedTables:
    """The tables of a publication.

    Parameters
    ----------
    source
        What they are from.
    cells
        All values, in the order of the file.
    weights
        Weight of every structure in the averages; empty: not said.
    """

    source: str
    cells: tuple[Cell, ...]
    weights: Mapping[str, float] = field(default_factory=dict)

    def by(self, *names: str) -> dict[tuple[str, ...], list[Cell]]:
        """Group the cells by some of their attributes, in the order of the file."""
        groups: dict[tuple[str, ...], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault(tuple(getattr(cell, name) for name in names), []).append(cell)
        return groups


@dataclass(frozen=True)
class Publication:
    """A publication whose tables ship with the package.

    Parameters
    ----------
    title
        Authors and title.
    file
        Name of the CSV file in this folder.
    weights
        Weight of every structure in the averages, as the text gives or implies them.
    """

    title: str
    file: str
    weights: Mapping[str, float]


#: The paper that the benchmark reproduces. Its lungs are the mean of two, so they weigh two.
PAPER = Publication(
    "E. Mulero Ayllón, M. Mantegna et al., Can Foundation Models Really Segment Tumors? A "
    "Benchmarking Odyssey in Lung CT Imaging, Tables II to IV",
    "mulero_ayllon.csv",
    MappingProxyType({"Lungs": 2.0, "Tumor": 1.0}),
)


def read_paper() -> PublishedTables:
    """Return Tables II, III and IV of the paper that the benchmark reproduces."""
    text = files(__package__).joinpath(PAPER.file).read_text(encoding="utf-8")
    return PublishedTables(PAPER.title, _cells(text, PAPER.file), PAPER.weights)


def read_tables(path: Path, weights: Mapping[str, float] | None = None) -> PublishedTables:
    """Read the tables of any publication.

    Parameters
    ----------
    path
        A CSV file; see the module.
    weights
        Weight of every structure in the averages.

    Raises
    ------
    InputFileError
        If the file cannot be read.
    DataError
        If it is not such a file, or the weights name structures that it does not have.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        msg = f"'{path}' cannot be read: {reason}"
        raise InputFileError(msg) from error
    cells = _cells(text, str(path))
    weights = dict(weights or {})
    unknown = sorted(set(weights) - {cell.structure for cell in cells})
    if unknown:
        msg = f"{path}: no column is of {unknown[0]!r}, which a weight is given for"
        raise DataError(msg)
    return PublishedTables(str(path), cells, MappingProxyType(weights))


def _cells(text: str, source: str) -> tuple[Cell, ...]:
    lines = csv.reader(text.splitlines(), strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        rows = [(lines.line_num, line) for line in lines if any(part.strip() for part in line)]
    except csv.Error as error:
        msg = f"{source}: line {lines.line_num} is not CSV ({error})"
        raise DataError(msg) from error
    columns = _columns(header, source)
    cells = []
    for number, line in rows:
        if len(line) != len(header):
            msg = f"{source}: line {number} has {len(line)} columns, the first line {len(header)}"
            raise DataError(msg)
        where = {name: line[header.index(name)].strip() for name in PLACES if name in header}
        for index, (structure, metric) in columns.items():
            if line[index].strip():
                place = f"{source}: line {number}, {header[index]}"
                value, half_digit, printed, mark = _value(line[index], place)
                cells.append(
                    Cell(
                        where.get("table", ""),
                        where.get("group", ""),
                        where["row"],
                        structure,
                        metric,
                        value,
                        half_digit,
                        printed,
                        mark,
                    )
                )
    if not cells:
        msg = f"{source}: there are no values in it"
        raise DataError(msg)
    _refuse_twice(cells, source)
    return _as_fractions(cells)


def _columns(header: list[str], source: str) -> dict[int, tuple[str, str]]:
    """Return the structure and the metric of every column of values."""
    if "row" not in header or len(set(header)) < len(header):
        msg = f"{source}: the first line must name the columns, each once, 'row' among them"
        raise DataError(msg)
    columns = {}
    for index, name in enumerate(header):
        if name in PLACES:
            continue
        parts = re.match(r"^(.+?)\s+(\S+(?:\s*[↑↓])?)$", name)
        if parts is None:
            msg = f"{source}: column {name!r} is not '<structure> <metric>', such as 'Lungs IoU'"
            raise DataError(msg)
        columns[index] = (parts[1], parts[2])
    return columns


def _value(text: str, place: str) -> tuple[float, float, str, Mark]:
    plain, mark = text.strip(), ""
    for pattern, meaning in _MARKED:
        found = pattern.match(plain)
        if found:
            plain, mark = found[1].strip(), meaning
    try:
        number = Decimal(plain.rstrip("%").strip())
        finite = number.is_finite()
    except InvalidOperation:
        finite = False
    if not finite:
        msg = f"{place}: {text.strip()!r} is not a number; leave a cell empty that has none"
        raise DataError(msg)
    exponent = number.as_tuple().exponent
    return float(number), 0.5 * 10.0 ** int(exponent), plain, mark  # type: ignore[return-value]


def _refuse_twice(cells: list[Cell], source: str) -> None:
    seen: set[tuple[str, ...]] = set()
    for cell in cells:
        key = (cell.table, cell.group, cell.row, cell.structure, cell.metric)
        if key in seen:
            msg = f"{source}: {cell.place} stands there twice"
            raise DataError(msg)
        seen.add(key)


def _as_fractions(cells: list[Cell]) -> tuple[Cell, ...]:
    """Divide overlaps by 100 if most of them are larger than 1: they are per cent."""
    overlaps = [abs(cell.value) for cell in cells if cell.kind in ("iou", "dice")]
    if not overlaps or float(np.median(overlaps)) <= 1.0:
        return tuple(cells)
    return tuple(
        Cell(
            **{
                **vars(cell),
                "value": cell.value / 100.0,
                "error": cell.error / 100.0,
            }
        )
        if cell.kind in ("iou", "dice")
        else cell
        for cell in cells
    )
