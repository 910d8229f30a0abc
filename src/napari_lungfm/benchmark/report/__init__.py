"""Reports of a run: page, tables and figures, made from its records alone."""

from napari_lungfm.benchmark.report.summary import summarise
from napari_lungfm.benchmark.report.terminal import print_table
from napari_lungfm.benchmark.report.write import ReportFiles, write_report

__all__ = ["ReportFiles", "print_table", "summarise", "write_report"]
