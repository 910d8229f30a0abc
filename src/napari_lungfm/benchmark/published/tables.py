"""Published tables as cells.

A file has one line per row of a table, with columns ``table`` and ``group`` (both may be left
out) and ``row``, and then one column per structure and metric, ``Lungs IoU`` for instance. A value
in ``**bold**`` or ``<b>bold</b>`` was printed as the best of its column, one in ``__underlined__``
or ``<u>underlined</u>`` as the second-best. An empty cell was not reported. Values are compared
with each other within a table and a group. Of ``0.90 ± 0.02``, ``0.90 (0.02)`` and
``0.90 [0.88, 0.92]`` the mean is taken. Cells are parted by commas, semicolons or tabulators;
numbers have a decimal point or, all of them, a decimal comma.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import numpy as np

from napari_lungfm._core.exceptions import DataError, InputFileError
from napari_lungfm.benchmark.published.values import Mark, PrintedValue, parse_value

#: Columns that say where a value stands.
PLACES = ("table", "group", "row")
_AVERAGES = frozenset({"avg", "average", "mean", "overall", "all"})
_METRICS = MappingProxyType(
    {"jaccard": "iou", "miou": "iou", "dsc": "dice", "f1": "dice", "dice score": "dice"}
)
#: What stands between the cells of a line.
_DELIMITERS = (",", ";", "\t")
#: Overlaps above this are per cent, whatever the others of their table are.
_FRACTIONS = 2.0
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
    percent
        Whether it was printed in per cent.
    spread
        What is printed beside the mean, such as ``± 0.02``.
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
    percent: bool = False
    spread: str = ""

    @property
    def is_overlap(self) -> bool:
        """Whether it is a share of 1: an IoU or a Dice."""
        return self.kind in ("iou", "dice")

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
    delimiter = _delimiter(text)
    lines = csv.reader(text.splitlines(), strict=True, delimiter=delimiter)
    try:
        header = [name.strip() for name in next(lines, [])]
        rows = [(lines.line_num, line) for line in lines if any(part.strip() for part in line)]
    except csv.Error as error:
        msg = f"{source}: line {lines.line_num} is not CSV ({error})"
        raise DataError(msg) from error
    columns = _columns(header, source)
    cells = []
    values: list[tuple[str, PrintedValue]] = []
    for number, line in rows:
        if len(line) != len(header):
            msg = f"{source}: line {number} has {len(line)} columns, the first line {len(header)}"
            if delimiter == "," and len(line) > len(header):
                msg += "; put cells with a comma in them into quotation marks, or part cells by ;"
            raise DataError(msg)
        where = {name: line[header.index(name)].strip() for name in PLACES if name in header}
        for index, (structure, metric) in columns.items():
            if line[index].strip():
                place = f"{source}: line {number}, {header[index]}"
                found = parse_value(line[index], place)
                values.append((place, found))
                cells.append(
                    Cell(
                        where.get("table", ""),
                        where.get("group", ""),
                        where["row"],
                        structure,
                        metric,
                        found.value,
                        found.error,
                        found.printed,
                        found.mark,
                        found.percent,
                        found.spread,
                    )
                )
    if not cells:
        msg = f"{source}: there are no values in it"
        raise DataError(msg)
    _refuse_two_decimals(values)
    _refuse_twice(cells, source)
    return _as_fractions(cells)


def _delimiter(text: str) -> str:
    """Return what parts the names of the first line, the comma where that cannot be told."""
    first = text.partition("\n")[0]
    counts = {
        sign: len(names)
        for sign in _DELIMITERS
        if "row" in (names := [part.strip(' "\r') for part in first.split(sign)])
    }
    return max(counts, key=lambda sign: counts[sign]) if counts else ","


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


def _refuse_twice(cells: list[Cell], source: str) -> None:
    seen: set[tuple[str, ...]] = set()
    for cell in cells:
        key = (cell.table, cell.group, cell.row, cell.structure, cell.metric)
        if key in seen:
            msg = f"{source}: {cell.place} stands there twice"
            raise DataError(msg)
        seen.add(key)


def _refuse_two_decimals(cells: list[tuple[str, PrintedValue]]) -> None:
    first: dict[str, tuple[str, PrintedValue]] = {}
    for place, cell in cells:
        if cell.decimal:
            first.setdefault(cell.decimal, (place, cell))
    if len(first) > 1:
        (place, comma), (other, point) = first[","], first["."]
        line = other.rpartition(": ")[2]
        msg = (
            f"{place}: {comma.printed!r} has a decimal comma, {point.printed!r} ({line}) a point; "
            "write all numbers alike"
        )
        raise DataError(msg)


def _as_fractions(cells: list[Cell]) -> tuple[Cell, ...]:
    """Divide overlaps in per cent by 100.

    Those with a percent sign, and those far above 1, which no fraction is. Up to `_FRACTIONS` a
    value without a sign is of the unit of most overlaps of its table: a fraction above 1 is for
    the audit to find, and 0.9 among percents may be either.
    """
    tables: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.is_overlap:
            tables.setdefault(cell.table, []).append(cell)
    percents = {
        name for name, own in tables.items() if float(np.median([abs(c.value) for c in own])) > 1.0
    }
    return tuple(_as_fraction(cell, cell.table in percents) for cell in cells)


def _as_fraction(cell: Cell, among_percents: bool) -> Cell:
    if not cell.is_overlap:
        return cell
    size = abs(cell.value)
    percent = cell.percent or size > _FRACTIONS or (among_percents and size > 1.0)
    if not percent:
        return cell
    return replace(cell, value=cell.value / 100.0, error=cell.error / 100.0, percent=True)
