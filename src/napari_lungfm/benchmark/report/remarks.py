"""What must be said of the rows of a cohort: demonstrations, fallbacks, prompts that were none."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from napari_lungfm.benchmark.records import Record

#: Said of methods that were trained with a preset for demonstrations.
SMALL = "trained with a small preset for demonstrations, which says nothing about what it can do"


def remarks(records: Sequence[Record], cohort: str) -> list[str]:
    """Return what must be said of a cohort's rows, a sentence each.

    Parameters
    ----------
    records
        All records of the run.
    cohort
        Which cohort.
    """
    own = [record for record in records if record.key.cohort == cohort]
    small = dict.fromkeys(r.key.method for r in own if r.key.state == "small")
    said = [f"{', '.join(small)}: {SMALL}."] if small else []
    units = Counter((r.key.method, r.key.protocol) for r in own)
    notes: Counter[tuple[tuple[str, str], str]] = Counter()
    for record in own:
        texts = [*record.notes, *(result.note for result in record.structures if result.note)]
        row = (record.key.method, record.key.protocol)
        notes.update((row, text) for text in dict.fromkeys(texts))
    for (row, text), count in notes.items():
        said.append(f"{row[0]} under {row[1]}, {count} of {units[row]} units: {text}.")
    return said


def failures_frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return the failed units with what they said: one row each."""
    names = ["cohort", "case", "method", "protocol", "seed"]
    rows = [
        (*(getattr(record.key, name) for name in names), record.tries, record.error or "")
        for record in records
        if record.status == "failed"
    ]
    return pd.DataFrame(rows, columns=[*names, "tries", "error"])


def failure_kinds(records: Sequence[Record]) -> list[tuple[str, int, str]]:
    """Return each error with the number of units that failed with it and their methods."""
    counts: Counter[str] = Counter()
    methods: dict[str, dict[str, None]] = {}
    for record in records:
        if record.status == "failed":
            text = record.error or "no message"
            counts[text] += 1
            methods.setdefault(text, {})[record.key.method] = None
    return [(text, count, ", ".join(methods[text])) for text, count in counts.most_common()]
