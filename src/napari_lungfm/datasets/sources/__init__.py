"""Public data sets: where they are, under which licence, and how to get them."""

from napari_lungfm.datasets.sources.cards import (
    LUNG1,
    SOURCES,
    TASK06,
    Archive,
    KnownProblem,
    SourceCard,
    source_card,
)

__all__ = [
    "LUNG1",
    "SOURCES",
    "TASK06",
    "Archive",
    "KnownProblem",
    "SourceCard",
    "source_card",
]
