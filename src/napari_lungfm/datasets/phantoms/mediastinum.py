"""Heart, great vessels, oesophagus, and the solid between the lungs."""

from dataclasses import dataclass

import numpy as np

from napari_lungfm._core.types import FloatArray
from napari_lungfm.datasets.phantoms.build import Build
from napari_lungfm.datasets.phantoms.canvas import Canvas
from napari_lungfm.datasets.phantoms.fields import (
    Array,
    Points,
    ellipsoid,
    ramp,
    smooth_min,
    tube,
)
from napari_lungfm.datasets.phantoms.strokes import Strokes
from napari_lungfm.datasets.phantoms.tissues import Tissue

#: Where bronchus, artery and vein enter the lungs, for the mean body: LPS mm.
HILUM_LEFT = (43.0, 9.0, -16.0)
HILUM_RIGHT = (-42.0, 6.0, -16.0)

#: Landmarks and radii (mm) of the mean body: (points, radii, tissue). Calibres: ascending aorta
#: 30 to 34 mm, descending 24 to 26, pulmonary trunk 26 to 28, SVC 20, main arteries 22 to 24
#: (Hansell et al., "Imaging of Diseases of the Chest", 5th ed.).
_VESSELS: tuple[tuple[list[tuple[float, float, float]], list[float], Tissue], ...] = (
    (  # aorta, from its root over the arch to the abdomen
        [
            (4, -24, -46), (-10, -31, -28), (-17, -33, -6), (-15, -28, 18), (-6, -17, 32),
            (7, -2, 37), (18, 14, 33), (25, 29, 18), (28, 40, -4), (27, 43, -40),
            (22, 42, -85), (13, 35, -120), (6, 30, -150), (3, 28, -340),
        ],
        [15, 16, 16, 15.5, 15, 14.5, 14, 13.5, 13, 12.5, 12, 11.5, 11, 10.5],
        Tissue.ARTERIAL_BLOOD,
    ),
    ([(-8, -20, 36), (-14, -13, 60), (-20, -8, 84), (-34, 0, 120)], [7, 6.5, 6, 5],
     Tissue.ARTERIAL_BLOOD),
    ([(4, -8, 42), (10, -5, 65), (18, 2, 95), (22, 4, 170)], [5, 4.2, 4, 4],
     Tissue.ARTERIAL_BLOOD),
    ([(16, 8, 40), (21, 16, 65), (24, 20, 98), (42, 4, 124), (95, 2, 116)],
     [6, 5.5, 5.2, 5, 4.5], Tissue.ARTERIAL_BLOOD),
    (  # superior vena cava and the right brachiocephalic vein
        [(-40, -10, 106), (-34, -20, 84), (-30, -25, 60), (-29, -22, 30), (-31, -19, 0),
         (-33, -20, -34)],
        [6, 7, 8.5, 10, 10.5, 11], Tissue.VENOUS_BLOOD,
    ),
    ([(44, -14, 92), (24, -33, 72), (4, -38, 62), (-16, -34, 56), (-29, -26, 50)],
     [6, 6.5, 6.5, 7, 7], Tissue.VENOUS_BLOOD),
    ([(-24, -10, -70), (-25, -2, -100), (-25, 8, -140), (-20, 12, -340)], [12, 12, 12, 11],
     Tissue.VENOUS_BLOOD),
    ([(9, 36, -120), (-6, 34, -60), (-9, 33, -5), (-12, 34, 14), (-20, 16, 18), (-27, -8, 16)],
     [3, 3.5, 4, 4.2, 4.2, 4.5], Tissue.VENOUS_BLOOD),
    (  # pulmonary trunk and left artery, which arches over the left bronchus
        [(14, -54, -40), (18, -46, -16), (20, -32, 4), (25, -14, 12), (35, 2, 12),
         (43, 13, 2), (46, 17, -14)],
        [14, 14, 14, 13, 11.5, 10, 8.5], Tissue.PULMONARY_BLOOD,
    ),
    ([(20, -26, 4), (4, -12, 0), (-16, -6, -6), (-34, -4, -12), (-43, 1, -20)],
     [12, 12, 11.5, 10.5, 8.5], Tissue.PULMONARY_BLOOD),
    ([(14, -4, -32), (32, -9, -26), (46, -12, -18)], [7.5, 7, 6], Tissue.PULMONARY_BLOOD),
    ([(14, 6, -46), (34, 12, -50), (48, 17, -52)], [7.5, 7, 6], Tissue.PULMONARY_BLOOD),
    ([(-6, -4, -32), (-28, -10, -28), (-44, -12, -22)], [7.5, 7, 6], Tissue.PULMONARY_BLOOD),
    ([(-6, 6, -46), (-30, 10, -50), (-46, 14, -54)], [7.5, 7, 6], Tissue.PULMONARY_BLOOD),
)  # fmt: skip

