"""Cohorts made from raw downloads or any folder: cases, splits and a report on their quality."""
