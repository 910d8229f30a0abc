"""One printed value: its mean, what is printed beside it, its mark and its unit."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

from napari_lungfm._core.exceptions import DataError

#: What a value's print says of it.
Mark: TypeAlias = Literal["best", "second", ""]

_MARKED: tuple[tuple[re.Pattern[str], Mark], ...] = (
    (re.compile(r"^(?:\*\*|<b>)(.+?)(?:\*\*|</b>)(.*)$"), "best"),
    (re.compile(r"^\\(?:textbf|mathbf|bm)\{(.+?)\}(.*)$"), "best"),
    (re.compile(r"^(?:__|<u>)(.+?)(?:__|</u>)(.*)$"), "second"),
    (re.compile(r"^\\(?:underline|uline)\{(.+?)\}(.*)$"), "second"),
)
_NUMBER = r"[+\-−]?(?:\d+(?:[.,]\d+)?|[.,]\d+)(?:[eE][+-]?\d+)?"
_VALUE = re.compile(rf"^(?P<mean>{_NUMBER})\s*(?P<percent>%?)\s*(?P<spread>.*)$")
#: What may stand after a mean: ± 0.02, (0.02), (0.88 to 0.92), [0.88, 0.92].
_SPREAD = re.compile(
    rf"^(?:(?:±|\+/-|\+-|\$?\\pm\$?)\s*{_NUMBER}"
    r"|\((?=[^()]*\d)(?:[\d.,;:+\-−–±%\s]|to)+\)"
    r"|\[(?=[^\[\]]*\d)(?:[\d.,;:+\-−–±%\s]|to)+\])\s*(?P<percent>%?)$"
)


@dataclass(frozen=True)
class PrintedValue:
    """What a cell of a table says.

    Parameters
    ----------
    value, error
        The mean as it stands there, and half of its last printed digit.
    printed
        The mean as printed.
    spread
        What is printed after it; it takes no part in any check.
    mark
        Whether it was printed as the best or the second-best of its column.
    percent
        Whether it has a percent sign.
    decimal
        The sign before its decimals; empty where it has none.
    """

    value: float
    error: float
    printed: str
    spread: str
    mark: Mark
    percent: bool
    decimal: Literal[".", ",", ""]


def parse_value(text: str, place: str) -> PrintedValue:
    """Read a cell.

    Parameters
    ----------
    text
        The cell, not empty.
    place
        Where it stands, for the message.

    Raises
    ------
    DataError
        If it is no value.
    """
    plain, mark = text.strip().replace(r"\%", "%"), ""
    if plain.startswith("$") and plain.endswith("$") and plain.count("$") == 2:
        plain = plain[1:-1].strip()
    for pattern, meaning in _MARKED:
        marked = pattern.match(plain)
        if marked:
            plain, mark = f"{marked[1].strip()} {marked[2].strip()}".strip(), meaning
    found = _VALUE.match(plain)
    spread = _SPREAD.match(found["spread"]) if found and found["spread"] else None
    if found is None or (found["spread"] and spread is None):
        msg = (
            f"{place}: {text.strip()!r} is not a number (0.90 ± 0.02, 0.90 (0.02) and "
            "0.90 [0.88, 0.92] are); leave a cell empty that has none"
        )
        raise DataError(msg)
    mean = found["mean"]
    number = Decimal(mean.replace("−", "-").replace(",", "."))
    exponent = int(number.as_tuple().exponent)
    percent = bool(found["percent"] or (spread and spread["percent"]))
    return PrintedValue(
        float(number),
        0.5 * 10.0**exponent,
        mean + ("%" if percent else ""),
        found["spread"],
        mark,  # type: ignore[arg-type]
        percent,
        "," if "," in mean else "." if "." in mean else "",
    )
