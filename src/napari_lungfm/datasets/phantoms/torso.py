"""Rib cage, chest wall, skin, shoulders and arms."""

import numpy as np

from napari_lungfm._core.types import FloatArray
from napari_lungfm.datasets.phantoms.build import Build
from napari_lungfm.datasets.phantoms.fields import (
    Array,
    Lattice,
    Points,
    SmoothNoise,
    capsule,
    distance_like,
    ellipsoid,
    ramp,
    smooth_max,
    smooth_min,
)

_EXPONENT = 2.1  # between an ellipse and a box, as chests are


def cavity(build: Build, p: Points, grow: float = 0.0) -> Array:
    """Inside of the rib cage as an implicit function, in mm only near its surface.

    Two overlapping superellipses, one for each lung, leave the groove for the spine; both close
    to a dome at the thoracic inlet, which slopes down to the front.

    Parameters
    ----------
    build
        The body.
    p
        Positions.
    grow
        Outward offset in mm.
    """
    a, b = build.half_width + grow, build.half_depth + grow
    floor = -75.0 * build.sz
    rise = build.top + grow - floor
    height = p.z - np.float32(0.36) * p.y  # the inlet slopes down to the front by 20 degrees
    w = np.maximum((height - floor) / rise, 0)
    below = np.maximum((floor - p.z) / 120.0, 0)
    narrow = 1 - np.float32(0.07) * np.minimum(below, 1.6) ** 2
    centre_y = np.float32(2.0) - np.float32(6.0) * ramp(p.z, -60, -160)
    v = (p.y - centre_y) / (b * narrow)
    shared = np.abs(v) ** _EXPONENT + w**2.25
    offset = 0.4 * build.half_width
    semi = a - offset
    sides = []
    for side in (-1.0, 1.0):
        u = np.abs((p.x - side * offset) / (semi * narrow))
        sides.append((u**_EXPONENT + shared) ** np.float32(1 / _EXPONENT) - 1)
    return smooth_min(sides[0], sides[1], 0.06) * np.float32(min(semi, b) * 0.95)


def cavity_field(build: Build, lattice: Lattice) -> Array:
    """`cavity` on a lattice, as a distance in mm (negative inside)."""
    return distance_like(cavity(build, lattice.points), lattice.spacing)


def outline(build: Build, angle: float, z: float, grow: float, side: float) -> FloatArray:
    """Point on the rib cage, ``grow`` mm outside.

    Parameters
    ----------
    build
        The body.
    angle
        From the back (0) around the flank to the front (pi), seen from the middle of the chest.
    z
        Height in mm.
    grow
        Distance from the inner surface in mm.
    side
        +1 left, -1 right.
    """
    radius = np.linspace(0.0, 1.6 * build.half_width + 60, 400)
    direction = np.array([side * np.sin(angle), np.cos(angle)])
    middle = float(np.clip(0.4 * (z - 30), 0, 42))  # the inlet lies further back
    points = np.column_stack(
        [radius * direction[0], middle + radius * direction[1], np.full(len(radius), z)]
    )
    values = cavity(build, Points.rows(points), grow)
    inside = np.flatnonzero(values < 0)
    last = int(inside[-1]) if inside.size else 0
    nxt = min(last + 1, len(radius) - 1)
    step = float(values[nxt] - values[last])
    share = float(np.clip(-values[last] / step, 0, 1)) if step > 0 else 0.0
    return np.asarray(points[last] + share * (points[nxt] - points[last]))


def body_field(build: Build, lattice: Lattice) -> Array:
    """Skin surface: trunk, shoulders, neck, raised arms, breasts."""
    p = lattice.points
    wide = build.half_width + 10 + build.muscle + build.fat
    deep = build.half_depth + 16 + 0.6 * build.muscle + 0.75 * build.fat
    shoulders = ramp(p.z, 0, 110 * build.sz)
    half_width = wide * (1 - 0.05 * ramp(p.z, -80, -220)) + 14 * shoulders
    half_depth = deep * (1 - 0.16 * shoulders)
    u = np.abs(p.x / half_width)
    v = np.abs((p.y - 10 - 8 * shoulders) / half_depth)
    w = np.maximum(p.z - 40 * build.sz, 0) / (122 * build.sz)
    trunk = (u**2.5 + v**2.5 + w**4) ** np.float32(1 / 2.5) - 1
    body = distance_like(trunk * np.float32(deep), lattice.spacing)
    neck = capsule(p, build.place(0, 24, 60), build.place(0, 4, 300), 64, 60)
    body = smooth_min(body, neck, 40)
    for side in (-1.0, 1.0):
        arm = capsule(
            p,
            (side * (wide - 48), 26.0, 88 * build.sz + build.shoulder),
            (side * (wide + 8), 8.0, 300 * build.sz),
            52 + 0.5 * build.fat,
            42 + 0.4 * build.fat,
        )
        body = smooth_min(body, arm, 36)
        if build.breasts:
            size = 0.8 + 0.025 * build.fat
            centre = (side * 78 * build.sx, -deep + 8, -42 * build.sz)
            body = smooth_min(body, ellipsoid(p, centre, (58 * size, 38 * size, 56 * size)), 20)
    return body


