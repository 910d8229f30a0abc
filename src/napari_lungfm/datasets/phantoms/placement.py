"""Where a tumour grows."""

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.types import Vector3
from napari_lungfm.datasets.phantoms.fields import Lattice
from napari_lungfm.datasets.phantoms.mediastinum import HILUM_LEFT, HILUM_RIGHT
from napari_lungfm.datasets.phantoms.patient import Patient
from napari_lungfm.datasets.phantoms.spec import TumourKind

_TRIES = 40


def place_tumour(
    patient: Patient,
    kind: TumourKind,
    radius: float,
    rng: np.random.Generator,
    taken: list[tuple[Vector3, float]],
) -> Vector3:
    """Draw a place that suits the kind and keeps away from other tumours where there is room.

    Parameters
    ----------
    patient
        Whose lungs.
    kind
        Juxta-pleural tumours sit on the chest wall, juxta-vascular ones beside a vessel, those
        with atelectasis near a hilum; the others in the parenchyma.
    radius
        Of the tumour in mm.
    rng
        Random stream of the place.
    taken
        Centres and radii of other tumours.

    Returns
    -------
    tuple of float
        LPS ``(x, y, z)`` in mm.
    """
    best, widest = None, -np.inf
    for _ in range(_TRIES):
        centre = _candidate(patient, kind, radius, rng)
        room = min(
            (float(np.linalg.norm(centre - np.array(c))) - r - radius for c, r in taken),
            default=np.inf,
        )
        if room > widest:
            best, widest = centre, room
        if widest > 6.0:
            break
    x, y, z = (best if best is not None else patient.lung_map.nodes[0]).tolist()
    return (x, y, z)


def _candidate(
    patient: Patient, kind: TumourKind, radius: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    if kind == TumourKind.JUXTA_PLEURAL:
        return _on_the_wall(patient, radius, rng)
    if kind == TumourKind.JUXTA_VASCULAR:
        return _beside_a_vessel(patient, radius, rng)
    lung = patient.lung_map
    wanted = lung.depth > min(1.2 * radius + 3.0, float(np.quantile(lung.depth, 0.985)))
    nodes = lung.nodes[wanted]
    if kind == TumourKind.ATELECTASIS:
        hila = np.array([patient.build.at(*HILUM_LEFT), patient.build.at(*HILUM_RIGHT)])
        gap = np.linalg.norm(nodes[:, None] - hila, axis=2).min(axis=1)
        nodes = nodes[np.argsort(gap)[: max(8, len(nodes) // 5)]]
    chosen = nodes[int(rng.integers(len(nodes)))]
    return np.asarray(chosen + rng.uniform(-2.0, 2.0, 3))


def _on_the_wall(
    patient: Patient, radius: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Centre near the costal pleura, about half the radius deep."""
    lung = patient.lung_map
    depth = np.clip(float(rng.uniform(0.35, 0.75)) * radius, 1.5, None)
    near = np.abs(lung.wall_depth - depth) < 4.0
    near &= lung.depth > np.minimum(depth, lung.wall_depth) - 6.0
    nodes = lung.nodes[near] if near.any() else lung.nodes[np.argsort(lung.wall_depth)[:50]]
    return _to_depth(patient, nodes[int(rng.integers(len(nodes)))], float(depth))


def _to_depth(
    patient: Patient, point: npt.NDArray[np.float64], depth: float
) -> npt.NDArray[np.float64]:
    """Move a point along the slope of the lung's surface until it is ``depth`` mm deep.

    The map is too coarse for small tumours, which would miss the pleura.
    """
    low, high = (tuple(float(v) for v in point + s * 14.0) for s in (-1, 1))
    lattice = Lattice.covering((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    field = patient.lungs_on(lattice).either
    here = np.array(point, np.float64)
    for _ in range(4):
        around = [here[2 - axis] + np.array([-1.0, 0.0, 1.0]) for axis in range(3)]
        values = lattice.sample(field, around[0], around[1], around[2]).astype(np.float64)
        slope = np.array(
            [
                values[1, 1, 2] - values[1, 1, 0],
                values[1, 2, 1] - values[1, 0, 1],
                values[2, 1, 1] - values[0, 1, 1],
            ]
        )
        slope /= max(float(np.linalg.norm(slope)), 1e-6)
        here -= slope * np.clip(values[1, 1, 1] + depth, -4.0, 4.0)
    return here


def _beside_a_vessel(
    patient: Patient, radius: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Centre one radius beside a vessel of 3 to 9 mm."""
    vessels = patient.tree.vessels
    r = (vessels.r0 + vessels.r1) / 2
    candidates = np.flatnonzero((r > 1.5) & (r < 4.5))
    i = int(candidates[int(rng.integers(len(candidates)))])
    axis = vessels.end[i] - vessels.start[i]
    side = np.cross(axis, rng.normal(size=3))
    side /= max(float(np.linalg.norm(side)), 1e-6)
    middle = (vessels.start[i] + vessels.end[i]) / 2
    centre = middle + side * (r[i] + 0.85 * radius)
    nodes = patient.lung_map.nodes  # stay in the lung
    nearest = nodes[int(np.argmin(((nodes - centre) ** 2).sum(axis=1)))]
    inside = float(np.abs(nearest - centre).max()) < 4.0
    return np.asarray(centre if inside else nearest)
