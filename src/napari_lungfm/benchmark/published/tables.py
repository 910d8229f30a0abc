r"""Published tables as cells.

A file has one line per row of a table, with columns ``table`` and ``group`` (both may be left
out) and ``row`` (or ``method``, ``model``, or whatever the first column is called), and then one
column per structure and metric, ``Lungs IoU`` for instance, or the metric alone; units such as
``(%)`` may follow. A value in ``**bold**``, ``<b>bold</b>`` or ``\textbf{bold}`` was printed as
the best of its column, one in ``__underlined__``, ``<u>underlined</u>`` or
``\underline{underlined}`` as the second-best. An empty cell was not reported. Values are compared
with each other within a table and a group. Of ``0.90 ± 0.02``, ``0.90 (0.02)`` and
``0.90 [0.88, 0.92]`` the mean is taken. Cells are parted by commas, semicolons or tabulators;
numbers have a decimal point or, all of them, a decimal comma.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import numpy as np

from napari_lungfm._core.exceptions import DataError
from napari_lungfm.benchmark.delimited import Delimited, parse_delimited, read_delimited
from napari_lungfm.benchmark.published.headers import (
    ALIASES,
    SMALLER_IS_BETTER,
    ValueColumn,
    read_header,
)
from napari_lungfm.benchmark.published.values import Mark, PrintedValue, parse_value

_AVERAGES = frozenset({"avg", "average", "mean", "overall", "all"})
#: Overlaps above this are per cent, whatever the others of their table are.
_FRACTIONS = 2.0


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
        return ALIASES.get(name, name)

    @property
    def larger_is_better(self) -> bool:
        """Whether the column's best value is its largest."""
        if "↓" in self.metric or "↑" in self.metric:
            return "↑" in self.metric
        return not self.kind.startswith(SMALLER_IS_BETTER)

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
    warnings
        What of the file could not be made use of, a sentence each.
    """

    source: str
    cells: tuple[Cell, ...]
    weights: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

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
    cells, warnings = _cells(parse_delimited(text, PAPER.file), PAPER.file)
    return PublishedTables(PAPER.title, cells, PAPER.weights, warnings)


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
        If it is empty or not such a file, or the weights name structures that it does not have.
    """
    cells, warnings = _cells(read_delimited(path), str(path))
    weights = dict(weights or {})
    unknown = sorted(set(weights) - {cell.structure for cell in cells})
    if unknown:
        msg = f"{path}: no column is of {unknown[0]!r}, which a weight is given for"
        raise DataError(msg)
    return PublishedTables(str(path), cells, MappingProxyType(weights), warnings)


def _cells(table: Delimited, source: str) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """Return the values, and what must be said of columns that are not known."""
    columns = read_header(table.header, source, table.first_line)
    texts, kept = _left_out(table, columns.values)
    cells = []
    values: list[tuple[str, PrintedValue]] = []
    for number, line in table.rows:
        where = {name: line[index].strip() for name, index in columns.places.items()}
        for column in kept:
            if line[column.index].strip():
                place = f"{source}: line {number}, {column.heading}"
                found = parse_value(line[column.index], place)
                values.append((place, found))
                cells.append(_cell(where, column, found))
    if not cells:
        msg = f"{source}: there are no values in it"
        raise DataError(" ".join([f"{msg};" if texts else msg, *texts]))
    _refuse_two_decimals(values)
    _refuse_twice(cells, source)
    percents = {(c.structure, c.metric) for c in kept if c.percent}
    guessed = [c for c in kept if not c.known]
    if guessed:
        texts.append(
            f"no metric is known in {_quoted(guessed)}: its values are taken as better when "
            "larger, and only averages, marks and constant differences are tested"
        )
    return _as_fractions(cells, percents), tuple(texts)


def _cell(where: Mapping[str, str], column: ValueColumn, found: PrintedValue) -> Cell:
    return Cell(
        where.get("table", ""),
        where.get("group", ""),
        where["row"],
        column.structure,
        column.metric,
        found.value,
        found.error,
        found.printed,
        found.mark,
        found.percent,
        found.spread,
    )


def _left_out(
    table: Delimited, columns: Sequence[ValueColumn]
) -> tuple[list[str], list[ValueColumn]]:
    """Leave out columns of text, whose headings name no metric."""
    text = [c for c in columns if not c.known and not _all_values(table, c)]
    said = [f"left out, being no values of a known metric: {_quoted(text)}"] if text else []
    return said, [column for column in columns if column not in text]


def _all_values(table: Delimited, column: ValueColumn) -> bool:
    try:
        for _, line in table.rows:
            if line[column.index].strip():
                parse_value(line[column.index], "")
    except DataError:
        return False
    return True


def _quoted(columns: Sequence[ValueColumn]) -> str:
    return ", ".join(f"'{column.heading}'" for column in columns)


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


def _as_fractions(cells: list[Cell], percents_by_heading: set[tuple[str, str]]) -> tuple[Cell, ...]:
    """Divide overlaps in per cent by 100.

    Those with a percent sign, or with one in their heading, and those far above 1, which no
    fraction is. Up to `_FRACTIONS` a value without a sign is of the unit of most overlaps of its
    table: a fraction above 1 is for the audit to find, and 0.9 among percents may be either.
    """
    tables: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.is_overlap:
            tables.setdefault(cell.table, []).append(cell)
    percents = {
        name for name, own in tables.items() if float(np.median([abs(c.value) for c in own])) > 1.0
    }
    # A heading may say per cent over fractions: it counts where a value of its table is above 1.
    above = {name for name, own in tables.items() if any(abs(c.value) > 1.0 for c in own)}
    return tuple(
        _as_fraction(
            cell,
            cell.table in percents,
            cell.table in above and (cell.structure, cell.metric) in percents_by_heading,
        )
        for cell in cells
    )


def _as_fraction(cell: Cell, among_percents: bool, by_heading: bool) -> Cell:
    if not cell.is_overlap:
        return cell
    size = abs(cell.value)
    percent = by_heading or cell.percent or size > _FRACTIONS or (among_percents and size > 1.0)
    if not percent:
        return cell
    return replace(cell, value=cell.value / 100.0, error=cell.error / 100.0, percent=True)
