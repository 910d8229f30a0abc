"""Patients of Task06_Lung (Medical Segmentation Decathlon)."""

from pathlib import Path

from napari_lungfm._core.types import PathInput
from napari_lungfm.benchmark.cohorts.raw import FileRawCase
from napari_lungfm.datasets.file_cohort import FileCase
from napari_lungfm.datasets.sources import TASK06
from napari_lungfm.datasets.sources.task06 import labelled_images


def task06_cases(raw: PathInput) -> tuple[FileRawCase, ...]:
    """Find the labelled cases of an unpacked Task06.

    Parameters
    ----------
    raw
        The folder with ``dataset.json``, or the folder that it lies in.

    Raises
    ------
    InputFileError
        If it is not there or not whole.
    """
    folder = Path(raw)
    if TASK06.archive is not None and (folder / TASK06.archive.folder).is_dir():
        folder = folder / TASK06.archive.folder
    return tuple(
        FileRawCase(
            FileCase(
                name=each.name,
                image=str(each.image.resolve()),
                mask=str(each.mask.resolve()),
                values={1: "tumour"},
            ),
            folder,
            "label 1",
        )
        for each in labelled_images(folder)
    )
