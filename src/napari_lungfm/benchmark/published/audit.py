"""Arithmetic that published tables must stand up to.

No image and no model is needed: the checks ask whether the numbers of a table can be true
together. A finding is a question to the authors and not a verdict; rounding is allowed for
everywhere.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from napari_lungfm.benchmark.published.tables import Cell, PublishedTables

#: How much weight a finding has: it cannot be; it does not follow from the table's own numbers;
#: it would be a strange coincidence; only the print is wrong; or it is just worth knowing.
Severity: TypeAlias = Literal["impossible", "inconsistent", "suspicious", "typography", "note"]
#: Rows from which on a constant difference is worth asking about.
LEAST_ROWS = 6
#: A difference is "nearly constant" if it varies by less than this fraction of the values' range.
CONSTANT = 0.02
#: Equal values from which on two rows are called the same.
LEAST_EQUAL = 4


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Parameters
    ----------
    check
        Name of the check; see `CHECKS`.
    severity
        How much weight it has.
    table, group, row, column
        Where; several rows are joined by semicolons.
    sentence
        The finding in one sentence.
    numbers
        What the sentence rests on.
    """

    check: str
    severity: Severity
    table: str
    group: str
    row: str
    column: str
    sentence: str
    numbers: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Audit:
    """What an audit came to.

    Parameters
    ----------
    source
        What was audited.
    findings
        Check by check, in the order of the tables.
    tested
        How many places every check looked at.
    warnings
        What of the tables could not be made use of, a sentence each.
    """

    source: str
    findings: tuple[Finding, ...]
    tested: dict[str, int]
    warnings: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What it came to, in one line; that nothing was found says nothing without a test."""
        # Rows are compared with each other whatever they hold, so these are no test of a value.
        places = sum(count for name, count in self.tested.items() if name != "repeated")
        if not places and not self.findings:
            return (
                "nothing was tested: there is no IoU, Dice, average or marked value that a check "
                "knows"
            )
        count = len(self.findings)
        findings = f"{count} finding{'' if count == 1 else 's'}"
        if not self.findings:
            return f"{findings} in {places} places that were tested"
        return f"{findings}; each is a question, not a verdict"

    def of(self, check: str) -> tuple[Finding, ...]:
        """Return the findings of one check."""
        return tuple(finding for finding in self.findings if finding.check == check)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "source": self.source,
            "summary": self.summary,
            "warnings": list(self.warnings),
            "checks": {
                name: {"question": CHECKS[name], "tested": count, "found": len(self.of(name))}
                for name, count in self.tested.items()
            },
            "findings": [finding.to_dict() for finding in self.findings],
        }


#: The checks and what they ask.
CHECKS = {
    "range": "Does every IoU and Dice lie between 0 and 1?",
    "average": "Does every average follow from the structures of its own row?",
    "dice-iou": "Can a mean Dice and a mean IoU of the same cases stand side by side?",
    "constant-difference": "Do two structures differ as independent measurements would?",
    "marks": "Are the best and the second-best value of every column marked, and no other?",
    "units": "Are all overlaps of a table fractions, or all of them per cent?",
    "repeated": "Which rows stand in several places?",
}


def audit(tables: PublishedTables) -> Audit:
    """Check published tables by arithmetic alone.

    Parameters
    ----------
    tables
        The tables.
    """
    checks: dict[str, Callable[[PublishedTables], _Result]] = {
        "range": _range,
        "average": _average,
        "dice-iou": _dice_iou,
        "constant-difference": _constant_difference,
        "marks": _marks,
        "units": _units,
        "repeated": _repeated,
    }
    results = {name: check(tables) for name, check in checks.items()}
    return Audit(
        tables.source,
        tuple(finding for result in results.values() for finding in result.findings),
        {name: result.tested for name, result in results.items()},
        tables.warnings,
    )


@dataclass
class _Result:
    tested: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(
        self, check: str, severity: Severity, cell: Cell, sentence: str, **numbers: Any
    ) -> None:
        self.findings.append(
            Finding(
                check, severity, cell.table, cell.group, cell.row, cell.column, sentence, numbers
            )
        )


def _range(tables: PublishedTables) -> _Result:
    result = _Result()
    for cell in tables.cells:
        if cell.is_overlap:
            result.tested += 1
            if not 0.0 <= cell.value <= 1.0:
                sentence = f"{cell.place}: {cell.column} {cell.printed} lies outside 0 to 1."
                result.add("range", "impossible", cell, sentence, value=cell.value)
    return result


# ---------------------------------------------------------------------- averages
def _average(tables: PublishedTables) -> _Result:
    result = _Result()
    for cells in tables.by("table", "group", "row", "metric").values():
        parts = [cell for cell in cells if not cell.is_average]
        for average in (cell for cell in cells if cell.is_average):
            if len(parts) > 1:
                result.tested += 1
                _check_average(result, average, parts, tables)
    return result


def _check_average(
    result: _Result, average: Cell, parts: Sequence[Cell], tables: PublishedTables
) -> None:
    weights = [tables.weights.get(cell.structure, 1.0) for cell in parts]
    total = sum(weights)
    pairs = list(zip(weights, parts, strict=True))
    expected = sum(w * c.value for w, c in pairs) / total
    allowed = average.error + sum(w * c.error for w, c in pairs) / total
    if abs(average.value - expected) <= allowed * (1 + 1e-6):
        return
    terms = " + ".join(f"{w:g} × {c.printed}" if w != 1 else c.printed for w, c in pairs)
    sentence = (
        f"{average.place}: {average.column} {average.printed} is not the average of its row, "
        f"({terms}) / {total:g} = {expected:.4f}"
    )
    low, high = min(parts, key=lambda c: c.value), max(parts, key=lambda c: c.value)
    outside = (
        average.value - average.error > high.value + high.error
        or average.value + average.error < low.value - low.error
    )
    numbers: dict[str, Any] = {"published": average.value, "expected": expected}
    severity: Severity = "impossible" if outside else "inconsistent"
    if abs(average.value - expected) <= 2 * allowed:
        severity = "note"
        sentence += "; values cut off instead of rounded would explain it"
    elif outside:
        side = "more" if average.value > high.value else "less"
        sentence += f", and {side} than any value that it averages"
    elif len(parts) == 2 and parts[0].value != parts[1].value:
        first, second = parts
        share = (average.value - second.value) / (first.value - second.value)
        numbers["implied_weight"] = share
        sentence += (
            f"; it would be with a weight of {share:.2f} for {first.structure} "
            f"and not {weights[0] / total:.2f}"
        )
    result.add("average", severity, average, f"{sentence}.", **numbers)


# ---------------------------------------------------------------------- Dice and IoU
def _dice_iou(tables: PublishedTables) -> _Result:
    """Compare mean Dice with mean IoU of the same cases.

    In each case Dice = 2·IoU / (1 + IoU), a concave function, so by Jensen's inequality a mean
    Dice is at most 2·m / (1 + m) for a mean IoU of m; and it is at least m, since Dice ≥ IoU.
    """
    result = _Result()
    for cells in tables.by("table", "group", "row", "structure").values():
        kinds = {cell.kind: cell for cell in cells}
        if not {"iou", "dice"} <= kinds.keys():
            continue
        iou, dice = kinds["iou"], kinds["dice"]
        if not 0.0 <= iou.value <= 1.0:
            continue
        result.tested += 1
        most = 2.0 * iou.value / (1.0 + iou.value)
        reach = iou.value + iou.error
        if dice.value - dice.error > 2.0 * reach / (1.0 + reach):
            sentence = (
                f"{dice.place}: a mean {dice.column} of {dice.printed} is more than "
                f"2·IoU / (1 + IoU) = {most:.4f}, which no mean over cases with a mean IoU of "
                f"{iou.printed} can exceed."
            )
            result.add("dice-iou", "impossible", dice, sentence, dice=dice.value, most=most)
        elif dice.value + dice.error < iou.value - iou.error:
            sentence = (
                f"{dice.place}: a mean {dice.column} of {dice.printed} is less than the mean IoU "
                f"of {iou.printed}, although Dice is never below IoU."
            )
            result.add("dice-iou", "impossible", dice, sentence, dice=dice.value, least=iou.value)
    return result


# ---------------------------------------------------------------------- differences
def _constant_difference(tables: PublishedTables) -> _Result:
    result = _Result()
    for cells in tables.by("table", "metric").values():
        rows: dict[tuple[str, str], dict[str, Cell]] = {}
        for cell in cells:
            if not cell.is_average:
                rows.setdefault((cell.group, cell.row), {})[cell.structure] = cell
        structures = list(dict.fromkeys(c.structure for c in cells if not c.is_average))
        for first, second in itertools.combinations(structures, 2):
            pairs = [
                (row[first], row[second]) for row in rows.values() if {first, second} <= row.keys()
            ]
            if len(pairs) < LEAST_ROWS:
                continue
            result.tested += 1
            found = _most_alike(pairs)
            if len(found) >= max(LEAST_ROWS, len(pairs) / 2):
                _add_constant(result, found, len(pairs))
    return result


def _most_alike(pairs: Sequence[tuple[Cell, Cell]]) -> list[tuple[Cell, Cell]]:
    """Return the most rows whose difference varies little beside the values themselves."""
    ordered = sorted(pairs, key=_difference)
    for size in range(len(ordered), LEAST_ROWS - 1, -1):
        for start in range(len(ordered) - size + 1):
            part = ordered[start : start + size]
            spread = _difference(part[-1]) - _difference(part[0])
            if spread <= CONSTANT * min(_spread(c for c, _ in part), _spread(c for _, c in part)):
                return [pair for pair in pairs if pair in part]
    return []


def _difference(pair: tuple[Cell, Cell]) -> float:
    return pair[0].value - pair[1].value


def _spread(cells: Iterator[Cell]) -> float:
    values = [cell.value for cell in cells]
    return max(values) - min(values)


def _add_constant(result: _Result, found: list[tuple[Cell, Cell]], of: int) -> None:
    first, second = found[0]
    differences = [_difference(pair) for pair in found]
    values = [cell.value for cell, _ in found]
    rows = [", ".join(part for part in (c.group, c.row) if part) for c, _ in found]
    where = f"{first.table}: " if first.table else ""
    sentence = (
        f"{where}in {len(found)} of {of} rows {first.column} minus {second.column} is nearly one "
        f"constant ({min(differences):.4f} to {max(differences):.4f}) while {first.structure} goes "
        f"from {min(values):.4f} to {max(values):.4f}; independent measurements would not do that."
    )
    result.findings.append(
        Finding(
            "constant-difference",
            "suspicious",
            first.table,
            "",
            "; ".join(rows),
            f"{first.structure} − {second.structure} {first.metric}",
            sentence,
            {"rows": len(found), "least": min(differences), "most": max(differences)},
        )
    )


# ---------------------------------------------------------------------- bold and underlined
def _marks(tables: PublishedTables) -> _Result:
    result = _Result()
    # A table that only prints the best in bold is not asked for the second-best.
    used = {name: {c.mark for c in cells} for (name,), cells in tables.by("table").items()}
    for cells in tables.by("table", "group", "structure", "metric").values():
        if len(cells) < 2 or not any(cell.mark for cell in cells):
            continue
        sign = 1.0 if cells[0].larger_is_better else -1.0
        values = sorted({cell.value for cell in cells}, key=lambda v: -sign * v)
        for cell in cells:
            result.tested += 1
            rank = values.index(cell.value)
            right = {0: "best", 1: "second"}.get(rank, "")
            right = right if right in used[cell.table] else ""
            if cell.mark != right:
                place = _RANKS.get(rank, "neither the best nor the second-best")
                sentence = (
                    f"{cell.place}: {cell.column} {cell.printed} is {place} of its column "
                    f"but {_PRINTS[cell.mark]}."
                )
                result.add("marks", "typography", cell, sentence, mark=cell.mark, rank=rank + 1)
    return result


_RANKS = {0: "the best", 1: "the second-best"}
_PRINTS = {
    "best": "marked as the best",
    "second": "marked as the second-best",
    "": "not marked at all",
}


# ---------------------------------------------------------------------- units
def _units(tables: PublishedTables) -> _Result:
    result = _Result()
    for cells in tables.by("table").values():
        overlaps = [cell for cell in cells if cell.is_overlap and cell.value]
        if not overlaps:
            continue
        result.tested += 1
        percents = [cell for cell in overlaps if cell.percent]
        fractions = [cell for cell in overlaps if not cell.percent]
        if percents and fractions:
            few = min(percents, fractions, key=len)[0]
            where = f"{few.table}: " if few.table else ""
            sentence = (
                f"{where}{len(percents)} overlaps are per cent (such as {percents[0].printed}: "
                f"{percents[0].row}, {percents[0].column}) and {len(fractions)} fractions (such as "
                f"{fractions[0].printed}: {fractions[0].row}, {fractions[0].column}); all other "
                "checks take each as such."
            )
            numbers = {"percents": len(percents), "fractions": len(fractions)}
            result.add("units", "inconsistent", few, sentence, **numbers)
    return result


# ---------------------------------------------------------------------- repeated rows
def _repeated(tables: PublishedTables) -> _Result:
    result = _Result()
    rows = list(tables.by("table", "group", "row").values())
    for one, other in itertools.combinations(rows, 2):
        result.tested += 1
        here = {cell.column: cell.value for cell in one}
        there = {cell.column: cell.value for cell in other}
        shared = here.keys() & there.keys()
        if len(shared) >= LEAST_EQUAL and all(here[c] == there[c] for c in shared):
            sentence = (
                f"{one[0].place} and {other[0].place} have the same {len(shared)} values: "
                "one experiment, reported twice."
            )
            result.findings.append(
                Finding(
                    "repeated",
                    "note",
                    one[0].table,
                    one[0].group,
                    f"{one[0].row}; {other[0].place}",
                    "",
                    sentence,
                    {"values": len(shared)},
                )
            )
    return result
