"""DICOM image series: find them in a folder, choose one, read it as a `Volume` in HU."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_lungfm._core.exceptions import DicomError, UsageError
from napari_lungfm._core.types import PathInput, ProgressCallback, VoxelArray
from napari_lungfm.geometry import Volume
from napari_lungfm.io.dicom_files import DicomFile, Scan, scan_folder
from napari_lungfm.io.dicom_pixels import AIR_HU, read_slice_values, rescale_of
from napari_lungfm.io.multiframe import read_multiframe
from napari_lungfm.io.slice_stack import SliceStack, arrange

_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class SeriesInfo:
    """One image series in a folder.

    Attributes
    ----------
    uid, study_uid
        SeriesInstanceUID and StudyInstanceUID.
    modality
        For example ``"CT"``; empty where the files do not say.
    description
        SeriesDescription, or empty.
    n_files
        Number of files, localizers included.
    patient_id, study_date
        As in the files; the date is ``YYYYMMDD`` or empty.
    paths
        The files, sorted by name.
    """

    uid: str
    study_uid: str
    modality: str
    description: str
    n_files: int
    patient_id: str
    study_date: str
    paths: tuple[Path, ...] = field(repr=False)

    def __str__(self) -> str:
        """One line for a list to choose from."""
        modality = self.modality or "no modality"
        described = f" '{self.description}'" if self.description else ""
        return f"{self.uid} ({modality}{described}, {self.n_files} files)"


@dataclass(frozen=True)
class SegmentationInfo:
    """An RTSTRUCT or DICOM SEG file in a folder; ``kind`` is ``"RTSTRUCT"`` or ``"SEG"``."""

    path: Path
    kind: str
    description: str
    patient_id: str
    study_date: str
    frame_of_reference_uid: str


def find_series(folder: PathInput) -> list[SeriesInfo]:
    """List the image series in a folder and its sub-folders, sorted by UID.

    Files are known by their content, so those without ``.dcm`` or without the Part 10 preamble
    count; other files, DICOMDIR, segmentations and reports are left out.

    Raises
    ------
    InputFileError
        If there is no such folder.
    """
    return _series_of(scan_folder(Path(folder)))


def find_segmentations(folder: PathInput) -> list[SegmentationInfo]:
    """List the RTSTRUCT and DICOM SEG files in a folder and its sub-folders, sorted by path."""
    found = []
    for file in scan_folder(Path(folder)).files:
        kind = file.text("Modality")
        if kind in ("RTSTRUCT", "SEG"):
            info = SegmentationInfo(
                file.path,
                kind,
                file.text("SeriesDescription"),
                file.text("PatientID"),
                file.text("StudyDate"),
                _frame_of_reference(file),
            )
            found.append(info)
    return found


def read_series(
    folder: PathInput, *, series: str | None = None, progress: ProgressCallback | None = None
) -> Volume:
    """Read a DICOM series from a folder and its sub-folders.

    Slices are sorted by their place along the slice normal and rescaled one by one. Localizers
    in the series are left out, padding becomes −1024 HU (see `read_slice_values`), and
    ``metadata["notes"]`` says so. A series of one slice is read when a thickness is given.
    Enhanced (multi-frame) images are read too.

    Parameters
    ----------
    folder
        The folder.
    series
        SeriesInstanceUID or a beginning of it that fits one series; needed only where the
        folder holds several.
    progress
        Called with the number of slices read and their total.

    Returns
    -------
    Volume
        Voxels ``(z, y, x)``, HU for CT: int16 where whole and fitting, otherwise float32. The
        metadata hold ``patient_id``, ``study_uid``, ``series_uid``, ``frame_of_reference_uid``,
        ``modality``, ``series_description``, ``study_date``, ``window_centre`` and
        ``window_width`` (where present), ``sop_instance_uids`` in slice order, ``source`` and
        ``notes``.

    Raises
    ------
    InputFileError
        If there is no such folder.
    UsageError
        If there are several series and ``series`` does not choose one.
    DicomError
        If there is no image series, or it is not a complete regular stack of readable slices.
    """
    scan = scan_folder(Path(folder))
    return _read(_choose(scan, Path(folder), series), progress)


def read_series_of(path: PathInput, *, progress: ProgressCallback | None = None) -> Volume:
    """Read the series that a DICOM file belongs to, from the file's own folder.

    Raises
    ------
    DicomError
        If the file is damaged or no image, besides the reasons of `read_series`.
    """
    file = Path(path)
    scan = scan_folder(file.parent, recursive=False)
    own = next((f for f in scan.files if f.path.name == file.name), None)
    if own is None:
        reasons = [reason for damaged, reason in scan.damaged if damaged.name == file.name]
        raise DicomError(reasons[0] if reasons else f"'{path}' is not a readable DICOM file")
    if not own.is_scan:
        msg = f"'{path}' is no image but {own.text('Modality') or 'another kind of DICOM object'}"
        raise DicomError(msg)
    return _read(_choose(scan, file.parent, own.text("SeriesInstanceUID")), progress)


def arrange_series(folder: PathInput, *, series: str | None = None) -> SliceStack:
    """Return the slices of a series in order, with their grid, without reading pixels.

    Parameters and errors are those of `read_series`.
    """
    files, notes = _without_localizers(_choose(scan_folder(Path(folder)), Path(folder), series))
    stack = arrange(files)
    return SliceStack(stack.files, stack.geometry, (*notes, *stack.notes))


def _frame_of_reference(file: DicomFile) -> str:
    """FrameOfReferenceUID, which an RTSTRUCT often has in its references only."""
    referenced = file.header.get("ReferencedFrameOfReferenceSequence") or [{}]
    return file.text("FrameOfReferenceUID") or str(referenced[0].get("FrameOfReferenceUID", ""))


def _series_of(scan: Scan) -> list[SeriesInfo]:
    groups: dict[str, list[DicomFile]] = {}
    for file in scan.files:
        if file.is_scan:
            groups.setdefault(file.text("SeriesInstanceUID"), []).append(file)
    return [_describe(uid, groups[uid]) for uid in sorted(groups)]


def _describe(uid: str, files: Sequence[DicomFile]) -> SeriesInfo:
    first = files[0]
    return SeriesInfo(
        uid=uid,
        study_uid=first.text("StudyInstanceUID"),
        modality=first.text("Modality"),
        description=first.text("SeriesDescription"),
        n_files=len(files),
        patient_id=first.text("PatientID"),
        study_date=first.text("StudyDate"),
        paths=tuple(f.path for f in files),
    )


def _choose(scan: Scan, folder: Path, wanted: str | None) -> list[DicomFile]:
    """Files of the one series meant."""
    if scan.damaged:
        more = f" ({len(scan.damaged)} such files)" if len(scan.damaged) > 1 else ""
        msg = f"{scan.damaged[0][1]}{more}; fetch it again or take it out of the folder"
        raise DicomError(msg)
    found = _series_of(scan)
    if not found:
        kinds = sorted({f.text("Modality") or "unknown" for f in scan.files})
        what = f"no image series, only {', '.join(kinds)}" if kinds else "no DICOM files"
        msg = f"there are {what} in '{folder}' and its sub-folders"
        raise DicomError(msg.replace("are no image series", "is no image series"))
    fitting = [s for s in found if wanted is None or s.uid.startswith(wanted)]
    exact = [s for s in fitting if s.uid == wanted]
    if len(fitting) != 1 and not exact:
        listed = "; ".join(str(s) for s in found)
        count = len(fitting) if fitting else "none"
        problem = (
            f"'{folder}' holds {len(found)} image series"
            if wanted is None
            else f"the series '{wanted}' fits {count} of those in '{folder}'"
        )
        msg = f"{problem}; choose one by its UID or the beginning of it: {listed}"
        raise UsageError(msg)
    uid = (exact or fitting)[0].uid
    return [f for f in scan.files if f.is_scan and f.text("SeriesInstanceUID") == uid]


def _without_localizers(files: Sequence[DicomFile]) -> tuple[list[DicomFile], list[str]]:
    slices = [f for f in files if "LOCALIZER" not in f.text("ImageType").upper()]
    if not slices:
        msg = f"the series of '{files[0].path}' holds only localizers (scouts), no slices"
        raise DicomError(msg)
    dropped = len(files) - len(slices)
    return slices, [f"{dropped} localizer images of the series were left out"] if dropped else []


def _read(files: Sequence[DicomFile], progress: ProgressCallback | None) -> Volume:
    slices, notes = _without_localizers(files)
    first = slices[0]
    if any(int(f.text("NumberOfFrames") or 1) > 1 for f in slices):
        if len(slices) > 1:
            msg = (
                f"the series holds {len(slices)} files and at least one of them several frames "
                f"('{first.path}'); only a series of one multi-frame file can be read"
            )
            raise DicomError(msg)
        array, geometry = read_multiframe(first.path)
        if progress is not None:
            progress(geometry.shape[0], geometry.shape[0])
        return Volume(array, geometry, _metadata(slices, [*notes, *_header_notes(first)]))
    stack = arrange(slices)
    notes += [*stack.notes, *_header_notes(stack.files[0])]
    array = _read_pixels(stack, notes, progress)
    return Volume(array, stack.geometry, _metadata(stack.files, notes))


def _read_pixels(
    stack: SliceStack, notes: list[str], progress: ProgressCallback | None
) -> VoxelArray:
    """Fill the volume slice by slice, so that little more than itself is in memory."""
    whole = all(v.is_integer() for f in stack.files for v in rescale_of(f.header, f.path))
    array: VoxelArray = np.empty(stack.geometry.shape, dtype=np.int16 if whole else np.float32)
    padded = 0
    for z, file in enumerate(stack.files):
        values, replaced = read_slice_values(file.path)
        padded += replaced
        fits = values.min() >= _INT16.min and values.max() <= _INT16.max
        if array.dtype == np.int16 and not fits:
            array = array.astype(np.float32)
        array[z] = values
        if progress is not None:
            progress(z + 1, len(stack.files))
    if padded:
        notes.append(f"{padded} padding voxels were set to {AIR_HU} HU")
    return array


def _header_notes(first: DicomFile) -> list[str]:
    notes = []
    modality = first.text("Modality")
    if not modality:
        notes.append("the files have no Modality; taken as CT")
    elif modality != "CT":
        notes.append(f"the modality is {modality}, so the values are not HU")
    if not first.text("RescaleIntercept") and not first.text("NumberOfFrames"):
        notes.append("the files have no RescaleIntercept; stored values are taken as HU")
    tilt = first.header.get("GantryDetectorTilt")
    if tilt:
        notes.append(f"GantryDetectorTilt is {tilt} degrees, but the slices are not sheared")
    return notes


def _metadata(files: Sequence[DicomFile], notes: list[str]) -> dict[str, Any]:
    first = files[0]
    metadata: dict[str, Any] = {
        "patient_id": first.text("PatientID"),
        "study_uid": first.text("StudyInstanceUID"),
        "series_uid": first.text("SeriesInstanceUID"),
        "frame_of_reference_uid": first.text("FrameOfReferenceUID"),
        "modality": first.text("Modality"),
        "series_description": first.text("SeriesDescription"),
        "study_date": first.text("StudyDate"),
        "sop_instance_uids": tuple(f.text("SOPInstanceUID") for f in files),
        "source": str(first.path.parent),
        "notes": notes,
    }
    for key, keyword in (("window_centre", "WindowCenter"), ("window_width", "WindowWidth")):
        value = first.header.get(keyword)
        if value is not None and np.size(value):
            metadata[key] = float(np.atleast_1d(np.asarray(value, dtype=np.float64))[0])
    return metadata
