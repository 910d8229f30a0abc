"""What is measured on a lesion for a report: diameters, volume, mean intensity."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_lungfm._core.exceptions import GeometryError
from napari_lungfm._core.types import MaskArray, Vector3
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry, bounding_region
from napari_lungfm.metrics.size import Diameters, axial_diameters, mean_hu, volume_ml

#: Columns of the coordinates: both ends of both lines.
_ENDS = [f"{line}_end{n}_{a}_mm" for line in ("long", "short") for n in (1, 2) for a in "xyz"]
_COLUMNS = [
    "label",
    "name",
    "volume_ml",
    "mean_hu",
    "first_slice",
    "last_slice",
    "diameter_slice",
    "long_mm",
    "short_mm",
    "who_product_mm2",
    *_ENDS,
]


@dataclass(frozen=True)
class LesionMeasures:
    """The measures of one object.

    Parameters
    ----------
    label, name
        Value and name in the label map.
    volume_ml
        Volume in mL.
    mean_hu
        Mean intensity inside, in HU.
    first_slice, last_slice
        Slices that hold it.
    diameters
        Longest diameter and its perpendicular, ends in voxel indices; see `axial_diameters`.
    long_ends_mm, short_ends_mm
        The same ends: LPS ``(x, y, z)`` in mm, both of each line.
    """

    label: int
    name: str
    volume_ml: float
    mean_hu: float
    first_slice: int
    last_slice: int
    diameters: Diameters
    long_ends_mm: tuple[Vector3, Vector3]
    short_ends_mm: tuple[Vector3, Vector3]

    @property
    def who_product_mm2(self) -> float:
        """Product of both diameters in mm² (WHO; Miller et al. 1981)."""
        return self.diameters.long_mm * self.diameters.short_mm


def slice_diameters(mask: MaskArray, z: int, spacing: Vector3) -> Diameters | None:
    """Measure the two diameters on one slice, as `axial_diameters` does over all slices.

    Parameters
    ----------
    mask
        Boolean mask ``(z, y, x)``.
    z
        The slice.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.

    Returns
    -------
    Diameters or None
        ``None`` where nothing is on the slice.

    Raises
    ------
    DataError, GeometryError
        See `axial_diameters`; also if there is no such slice.
    """
    if mask.ndim == 3 and not 0 <= z < mask.shape[0]:
        msg = f"there is no slice {z} in a volume of {mask.shape[0]} slices"
        raise GeometryError(msg)
    found = axial_diameters(mask[z : z + 1], spacing)
    return None if found is None else replace(found, z=z)


def diameter_ends_mm(
    diameters: Diameters, geometry: VolumeGeometry
) -> tuple[tuple[Vector3, Vector3], tuple[Vector3, Vector3]]:
    """Return the ends of both lines in the patient: LPS ``(x, y, z)`` in mm, the long one first."""
    long, short = (
        tuple(_to_mm(geometry, diameters.z, end) for end in ends)
        for ends in (diameters.long_ends, diameters.short_ends)
    )
    return (long[0], long[1]), (short[0], short[1])


def measure_object(label_map: LabelMap, volume: Volume, label: int) -> LesionMeasures | None:
    """Measure one object of a label map.

    Parameters
    ----------
    label_map
        Labels on the grid of the image, axial slices along the first axis.
    volume
        The image in HU.
    label
        Value of the object.

    Returns
    -------
    LesionMeasures or None
        ``None`` for a label that does not occur.

    Raises
    ------
    GeometryError
        If labels and image are not on one grid.
    """
    difference = label_map.geometry.difference(volume.geometry)
    if difference is not None:
        msg = f"labels and image are not on one grid: {difference}; bring them onto one first"
        raise GeometryError(msg)
    mask = label_map.mask(label)
    region = bounding_region(mask)
    if region is None:
        return None
    inside = mask[region]
    found = axial_diameters(inside, volume.spacing)
    if found is None:  # a mask with a bounding box is not empty
        return None
    diameters = _moved(found, (region[0].start, region[1].start, region[2].start))
    long_mm, short_mm = diameter_ends_mm(diameters, volume.geometry)
    return LesionMeasures(
        label=label,
        name=label_map.labels.get(label, f"label {label}"),
        volume_ml=volume_ml(inside, volume.spacing),
        mean_hu=mean_hu(volume.array[region], inside),
        first_slice=region[0].start,
        last_slice=region[0].stop - 1,
        diameters=diameters,
        long_ends_mm=long_mm,
        short_ends_mm=short_mm,
    )


def measure_objects(label_map: LabelMap, volume: Volume) -> list[LesionMeasures]:
    """Measure all objects of a label map, in the order of the labels; see `measure_object`."""
    measured = (measure_object(label_map, volume, label) for label in label_map.present())
    return [each for each in measured if each is not None]


def measures_csv(measures: Sequence[LesionMeasures]) -> str:
    """Return a table of measures as CSV (RFC 4180), a header in front, LF at the end of lines.

    Lengths are in mm, ends of lines in LPS; slices are zero-based.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(each) for each in measures)
    return stream.getvalue()


def _row(measures: LesionMeasures) -> dict[str, str | int]:
    points = [value for end in (*measures.long_ends_mm, *measures.short_ends_mm) for value in end]
    row: dict[str, str | int] = {
        "label": measures.label,
        "name": measures.name,
        "volume_ml": f"{measures.volume_ml:.4f}",
        "mean_hu": f"{measures.mean_hu:.2f}",
        "first_slice": measures.first_slice,
        "last_slice": measures.last_slice,
        "diameter_slice": measures.diameters.z,
        "long_mm": f"{measures.diameters.long_mm:.2f}",
        "short_mm": f"{measures.diameters.short_mm:.2f}",
        "who_product_mm2": f"{measures.who_product_mm2:.2f}",
    }
    row.update((column, f"{value:.3f}") for column, value in zip(_ENDS, points, strict=True))
    return row


def _moved(diameters: Diameters, by: tuple[int, int, int]) -> Diameters:
    def shifted(
        ends: tuple[tuple[float, float], tuple[float, float]],
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        (y0, x0), (y1, x1) = ends
        return ((y0 + by[1], x0 + by[2]), (y1 + by[1], x1 + by[2]))

    return replace(
        diameters,
        z=diameters.z + by[0],
        long_ends=shifted(diameters.long_ends),
        short_ends=shifted(diameters.short_ends),
    )


def _to_mm(geometry: VolumeGeometry, z: int, end: tuple[float, float]) -> Vector3:
    x_mm, y_mm, z_mm = (float(v) for v in geometry.index_to_world(np.array([z, *end])))
    return (x_mm, y_mm, z_mm)
