"""Cases, cohorts, splits and synthetic chest CTs."""

from napari_lungfm.datasets.cases import Case, CaseSource, Cohort

__all__ = ["Case", "CaseSource", "Cohort"]
