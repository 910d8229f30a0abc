"""Ribs, costal cartilage, sternum, shoulder girdle, vertebrae."""

from dataclasses import dataclass

import numpy as np

from napari_lungfm._core.types import FloatArray, Vector3
from napari_lungfm.datasets.phantoms.build import VERTEBRA_MM, Build
from napari_lungfm.datasets.phantoms.canvas import Canvas
from napari_lungfm.datasets.phantoms.fields import Array
from napari_lungfm.datasets.phantoms.strokes import Strokes
from napari_lungfm.datasets.phantoms.tissues import Tissue
from napari_lungfm.datasets.phantoms.torso import outline

#: Angle from the back at which the bony rib ends and cartilage begins, and how far it has come
#: down by then in mm, for ribs 1 to 12 (after Gray's Anatomy; the eleventh and twelfth float).
_RIB_END = np.radians([148, 150, 152, 152, 150, 147, 142, 134, 124, 110, 82, 56])
_RIB_DROP = (38.0, 52.0, 64.0, 74.0, 82.0, 90.0, 96.0, 98.0, 96.0, 88.0, 60.0, 34.0)
#: Height at which the cartilage of ribs 1 to 7 meets the sternum.
_STERNAL_Z = (52.0, 36.0, 16.0, -6.0, -28.0, -46.0, -58.0)
_CORTEX_MM = 1.3


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Bones as strokes; the vertebral bodies are painted by formula."""

    bones: Strokes
    spongy: Strokes
    cartilage: Strokes


def build_skeleton(build: Build) -> Skeleton:
    """Make the bones of a body."""
    ribs, cartilage = [], []
    for side in (-1.0, 1.0):
        ends = []
        for number in range(1, 13):
            points, normals = _rib(build, number, side)
            half = (5.6 if number in (1, 11, 12) else 6.6) * build.sz
            swell = half * (1 + 0.15 * np.sin(np.linspace(0, np.pi, len(points))))
            ribs.append(Strokes.path(points, swell, normals, flatness=1.75))
            ends.append(points[-1])
        cartilage += _cartilages(build, ends, side)
    bones = Strokes.join([*ribs, *_girdle(build), _sternum(build), *_processes(build)])
    return Skeleton(bones, bones.shrunk(_CORTEX_MM), Strokes.join(cartilage))


def _rib(build: Build, number: int, side: float) -> tuple[FloatArray, FloatArray]:
    """Path and outward normals of a rib, from its head at the vertebra to its front end."""
    z0 = build.vertebra_z(number) + 5 * build.sz
    x0, y0 = (float(v) for v in build.spine_xy(np.array(z0)))
    end = float(_RIB_END[number - 1])
    angles = np.linspace(np.radians(20), end, max(6, int(end * 9)))
    drop = _RIB_DROP[number - 1] * build.sz * build.rib_drop
    points = [
        np.array([x0 + side * 17 * build.sx, y0 + 9 * build.sy, z0 + 3]),
        np.array([x0 + side * 27 * build.sx, y0 + 21 * build.sy, z0 + 1]),
    ]
    share = (1 - np.cos(angles)) / (1 - np.cos(_RIB_END[4]))
    points += [
        outline(build, float(a), float(z0 - drop * s), 6.0, side)
        for a, s in zip(angles, share, strict=True)
    ]
    path = np.array(points)
    normals = path * np.array([1.0, 1.3, 0.0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    return path, normals


def _cartilages(build: Build, ends: list[FloatArray], side: float) -> list[Strokes]:
    strokes: list[Strokes] = []
    for number in range(1, 11):
        start = ends[number - 1]
        if number <= 7:
            z = _STERNAL_Z[number - 1] * build.sz
            goal = outline(build, np.pi, z, 7.0, side) + np.array([side * 15 * build.sx, 0, 0])
        else:  # ribs 8 to 10 join the cartilage above
            goal = 0.55 * ends[number - 2] + 0.45 * strokes[-1].end[-1]
        middle = []
        for t in (0.33, 0.66):
            flat = start + t * (goal - start)
            angle = float(np.arctan2(side * flat[0], flat[1]))
            dip = 8.0 * build.sz * np.sin(np.pi * t) * (number > 3)
            middle.append(outline(build, angle, float(flat[2] - dip), 6.5, side))
        points = np.array([start, *middle, goal])
        normals = points * np.array([1.0, 1.3, 0.0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        strokes.append(Strokes.path(points, 6.4 * build.sz, normals, flatness=1.5))
    return strokes


def _sternum(build: Build) -> Strokes:
    heights = np.array([64, 52, 38, 30, 14, -8, -30, -52, -70, -84]) * build.sz
    widths = np.array([23, 26, 19, 15, 15, 17, 18, 17, 10, 5]) * build.sx
    points = [outline(build, np.pi, float(z), 9.0, 1.0) for z in heights]
    slope = Strokes.path(points, widths, [0.0, -1.0, 0.0], flatness=1.0)
    # the plate keeps its thickness of about 10 mm while its width changes
    flatness = np.maximum(slope.r0, slope.r1) / 5.6
    return Strokes(
        slope.start, slope.end, slope.r0, slope.r1, slope.normal, np.maximum(flatness, 1.0)
    )


def _girdle(build: Build) -> list[Strokes]:
    """Clavicles, shoulder blades turned out by the raised arms, humeri."""
    parts: list[Strokes] = []
    top = 100 * build.sz + build.shoulder
    joint_x = build.half_width + 22
    for side in (-1.0, 1.0):
        inner = outline(build, np.pi, 60 * build.sz, 12.0, 1.0)
        clavicle = np.array(
            [
                inner + np.array([side * 20, 2, 4]),
                inner + np.array([side * 55, 0, 20]),
                [side * 105 * build.sx, float(inner[1]) + 34, top - 6],
                [side * (joint_x - 4), 2.0, top + 8],
            ]
        )
        parts.append(Strokes.path(clavicle, [8.5, 6.0, 5.5, 6.5]))
        head = (side * joint_x, 20.0, top)
        parts.append(Strokes.path(np.array([head, np.add(head, (side * 2, -1, 8))]), 22.0))
        shaft = np.array(
            [head, [side * (joint_x + 20), 10.0, 170.0], [side * (joint_x + 30), 6, 300]]
        )
        parts.append(Strokes.path(shaft, [16.0, 11.0, 10.5]))
        parts += _scapula(build, side, top, np.array(head))
    return parts


def _scapula(build: Build, side: float, top: float, head: FloatArray) -> list[Strokes]:
    parts = []
    heights = np.arange(-34 * build.sz, top - 18, 7.0)
    for z in heights:
        t = (z - heights[0]) / (heights[-1] - heights[0])
        inner, outer = np.radians(46 - 12 * t), np.radians(60 + 16 * t)
        points = [
            outline(build, float(a), float(z), 27.0 + 5 * t, side)
            for a in np.linspace(inner, outer, 5)
        ]
        normals = np.array(points) * np.array([1.0, 1.0, 0.0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        radii = [9.5, 8.8, 8.8, 8.8, 10.0]
        parts.append(Strokes.path(points, radii, normals, flatness=4.0))
    neck = outline(build, np.radians(74), float(top - 18), 30.0, side)
    parts.append(Strokes.path([neck, 0.35 * neck + 0.65 * head], [8.0, 13.0]))
    ridge = [
        outline(build, np.radians(36), float(top - 34), 36.0, side),
        outline(build, np.radians(56), float(top - 22), 44.0, side),
        head + np.array([side * 6, 20.0, 14.0]),
    ]
    parts.append(Strokes.path(ridge, [4.0, 6.0, 8.0]))
    return parts


def _processes(build: Build) -> list[Strokes]:
    """Transverse and spinous processes, pedicles and laminae."""
    parts: list[Strokes] = []
    for number in range(-2, 16):
        z = build.vertebra_z(number)
        x, y = (float(v) for v in build.spine_xy(np.array(z)))
        here = np.array([x, y, z])
        scale = np.array([build.sx, build.sy, build.sz])

        def at(
            dx: float, dy: float, dz: float, o: FloatArray = here, s: FloatArray = scale
        ) -> Vector3:
            px, py, pz = (float(v) for v in o + np.array([dx, dy, dz]) * s)
            return (px, py, pz)

        parts.append(Strokes.path([at(0, 36, -2), at(0, 46, -12), at(0, 58, -26)], [4.6, 3.6, 4.6]))
        for side in (-1.0, 1.0):
            parts.append(Strokes.path([at(side * 12, 11, 5), at(side * 12.5, 23, 4)], [5.0, 5.0]))
            lamina = [at(side * 12.5, 24, 3), at(side * 7, 32, -1), at(0, 37, -3)]
            normals = [[side, 0.7, 0], [side * 0.6, 1, 0], [0, 1, 0]]
            parts.append(Strokes.path(lamina, [7.0, 7.5, 7.0], np.array(normals), flatness=2.2))
            if number < 13:
                parts.append(
                    Strokes.path(
                        [at(side * 13, 24, 5), at(side * 23, 31, 6), at(side * 32, 36, 7)],
                        [5.2, 4.6, 5.6],
                    )
                )
    return parts


def paint_skeleton(canvas: Canvas, build: Build, bones: Skeleton, hu: dict[Tissue, float]) -> None:
    """Paint cartilage, vertebrae and bones."""
    canvas.strokes(bones.cartilage, hu[Tissue.CARTILAGE], Tissue.CARTILAGE)
    _paint_spine(canvas, build, hu)
    canvas.strokes(bones.bones, hu[Tissue.CORTEX], Tissue.CORTEX)
    canvas.strokes(bones.spongy, hu[Tissue.MARROW], Tissue.MARROW)


def _paint_spine(canvas: Canvas, build: Build, hu: dict[Tissue, float]) -> None:
    """Vertebral bodies with end plates and discs, and the canal behind them."""
    x_range = np.searchsorted(canvas.xs, [-42.0, 42.0])
    y_range = np.searchsorted(canvas.ys, [-10.0, 105.0])
    if x_range[0] >= x_range[1] or y_range[0] >= y_range[1]:
        return
    region = (slice(None), slice(*map(int, y_range)), slice(*map(int, x_range)))
    z = np.asarray(canvas.zs, np.float32)[:, None, None]
    cx, cy = build.spine_xy(canvas.zs)
    dx = np.asarray(canvas.xs[region[2]], np.float32)[None, None] - cx[:, None, None].astype(
        np.float32
    )
    dy = np.asarray(canvas.ys[region[1]], np.float32)[None, :, None] - cy[:, None, None].astype(
        np.float32
    )
    pitch = VERTEBRA_MM * build.sz
    # end plates stand at right angles to the curve of the spine
    slope = (build.spine_xy(canvas.zs + 2)[1] - build.spine_xy(canvas.zs - 2)[1]) / 4
    level = z - build.vertebra_z(1) + dy * slope[:, None, None].astype(np.float32)
    offset = np.abs(level - pitch * np.round(level / pitch))  # from the middle of the vertebra
    half = 0.5 * pitch - 2.3 * build.sz  # discs are 4 to 5 mm high
    waist = 1.6 * (1 - np.minimum(offset / half, 1) ** 2)
    grow = 1 + np.clip(-(z / build.sz) / 100, -0.8, 1.6) * 0.12  # they grow towards the loins
    rx, ry = 16.5 * build.sx * grow, 14.0 * build.sy * grow
    # flattened behind, where the canal lies
    k = np.sqrt((dx / rx) ** 2 + (dy / ry) ** 2)
    body = (k - 1) * np.float32(14.5) + waist
    body = np.maximum(body, dy - ry * 0.80)
    bone = np.maximum(body, offset - half)
    canvas.blend(region, canvas.alpha(_full(body + 1.2)), hu[Tissue.DISC], Tissue.DISC)
    canvas.blend(region, canvas.alpha(_full(bone.copy())), 0.62 * hu[Tissue.CORTEX], Tissue.CORTEX)
    canvas.blend(region, canvas.alpha(_full(bone + 1.1)), hu[Tissue.MARROW], Tissue.MARROW)
    canal = np.sqrt((dx / 1.15) ** 2 + (dy - 22 * build.sy) ** 2) - np.float32(8.0)
    canvas.blend(region, canvas.alpha(_full(canal)), hu[Tissue.SPINAL_CANAL], Tissue.SPINAL_CANAL)


def _full(values: FloatArray) -> Array:
    return np.ascontiguousarray(values, np.float32)
