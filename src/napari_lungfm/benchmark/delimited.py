"""Tables as people write them: CSV parted by commas, semicolons or tabulators."""

import csv
from dataclasses import dataclass
from pathlib import Path

from napari_lungfm._core.exceptions import DataError, InputFileError

#: What may stand between the cells of a line; European Excel writes semicolons.
_DELIMITERS = (",", ";", "\t")
#: So much of a line is shown in messages.
_SHOWN = 80


@dataclass(frozen=True)
class Delimited:
    """A table of text.

    Parameters
    ----------
    header
        The names in the first line, without blanks around them.
    rows
        Number of the line and its cells, as many as the header has; lines without any text are
        left out.
    first_line
        The first line as it stands there, cut off where it is long.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    first_line: str


def read_delimited(path: Path) -> Delimited:
    """Read a table.

    Parameters
    ----------
    path
        A text file; its first line names the columns.

    Raises
    ------
    InputFileError
        If the file cannot be read.
    DataError
        If it is empty or no such table.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        utf = "it is not UTF-8 text; save it as 'CSV UTF-8'"
        reason = error.strerror if isinstance(error, OSError) else utf
        msg = f"'{path}' cannot be read: {reason}"
        raise InputFileError(msg) from error
    return parse_delimited(text, str(path))


def parse_delimited(text: str, source: str) -> Delimited:
    """Read a table from text.

    Parameters
    ----------
    text
        What stands in the file.
    source
        Its name, for messages.

    Raises
    ------
    DataError
        If it is empty, a line has another number of cells than the first one, or quotation marks
        are left open.
    """
    if not text.strip():
        msg = f"{source}: the file is empty"
        raise DataError(msg)
    delimiter = _delimiter(text)
    lines = csv.reader(text.splitlines(), strict=True, delimiter=delimiter)
    try:
        header = tuple(name.strip() for name in next(lines))
        rows = [(lines.line_num, tuple(line)) for line in lines if any(c.strip() for c in line)]
    except csv.Error as error:
        msg = f"{source}: line {lines.line_num} is not CSV ({error})"
        raise DataError(msg) from error
    for number, line in rows:
        if len(line) != len(header):
            msg = f"{source}: line {number} has {len(line)} columns, the first line {len(header)}"
            if delimiter == "," and len(line) > len(header):
                msg += "; put cells with a comma in them into quotation marks, or part cells by ;"
            raise DataError(msg)
    first = text.splitlines()[0].strip()
    shown = first if len(first) <= _SHOWN else f"{first[:_SHOWN]}..."
    return Delimited(header, tuple(rows), shown)


def _delimiter(text: str) -> str:
    """Return what parts the cells: what gives all lines the same number, the most of them."""
    found = [(count, sign) for sign in _DELIMITERS if (count := _same_count(text, sign)) > 1]
    if found:
        return max(found, key=lambda each: each[0])[1]
    first = text.partition("\n")[0]
    return max(_DELIMITERS, key=first.count)


def _same_count(text: str, sign: str) -> int:
    """Return the number of cells of every line; 0 where they differ."""
    try:
        lines = list(csv.reader(text.splitlines(), strict=True, delimiter=sign))
    except csv.Error:
        return 0
    counts = {len(line) for line in lines if any(cell.strip() for cell in line)}
    return counts.pop() if len(counts) == 1 else 0
