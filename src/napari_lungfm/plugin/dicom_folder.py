"""A folder as a hospital or an archive hands it out: several series, contours beside the CT."""

import os
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from napari_lungfm import io
from napari_lungfm._core.exceptions import DicomError, LungFMError, LungFMWarning
from napari_lungfm._core.types import ProgressCallback
from napari_lungfm.geometry import LabelMap, Volume
from napari_lungfm.io.dicom_files import read_dataset
from napari_lungfm.io.dicom_series import SegmentationInfo, SeriesInfo, arrange_series
from napari_lungfm.plugin.layer_geometry import LayerInfo

#: Name of a structure and its mask.
NamedMask: TypeAlias = tuple[str, LabelMap]

#: Most structures that are opened, tumours first: each takes a byte per voxel of the CT.
MAX_STRUCTURES = 16
#: The folder above that of a file is looked through if it has at most so many files: it may be a
#: study, or a whole archive.
MAX_LOOKED_THROUGH = 5000
#: Names of regions that hold a tumour begin with or contain these.
_TUMOUR_NAMES = ("gtv", "tumour", "tumor", "neoplasm", "lesion", "nodule", "mass", "cancer")
#: Series of at most so many files may be localizers, or one file of many frames.
_FEW_FILES = 5
_KINDS = {"RTSTRUCT": "ROI", "SEG": "segment"}


def read_folder(
    folder: Path, *, progress: ProgressCallback | None = None
) -> tuple[Volume, list[NamedMask]]:
    """Read the largest CT series of a folder and the structures that were drawn on it.

    Parameters
    ----------
    folder
        Searched with its sub-folders.
    progress
        Called with the slices read and their number.

    Returns
    -------
    Volume
        The CT series with the most slices; where there is no CT, the image series with the most.
    list of (str, LabelMap)
        Name and mask of each region of the RTSTRUCT and DICOM SEG files in the folder that lie
        on this series, in the order of the files; label values count up from 1.

    Raises
    ------
    InputFileError
        If there is no image series, or it cannot be read.

    Warns
    -----
    LungFMWarning
        Other series that were not opened, and structures that were left out.
    """
    found = io.find_series(folder)
    if not found:
        volume = io.read_series(folder, progress=progress)  # says what is wrong
    else:
        chosen = max(found, key=_rank)
        volume = io.read_series(folder, series=chosen.uid, progress=progress)
        if len(found) > 1:
            others = "; ".join(str(s) for s in found if s is not chosen)
            _warn(f"opened the largest series of '{folder}', {chosen}, not: {others}")
    return volume, read_structures(io.find_segmentations(folder), LayerInfo.of_volume(volume))


def read_structures(files: Sequence[SegmentationInfo], image: LayerInfo) -> list[NamedMask]:
    """Read all regions of RTSTRUCT and DICOM SEG files onto the grid of an image.

    Parameters
    ----------
    files
        From `io.find_segmentations`.
    image
        Grid and frame of reference of the image.

    Warns
    -----
    LungFMWarning
        For each region that is not on the image or empty, and for those beyond `MAX_STRUCTURES`.
    """
    structures: list[NamedMask] = []
    regions = sorted(_regions(files, image), key=lambda each: not _is_tumour(each[1].name))
    for number, (file, region) in enumerate(regions):
        if len(structures) == MAX_STRUCTURES:
            left = ", ".join(f"'{r.name}'" for _, r in regions[number:])
            _warn(f"opened {MAX_STRUCTURES} structures; open one of these by its file: {left}")
            break
        read = io.read_rtstruct if file.kind == "RTSTRUCT" else io.read_seg
        name = region.name or f"{_KINDS[file.kind]} {region.number}"
        try:
            mask = read(
                file.path,
                image.geometry,
                region.number,
                label=len(structures) + 1,
                name=name,
                frame_of_reference_uid=image.frame_of_reference,
            )
        except LungFMError as error:
            _warn(f"left out '{name}': {error}")
        else:
            structures.append((name, mask))
    return structures


