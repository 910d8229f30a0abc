"""DICOM segmentations (SEG) as a `LabelMap`, through highdicom."""

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_lungfm._core.exceptions import (
    DicomError,
    GeometryError,
    InputFileError,
    LungFMWarning,
)
from napari_lungfm._core.types import PathInput
from napari_lungfm.geometry import LabelMap, Structure, VolumeGeometry, match_geometry
from napari_lungfm.io.dicom_files import one_line, quiet_pydicom, read_dataset
from napari_lungfm.io.regions import choose_region

_UNUSABLE = (ValueError, RuntimeError, AttributeError, KeyError, TypeError, IndexError)


@dataclass(frozen=True)
class SegmentInfo:
    """A segment of a DICOM SEG: its label, number and number of frames that can hold it."""

    name: str
    number: int
    n_frames: int


def list_segments(path: PathInput) -> list[SegmentInfo]:
    """List the segments of a DICOM SEG in ascending order of their numbers.

    Raises
    ------
    InputFileError
        If the file is missing.
    DicomError
        If it is damaged or no DICOM SEG.
    """
    return _segments(_read_plain(Path(path)))


def read_seg(
    path: PathInput,
    geometry: VolumeGeometry,
    segment: str | int,
    *,
    label: int = int(Structure.TUMOUR),
    name: str | None = None,
    frame_of_reference_uid: str | None = None,
) -> LabelMap:
    """Read one segment onto the grid of its image.

    Frames are placed by their position in the patient: empty frames may be left out, the order
    of the slices reversed, and the segmentation may cover only a part of the image.

    Parameters
    ----------
    path
        The DICOM SEG.
    geometry
        The grid of the image.
    segment
        Segment label (exact, or regardless of case if only one fits) or segment number.
    label, name
        Label value in the result and its name; the name is the segment's by default for values
        that are no `Structure`, and the structure's title otherwise.
    frame_of_reference_uid
        FrameOfReferenceUID of the image, if known; another one in the SEG is refused.

    Returns
    -------
    LabelMap
        uint8.

    Raises
    ------
    UsageError
        If there is no such segment, or the label is ambiguous.
    DicomError
        If the file is damaged or the segment is empty.
    GeometryError
        If the segmentation is not on the voxel grid of the image.

    Warns
    -----
    LungFMWarning
        If the segment holds fractions: voxels of at least one half count as inside.
    """
    source = Path(path)
    plain = _read_plain(source)
    chosen = choose_region(_segments(plain), segment, kind="segment", path=source)
    where = f"segment '{chosen.name}' of '{source}'"
    uid = str(plain.get("FrameOfReferenceUID") or "")
    if uid and frame_of_reference_uid and uid != frame_of_reference_uid:
        msg = (
            f"{where} is in another frame of reference ({uid}) than the image "
            f"({frame_of_reference_uid}); give the image that it belongs to"
        )
        raise DicomError(msg)
    known = label in {int(s) for s in Structure}
    title = name if name is not None else (None if known else chosen.name)
    mask, own = _load(source, chosen, where, geometry)
    if not mask.any():
        msg = f"{where} is empty: none of its voxels is set"
        raise DicomError(msg)
    try:
        return match_geometry(LabelMap.from_mask(mask, own, label=label, name=title), geometry)
    except GeometryError as error:
        msg = f"{where} does not fit the image: {error}"
        raise GeometryError(msg) from error


def _read_plain(path: Path) -> Any:
    if not path.is_file():
        msg = f"cannot read '{path}': there is no such file"
        raise InputFileError(msg)
    dataset = read_dataset(path, pixels=False)
    if "SegmentSequence" not in dataset:
        found = dataset.get("Modality") or "no DICOM object"
        msg = f"'{path}' is not a DICOM SEG but {found}"
        raise DicomError(msg)
    return dataset


def _segments(dataset: Any) -> list[SegmentInfo]:
    counts = Counter(
        int(item.ReferencedSegmentNumber)
        for frame in dataset.get("PerFrameFunctionalGroupsSequence") or ()
        for item in frame.get("SegmentIdentificationSequence") or ()
    )
    # Without an entry per frame, all frames are of the one segment, or label maps of all.
    default = 0 if counts else int(dataset.get("NumberOfFrames") or 0)
    found = [
        SegmentInfo(str(item.get("SegmentLabel", "")).strip(), number, counts.get(number, default))
        for item in dataset.SegmentSequence
        for number in [int(item.SegmentNumber)]
    ]
    return sorted(found, key=lambda s: s.number)


def _load(
    path: Path, segment: SegmentInfo, where: str, image: VolumeGeometry
) -> tuple[np.ndarray[Any, Any], VolumeGeometry]:
    """Mask of one segment on the grid that its SEG spans."""
    import highdicom  # noqa: PLC0415  (a fifth of a second)

    try:
        with quiet_pydicom():
            volume = highdicom.seg.segread(path).get_volume(
                segment_numbers=[segment.number], combine_segments=False
            )
        affine = np.array(volume.affine)
        array = np.asarray(volume.array)[..., 0]
    except _UNUSABLE as error:
        msg = f"{where} cannot be read: {one_line(error)}"
        raise DicomError(msg) from error
    if ((array > 0) & (array < 1)).any():
        text = f"{where} holds fractions; voxels of at least one half count as inside"
        warnings.warn(text, LungFMWarning, stacklevel=3)
    if array.shape[0] == 1:  # one plane has no slice distance of its own
        affine[:3, 0] *= image.spacing[0] / np.linalg.norm(affine[:3, 0])
    z, y, x = array.shape
    return array >= 0.5, VolumeGeometry.from_affine((z, y, x), affine)
