"""Which weights made which rows: files and their hashes, as the records have them."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from napari_lungfm.benchmark.records import Record

_ROW = ["cohort", "method"]
#: Digits of a hash that a sentence shows.
_SHOWN = 12


def weights_frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return the files that each method was made from on each cohort.

    Returns
    -------
    DataFrame
        ``cohort``, ``method``, ``file`` (or name in the catalogue), ``sha256``, ``units`` (with a
        record that names it). Methods without weights have no row, and neither have records of
        programs that did not note them.
    """
    counts: Counter[tuple[str, str, str, str]] = Counter()
    for record in records:
        place = (record.key.cohort, record.key.method)
        counts.update((*place, file, mark) for file, mark in record.weights.items())
    rows = [(*names, count) for names, count in counts.items()]
    return pd.DataFrame(rows, columns=[*_ROW, "file", "sha256", "units"])


def different_weights(a: Sequence[Record], b: Sequence[Record]) -> list[str]:
    """Return a sentence on every method whose weights differ between two runs.

    Parameters
    ----------
    a, b
        The records of either run. Methods that one run alone has are left out, and so are those
        whose weights either run has not noted.
    """
    first, second = (_by_row(records) for records in (a, b))
    said = []
    for row in first:
        mine, theirs = first[row], second.get(row)
        if not mine or not theirs or mine == theirs:
            continue
        names = sorted({file for file, _ in mine ^ theirs})
        file = names[0]
        hashes = [
            " and ".join(sorted(mark[:_SHOWN] for name, mark in found if name == file)) or "none"
            for found in (mine, theirs)
        ]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        said.append(
            f"Different weights of {row[1]} on {row[0]}: {file}{more} (sha256 {hashes[0]} in A, "
            f"{hashes[1]} in B)."
        )
    return said


def _by_row(records: Sequence[Record]) -> dict[tuple[str, str], set[tuple[str, str]]]:
    found: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for record in records:
        row = (record.key.cohort, record.key.method)
        found.setdefault(row, set()).update(record.weights.items())
    return found
