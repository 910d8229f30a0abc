"""What the columns of a published table are: places, row names, structures and metrics."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from napari_lungfm._core.exceptions import DataError

#: Columns that say where a value stands, beside the name of the row, and their names.
_PLACES = {"table": ("table",), "group": ("group", "dataset", "cohort")}
#: Names of the column with the names of the rows, the first of them that is there.
_ROWS = ("row", "method", "methods", "model", "models", "network")
#: Other names of the metrics that have checks of their own.
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("jaccard", "jaccard index", "miou"), "iou"),
        **dict.fromkeys(
            ("dsc", "f1", "f1 score", "dice score", "dice coefficient", "dice similarity"), "dice"
        ),
    }
)
#: Distances and errors.
SMALLER_IS_BETTER = (
    "hd", "hd95", "95hd", "hausdorff", "assd", "asd", "msd", "rmse", "mae", "error", "distance",
)  # fmt: skip
_LARGER_IS_BETTER = (
    "iou", "dice", "nsd", "recall", "sensitivity", "specificity", "precision", "ppv", "accuracy",
    "auc",
)  # fmt: skip
_KNOWN = "|".join(
    re.escape(name)
    for name in sorted({*ALIASES, *SMALLER_IS_BETTER, *_LARGER_IS_BETTER}, key=len, reverse=True)
)
_LAST = re.compile(rf"^(?:(?P<structure>.*\S)[\s_:/,-]+)?(?P<metric>{_KNOWN})$", re.IGNORECASE)
_FIRST = re.compile(rf"^(?P<metric>{_KNOWN})(?:[\s_:/,-]+|(?=[(\[]))(?P<structure>\S.*)$", re.I)
_UNIT_NAMES = r"%|mm|cm|ml|mL|mm3|cm3|mm³|cm³|s|per\s?cent|percent"
_UNIT = re.compile(
    rf"[\s_]*(?:[(\[]\s*(?:in\s+)?(?P<a>{_UNIT_NAMES})\s*[)\]]|(?:[\s_,]+in)?[\s_,]+(?P<b>{_UNIT_NAMES})"
    r"|(?P<c>%))$"
)
_ARROW = re.compile(r"\s*[(\[]?([↑↓])[)\]]?\s*")
#: Words beside a metric that make it something else than a mean.
_SPREADS = frozenset({"std", "sd", "se", "sem", "ci", "low", "high", "min", "max", "iqr", "p", "n"})


@dataclass(frozen=True)
class ValueColumn:
    """A column of values.

    Parameters
    ----------
    index
        Which column.
    heading
        As printed.
    structure, metric
        What was measured; the structure is empty where the heading names a metric alone. The
        metric keeps an arrow, and has no unit.
    percent
        Whether the heading says per cent.
    known
        Whether the metric is known.
    """

    index: int
    heading: str
    structure: str
    metric: str
    percent: bool
    known: bool


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    Parameters
    ----------
    places
        ``table``, ``group`` and ``row`` → index of their column, those that are there.
    values
        The others.
    """

    places: Mapping[str, int]
    values: tuple[ValueColumn, ...]


def read_header(header: Sequence[str], source: str, first_line: str) -> Columns:
    """Tell what the columns are.

    Parameters
    ----------
    header
        Their names; those without a name are left out.
    source, first_line
        Name of the file and its first line, for messages.

    Raises
    ------
    DataError
        If no column has the names of the rows, none has values, or two are the same.
    """
    named = [(index, name) for index, name in enumerate(header) if name]
    lower = {name.lower(): index for index, name in reversed(named)}
    twice = next((n for k, (_, n) in enumerate(named) if n in [m for _, m in named[:k]]), None)
    if twice is not None:
        msg = f"{source}: the first line must name each column once; '{twice}' stands there twice"
        raise DataError(msg)
    found = {place: [lower[n] for n in names if n in lower] for place, names in _PLACES.items()}
    places = {place: indices[0] for place, indices in found.items() if indices}
    others = [(index, name) for index, name in named if index not in places.values()]
    rows = next((lower[name] for name in _ROWS if name in lower), None)
    if rows is None and others and not value_column(*others[0]).known:
        rows = others[0][0]
    values = tuple(value_column(*each) for each in others if each[0] != rows)
    if rows is None or not values:
        what = "a column with the names of the rows" if rows is None else "columns of values"
        msg = (
            f"{source}: the first line must name the columns: 'row', 'method' or 'model', and "
            f"'<structure> <metric>', such as 'Lungs IoU'; there are no {what} in '{first_line}'"
        ).replace("there are no a column", "there is no column")
        raise DataError(msg)
    _refuse_same(values, source)
    return Columns({**places, "row": rows}, values)


def value_column(index: int, heading: str) -> ValueColumn:
    """Tell what a column of values is, by its heading."""
    arrows = _ARROW.findall(heading)
    text = _ARROW.sub(" ", heading).strip()
    percent = False
    while (unit := _UNIT.search(text)) is not None and unit.start() > 0:
        name = unit["a"] or unit["b"] or unit["c"]
        percent |= name == "%" or name.lower().startswith("per")
        text = text[: unit.start()].strip()
    found = _LAST.match(text) or _FIRST.match(text)
    structure = (found["structure"] or "").strip(" ()[]:,") if found else ""
    known = found is not None and structure.strip(" .").lower() not in _SPREADS
    if known and found is not None:
        metric = found["metric"]
    else:
        first, _, last = text.rpartition(" ")
        structure, metric = first.strip(), last
    arrow = arrows[-1] if arrows else ""
    return ValueColumn(index, heading, structure, f"{metric}{arrow}", percent, known)


def _refuse_same(values: Sequence[ValueColumn], source: str) -> None:
    seen: dict[tuple[str, str], str] = {}
    for column in values:
        key = (column.structure.lower(), column.metric.lower())
        if key in seen:
            msg = f"{source}: columns '{seen[key]}' and '{column.heading}' are of the same value"
            raise DataError(msg)
        seen[key] = column.heading
