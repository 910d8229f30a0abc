"""Tumours: drawn in the lungs of a patient, exact in shape and size without rendering.

The reference of a tumour is its body: solid and ground-glass parts, necrotic core and cavity.
Thin spicules, pleural tails, vessels and atelectasis are seen in the image but do not belong to
it, as radiation oncologists contour them.
"""

from dataclasses import dataclass, replace

import numpy as np

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.seeding import generator
from napari_lungfm._core.types import Vector3
from napari_lungfm.datasets.phantoms.fields import (
    Array,
    Lattice,
    distance_like,
    smooth_max,
    tube,
)
from napari_lungfm.datasets.phantoms.measure import longest_diameter
from napari_lungfm.datasets.phantoms.mediastinum import HILUM_LEFT, HILUM_RIGHT
from napari_lungfm.datasets.phantoms.patient import Patient
from napari_lungfm.datasets.phantoms.placement import place_tumour
from napari_lungfm.datasets.phantoms.shapes import SHAPES, Blob, draw_blob
from napari_lungfm.datasets.phantoms.spec import TumourKind, TumourSpec
from napari_lungfm.datasets.phantoms.strokes import Strokes

_K = TumourKind
_SEATS = 8  # places tried for one tumour
#: Usual sizes in mm (median, spread of the logarithm, least, most) of each kind.
_SIZES: dict[TumourKind, tuple[float, float, float, float]] = {
    _K.SOLID_ROUND: (14.0, 0.4, 5.0, 40.0),
    _K.LOBULATED: (26.0, 0.4, 8.0, 80.0),
    _K.SPICULATED: (24.0, 0.4, 8.0, 70.0),
    _K.PART_SOLID: (20.0, 0.3, 8.0, 40.0),
    _K.GROUND_GLASS: (15.0, 0.35, 6.0, 35.0),
    _K.JUXTA_PLEURAL: (26.0, 0.45, 6.0, 80.0),
    _K.JUXTA_VASCULAR: (22.0, 0.4, 6.0, 60.0),
    _K.ATELECTASIS: (36.0, 0.3, 15.0, 80.0),
    _K.NECROTIC: (60.0, 0.3, 25.0, 110.0),
    _K.CAVITATING: (38.0, 0.35, 15.0, 80.0),
}


@dataclass(frozen=True, eq=False)
class Tumour:
    """A tumour in the patient.

    Attributes
    ----------
    kind
        How it looks.
    diameter_mm
        Diameter asked for (or drawn): that of the sphere of the same volume, uncut by the pleura.
    centre
        LPS ``(x, y, z)`` in mm.
    lattice, distance
        Its own fine lattice and the distance from its surface there, negative inside.
    core
        Distance from the surface of its inner part (solid part, necrosis or cavity), or ``None``.
    beside
        Lattice of, and distance from, the atelectatic lung next to it, or ``None``; not part of
        the reference.
    strokes
        Spicules, tails and feeding vessels; not part of the reference.
    volume_ml
        Volume of the shape.
    longest_diameter_mm
        Longest axial diameter of the shape.
    pleural_contact
        Whether it touches the chest wall, the diaphragm or the mediastinum.
    seed
        Decides its texture.
    """

    kind: TumourKind
    diameter_mm: float
    centre: Vector3
    lattice: Lattice
    distance: Array
    core: Array | None
    beside: tuple[Lattice, Array] | None
    strokes: Strokes
    volume_ml: float
    longest_diameter_mm: float
    pleural_contact: bool
    seed: int


def draw_tumours(patient: Patient, specs: tuple[TumourSpec, ...], seed: int) -> tuple[Tumour, ...]:
    """Draw tumours; what a `TumourSpec` leaves open comes from the seed.

    Parameters
    ----------
    patient
        Where they grow.
    specs
        One for each tumour.
    seed
        Seed of the tumours; every tumour has its own stream.

    Raises
    ------
    UsageError
        If a given centre does not lie in a lung.
    """
    tumours: list[Tumour] = []
    for index, spec in enumerate(specs):
        taken = [(t.centre, t.diameter_mm / 2) for t in tumours]
        tumours.append(_draw(patient, _complete(spec, seed, index), seed, index, taken))
    return tuple(tumours)


def _complete(spec: TumourSpec, seed: int, index: int) -> TumourSpec:
    """Fill in kind and size; each has its own stream, so fixing one leaves the other."""
    kind = spec.kind
    if kind is None:
        kinds = list(TumourKind)
        kind = kinds[int(generator("phantom", seed, "tumour kind", index).integers(len(kinds)))]
    kind = TumourKind(kind)
    diameter = spec.diameter_mm
    if diameter is None:
        median, spread, least, most = _SIZES[kind]
        draw = generator("phantom", seed, "tumour size", index).normal()
        diameter = float(np.clip(median * np.exp(spread * draw), least, most))
    return replace(spec, kind=kind, diameter_mm=diameter)


