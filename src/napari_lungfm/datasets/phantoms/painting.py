"""The order in which a chest is painted."""

from dataclasses import dataclass

import numpy as np

from napari_lungfm._core.seeding import generator
from napari_lungfm._core.types import FloatArray, Region
from napari_lungfm.datasets.phantoms.abdomen import paint_abdomen
from napari_lungfm.datasets.phantoms.airways_vessels import paint_airways, paint_vessels
from napari_lungfm.datasets.phantoms.build import Build
from napari_lungfm.datasets.phantoms.canvas import Canvas
from napari_lungfm.datasets.phantoms.fields import Array, Lattice, SmoothNoise
from napari_lungfm.datasets.phantoms.lungs import paint_lungs
from napari_lungfm.datasets.phantoms.mediastinum import paint_mediastinum
from napari_lungfm.datasets.phantoms.patient import ChestFields, Patient
from napari_lungfm.datasets.phantoms.skeleton import paint_skeleton
from napari_lungfm.datasets.phantoms.spec import TumourKind
from napari_lungfm.datasets.phantoms.tissues import Tissue
from napari_lungfm.datasets.phantoms.tumours import Tumour

_ALL: Region = (slice(None), slice(None), slice(None))
_K = TumourKind


@dataclass(frozen=True, eq=False)
class Layers:
    """Coverages (0 to 1) of what gets a label, on the fine voxels of a canvas."""

    zs: FloatArray
    left: Array | None
    right: Array | None
    tumours: tuple[tuple[Region | None, Array | None], ...]


def paint(
    canvas: Canvas,
    patient: Patient,
    fields: ChestFields,
    tumours: tuple[Tumour, ...],
    hu: dict[Tissue, float],
    *,
    table: bool,
) -> Layers:
    """Paint a patient from the back to the front; return what is labelled."""
    if table:
        _paint_table(canvas, patient.build, hu)
    _paint_torso(canvas, fields, hu)
    paint_abdomen(canvas, fields.abdomen, hu)
    paint_mediastinum(canvas, fields.heart, patient.mediastinum, hu)
    _soft_texture(canvas, patient.noise)
    left, right = (_coverage(canvas, f) for f in (fields.lungs.left, fields.lungs.right))
    lung = _either(left, right)
    if lung is not None:
        paint_lungs(canvas, patient.build, lung, patient.noise, hu)
    parts = tuple(_tumour_coverage(canvas, t.lattice, t.distance) for t in tumours)
    for tumour, part in zip(tumours, parts, strict=True):
        _paint_hazy(canvas, tumour, *part, hu)
    if lung is not None:
        _paint_collapsed(canvas, tumours, hu)
        paint_vessels(canvas, patient.tree, lung, hu)
    paint_airways(canvas, patient.tree, hu)
    paint_skeleton(canvas, patient.build, patient.skeleton, hu)
    for tumour, part in zip(tumours, parts, strict=True):
        if lung is not None:
            canvas.strokes(tumour.strokes, hu[Tissue.TUMOUR_SOLID], Tissue.LUNG_VESSEL, lung)
        _paint_solid(canvas, tumour, *part, hu)
    return Layers(canvas.zs, left, right, parts)


def _paint_table(canvas: Canvas, build: Build, hu: dict[Tissue, float]) -> None:
    """Curved carbon-fibre shell with a foam core, and the mattress on it."""
    y = np.asarray(canvas.ys, np.float32)[None, :, None]
    x = np.asarray(canvas.xs, np.float32)[None, None, :]
    back = 10 + build.half_depth + 16 + 0.6 * build.muscle + 0.75 * build.fat
    top = np.float32(back + 7) - np.float32(0.0009) * x * x
    edge = np.abs(x) - 215
    for low, high, value in (
        (-7.0, 0.0, -930.0),
        (0.0, 2.0, hu[Tissue.TABLE]),
        (2.0, 32.0, -940.0),
        (32.0, 34.0, hu[Tissue.TABLE]),
    ):
        shell = np.maximum(np.abs(y - top - (low + high) / 2) - (high - low) / 2, edge)
        alpha = canvas.alpha(np.ascontiguousarray(shell, np.float32))
        canvas.blend(_ALL, alpha, value, Tissue.TABLE)


def _paint_torso(canvas: Canvas, fields: ChestFields, hu: dict[Tissue, float]) -> None:
    canvas.field(fields.body, hu[Tissue.SKIN], Tissue.SKIN)
    canvas.field(fields.body + 1.8, hu[Tissue.FAT], Tissue.FAT)
    if fields.glands is not None:
        canvas.field(fields.glands, hu[Tissue.GLAND], Tissue.GLAND)
    canvas.field(fields.muscle, hu[Tissue.MUSCLE], Tissue.MUSCLE)
    canvas.field(fields.planes, hu[Tissue.FAT], Tissue.FAT)
    canvas.field(fields.wall, hu[Tissue.MEDIASTINAL_FAT], Tissue.MEDIASTINAL_FAT)