def read_structure_file(path: Path) -> list[tuple[str, LabelMap, LayerInfo]]:
    """Read the regions of one RTSTRUCT or DICOM SEG file.

    The image that they were drawn on gives the grid; it is looked for in the file's own folder
    and in the folder above it, by its frame of reference.

    Returns
    -------
    list of (str, LabelMap, LayerInfo)
        Name, mask, and what is known of the image.

    Raises
    ------
    DicomError
        If the image is not there, or none of the regions lies on it.
    """
    path = path.parent.resolve() / path.name
    for folder in (path.parent, path.parent.parent):
        file = _listed(path, folder)
        image = None if file is None else _image_of(file, folder)
        if file is not None and image is not None:
            structures = read_structures([file], image)
            if structures:
                return [(name, mask, image) for name, mask in structures]
            msg = f"no structure of '{path}' lies on the image in '{folder}'"
            raise DicomError(msg)
    msg = (
        f"'{path}' holds structures, but the CT that they were drawn on is not in its folder nor "
        "in the one above; put them together and open the folder"
    )
    raise DicomError(msg)


def structure_kind(path: Path) -> str | None:
    """Return ``"RTSTRUCT"`` or ``"SEG"`` for a DICOM file of structures, otherwise ``None``."""
    try:
        modality = str(read_dataset(path, pixels=False, keywords=["Modality"]).get("Modality"))
    except LungFMError:
        return None
    return modality if modality in _KINDS else None


def _listed(path: Path, folder: Path) -> SegmentationInfo | None:
    """Find a file in a folder; ``None`` if that is too large to look through."""
    files = sum(1 for _ in islice(_files_in(folder), MAX_LOOKED_THROUGH + 1))
    if folder != path.parent and files > MAX_LOOKED_THROUGH:
        return None
    return next((f for f in io.find_segmentations(folder) if f.path == path), None)


def _files_in(folder: Path) -> Iterator[str]:
    return (name for _, _, names in os.walk(folder) for name in names)


def _image_of(file: SegmentationInfo, folder: Path) -> LayerInfo | None:
    """Grid of the largest image series in a folder that a file of structures can belong to."""
    for series in sorted(io.find_series(folder), key=_rank, reverse=True):
        header = read_dataset(series.paths[0], pixels=False, keywords=["FrameOfReferenceUID"])
        frame = str(header.get("FrameOfReferenceUID") or "")
        if not file.frame_of_reference_uid or file.frame_of_reference_uid == frame:
            geometry = arrange_series(folder, series=series.uid).geometry
            return LayerInfo(geometry, str(folder), series.uid, frame or None)
    return None


def _regions(
    files: Sequence[SegmentationInfo], image: LayerInfo
) -> Iterator[tuple[SegmentationInfo, Any]]:
    for file in files:
        uid = file.frame_of_reference_uid
        if uid and image.frame_of_reference and uid != image.frame_of_reference:
            _warn(f"'{file.path}' was drawn in the frame of reference of another image; left out")
            continue
        try:
            listed = io.list_rois if file.kind == "RTSTRUCT" else io.list_segments
            yield from ((file, region) for region in listed(file.path))
        except LungFMError as error:
            _warn(f"left out '{file.path}': {error}")


def _rank(series: SeriesInfo) -> tuple[bool, int, str]:
    return (series.modality in ("CT", ""), _slices(series), series.uid)


def _slices(series: SeriesInfo) -> int:
    """Count the slices; localizers are none, and each frame of a file is one."""
    if series.n_files > _FEW_FILES:
        return series.n_files
    count = 0
    for path in series.paths:
        header = read_dataset(path, pixels=False, keywords=["ImageType", "NumberOfFrames"])
        if "LOCALIZER" not in str(header.get("ImageType") or "").upper():
            count += int(header.get("NumberOfFrames") or 1)
    return count


def _is_tumour(name: str) -> bool:
    return any(part in name.lower() for part in _TUMOUR_NAMES)


def _warn(text: str) -> None:
    warnings.warn(text, LungFMWarning, stacklevel=3)
