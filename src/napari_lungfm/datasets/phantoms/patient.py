"""`Patient`: the whole anatomy in continuous space, without tumours."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_lungfm._core.seeding import generator
from napari_lungfm._core.types import FloatArray, Vector3
from napari_lungfm.datasets.phantoms.abdomen import AbdomenFields, abdomen_fields, diaphragm
from napari_lungfm.datasets.phantoms.airways_vessels import AirwaysVessels, build_airways_vessels
from napari_lungfm.datasets.phantoms.build import Build
from napari_lungfm.datasets.phantoms.fields import Array, Lattice, SmoothNoise
from napari_lungfm.datasets.phantoms.lungs import LungFields, lung_fields
from napari_lungfm.datasets.phantoms.mediastinum import (
    HeartFields,
    Mediastinum,
    build_mediastinum,
    heart_fields,
    mediastinal_solid,
)
from napari_lungfm.datasets.phantoms.skeleton import Skeleton, build_skeleton
from napari_lungfm.datasets.phantoms.torso import (
    body_field,
    cavity_field,
    fat_planes,
    fat_thickness,
    glands,
    muscle_field,
)

#: Nodes of the coarse map of the lungs, on which vessels end and tumours are placed.
_MAP_MM = 5.0
_CLOUD = 1900  # points per tree and lung


@dataclass(frozen=True, eq=False)
class ChestFields:
    """Smooth shapes on one lattice; all distances in mm, negative inside."""

    body: Array
    muscle: Array
    planes: Array
    glands: Array | None
    wall: Array
    heart: HeartFields
    abdomen: AbdomenFields
    lungs: LungFields


@dataclass(frozen=True, eq=False)
class LungMap:
    """Coarse map of the lungs.

    Attributes
    ----------
    nodes
        Positions inside the lungs, LPS mm ``(n, 3)``.
    depth
        Distance of each from the lung's surface in mm.
    wall_depth
        Distance of each from the chest wall or the diaphragm in mm.
    """

    nodes: npt.NDArray[np.float64]
    depth: npt.NDArray[np.float64]
    wall_depth: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Patient:
    """Anatomy of one synthetic patient.

    The frame is LPS mm with the carina near the origin. Draw one with `draw_patient`.
    """

    seed: int
    build: Build
    skeleton: Skeleton
    mediastinum: Mediastinum
    tree: AirwaysVessels
    noise: SmoothNoise
    lung_map: LungMap

    @property
    def centre(self) -> Vector3:
        """Middle of the box around the lungs, LPS mm."""
        low, high = self.lung_map.nodes.min(axis=0), self.lung_map.nodes.max(axis=0)
        x, y, z = ((low + high) / 2).tolist()
        return (x, y, z)

    def lungs_on(self, lattice: Lattice) -> LungFields:
        """Lungs alone on a lattice."""
        return _lungs(self.build, self.mediastinum, lattice)[0]

    def fields_on(self, lattice: Lattice) -> ChestFields:
        """All smooth shapes on a lattice."""
        build, noise = self.build, self.noise
        lungs, wall, heart, above = _lungs(build, self.mediastinum, lattice)
        body = body_field(build, lattice)
        fat = fat_thickness(build, lattice, noise)
        muscle = muscle_field(build, lattice, body, wall, fat)
        planes = np.maximum(fat_planes(build, lattice, wall, noise), muscle + 2.5)
        gland = glands(build, lattice, noise)
        if gland is not None:
            gland = np.maximum(gland, np.maximum(body + 5, -muscle + 3))
        return ChestFields(
            body,
            muscle,
            planes,
            gland,
            wall,
            heart,
            abdomen_fields(build, lattice.points, above, wall),
            lungs,
        )


@lru_cache(maxsize=8)
def draw_patient(seed: int) -> Patient:
    """Draw the anatomy of a patient.

    The same seed gives the same patient; nothing here depends on tumours or on the scan. The
    last few patients are kept, so that several scans of one cost little.

    Parameters
    ----------
    seed
        Any integer.
    """
    build = Build.draw(seed)
    mediastinum = build_mediastinum(build)
    lung_map = _lung_map(build, mediastinum)
    rng = generator("phantom", seed, "vessels")
    clouds = {}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        inside = (lung_map.nodes[:, 0] * sign > 0) & (lung_map.depth > 3.0)
        nodes = lung_map.nodes[inside]
        clouds[side] = (_cloud(nodes, rng), _cloud(nodes, rng))
    return Patient(
        seed,
        build,
        build_skeleton(build),
        mediastinum,
        build_airways_vessels(build, clouds, rng),
        SmoothNoise.draw(generator("phantom", seed, "texture")),
        lung_map,
    )


def _cloud(nodes: FloatArray, rng: np.random.Generator) -> FloatArray:
    chosen = rng.choice(len(nodes), size=min(_CLOUD, len(nodes)), replace=False)
    jitter = rng.uniform(-0.5, 0.5, (len(chosen), 3)) * _MAP_MM
    return np.asarray(nodes[chosen] + jitter)


def _lungs(
    build: Build, tubes: Mediastinum, lattice: Lattice
) -> tuple[LungFields, Array, HeartFields, Array]:
    p = lattice.points
    wall = cavity_field(build, lattice)
    heart = heart_fields(build, p)
    solid = mediastinal_solid(build, tubes, p, heart.outer)
    above = diaphragm(build, p)
    return lung_fields(p, wall, solid, above), wall, heart, above


def _lung_map(build: Build, tubes: Mediastinum) -> LungMap:
    reach = (build.half_width + 5, build.half_depth + 15)
    lattice = Lattice.covering(
        (-reach[0], -reach[1], -215 * build.sz), (*reach, build.top + 8), _MAP_MM
    )
    lungs, wall, _, above = _lungs(build, tubes, lattice)
    inside = lungs.either < 0
    # scipy measures from voxel centre to voxel centre; the surface lies half a step before
    depth = ndimage.distance_transform_edt(inside, sampling=_MAP_MM)[inside] - _MAP_MM / 2
    index = np.argwhere(inside)
    nodes = np.column_stack([lattice.axis(2 - k)[index[:, 2 - k]] for k in range(3)])
    shell = np.minimum(-wall, above)[inside]
    return LungMap(nodes, np.asarray(depth, np.float64), np.asarray(shell, np.float64))
