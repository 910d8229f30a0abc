"""The volume that contours enclose, without any voxels: a check on their rasterisation."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.path import Path as Outline

from napari_lungfm._core.exceptions import DicomError
from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.io.dicom_files import read_dataset

Points = npt.NDArray[np.float64]


def contour_volume_ml(path: Path, number: int, geometry: VolumeGeometry) -> float:
    """Return the volume that the contours of a region enclose, in mL.

    The areas of the polygons (shoelace formula) are summed up over the slices and multiplied by
    the distance of the slices. A contour within an odd number of others is a hole.

    Parameters
    ----------
    path
        The RTSTRUCT.
    number
        Number of the region.
    geometry
        Grid of the image; contours lie in its slices.

    Raises
    ------
    DicomError
        If the file has no such region.
    """
    dataset = read_dataset(path)
    items = [
        item
        for item in dataset.get("ROIContourSequence") or ()
        if int(item.ReferencedROINumber) == number
    ]
    if not items:
        msg = f"'{path}' has no contours of ROI number {number}"
        raise DicomError(msg)
    slices: dict[int, list[Points]] = {}
    for contour in (c for item in items for c in item.get("ContourSequence") or ()):
        placed = _in_slice(contour, geometry)
        if placed is not None:
            slices.setdefault(placed[0], []).append(placed[1])
    area_mm2 = sum(_enclosed(polygons) for polygons in slices.values())
    return area_mm2 * geometry.spacing[0] / 1000.0


def _in_slice(contour: Any, geometry: VolumeGeometry) -> tuple[int, Points] | None:
    """Slice and vertices ``(n, 2)`` in mm along the rows and columns; ``None`` without area."""
    points = np.asarray(contour.get("ContourData") or [], dtype=np.float64)
    if points.size < 9 or points.size % 3:
        return None
    indices = geometry.world_to_index(points.reshape(-1, 3))
    in_mm: Points = indices[:, 1:] * np.asarray(geometry.spacing[1:])
    return int(np.rint(indices[:, 0].mean())), in_mm


def _enclosed(polygons: list[Points]) -> float:
    total = 0.0
    for n, polygon in enumerate(polygons):
        others = [Outline(other) for m, other in enumerate(polygons) if m != n]
        # Vertices on a shared border count as either; most of them tell.
        depth = sum(bool(other.contains_points(polygon).mean() > 0.5) for other in others)
        total += _area(polygon) * (-1.0 if depth % 2 else 1.0)
    return total


def _area(polygon: Points) -> float:
    y, x = polygon[:, 0], polygon[:, 1]
    return float(abs(np.dot(y, np.roll(x, -1)) - np.dot(x, np.roll(y, -1))) / 2.0)