def _soft_texture(canvas: Canvas, noise: SmoothNoise) -> None:
    """Small unevenness of all tissue painted so far: fat septa, muscle fibres."""
    grain = noise.sample(canvas.zs, canvas.ys, canvas.xs, 3.4)
    grain *= np.float32(6.0)
    grain *= canvas.hu > -300
    canvas.hu += grain


def _coverage(canvas: Canvas, field: Array) -> Array | None:
    region = canvas.region_of(field, canvas.width + canvas.lattice.spacing)
    if region is None:
        return None
    result = np.zeros(canvas.hu.shape, np.float32)
    result[region] = canvas.alpha(canvas.sample(field, region))
    return result


def _either(left: Array | None, right: Array | None) -> Array | None:
    if left is None or right is None:
        return right if left is None else left
    both: Array = np.maximum(left, right)
    return both


# ---------------------------------------------------------------------- tumours
def _tumour_coverage(
    canvas: Canvas, lattice: Lattice, distance: Array
) -> tuple[Region | None, Array | None]:
    """Fraction of each voxel that a shape on its own lattice fills, and where."""
    bounds = []
    for axis, mm in enumerate((canvas.zs, canvas.ys, canvas.xs)):
        nodes = lattice.axis(axis)
        first = int(np.searchsorted(mm, nodes[1]))
        last = int(np.searchsorted(mm, nodes[-2], side="right"))
        if last <= first:
            return None, None
        bounds.append(slice(first, last))
    region = (bounds[0], bounds[1], bounds[2])
    values = lattice.sample(
        distance, canvas.zs[region[0]], canvas.ys[region[1]], canvas.xs[region[2]]
    )
    return region, canvas.alpha(values)


def _grain(canvas: Canvas, region: Region, tumour: Tumour, size: float, hu: float) -> Array:
    """Texture of a tumour, ``hu`` strong, from its own part of the noise."""
    noise = SmoothNoise.draw(generator("phantom", tumour.seed, "tumour texture"))
    z, y, x = (a[s] for a, s in zip((canvas.zs, canvas.ys, canvas.xs), region, strict=True))
    return noise.sample(z, y, x, size) * np.float32(hu)


def _paint_hazy(
    canvas: Canvas,
    tumour: Tumour,
    region: Region | None,
    alpha: Array | None,
    hu: dict[Tissue, float],
) -> None:
    """Ground glass lets the lung behind it show."""
    if region is None or alpha is None or tumour.kind not in (_K.GROUND_GLASS, _K.PART_SOLID):
        return
    haze = hu[Tissue.TUMOUR_GROUND_GLASS] + _grain(canvas, region, tumour, 5.0, 45.0)
    value = 0.35 * (canvas.hu[region] - hu[Tissue.LUNG]) + haze
    canvas.blend(region, alpha, value, Tissue.TUMOUR_GROUND_GLASS)


def _paint_collapsed(canvas: Canvas, tumours: tuple[Tumour, ...], hu: dict[Tissue, float]) -> None:
    for tumour in tumours:
        if tumour.beside is not None:
            region, alpha = _tumour_coverage(canvas, *tumour.beside)
            if region is not None and alpha is not None:
                canvas.blend(region, alpha, hu[Tissue.ATELECTASIS], Tissue.ATELECTASIS)


def _paint_solid(
    canvas: Canvas,
    tumour: Tumour,
    region: Region | None,
    alpha: Array | None,
    hu: dict[Tissue, float],
) -> None:
    """Solid tissue, and what lies inside of it."""
    if region is None or alpha is None or tumour.kind == _K.GROUND_GLASS:
        return
    solid = hu[Tissue.TUMOUR_SOLID] + _grain(canvas, region, tumour, 6.0, 7.0)
    if tumour.kind != _K.PART_SOLID:
        canvas.blend(region, alpha, solid, Tissue.TUMOUR_SOLID)
    if tumour.core is None:
        return
    _, inner = _tumour_coverage(canvas, tumour.lattice, tumour.core)
    if inner is None:
        return
    if tumour.kind == _K.PART_SOLID:
        canvas.blend(region, inner, solid - 15, Tissue.TUMOUR_SOLID)
    elif tumour.kind == _K.NECROTIC:
        core = hu[Tissue.TUMOUR_NECROSIS] + _grain(canvas, region, tumour, 9.0, 7.0)
        canvas.blend(region, inner, core, Tissue.TUMOUR_NECROSIS)
    else:
        canvas.blend(region, inner, hu[Tissue.TUMOUR_CAVITY], Tissue.TUMOUR_CAVITY)