def _draw(
    patient: Patient,
    spec: TumourSpec,
    seed: int,
    index: int,
    taken: list[tuple[Vector3, float]],
) -> Tumour:
    kind, diameter = TumourKind(spec.kind or _K.SOLID_ROUND), float(spec.diameter_mm or 0.0)
    rng = generator("phantom", seed, "tumour shape", index)
    blob = draw_blob(SHAPES[kind], rng)
    invasion = float(rng.uniform(0.0, 3.5)) if kind == _K.JUXTA_PLEURAL else 0.0
    if spec.centre is None:
        where = generator("phantom", seed, "tumour place", index)
        seat = _best_seat(patient, kind, blob, diameter, invasion, where, taken)
    else:
        seat = _seat(patient, kind, blob, spec.centre, diameter, invasion)
    centre, lattice, body, lung = seat.centre, seat.lattice, seat.body, seat.lung
    inside = body < 0
    if not inside.any():
        msg = (
            f"the centre {tuple(round(v, 1) for v in centre)} mm of tumour {index} does not lie "
            "in a lung; choose another or leave it out"
        )
        raise UsageError(msg)
    beside = _atelectasis(patient, centre, diameter / 2, rng) if kind == _K.ATELECTASIS else None
    return Tumour(
        kind=kind,
        diameter_mm=diameter,
        centre=centre,
        lattice=lattice,
        distance=body,
        core=_core(kind, body, lattice, centre, diameter, rng),
        beside=beside,
        strokes=_strokes(kind, blob, patient, centre, diameter, rng),
        volume_ml=seat.volume_ml,
        longest_diameter_mm=longest_diameter(-body, 0.0, (lattice.spacing, lattice.spacing)),
        pleural_contact=bool((inside & (lung > -1.0)).any()),
        seed=seed * 64 + index,
    )


def _lattice(centre: Vector3, diameter: float, reach: float) -> Lattice:
    spacing = float(np.clip(diameter / 36, 0.3, 2.5))
    half = reach * diameter / 2 + 2 * spacing
    low, high = (tuple(float(c + s * half) for c in centre) for s in (-1, 1))
    return Lattice.covering((low[0], low[1], low[2]), (high[0], high[1], high[2]), spacing)


@dataclass(frozen=True, eq=False)
class _Seat:
    """A tumour's body at one place, and the distance from the lung's surface around it."""

    centre: Vector3
    lattice: Lattice
    body: Array
    lung: Array
    volume_ml: float


def _best_seat(
    patient: Patient,
    kind: TumourKind,
    blob: Blob,
    diameter: float,
    invasion: float,
    rng: np.random.Generator,
    taken: list[tuple[Vector3, float]],
) -> _Seat:
    """Try places until the pleura and the vessels leave enough of the tumour."""
    enough = 0.4 * np.pi / 6 * diameter**3 / 1000
    best: _Seat | None = None
    for _ in range(_SEATS):
        spot = place_tumour(patient, kind, diameter / 2, rng, taken)
        seat = _seat(patient, kind, blob, spot, diameter, invasion)
        if best is None or seat.volume_ml > best.volume_ml:
            best = seat
        if best.volume_ml >= enough:
            return best
    if best is None or best.volume_ml == 0:  # the middle of a lung always holds some of it
        x, y, z = patient.lung_map.nodes[int(np.argmax(patient.lung_map.depth))].tolist()
        return _seat(patient, _K.SOLID_ROUND, blob, (x, y, z), diameter, invasion)
    return best


def _seat(
    patient: Patient,
    kind: TumourKind,
    blob: Blob,
    centre: Vector3,
    diameter: float,
    invasion: float,
) -> _Seat:
    """Cut a tumour's shape to the lung, which it may leave by ``invasion`` mm."""
    lattice = _lattice(centre, diameter, blob.reach)
    body = distance_like(blob.implicit(lattice.points, centre, diameter / 2), lattice.spacing)
    lung = _lung_distance(patient, lattice)
    if (lung > -2).any():
        body = smooth_max(body, lung - np.float32(invasion), 0.4)
    if kind == _K.JUXTA_VASCULAR:
        body = np.maximum(body, -_large_vessels(patient, lattice, centre, diameter))
    return _Seat(centre, lattice, body, lung, _volume_ml(body, lattice))


def _lung_distance(patient: Patient, lattice: Lattice) -> Array:
    z, y, x = (lattice.axis(i) for i in range(3))
    coarse = Lattice.covering((x[0], y[0], z[0]), (x[-1], y[-1], z[-1]))
    return coarse.sample(patient.lungs_on(coarse).either, z, y, x)


