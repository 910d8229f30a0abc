"""No image is trained on and tested on: what may be the same is read and compared."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from napari_lungfm.datasets.cases import CaseSource, Cohort
from napari_lungfm.training.automatic.split import KnownCase
from napari_lungfm.training.finetune.overlap import refuse_test_patients

#: Keeps the hashes of the test images that were read, in the run folder.
KNOWN = "test-images.json"


def refuse_test_images(cohort: Cohort, cases: Sequence[KnownCase], run: Path) -> None:
    """Refuse a training set with a CT in it that the cohort is tested on.

    Only test images whose files are as long as those of a training case are read: a copy under
    another name is found, a copy in another format is not.

    Parameters
    ----------
    cohort
        The cohort.
    cases
        Its training cases.
    run
        The run folder.

    Raises
    ------
    CohortError
        If there is one; the message names it.
    OutputError
        If the hashes cannot be kept.
    """
    lengths = {length for source in cohort.train if (length := _length(source))}
    names = {source.name.casefold() for source in cohort.train}
    alike = tuple(
        source
        for source in cohort.test
        if source.name.casefold() in names or _length(source) in lengths
    )
    if alike:
        known = cast("Sequence[Any]", cases)
        refuse_test_patients(replace(cohort, test=alike), known, run / KNOWN)


def _length(source: CaseSource) -> int:
    """Bytes of the files of a case's image; 0 of images that are made."""
    paths = source.inputs()[:1]
    files = [f for p in paths for f in (p.rglob("*") if p.is_dir() else [p]) if f.is_file()]
    return sum(file.stat().st_size for file in files)
