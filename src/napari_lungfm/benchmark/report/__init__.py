"""Reports of a run: page, tables and figures, made from its records alone."""

from napari_lungfm.benchmark.report.compare import ComparisonFiles, compare_runs
from napari_lungfm.benchmark.report.summary import summarise
from napari_lungfm.benchmark.report.terminal import print_table
from napari_lungfm.benchmark.report.trace import trace
from napari_lungfm.benchmark.report.traced import OtherRow, Trace, TracedUnit
from napari_lungfm.benchmark.report.write import ReportFiles, write_report

__all__ = [
    "ComparisonFiles",
    "OtherRow",
    "ReportFiles",
    "Trace",
    "TracedUnit",
    "compare_runs",
    "print_table",
    "summarise",
    "trace",
    "write_report",
]