def fat_thickness(build: Build, lattice: Lattice, noise: SmoothNoise) -> Array:
    """Depth of the subcutaneous fat in mm: thin at the back and the shoulders."""
    p = lattice.points
    front = ramp(-p.y, -60, 60)
    flank = ramp(np.abs(p.x), 60, 160)
    upper = ramp(p.z, 0, 120)
    z, y, x = (lattice.axis(i) for i in range(3))
    wave = noise.sample(z, y, x, 42.0)
    thick = build.fat * (0.7 + 0.25 * front + 0.35 * flank - 0.3 * upper + 0.12 * wave)
    result: Array = np.maximum(thick, 3.0).astype(np.float32)
    return result


def muscle_field(build: Build, lattice: Lattice, body: Array, wall: Array, fat: Array) -> Array:
    """Outer surface of the chest wall muscles.

    Parameters
    ----------
    build
        The body.
    lattice
        The nodes.
    body
        `body_field`.
    wall
        `cavity_field`.
    fat
        `fat_thickness`.
    """
    p = lattice.points
    upper = ramp(p.z, -50, 60)
    thick = build.muscle * (0.72 + 0.5 * ramp(p.y, 10, 80) + 0.75 * upper)
    # erector spinae: two rolls beside the spinous processes
    rolls = np.exp(-(((np.abs(p.x) - 32) / 26) ** 2)) * ramp(p.y, 50, 80)
    thick = thick + 12 * rolls
    chest = wall - thick.astype(np.float32)
    shoulder = ramp(p.z, 70, 130) * 400 + ramp(np.abs(p.x), build.half_width, 175) * upper * 400
    # the muscles of shoulder and neck fill what is there
    return smooth_max(body + fat, chest - shoulder.astype(np.float32), 6)


def fat_planes(build: Build, lattice: Lattice, wall: Array, noise: SmoothNoise) -> Array:
    """Fat between the muscle layers and in the armpits, as a distance field."""
    p = lattice.points
    z, y, x = (lattice.axis(i) for i in range(3))
    wave = noise.sample(z + 500, y, x, 36.0)
    depth = wall + 4.5 * wave
    half = (0.9 * noise.sample(z, y + 500, x, 24.0) + 0.3 + 0.02 * build.fat).astype(np.float32)
    planes = np.minimum(np.abs(depth - 20) - half, np.abs(depth - 33) - half)
    planes += 12 * ramp(p.z, build.top - 38, build.top - 14)
    thick = 1.1 * noise.sample(z, y + 300, x, 17.0)  # the sheets come and go
    neck = (
        np.abs(noise.sample(z, y, x + 700, 27.0)) * 11
        - thick
        + 20 * ramp(-p.z, -build.top, 15 - build.top)
    )
    planes = np.minimum(planes, neck)
    for side in (-1.0, 1.0):
        armpit = ellipsoid(
            p,
            (side * (build.half_width - 2), 8 * build.sy, 55 * build.sz),
            (20, 24 + 0.3 * build.fat, 46),
        )
        planes = np.minimum(planes, armpit + 3.5 * wave)
        between = ellipsoid(  # between the shoulder blade and the ribs
            p, (side * 70 * build.sx, 92 * build.sy, 50 * build.sz), (34, 7, 40)
        )
        planes = np.minimum(planes, between + 2.5 * wave)
    result: Array = planes.astype(np.float32)
    return result


def glands(build: Build, lattice: Lattice, noise: SmoothNoise) -> Array | None:
    """Glandular tissue of the breasts, or ``None``."""
    if not build.breasts:
        return None
    p = lattice.points
    z, y, x = (lattice.axis(i) for i in range(3))
    deep = build.half_depth + 16 + 0.6 * build.muscle + 0.75 * build.fat
    size = 0.8 + 0.025 * build.fat
    parts = [
        ellipsoid(
            p,
            (side * 80 * build.sx, -deep - 2, -42 * build.sz),
            (34 * size, 20 * size, 32 * size),
        )
        for side in (-1.0, 1.0)
    ]
    wave = noise.sample(z, y, x, 9.0) + noise.sample(z, y, x + 300, 20.0)
    result: Array = np.minimum(parts[0], parts[1]) + np.float32(5.0) * wave + np.float32(3.0)
    return result
