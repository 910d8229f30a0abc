"""Render a patient with tumours on a grid, slab by slab."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import FloatArray
from napari_lungfm.datasets.phantoms.canvas import Canvas
from napari_lungfm.datasets.phantoms.fields import Array, Lattice
from napari_lungfm.datasets.phantoms.imaging import (
    blur,
    blur_kernel,
    fine_offsets,
    noise_scale,
    slice_noise,
    streak_scale,
    to_int16,
)
from napari_lungfm.datasets.phantoms.measure import longest_diameter
from napari_lungfm.datasets.phantoms.painting import Layers, paint
from napari_lungfm.datasets.phantoms.patient import ChestFields, Patient
from napari_lungfm.datasets.phantoms.spec import Imaging
from napari_lungfm.datasets.phantoms.tissues import TISSUE_NAMES, Tissue, tissue_hu
from napari_lungfm.datasets.phantoms.tumours import Tumour
from napari_lungfm.geometry import (
    LUNG_LABELS,
    LabelMap,
    Structure,
    Volume,
    VolumeGeometry,
)

#: Fine voxels painted at once; 16 MB for each array.
_SLAB_VOXELS = 4_000_000


@dataclass
class TumourTally:
    """What is measured of one tumour while slices are made."""

    voxels: int = 0
    hu_sum: float = 0.0
    diameter_mm: float = 0.0


@dataclass(frozen=True, eq=False)
class Rendering:
    """A rendered case.

    Attributes
    ----------
    volume
        CT in HU, int16.
    labels
        Reference, uint8: 1 left lung, 2 right lung, 3 tumour.
    tissues
        Tissue in the middle plane of each slice, uint8, or ``None``.
    tallies
        Measurements of each tumour on this grid.
    """

    volume: Volume
    labels: LabelMap
    tissues: LabelMap | None
    tallies: tuple[TumourTally, ...]


@dataclass(eq=False)
class _Grid:
    """Sampling of one rendering; positions in mm, ascending, LPS."""

    geometry: VolumeGeometry
    imaging: Imaging
    halo_y: int
    halo_x: int
    zs: FloatArray
    ys: FloatArray
    xs: FloatArray
    offsets: FloatArray
    lattice: Lattice = field(init=False)

    def __post_init__(self) -> None:
        half = float(np.abs(self.offsets).max())
        self.lattice = Lattice.covering(
            (float(self.xs[0]), float(self.ys[0]), float(self.zs[0]) - half),
            (float(self.xs[-1]), float(self.ys[-1]), float(self.zs[-1]) + half),
        )

    @property
    def width(self) -> float:
        """Pixel size in mm over which surfaces are smeared."""
        return float(np.sqrt(self.geometry.spacing[1] * self.geometry.spacing[2]))

    @property
    def core(self) -> tuple[slice, slice, slice]:
        """The output within the haloed slices."""
        _, ny, nx = self.geometry.shape
        return (
            slice(None),
            slice(self.halo_y, self.halo_y + ny),
            slice(self.halo_x, self.halo_x + nx),
        )

    def slabs(self) -> Iterator[slice]:
        per_slice = len(self.offsets) * len(self.ys) * len(self.xs)
        step = max(1, _SLAB_VOXELS // per_slice)
        for first in range(0, len(self.zs), step):
            yield slice(first, min(first + step, len(self.zs)))


def render(
    patient: Patient,
    tumours: tuple[Tumour, ...],
    geometry: VolumeGeometry,
    imaging: Imaging,
    *,
    tissues: bool = False,
) -> Rendering:
    """Scan a patient.

    Every voxel holds the mean over its pixel and over the slice profile (a box as wide as the
    slice is thick), blurred in-plane by the kernel. A label is set where the noise-free structure
    fills more than half of the voxel; the tumour wins over the lung.

    Parameters
    ----------
    patient
        From `draw_patient`.
    tumours
        From `draw_tumours`, of this patient.
    geometry
        Any grid with the axes of the patient (identity direction).
    imaging
        The acquisition.
    tissues
        Also make the map of tissues.

    Raises
    ------
    UsageError
        If the grid is rotated or mirrored.
    """
    grid = _grid(geometry, imaging)
    fields = patient.fields_on(grid.lattice)
    hu = tissue_hu(patient.seed, imaging.contrast)
    image = np.empty(geometry.shape, np.int16)
    labels = np.zeros(geometry.shape, np.uint8)
    tissue_map = np.zeros(geometry.shape, np.uint8) if tissues else None
    tallies = tuple(TumourTally() for _ in tumours)
    for slab in grid.slabs():
        zs = (grid.zs[slab][:, None] + grid.offsets).ravel()
        canvas = Canvas.empty(zs, grid.ys, grid.xs, grid.width, grid.lattice, tissues=tissues)
        layers = paint(canvas, patient, fields, tumours, hu, table=imaging.table)
        clean = _slices(grid, canvas.hu)
        labels[slab] = _labels(grid, layers, tallies, clean)
        image[slab] = to_int16(_degrade(grid, patient, fields, clean, slab))
        if tissue_map is not None and canvas.tissue is not None:
            middle = len(grid.offsets) // 2
            tissue_map[slab] = canvas.tissue[middle :: len(grid.offsets)][grid.core]
    names = {int(t): TISSUE_NAMES[int(t)] for t in Tissue if t != Tissue.AIR}
    return Rendering(
        Volume(image, geometry),
        LabelMap(labels, geometry, LUNG_LABELS),
        None if tissue_map is None else LabelMap(tissue_map, geometry, names),
        tallies,
    )


def _grid(geometry: VolumeGeometry, imaging: Imaging) -> _Grid:
    if not np.allclose(geometry.direction, np.eye(3), atol=1e-6):
        msg = "phantoms are rendered on grids along the patient's axes; reorient the result instead"
        raise UsageError(msg)
    dz, dy, dx = geometry.spacing
    halo_y, halo_x = (len(blur_kernel(imaging.kernel, s)) // 2 for s in (dy, dx))
    ox, oy, oz = geometry.origin
    nz, ny, nx = geometry.shape
    thickness = imaging.slice_thickness if imaging.slice_thickness is not None else dz
    return _Grid(
        geometry,
        imaging,
        halo_y,
        halo_x,
        oz + np.arange(nz) * dz,
        oy + np.arange(-halo_y, ny + halo_y) * dy,
        ox + np.arange(-halo_x, nx + halo_x) * dx,
        fine_offsets(thickness),
    )


def _slices(grid: _Grid, fine: Array) -> Array:
    """Average fine slices over the slice profile and blur them: the noise-free image."""
    return blur(_thick(grid, fine), grid.imaging.kernel, grid.geometry.spacing[1:])[grid.core]


def _thick(grid: _Grid, fine: Array) -> Array:
    count = len(grid.offsets)
    if count == 1:
        return fine
    mean: Array = fine.reshape(-1, count, *fine.shape[1:]).mean(axis=1)
    return mean


def _labels(
    grid: _Grid, layers: Layers, tallies: tuple[TumourTally, ...], clean: Array
) -> npt.NDArray[np.uint8]:
    """Labels of a slab; measures its tumours on the way."""
    labels = np.zeros(clean.shape, np.uint8)
    for value, part in (
        (Structure.LEFT_LUNG, layers.left),
        (Structure.RIGHT_LUNG, layers.right),
    ):
        if part is not None:
            labels[_thick(grid, part)[grid.core] > 0.5] = value
    for (region, alpha), tally in zip(layers.tumours, tallies, strict=True):
        if region is None or alpha is None:
            continue
        whole = np.zeros((len(layers.zs), len(grid.ys), len(grid.xs)), np.float32)
        whole[region] = alpha
        share = _thick(grid, whole)[grid.core]
        inside = share > 0.5
        labels[inside] = Structure.TUMOUR
        tally.voxels += int(inside.sum())
        tally.hu_sum += float(clean[inside].sum(dtype=np.float64))
        tally.diameter_mm = max(
            tally.diameter_mm, longest_diameter(share, 0.5, grid.geometry.spacing[1:])
        )
    return labels


def _degrade(
    grid: _Grid, patient: Patient, fields: ChestFields, clean: Array, slab: slice
) -> Array:
    """Add noise and streaks to noise-free slices."""
    imaging = grid.imaging
    if imaging.noise_hu == 0 and imaging.streaks_hu == 0:
        return clean
    dz, dy, dx = grid.geometry.spacing
    ys, xs = grid.ys[grid.core[1]], grid.xs[grid.core[2]]
    rows, columns = (np.rint(a / s).astype(np.intp) for a, s in ((ys, dy), (xs, dx)))
    seed = imaging.seed if imaging.seed is not None else patient.seed
    heights = grid.zs[slab]
    for index, z in enumerate(heights):
        number = int(np.rint(z / dz))
        noise, streaks = slice_noise(imaging, seed, (dy, dx), number, rows, columns)
        body = grid.lattice.sample(fields.body, np.array([z]), ys, xs)[0]
        scale = noise_scale(patient.build, body, float(z))
        clean[index] += noise * (scale * np.float32(imaging.noise_hu))
        strength = imaging.streaks_hu * streak_scale(patient.build, float(z))
        if streaks is not None and strength > 0:
            clean[index] += streaks * (scale * np.float32(strength))
    return clean
