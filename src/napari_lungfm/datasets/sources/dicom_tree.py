"""DICOM folders of any layout, sorted by patient and series."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from napari_lungfm._core.exceptions import InputFileError
from napari_lungfm._core.types import PathInput
from napari_lungfm.io.dicom_files import DicomFile, scan_folder


@dataclass(frozen=True)
class SeriesFiles:
    """The files of one series: its UID, modality, description and files."""

    uid: str
    modality: str
    description: str
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class PatientFiles:
    """What a folder holds of one patient.

    Parameters
    ----------
    patient
        PatientID.
    series
        Their series, sorted by modality and UID.
    damaged
        Files beside theirs that must have been DICOM once.
    """

    patient: str
    series: tuple[SeriesFiles, ...]
    damaged: tuple[Path, ...] = field(default=())

    def of(self, modality: str) -> tuple[SeriesFiles, ...]:
        """Return the series of one modality."""
        return tuple(each for each in self.series if each.modality == modality)


def find_patients(
    folder: PathInput, *, progress: Callable[[int], None] | None = None
) -> dict[str, PatientFiles]:
    """Read the headers of all DICOM files in a folder and its sub-folders.

    Parameters
    ----------
    folder
        Any layout: the tags decide, not the names. Names that begin with a dot are passed over.
    progress
        Called with the number of DICOM files found so far.

    Returns
    -------
    dict of str to PatientFiles
        By PatientID, sorted.

    Raises
    ------
    InputFileError
        If there is no such folder, or no DICOM file in it.
    """
    root = Path(folder)
    if not root.is_dir():
        reason = "it is a file, not a folder" if root.exists() else "there is no such folder"
        msg = f"cannot read DICOM from '{root}': {reason}"
        raise InputFileError(msg)
    files: dict[str, dict[str, list[DicomFile]]] = {}
    damaged: dict[str, list[Path]] = {}
    count = 0
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not names:
            continue
        scan = scan_folder(Path(place), recursive=False)
        here = {file.text("PatientID") for file in scan.files}
        for file in scan.files:
            patient = files.setdefault(file.text("PatientID"), {})
            patient.setdefault(file.text("SeriesInstanceUID"), []).append(file)
        for patient_id in here:
            damaged.setdefault(patient_id, []).extend(path for path, _ in scan.damaged)
        count += len(scan.files)
        if progress is not None:
            progress(count)
    if not files:
        msg = f"there are no DICOM files in '{root}' and its sub-folders"
        raise InputFileError(msg)
    return {name: _patient(name, files[name], damaged[name]) for name in sorted(files)}


def _patient(name: str, series: Mapping[str, list[DicomFile]], damaged: list[Path]) -> PatientFiles:
    found = [
        SeriesFiles(
            uid,
            group[0].text("Modality"),
            group[0].text("SeriesDescription"),
            tuple(sorted(file.path for file in group)),
        )
        for uid, group in series.items()
    ]
    order = sorted(found, key=lambda each: (each.modality, each.uid))
    return PatientFiles(name, tuple(order), tuple(damaged))
