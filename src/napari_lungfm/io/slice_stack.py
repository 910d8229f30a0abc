"""Put the slices of a series in order and prove that they form one regular grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.exceptions import DicomError, GeometryError
from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.io.dicom_files import DicomFile, one_line
from napari_lungfm.io.itk import MAX_AXIS_COSINE, orthonormal

#: How far a slice may lie from its place on the regular grid, as a fraction of the slice
#: distance: positions are often stored with one decimal (0.625 mm apart as 0.6 and 0.7), and a
#: missing slice moves some other by at least a quarter.
MAX_UNEVEN = 0.1
#: Slices closer than this fraction of the usual distance count as lying at the same place.
_SAME_PLACE = 0.02
_MAX_SIDEWAYS_PIXELS = 0.1

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SliceStack:
    """The slices of one series in the order of the volume's first axis, and their grid."""

    files: tuple[DicomFile, ...]
    geometry: VolumeGeometry
    notes: tuple[str, ...]


def arrange(files: Sequence[DicomFile]) -> SliceStack:
    """Sort slices along their common normal and build the grid.

    The order comes from ImagePositionPatient and ImageOrientationPatient alone; instance
    numbers and file names play no part.

    Raises
    ------
    DicomError
        If the slices differ in shape, pixel spacing or orientation, lack a position, lie twice
        at one place, leave gaps, or form a sheared grid (gantry tilt).
    """
    shape, pixel_spacing, (row, column) = _common_plane(files)
    # PS3.3 C.7.6.2.1.1: the first cosines point along a row, the second along a column.
    try:
        direction = orthonormal(
            np.stack([row, column, np.cross(row, column)], axis=1), source="the series"
        )
    except GeometryError as error:
        msg = f"ImageOrientationPatient of '{files[0].path}' is not valid: {error}"
        raise DicomError(msg) from error
    origins = np.array([numbers(f, "ImagePositionPatient", 3) for f in files])
    order = np.argsort(origins @ direction[:, 2], kind="stable")
    ordered = [files[i] for i in order]
    origins = origins[order]
    if len(files) == 1:
        distance, notes = _thickness_of_single(files[0])
    else:
        along = origins @ direction[:, 2]
        _refuse_duplicates(ordered, along)
        _refuse_tilt(ordered, origins, direction, min(pixel_spacing))
        distance, notes = _slice_distance(ordered, along)
    ox, oy, oz = (float(v) for v in origins[0])
    geometry = VolumeGeometry(
        (len(files), *shape), (distance, *pixel_spacing), (ox, oy, oz), direction.tolist()
    )
    return SliceStack(tuple(ordered), geometry, tuple(notes))


def numbers(file: DicomFile, keyword: str, count: int) -> _Array:
    """Return an element that must hold ``count`` finite numbers.

    Raises
    ------
    DicomError
        If it is absent or holds something else.
    """
    try:
        value = file.header.get(keyword)
        values = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (ValueError, TypeError) as error:
        msg = f"{keyword} of '{file.path}' is not readable: {one_line(error)}"
        raise DicomError(msg) from error
    if value is None or values.size == 0:
        msg = f"'{file.path}' has no {keyword}, so its place in the patient is unknown"
        raise DicomError(msg)
    if values.shape != (count,) or not np.isfinite(values).all():
        msg = f"{keyword} of '{file.path}' must be {count} finite numbers, not {value}"
        raise DicomError(msg)
    return values


def _common_plane(
    files: Sequence[DicomFile],
) -> tuple[tuple[int, int], tuple[float, float], tuple[_Array, _Array]]:
    """Shape (rows, columns), spacing (y, x) and the two cosines that all slices share."""
    first = files[0]
    shape = np.array([numbers(first, k, 1)[0] for k in ("Rows", "Columns")])
    spacing = numbers(first, "PixelSpacing", 2)
    cosines = numbers(first, "ImageOrientationPatient", 6)
    if (spacing <= 0).any():
        msg = f"PixelSpacing of '{first.path}' must be positive, not {spacing.tolist()}"
        raise DicomError(msg)
    for file in files[1:]:
        other = np.array([numbers(file, k, 1)[0] for k in ("Rows", "Columns")])
        _compare("sizes (rows, columns)", (first, shape), (file, other), atol=0.0)
        other = numbers(file, "PixelSpacing", 2)
        _compare("pixel spacings in mm", (first, spacing), (file, other), atol=1e-3 * spacing.min())
        other = numbers(file, "ImageOrientationPatient", 6)
        _compare("orientations", (first, cosines), (file, other), atol=MAX_AXIS_COSINE)
    rows, columns = (int(n) for n in shape)
    dy, dx = (float(s) for s in spacing)
    return (rows, columns), (dy, dx), (cosines[:3], cosines[3:])


