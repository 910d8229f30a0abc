"""RTSTRUCT contours as a `LabelMap`."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.exceptions import DicomError, InputFileError, LungFMWarning
from napari_lungfm._core.types import FloatArray, PathInput
from napari_lungfm.geometry import LabelMap, Structure, VolumeGeometry
from napari_lungfm.io.dicom_files import one_line, read_dataset
from napari_lungfm.io.outlines import fill_outline
from napari_lungfm.io.regions import choose_region

_PLANAR = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
#: A contour further than this from its slice, in slice distances, is reported.
_NOTED_OFFSET = 0.05
#: One further than this belongs to no slice, and neither do planes whose offsets differ by more
#: than `_MAX_SPREAD` (slices may be uneven by a tenth either way): they are another image's.
_MAX_OFFSET = 0.45
_MAX_SPREAD = 0.25

_Points = FloatArray


@dataclass(frozen=True)
class RoiInfo:
    """A region of interest in an RTSTRUCT: its name, number and number of contours."""

    name: str
    number: int
    n_contours: int


def list_rois(path: PathInput) -> list[RoiInfo]:
    """List the regions of interest of an RTSTRUCT in the order of the file.

    Raises
    ------
    InputFileError
        If the file is missing.
    DicomError
        If it is damaged or not an RTSTRUCT.
    """
    return _rois(_read(Path(path)))


def read_rtstruct(
    path: PathInput,
    geometry: VolumeGeometry,
    roi: str | int,
    *,
    label: int = int(Structure.TUMOUR),
    name: str | None = None,
    frame_of_reference_uid: str | None = None,
) -> LabelMap:
    """Rasterise one region of interest onto the grid of its image.

    Contours are moved to voxel indices, so the grid may be oblique or mirrored as long as they
    are planar in its slices (first array axis). A voxel belongs to the region when its centre
    lies in an odd number of the contours of its slice (PS3.3 C.8.8.6.3: exclusive-or), which
    serves holes, keyholes and separate parts alike. Slices that the contours skip stay empty.

    Parameters
    ----------
    path
        The RTSTRUCT.
    geometry
        The grid of the image.
    roi
        ROI name (exact, or regardless of case if only one fits) or ROI number.
    label, name
        Label value in the result and its name; the name is the ROI's by default for values that
        are no `Structure`, and the structure's title otherwise.
    frame_of_reference_uid
        FrameOfReferenceUID of the image, if known; another one in the RTSTRUCT is refused.

    Returns
    -------
    LabelMap
        uint8.

    Raises
    ------
    UsageError
        If there is no such region, or the name is ambiguous.
    DicomError
        If the region is empty, not made of closed planar contours, or not on this image.

    Warns
    -----
    LungFMWarning
        If contours lie a little beside their slice, skip slices, or have less than 3 points.
    """
    source = Path(path)
    dataset = _read(source)
    chosen = choose_region(_rois(dataset), roi, kind="ROI", path=source)
    where = f"ROI '{chosen.name}' of '{source}'"
    _check_frame_of_reference(dataset, chosen, frame_of_reference_uid, where)
    contours = _contours(dataset, chosen, where)
    indices = [geometry.world_to_index(points) for points in contours]
    slices = _assign_slices(indices, geometry, where)
    mask = np.zeros(geometry.shape, dtype=np.bool_)
    rows_columns = (geometry.shape[1], geometry.shape[2])
    for z, points in zip(slices, indices, strict=True):
        mask[z] ^= fill_outline(points[:, 1:], rows_columns)
    if not mask.any():
        msg = f"{where} covers no voxel centre of the image; is it too small for this grid?"
        raise DicomError(msg)
    known = label in {int(s) for s in Structure}
    title = name if name is not None else (None if known else chosen.name)
    return LabelMap.from_mask(mask, geometry, label=label, name=title)


def _read(path: Path) -> Any:
    if not path.is_file():
        msg = f"cannot read '{path}': there is no such file"
        raise InputFileError(msg)
    dataset = read_dataset(path)
    if dataset.get("Modality") != "RTSTRUCT" and "StructureSetROISequence" not in dataset:
        found = dataset.get("Modality") or "no DICOM object"
        msg = f"'{path}' is not an RTSTRUCT but {found}"
        raise DicomError(msg)
    return dataset


def _rois(dataset: Any) -> list[RoiInfo]:
    counts = {number: len(item.get("ContourSequence") or ()) for number, item in _items(dataset)}
    return [
        RoiInfo(str(item.get("ROIName", "")).strip(), number, counts.get(number, 0))
        for item in dataset.get("StructureSetROISequence") or ()
        for number in [int(item.ROINumber)]
    ]


def _items(dataset: Any) -> list[tuple[int, Any]]:
    """Entries of the ROIContourSequence with the number of the ROI that each belongs to."""
    return [
        (int(item.ReferencedROINumber), item) for item in dataset.get("ROIContourSequence") or ()
    ]


def _check_frame_of_reference(
    dataset: Any, roi: RoiInfo, image_uid: str | None, where: str
) -> None:
    for item in dataset.get("StructureSetROISequence") or ():
        uid = str(item.get("ReferencedFrameOfReferenceUID") or "")
        if int(item.ROINumber) == roi.number and uid and image_uid and uid != image_uid:
            msg = (
                f"{where} was drawn in another frame of reference ({uid}) than the image "
                f"({image_uid}); give the image that it belongs to"
            )
            raise DicomError(msg)


def _contours(dataset: Any, roi: RoiInfo, where: str) -> list[_Points]:
    """Vertices ``(n, 3)`` of the contours, LPS (x, y, z) in mm."""
    found: list[_Points] = []
    dropped = 0
    for number, item in _items(dataset):
        if number != roi.number:
            continue
        for position, contour in enumerate(item.get("ContourSequence") or (), start=1):
            kind = str(contour.get("ContourGeometricType", "CLOSED_PLANAR"))
            if kind not in _PLANAR:
                msg = f"contour {position} of {where} is of the type {kind}; only closed planar "
                raise DicomError(msg + "contours enclose voxels")
            points = _points(contour, position, where)
            if len(points) < 3:
                dropped += 1
                continue
            found.append(points)
    if not found:
        msg = f"{where} is empty: it has no contour with at least 3 points"
        raise DicomError(msg)
    if dropped:
        _warn(f"{where}: {dropped} contours with less than 3 points enclose nothing; left out")
    return found


def _points(contour: Any, position: int, where: str) -> _Points:
    try:
        values = np.asarray(contour.get("ContourData") or [], dtype=np.float64)
    except (ValueError, TypeError) as error:
        msg = f"contour {position} of {where} has unreadable ContourData: {one_line(error)}"
        raise DicomError(msg) from error
    if values.size % 3 or not np.isfinite(values).all():
        msg = (
            f"contour {position} of {where} has {values.size} coordinates, which are not triples "
            "of finite numbers; the file is damaged"
        )
        raise DicomError(msg)
    return values.reshape(-1, 3)


def _assign_slices(indices: Sequence[_Points], geometry: VolumeGeometry, where: str) -> list[int]:
    """Slice of each contour; raises if they are not planar in a slice or not in the image."""
    depth = np.array([points[:, 0].mean() for points in indices])
    spread = np.array([np.ptp(points[:, 0]) for points in indices])
    if (spread > 0.5).any():
        worst = int(np.argmax(spread))
        msg = (
            f"contour {worst + 1} of {where} is not planar in a slice of the image: it spans "
            f"{spread[worst] * geometry.spacing[0]:.2f} mm across the slices, which lie "
            f"{geometry.spacing[0]:g} mm apart; was it drawn on another orientation?"
        )
        raise DicomError(msg)
    _refuse_outside(indices, depth, geometry, where)
    nearest = np.clip(np.rint(depth).astype(int), 0, geometry.shape[0] - 1)
    offset = np.abs(depth - nearest)
    # Planes of the image's own slices are all beside them by the same part of the distance.
    unlike = float(np.ptp((depth - depth[0] + 0.5) % 1.0))
    if unlike > _MAX_SPREAD or offset.max() > _MAX_OFFSET:
        msg = (
            f"{where} was not drawn on the slices of this image: its contour planes lie up to "
            f"{offset.max() * geometry.spacing[0]:.2f} mm beside slices that are "
            f"{geometry.spacing[0]:g} mm apart; give the image that it was drawn on"
        )
        raise DicomError(msg)
    if offset.max() > _NOTED_OFFSET:
        _warn(
            f"{where}: contours lie up to {offset.max() * geometry.spacing[0]:.2f} mm beside "
            "their slice; the nearest slice is used"
        )
    _note_gaps(nearest, where)
    return [int(z) for z in nearest]


def _refuse_outside(
    indices: Sequence[_Points], depth: _Points, geometry: VolumeGeometry, where: str
) -> None:
    last = np.asarray(geometry.shape) - 1
    above_below = (depth < -0.5) | (depth > last[0] + 0.5)
    beside = np.array(
        [bool(((p[:, 1:] < -1.0) | (p[:, 1:] > last[1:] + 1.0)).any()) for p in indices]
    )
    outside = above_below | beside
    if not outside.any():
        return
    first = int(np.flatnonzero(outside)[0])
    centre = geometry.index_to_world(indices[first].mean(axis=0))
    msg = (
        f"{np.count_nonzero(outside)} of {len(indices)} contours of {where} lie outside the image, "
        f"the first around (x, y, z) = {np.round(centre, 1).tolist()} mm; is it of another series?"
    )
    raise DicomError(msg)


def _note_gaps(slices: npt.NDArray[np.int_], where: str) -> None:
    used = np.unique(slices)
    skipped = sorted(set(range(int(used[0]), int(used[-1]))) - set(used.tolist()))
    if skipped:
        _warn(
            f"{where}: {len(skipped)} slices between its first and last contour have none (the "
            f"first is slice {skipped[0]}) and stay empty"
        )


def _warn(text: str) -> None:
    warnings.warn(text, LungFMWarning, stacklevel=3)
