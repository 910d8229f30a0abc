"""Trachea, bronchi, and the arteries and veins of the lungs.

Trees are grown by the volume-filling method of Tawhai et al., Ann Biomed Eng 28 (2000) 793: a
cloud of points fills a lobe; each branch grows towards the centre of its cloud, which is then
split in two. Calibres follow Murray's law. All branches of one generation grow at once.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.types import FloatArray
from napari_lungfm.datasets.phantoms.build import Build
from napari_lungfm.datasets.phantoms.canvas import Canvas
from napari_lungfm.datasets.phantoms.fields import Array
from napari_lungfm.datasets.phantoms.lungs import lobe_of
from napari_lungfm.datasets.phantoms.mediastinum import smooth_path
from napari_lungfm.datasets.phantoms.strokes import Strokes
from napari_lungfm.datasets.phantoms.tissues import Tissue

_GENERATIONS = 12
#: Exponent of the branching law r0^n = r1^n + r2^n. Murray's is 3; a little less, and vessels
#: near the hilum get the 10 to 14 mm that they have there.
_MURRAY = 2.7
_LEAF_RADIUS_MM = 0.47
_ADVANCE = 0.42  # Tawhai et al.: a branch covers 40 % of the way to the centre of its points


@dataclass(frozen=True, eq=False)
class LungTree:
    """Branching tree; one entry per branch, in the order of generations."""

    start: FloatArray
    end: FloatArray
    radius: FloatArray
    parent_radius: FloatArray
    generation: npt.NDArray[np.intp]

    def strokes(self, rng: np.random.Generator) -> Strokes:
        """Branches as strokes, each with a slight bend."""
        middle = (self.start + self.end) / 2
        length = np.linalg.norm(self.end - self.start, axis=1, keepdims=True)
        middle = middle + rng.normal(0, 0.06, middle.shape) * length
        taper = np.minimum(self.parent_radius, 1.2 * self.radius)
        half = (taper + self.radius) / 2
        return Strokes.join(
            [
                Strokes.round(self.start, middle, taper, half),
                Strokes.round(middle, self.end, half, self.radius),
            ]
        )


@dataclass(frozen=True, eq=False)
class AirwaysVessels:
    """Airways (outer wall and lumen) and lung vessels as strokes."""

    vessels: Strokes
    trachea_wall: Strokes
    trachea_lumen: Strokes
    bronchus_wall: Strokes
    bronchus_lumen: Strokes


def grow_tree(
    points: FloatArray, lobes: npt.NDArray[np.intp], root: FloatArray, root_radius: float
) -> LungTree:
    """Grow a tree from ``root`` that reaches every point.

    Parameters
    ----------
    points
        Cloud ``(n, 3)`` in LPS mm that fills the lung.
    lobes
        Lobe of each point; the first branches go one to each lobe.
    root
        Where the tree enters, ``(3,)``.
    root_radius
        Largest calibre allowed in mm.
    """
    _, label = np.unique(lobes, return_inverse=True)
    count = int(label.max()) + 1
    tip = np.tile(root, (count, 1))
    tip_radius = np.full(count, root_radius)
    parts: list[tuple[FloatArray, ...]] = []
    for generation in range(_GENERATIONS):
        number = np.bincount(label, minlength=count).astype(np.float64)
        centre = _means(points, label, number)
        step = 0.55 if generation == 0 else _ADVANCE
        new_tip = tip + step * (centre - tip)
        radius = np.minimum(_LEAF_RADIUS_MM * number ** (1 / _MURRAY), tip_radius)
        parts.append((tip, new_tip, radius, tip_radius, np.full(count, generation)))
        label, parent = _split(points, label, centre, number)
        if len(parent) == 0:
            break
        keep = label >= 0
        points, label = points[keep], label[keep]
        tip, tip_radius, count = new_tip[parent], radius[parent], len(parent)
    columns = [np.concatenate(c) for c in zip(*parts, strict=True)]
    return LungTree(columns[0], columns[1], columns[2], columns[3], columns[4].astype(np.intp))


def _means(points: FloatArray, label: npt.NDArray[np.intp], number: FloatArray) -> FloatArray:
    sums = [np.bincount(label, weights=points[:, i], minlength=len(number)) for i in range(3)]
    return np.column_stack(sums) / np.maximum(number, 1)[:, None]


def _split(
    points: FloatArray, label: npt.NDArray[np.intp], centre: FloatArray, number: FloatArray
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split every cloud across its longest extent.

    Returns the new label of each point (-1 = its branch ends here) and the parent of each label.
    """
    offset = points - centre[label]
    moments = np.empty((len(number), 3, 3))
    for i in range(3):
        for j in range(i, 3):
            product = offset[:, i] * offset[:, j]
            moments[:, i, j] = moments[:, j, i] = np.bincount(
                label, weights=product, minlength=len(number)
            )
    longest = np.linalg.eigh(moments)[1][:, :, 2]
    above = np.einsum("ij,ij->i", offset, longest[label]) > 0
    split = number[label] >= 2
    code = np.where(split, 2 * label + above, -1)
    used, inverse = np.unique(code[split], return_inverse=True)
    fresh = np.full(len(label), -1, np.intp)
    fresh[split] = inverse
    return fresh, (used // 2).astype(np.intp)


# ---------------------------------------------------------------------- assembling
def build_airways_vessels(
    build: Build,
    clouds: dict[str, tuple[FloatArray, FloatArray]],
    rng: np.random.Generator,
) -> AirwaysVessels:
    """Grow airways, arteries and veins.

    Parameters
    ----------
    build
        The body.
    clouds
        For ``"left"`` and ``"right"`` the points of the arteries and those of the veins.
    rng
        Stream for the bends of the branches.
    """
    vessels, walls, lumens = [], [], []
    for side, (arterial, venous) in clouds.items():
        sign = 1.0 if side == "left" else -1.0
        lobes = lobe_of(build, arterial)
        y, z = (16, -14) if side == "left" else (1, -18)
        arteries = grow_tree(arterial, lobes, build.at(sign * 44, y, z), 7.5)
        veins = grow_tree(venous, lobe_of(build, venous), build.at(sign * 43, 0, -38), 6.0)
        airways = grow_tree(arterial, lobes, build.at(sign * 40, 13, -25), 5.2)
        vessels += [arteries.strokes(rng), veins.strokes(rng)]
        wall, lumen = _bronchi(airways, rng)
        walls.append(wall)
        lumens.append(lumen)
    trachea = _trachea(build)
    return AirwaysVessels(
        Strokes.join(vessels),
        trachea.grown(1.4),
        trachea,
        Strokes.join(walls),
        Strokes.join(lumens),
    )


def _bronchi(tree: LungTree, rng: np.random.Generator) -> tuple[Strokes, Strokes]:
    """Bronchi beside their arteries, down to the sixth generation."""
    keep = np.flatnonzero((tree.generation <= 5) & (tree.radius > 0.75))
    inner = 0.7 * tree.radius[keep]
    # a bronchus runs beside its artery: both trees aim at the same centres, so one moves aside
    gap = np.array([0.35, 0.75, -0.55]) / np.linalg.norm([0.35, 0.75, -0.55])
    shift = (tree.radius[keep] * 2.1)[:, None] * gap
    begin = (np.minimum(tree.parent_radius[keep], 2 * tree.radius[keep]) * 2.1)[:, None] * gap
    begin[tree.generation[keep] == 0] = 0
    start, end = tree.start[keep] + begin, tree.end[keep] + shift
    first = np.minimum(tree.parent_radius[keep] * 0.7, 1.25 * inner)
    lumen = Strokes.round(start, end, first, inner)
    # wall about a sixth of the outer diameter, not under 0.5 mm
    thick = np.maximum(0.22 * inner, 0.5)
    wall = Strokes.round(start, end, first + np.maximum(0.22 * first, 0.5), inner + thick)
    return wall, lumen


def _trachea(build: Build) -> Strokes:
    """Lumen of trachea and main bronchi."""
    s = (build.sx + build.sy) / 2
    wind = smooth_path(
        build.path([(1, -6, 190), (2, 4, 110), (2, 11, 60), (-1, 14, 20), (-1, 15, 2)]), 3
    )
    pipe = Strokes.path(wind, 8.6 * s)
    right = smooth_path(build.path([(-1, 15, 3), (-14, 15, -9), (-27, 14, -17), (-40, 13, -25)]), 2)
    left = smooth_path(build.path([(-1, 15, 3), (13, 16, -9), (27, 16, -18), (40, 13, -25)]), 2)
    return Strokes.join(
        [
            pipe,
            Strokes.path(right, np.linspace(7.4, 6.0, len(right)) * s),
            Strokes.path(left, np.linspace(6.6, 5.6, len(left)) * s),
        ]
    )


def paint_vessels(
    canvas: Canvas, tree: AirwaysVessels, lung: Array, hu: dict[Tissue, float]
) -> None:
    """Paint lung vessels and bronchi inside the lungs (``lung`` = coverage, 0 to 1)."""
    canvas.strokes(tree.bronchus_wall, hu[Tissue.AIRWAY_WALL], Tissue.AIRWAY_WALL, lung)
    canvas.strokes(tree.vessels, hu[Tissue.LUNG_VESSEL], Tissue.LUNG_VESSEL, lung)


def paint_airways(canvas: Canvas, tree: AirwaysVessels, hu: dict[Tissue, float]) -> None:
    """Paint the trachea with its wall, and all lumens."""
    canvas.strokes(tree.trachea_wall, hu[Tissue.AIRWAY_WALL], Tissue.AIRWAY_WALL)
    canvas.strokes(tree.trachea_lumen, hu[Tissue.AIRWAY_LUMEN], Tissue.AIRWAY_LUMEN)
    canvas.strokes(tree.bronchus_lumen, hu[Tissue.AIRWAY_LUMEN], Tissue.AIRWAY_LUMEN)