def _compare(
    what: str, first: tuple[DicomFile, _Array], other: tuple[DicomFile, _Array], *, atol: float
) -> None:
    if np.allclose(first[1], other[1], rtol=0.0, atol=atol):
        return
    a, b = ("[" + ", ".join(f"{v:.6g}" for v in values) + "]" for _, values in (first, other))
    msg = (
        f"the slices of the series have different {what}: {a} in '{first[0].path.name}', "
        f"{b} in '{other[0].path.name}'; keep only the slices of one reconstruction"
    )
    raise DicomError(msg)


def _thickness_of_single(file: DicomFile) -> tuple[float, list[str]]:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        if file.text(keyword):
            thickness = abs(float(numbers(file, keyword, 1)[0]))
            if thickness > 0:
                return thickness, [
                    f"the series has one slice; its {keyword} of {thickness:g} mm stands for the "
                    "slice distance"
                ]
    msg = (
        f"the series has one slice, '{file.path}', and no SliceThickness, so the size of its "
        "voxels is unknown"
    )
    raise DicomError(msg)


def _refuse_duplicates(files: Sequence[DicomFile], along: _Array) -> None:
    steps = np.diff(along)
    usual = float(np.median(steps))
    same = np.flatnonzero(steps <= max(_SAME_PLACE * usual, 1e-4))
    if same.size == 0:
        return
    i = int(same[0])
    a, b = files[i], files[i + 1]
    copies = a.text("SOPInstanceUID") == b.text("SOPInstanceUID")
    why = "the same image twice" if copies else "two acquisitions or phases in one series?"
    msg = (
        f"{same.size} slice positions occur more than once, the first at {along[i]:.2f} mm along "
        f"the slice normal in '{a.path}' and '{b.path}' ({why}); keep one of each"
    )
    raise DicomError(msg)


def _refuse_tilt(
    files: Sequence[DicomFile], origins: _Array, direction: _Array, pixel: float
) -> None:
    """Refuse slices whose corners do not lie on one line along the normal."""
    moved = origins - origins[0]
    along = moved @ direction[:, 2]
    sideways = moved @ direction[:, :2]
    limit = np.maximum(_MAX_SIDEWAYS_PIXELS * pixel, MAX_AXIS_COSINE * np.abs(along))
    distance = np.linalg.norm(sideways, axis=1)
    if (distance <= limit).all():
        return
    slope = sideways[-1] / along[-1]
    off_line = np.linalg.norm(sideways - along[:, None] * slope, axis=1)
    if (off_line <= limit).all():
        angle = float(np.degrees(np.arctan(np.linalg.norm(slope))))
        msg = (
            f"the series is sheared by a gantry tilt of {angle:.2f} degrees (each slice is moved "
            "sideways against the one before); correct the tilt by resampling first"
        )
        raise DicomError(msg)
    worst = int(np.argmax(distance))
    msg = (
        f"the slices do not lie above each other: '{files[worst].path.name}' is moved sideways by "
        f"{distance[worst]:.2f} mm against '{files[0].path.name}'"
    )
    raise DicomError(msg)


def _slice_distance(files: Sequence[DicomFile], along: _Array) -> tuple[float, list[str]]:
    """Distance of neighbouring slices in mm, and notes; raises if it is not regular."""
    steps = np.diff(along)
    usual = float(np.median(steps))
    distance = float((along[-1] - along[0]) / (len(along) - 1))
    off = float(np.abs(along - along[0] - distance * np.arange(len(along))).max())
    if off <= MAX_UNEVEN * distance:
        noted = off > 0.01 * distance
        text = f"slice positions are uneven by up to {off:.3f} mm; taken as regular"
        return distance, [text] if noted else []
    gaps = np.flatnonzero(np.abs(steps - usual) > MAX_UNEVEN * usual)
    if gaps.size == 0:
        msg = (
            f"the slice distance drifts from {steps.min():.3f} to {steps.max():.3f} mm within the "
            "series; resample it to regular slices first"
        )
        raise DicomError(msg)
    parts = [
        f"{along[i]:.2f} to {along[i + 1]:.2f} mm ('{files[i].path.name}' to "
        f"'{files[i + 1].path.name}', {steps[i]:.2f} mm apart)"
        for i in gaps[:3]
    ]
    more = f" and {gaps.size - 3} more" if gaps.size > 3 else ""
    msg = (
        f"slices are missing or unevenly spaced: the usual distance is {usual:.2f} mm, but along "
        f"the slice normal there are gaps from {'; '.join(parts)}{more}; fetch the whole series"
    )
    raise DicomError(msg)
