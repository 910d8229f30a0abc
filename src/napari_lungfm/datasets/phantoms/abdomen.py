"""What lies under the diaphragm: domes, liver, stomach, spleen, kidneys."""

from dataclasses import dataclass

import numpy as np

from napari_lungfm.datasets.phantoms.build import Build
from napari_lungfm.datasets.phantoms.canvas import Canvas
from napari_lungfm.datasets.phantoms.fields import (
    Array,
    Points,
    ellipsoid,
    smooth_max,
    smooth_min,
)
from napari_lungfm.datasets.phantoms.tissues import Tissue


@dataclass(frozen=True, eq=False)
class AbdomenFields:
    """Organs on a lattice."""

    inside: Array  # below the diaphragm, within the ribs
    liver: Array
    spleen: Array
    stomach: Array
    gas: Array
    kidneys: Array


def diaphragm(build: Build, p: Points) -> Array:
    """Distance above the diaphragm, negative on its lower side.

    The right dome is the higher one; both fall steeply to the flanks and to the back.
    """
    right = _dome(build, p, -64.0, build.dome_right)
    left = _dome(build, p, 66.0, build.dome_left)
    # under the heart, between the domes
    middle = _dome(build, p, 14.0, build.dome_left - 4)
    return smooth_min(smooth_min(right, left, 18), middle, 18)


def _dome(build: Build, p: Points, x: float, top: float) -> Array:
    dx = (p.x - x * build.sx) / np.float32(84 * build.sx)
    dy = (p.y + 14 * build.sy) / np.float32(84 * build.sy)
    r2 = dx * dx + dy * dy + np.float32(0.22) * np.maximum(dy, 0) ** 2
    bulge = np.float32(40 * build.dome_bulge)
    height = p.z - np.float32(top) + bulge * r2 * (1 + np.float32(0.55) * r2)
    slope = bulge * np.sqrt(r2) * (2 + np.float32(2.2) * r2) / np.float32(84)
    result: Array = height / np.sqrt(1 + slope * slope)
    return result


def abdomen_fields(build: Build, p: Points, above: Array, wall: Array) -> AbdomenFields:
    """Organs of the upper abdomen.

    Parameters
    ----------
    build
        The body.
    p
        Positions.
    above
        `diaphragm` there.
    wall
        `cavity_field` there.
    """
    inside = np.maximum(above, wall)
    room = np.maximum(above + 3.0, wall + 3.0)  # diaphragm and a film of fat
    base = build.dome_right
    mass = ellipsoid(p, (-58 * build.sx, -8, base - 62), (92 * build.sx, 86 * build.sy, 78))
    lobe = ellipsoid(p, (18 * build.sx, -38 * build.sy, base - 42), (70 * build.sx, 40, 30))
    liver = smooth_max(smooth_min(mass, lobe, 18), room, 5)
    spleen = ellipsoid(p, (96 * build.sx, 42 * build.sy, build.dome_left - 48), (30, 46, 48))
    spleen = smooth_max(spleen, room, 5)
    stomach = ellipsoid(p, (62 * build.sx, -12 * build.sy, build.dome_left - 40), (44, 46, 46))
    stomach = smooth_max(smooth_max(stomach, room + 1, 5), -(liver - 3), 4)
    stomach = smooth_max(stomach, -(spleen - 2), 4)
    # the patient lies on the back: gas collects in front of a level
    level = np.float32((-12 - 30 + 50 * build.gas) * build.sy)
    gas = np.maximum(stomach + 4.0, p.y - level)
    kidneys = np.minimum(
        ellipsoid(p, (-52 * build.sx, 52 * build.sy, -205 * build.sz), (27, 24, 54)),
        ellipsoid(p, (54 * build.sx, 52 * build.sy, -196 * build.sz), (27, 24, 54)),
    )
    kidneys = np.maximum(kidneys, -(spleen - 3))
    liver = smooth_max(liver, -(kidneys - 4), 5)
    return AbdomenFields(inside, liver, spleen, stomach, gas, kidneys)


def paint_abdomen(canvas: Canvas, organs: AbdomenFields, hu: dict[Tissue, float]) -> None:
    """Paint the organs over the fat."""
    shell = np.abs(organs.inside + 1.2) - 1.3  # the muscle of the diaphragm
    canvas.field(np.maximum(shell, organs.inside), hu[Tissue.MUSCLE], Tissue.MUSCLE)
    canvas.field(organs.kidneys, hu[Tissue.KIDNEY], Tissue.KIDNEY)
    canvas.field(organs.spleen, hu[Tissue.SPLEEN], Tissue.SPLEEN)
    canvas.field(organs.stomach, hu[Tissue.STOMACH] + 12, Tissue.STOMACH)
    canvas.field(organs.gas, hu[Tissue.BOWEL_GAS], Tissue.BOWEL_GAS)
    canvas.field(organs.liver, hu[Tissue.LIVER], Tissue.LIVER)