def _large_vessels(patient: Patient, lattice: Lattice, centre: Vector3, diameter: float) -> Array:
    """Distance from vessels that a tumour displaces rather than swallows."""
    vessels = patient.tree.vessels
    middle = (vessels.start + vessels.end) / 2
    near = np.linalg.norm(middle - np.array(centre), axis=1) < diameter + 15
    result = np.full(lattice.count, 100.0, np.float32)
    for i in np.flatnonzero(near & (vessels.r0 > 1.5)):
        ends = np.stack([vessels.start[i], vessels.end[i]])
        radii = np.array([vessels.r0[i], vessels.r1[i]])
        np.minimum(result, tube(lattice.points, ends, radii), out=result)
    return result


def _core(
    kind: TumourKind,
    body: Array,
    lattice: Lattice,
    centre: Vector3,
    diameter: float,
    rng: np.random.Generator,
) -> Array | None:
    """Inner part, kept a rim away from the surface."""
    shares = {_K.PART_SOLID: (0.35, 0.65), _K.NECROTIC: (0.5, 0.75), _K.CAVITATING: (0.4, 0.72)}
    if kind not in shares:
        return None
    share = float(rng.uniform(*shares[kind]))
    blob = draw_blob(SHAPES[_K.LOBULATED], rng)
    offset = rng.normal(0, 0.07, 3) * diameter
    middle = (centre[0] + offset[0], centre[1] + offset[1], centre[2] + offset[2])
    inner = blob.implicit(lattice.points, middle, share * diameter / 2)
    rim = max(1.5, 0.06 * diameter)
    return smooth_max(distance_like(inner, lattice.spacing), body + rim, 1.0)


def _atelectasis(
    patient: Patient, centre: Vector3, radius: float, rng: np.random.Generator
) -> tuple[Lattice, Array]:
    """Collapsed wedge from the tumour outwards, away from the hilum."""
    c = np.array(centre)
    outward = c - patient.build.at(*(HILUM_LEFT if c[0] > 0 else HILUM_RIGHT))
    outward = outward / max(float(np.linalg.norm(outward)), 1e-6)
    length = float(rng.uniform(1.6, 4.5)) * radius  # long ones reach the pleura
    reach = radius + length + 6
    low, high = c - reach, c + reach
    lattice = Lattice.covering(
        (float(low[0]), float(low[1]), float(low[2])),
        (float(high[0]), float(high[1]), float(high[2])),
    )
    p = lattice.points
    dx, dy, dz = p.x - np.float32(c[0]), p.y - np.float32(c[1]), p.z - np.float32(c[2])
    u = outward.astype(np.float32)
    along = dx * u[0] + dy * u[1] + dz * u[2]
    across = np.sqrt(np.maximum(dx * dx + dy * dy + dz * dz - along * along, 0))
    wave = patient.noise.sample(lattice.axis(0), lattice.axis(1), lattice.axis(2), 16.0)
    cone = (across - (0.6 * radius + float(rng.uniform(0.1, 0.45)) * along)) * np.float32(0.9)
    wedge = np.maximum(np.maximum(cone, -along), along - np.float32(length))
    wedge = wedge + np.float32(0.13 * radius + 1.5) * wave
    return lattice, smooth_max(wedge, patient.lungs_on(lattice).either, 2.0)


def _strokes(
    kind: TumourKind,
    blob: Blob,
    patient: Patient,
    centre: Vector3,
    diameter: float,
    rng: np.random.Generator,
) -> Strokes:
    """Spicules, as thin tapering cones, and vessels that run to the tumour."""
    radius, c = diameter / 2, np.array(centre)
    feeders = 0 if diameter < 8 else int(rng.integers(1, 5))
    hilum = patient.build.at(*(HILUM_LEFT if c[0] > 0 else HILUM_RIGHT))
    toward = (hilum - c) / max(float(np.linalg.norm(hilum - c)), 1e-6)
    directions = toward + rng.normal(0, 0.55, (feeders, 3))
    lengths = rng.uniform(1.5, 2.2, feeders)
    widths = np.full(feeders, np.clip(0.05 * diameter, 0.6, 1.4))
    if kind == _K.SPICULATED:
        number = int(rng.integers(26, 48))
        directions = np.vstack([directions, rng.normal(size=(number, 3))])
        lengths = np.append(lengths, rng.uniform(1.3, 1.95, number))
        thick = np.clip(0.06 * diameter, 0.7, 1.6)
        widths = np.append(widths, thick * rng.uniform(0.6, 1.3, number))
    if len(directions) == 0:
        return Strokes.empty()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    surface = blob.radius(directions)[:, None] * radius * directions
    bend = rng.normal(0, 0.06 * radius, surface.shape)
    lengths[:] = 1 + (lengths - 1) * min(1.0, 14.0 / radius)  # long ones end at some 10 mm
    start, end = c + 0.7 * surface, c + lengths[:, None] * surface + bend
    return Strokes.round(start, end, 1.4 * widths, 0.25 * widths)


def _volume_ml(distance: Array, lattice: Lattice) -> float:
    share = np.clip(0.5 - distance / lattice.spacing, 0, 1)
    return float(share.sum(dtype=np.float64)) * lattice.spacing**3 / 1000.0