_OESOPHAGUS = [
    (5, 26, 170), (5, 29, 90), (6, 30, 40), (1, 29, 8), (-1, 27, -30), (2, 25, -70),
    (10, 16, -105), (22, 6, -122), (40, -8, -132),
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Mediastinum:
    """Vessels and oesophagus as strokes with their tissues."""

    vessels: tuple[tuple[Strokes, Tissue], ...]
    oesophagus: Strokes


@dataclass(frozen=True, eq=False)
class HeartFields:
    """Heart on a lattice: the whole of it, and its blood pools with their tissue."""

    outer: Array
    pools: tuple[tuple[Array, Tissue], ...]


def build_mediastinum(build: Build) -> Mediastinum:
    """Make the tubes between the lungs."""
    scale = (build.sx + build.sy) / 2
    vessels = tuple(
        (Strokes.path(smooth_path(build.path(points), 3), _refine(radii, 3) * scale), tissue)
        for points, radii, tissue in _VESSELS
    )
    gullet = smooth_path(build.path([(float(x), float(y), float(z)) for x, y, z in _OESOPHAGUS]), 3)
    shape = Strokes.path(gullet, 9.0 * scale, [0.0, 1.0, 0.0], flatness=1.5)
    return Mediastinum(vessels, shape)


def smooth_path(points: FloatArray, pieces: int) -> FloatArray:
    """Refine a path with a Catmull-Rom curve, ``pieces`` for each stretch."""
    padded = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    result = []
    for i in range(len(points) - 1):
        p0, p1, p2, p3 = padded[i : i + 4]
        for t in np.arange(pieces) / pieces:
            result.append(
                p1
                + 0.5 * t * (p2 - p0)
                + t**2 * (p0 - 2.5 * p1 + 2 * p2 - 0.5 * p3)
                + t**3 * (-0.5 * p0 + 1.5 * p1 - 1.5 * p2 + 0.5 * p3)
            )
    result.append(points[-1])
    return np.array(result)


def _refine(values: list[float], pieces: int) -> FloatArray:
    nodes = np.arange(len(values))
    fine = np.linspace(0, len(values) - 1, (len(values) - 1) * pieces + 1)
    return np.asarray(np.interp(fine, nodes, values))


_LONG_AXIS = np.array([0.74, -0.46, -0.49])  # from the base of the heart to its apex


def _heart_axes() -> FloatArray:
    first = _LONG_AXIS / np.linalg.norm(_LONG_AXIS)
    second = np.cross(first, [0.0, 0.0, 1.0])
    second /= np.linalg.norm(second)
    return np.array([first, second, np.cross(first, second)])


def heart_fields(build: Build, p: Points) -> HeartFields:
    """Heart with four chambers, the apex to the left, the front and below."""
    h = build.heart * (build.sx + build.sy + build.sz) / 3
    axes = _heart_axes()
    # the heart rests on the diaphragm and sinks with it in inspiration
    sink = 0.6 * (build.dome_left / build.sz + 100)
    left = build.place(37, -30, -68 + sink)
    wall = ellipsoid(p, left, (50 * h, 35 * h, 34 * h), axes)
    left_pool = ellipsoid(p, left, (38 * h, 23 * h, 22 * h), axes)
    right = ellipsoid(p, build.place(9, -50, -66 + sink), (42 * h, 27 * h, 34 * h), axes)
    right_pool = ellipsoid(p, build.place(9, -50, -66 + sink), (38 * h, 23 * h, 30 * h), axes)
    right_pool = np.maximum(right_pool, -(wall + 1.0))
    atrium_left = ellipsoid(p, build.place(4, 3, -42), (35 * h, 19 * h, 23 * h))
    atrium_right = ellipsoid(p, build.place(-29, -20, -58 + sink / 2), (23 * h, 27 * h, 31 * h))
    outer = smooth_min(wall, right, 12)
    outer = smooth_min(outer, atrium_left, 12)
    outer = smooth_min(outer, atrium_right, 12)
    pools = (
        (left_pool, Tissue.ARTERIAL_BLOOD),
        (atrium_left + 2.0, Tissue.ARTERIAL_BLOOD),
        (right_pool, Tissue.VENOUS_BLOOD),
        (np.maximum(atrium_right + 2.0, -(atrium_left - 2.0)), Tissue.VENOUS_BLOOD),
    )
    return HeartFields(outer, pools)


def mediastinal_solid(build: Build, tubes: Mediastinum, p: Points, heart: Array) -> Array:
    """Everything that keeps the lungs apart: the lungs lie outside of this.

    Parameters
    ----------
    build
        The body.
    tubes
        Its great vessels.
    p
        Positions.
    heart
        `HeartFields.outer` at these positions.
    """
    cx, cy = (np.asarray(v, np.float32) for v in build.spine_xy(np.asarray(p.z)))
    solid = heart - np.float32(2.5 + 0.12 * build.fat)  # pericardial fat
    below = ellipsoid(p, build.place(16, -32, build.dome_left / build.sz - 2), (46, 36, 24))
    solid = smooth_min(solid, below, 16)
    spread = 1 + 0.25 * ramp(p.z, 60, 110)
    stalk = np.sqrt(
        ((p.x + 3) / (27 * build.sx * spread)) ** 2 + ((p.y + 11) / (36 * build.sy)) ** 2
    )
    stalk = (stalk - 1) * np.float32(26) + np.maximum(-30 - p.z, 0) * np.float32(0.8)
    solid = smooth_min(solid, stalk, 14)
    spine = np.sqrt((p.x - cx) ** 2 + ((p.y - cy) * np.float32(1.05)) ** 2) - np.float32(
        20.5 * build.sx
    )
    solid = smooth_min(solid, spine, 8)
    behind = np.maximum(np.abs(p.x - cx) - 24 * build.sx, cy - p.y)  # laminae and muscle
    solid = smooth_min(solid, behind.astype(np.float32), 12)
    gap = np.sqrt((p.x - 1) ** 2 + ((p.y - 30 * build.sy) / 1.6) ** 2) - np.float32(9)
    solid = smooth_min(solid, gap, 10)
    front = np.abs(p.x) * np.float32(0.9) + (p.y + 0.9 * build.half_depth) * np.float32(0.35) - 9
    solid = smooth_min(solid, front.astype(np.float32), 14)
    for index in (0, 1, 3, 4, 5, 6, 8, 9):
        strokes = tubes.vessels[index][0]
        path = np.vstack([strokes.start[::3], strokes.end[-1:]])
        radii = np.append(strokes.r0[::3], strokes.r1[-1])
        solid = smooth_min(solid, tube(p, path, radii) - np.float32(1.5), 8)
    for hilum in (HILUM_LEFT, HILUM_RIGHT):
        x, y, z = hilum
        root = ellipsoid(p, build.place(x * 0.82, y, z - 6), (17, 17, 26))
        solid = smooth_min(solid, root, 12)
    midline = np.abs(p.x) - np.float32(1.2)
    return np.minimum(solid, midline)


def paint_mediastinum(
    canvas: Canvas, heart: HeartFields, tubes: Mediastinum, hu: dict[Tissue, float]
) -> None:
    """Paint oesophagus, heart and vessels over the mediastinal fat."""
    canvas.strokes(tubes.oesophagus, hu[Tissue.OESOPHAGUS], Tissue.OESOPHAGUS)
    canvas.strokes(tubes.oesophagus.shrunk(4.4), -250.0, Tissue.OESOPHAGUS)
    canvas.field(heart.outer, hu[Tissue.MYOCARDIUM], Tissue.MYOCARDIUM)
    for pool, tissue in heart.pools:
        canvas.field(pool, hu[tissue], tissue)
    for strokes, _ in tubes.vessels:
        canvas.strokes(strokes.grown(1.0), hu[Tissue.MYOCARDIUM], Tissue.MYOCARDIUM)
    for strokes, tissue in tubes.vessels:
        canvas.strokes(strokes, hu[tissue], tissue)
