"""`Canvas`: one slab of fine slices, painted from the back to the front."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.types import FloatArray, Region
from napari_lungfm.datasets.phantoms.fields import Array, Lattice
from napari_lungfm.datasets.phantoms.strokes import Strokes, coverage
from napari_lungfm.datasets.phantoms.tissues import Tissue

#: A mean HU, or HU voxel by voxel on the region that is painted.
Paint: TypeAlias = float | Array


@dataclass(eq=False)
class Canvas:
    """Voxels in the making.

    Parameters
    ----------
    zs, ys, xs
        Voxel centres in mm, ascending.
    lattice
        Lattice that the fields of this rendering live on.
    hu
        HU ``(z, y, x)``, float32.
    tissue
        `Tissue` of each voxel, uint8, or ``None`` when nobody asks for it.
    """

    zs: FloatArray
    ys: FloatArray
    xs: FloatArray
    width: float
    lattice: Lattice
    hu: Array
    tissue: npt.NDArray[np.uint8] | None = None

    @classmethod
    def empty(
        cls,
        zs: FloatArray,
        ys: FloatArray,
        xs: FloatArray,
        width: float,
        lattice: Lattice,
        *,
        tissues: bool = False,
    ) -> "Canvas":
        """Canvas full of air."""
        shape = (len(zs), len(ys), len(xs))
        hu = np.full(shape, -1000.0, np.float32)
        return cls(zs, ys, xs, width, lattice, hu, np.zeros(shape, np.uint8) if tissues else None)

    # ------------------------------------------------------------------ sampling
    def region_of(self, field: Array, below: float) -> Region | None:
        """Voxels around the nodes where a field is less than ``below``; ``None`` if none are."""
        bounds = []
        z_nodes = self.lattice.axis(0)
        step = self.lattice.spacing
        keep = (z_nodes > self.zs[0] - 2 * step) & (z_nodes < self.zs[-1] + 2 * step)
        if not keep.any():  # the slab lies beyond the world; the last nodes go on
            keep[[0, -1]] = True
        inside = field[keep] < below
        if not inside.any():
            return None
        for axis, mm in enumerate((self.zs, self.ys, self.xs)):
            if axis == 0:
                bounds.append(slice(0, len(mm)))
                continue
            hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
            nodes = self.lattice.axis(axis)
            low, high = nodes[hit[0]] - step, nodes[hit[-1]] + step
            low = -np.inf if hit[0] == 0 else low
            high = np.inf if hit[-1] == len(nodes) - 1 else high
            first, last = np.searchsorted(mm, low), np.searchsorted(mm, high, side="right")
            if last <= first:
                return None
            bounds.append(slice(int(first), int(last)))
        return (bounds[0], bounds[1], bounds[2])

    def sample(self, field: Array, region: Region | None = None) -> Array:
        """Interpolate a lattice field to the voxels of a region."""
        z, y, x = region if region is not None else (slice(None),) * 3
        return self.lattice.sample(field, self.zs[z], self.ys[y], self.xs[x])

    # ------------------------------------------------------------------ painting
    def alpha(self, distance: Array) -> Array:
        """Part of each voxel inside a surface at the given distance in mm (changes it)."""
        distance *= np.float32(-1 / self.width)
        distance += np.float32(0.5)
        np.clip(distance, 0, 1, out=distance)
        return distance

    def blend(self, region: Region, alpha: Array, value: Paint, tissue: Tissue) -> None:
        """Mix a tissue into a region."""
        part = self.hu[region]
        part += alpha * (value - part)
        if self.tissue is not None:
            painted = self.tissue[region]
            painted[np.broadcast_to(alpha > 0.5, painted.shape)] = tissue

    def field(self, field: Array, value: Paint, tissue: Tissue) -> None:
        """Paint the inside of a lattice field."""
        region = self.region_of(field, self.width + self.lattice.spacing)
        if region is not None:
            self.blend(region, self.alpha(self.sample(field, region)), value, tissue)

    def strokes(
        self, strokes: Strokes, value: Paint, tissue: Tissue, mask: Array | None = None
    ) -> None:
        """Paint strokes, optionally only where ``mask`` (0 to 1, all voxels) allows it."""
        alpha = coverage(strokes, self.zs, self.ys, self.xs, self.width)
        if alpha is None:
            return
        if mask is not None:
            alpha *= mask
        self.blend((slice(None),) * 3, alpha, value, tissue)
