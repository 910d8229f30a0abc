"""What must be said of the rows of a cohort: demonstrations, fallbacks, prompts that were none."""

from collections import Counter
from collections.abc import Sequence

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
