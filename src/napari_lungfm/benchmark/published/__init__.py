"""Published tables: what others reported, read from a CSV file and checked by arithmetic."""

from napari_lungfm.benchmark.published.audit import CHECKS, Audit, Finding, audit
from napari_lungfm.benchmark.published.tables import (
    PAPER,
    Cell,
    PublishedTables,
    read_paper,
    read_tables,
)

__all__ = [
    "CHECKS",
    "PAPER",
    "Audit",
    "Cell",
    "Finding",
    "PublishedTables",
    "audit",
    "read_paper",
    "read_tables",
]
