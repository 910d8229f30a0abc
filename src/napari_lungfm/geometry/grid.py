"""`VolumeGeometry`: the grid of a volume in the patient."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.exceptions import GeometryError
from napari_lungfm._core.types import FloatArray, Index3, Region, Vector3

#: Largest distance, as a fraction of the smallest voxel side, between the corners of two grids
#: that count as one. Far above the rounding of text formats (DICOM DS keeps 16 characters,
#: NIfTI float32), far below anything that moves a contour.
GRID_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class VolumeGeometry:
    """A regular grid of voxels in the patient.

    Parameters
    ----------
    shape
        Number of voxels ``(z, y, x)``, each at least 1.
    spacing
        Distance between voxel centres ``(z, y, x)`` in mm, in the order of the array axes.
    origin
        Centre of voxel ``(0, 0, 0)``: LPS ``(x, y, z)`` in mm.
    direction
        3 × 3 rotation (or rotation with mirroring); column *k* is the LPS unit vector along the
        index axis ``("x", "y", "z")[k]``, exactly as in SimpleITK.

    Raises
    ------
    GeometryError
        If a size or spacing is not positive, a number is not finite, or the columns of
        ``direction`` are not orthonormal (a sheared grid, such as gantry tilt).
    """

    shape: Index3
    spacing: Vector3 = (1.0, 1.0, 1.0)
    origin: Vector3 = (0.0, 0.0, 0.0)
    direction: tuple[Vector3, Vector3, Vector3] = (
        (1.0, 0.0, 0.0),
        (0.0, 1.0, 0.0),
        (0.0, 0.0, 1.0),
    )

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        spacing = tuple(float(s) for s in self.spacing)
        origin = tuple(float(o) for o in self.origin)
        direction = np.asarray(self.direction, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            msg = f"a volume needs three positive sizes (z, y, x), not {self.shape}"
            raise GeometryError(msg)
        if len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
            msg = f"voxel spacing (z, y, x) must be three positive numbers in mm, not {spacing}"
            raise GeometryError(msg)
        if len(origin) != 3 or not np.isfinite(origin).all():
            msg = f"the origin must be three finite numbers in mm (LPS), not {origin}"
            raise GeometryError(msg)
        if direction.shape != (3, 3) or not np.isfinite(direction).all():
            msg = f"the direction must be a finite 3 x 3 matrix, not {direction.tolist()}"
            raise GeometryError(msg)
        if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-4):
            msg = (
                "the axes of the grid are not at right angles "
                f"(direction {np.round(direction, 4).tolist()}); resample the image first"
            )
            raise GeometryError(msg)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "spacing", spacing)
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "direction", tuple(tuple(row) for row in direction.tolist()))

    # ------------------------------------------------------------------ derived values
    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """4 × 4 matrix from the homogeneous index ``(z, y, x, 1)`` to LPS ``(x, y, z, 1)`` mm."""
        matrix = np.eye(4)
        axes_xyz = np.asarray(self.direction) * np.asarray(self.spacing[::-1])
        matrix[:3, :3] = axes_xyz[:, ::-1]
        matrix[:3, 3] = self.origin
        return matrix

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing)) / 1000.0

    @property
    def extent_mm(self) -> Vector3:
        """Size of the grid ``(z, y, x)`` in mm, voxels counted whole."""
        z, y, x = (n * s for n, s in zip(self.shape, self.spacing, strict=True))
        return (z, y, x)

    # ------------------------------------------------------------------ coordinates
    def index_to_world(self, index: npt.ArrayLike) -> FloatArray:
        """Map indices to the patient.

        Parameters
        ----------
        index
            Indices ``(..., 3)`` in order ``(z, y, x)``, fractions allowed; voxel centres are at
            whole numbers.

        Returns
        -------
        ndarray
            LPS ``(x, y, z)`` in mm, shape ``(..., 3)``, float64.
        """
        return _apply(self.affine, index)

    def world_to_index(self, world: npt.ArrayLike) -> FloatArray:
        """Map LPS ``(x, y, z)`` mm, shape ``(..., 3)``, to fractional indices ``(z, y, x)``."""
        return _apply(np.linalg.inv(self.affine), world)

    # ------------------------------------------------------------------ derived grids
    def crop(self, region: Region) -> Self:
        """Return the grid of ``array[region]``; slices have step 1 and lie within the shape."""
        bounds = [s.indices(n) for s, n in zip(region, self.shape, strict=True)]
        if any(step != 1 or stop <= start for start, stop, step in bounds):
            msg = f"the crop {region} of a volume of shape {self.shape} is empty or has steps"
            raise GeometryError(msg)
        z, y, x = (b[0] for b in bounds)
        nz, ny, nx = (b[1] - b[0] for b in bounds)
        return self.window((z, y, x), (nz, ny, nx))

    def window(self, start: Index3, shape: Index3) -> Self:
        """Return the grid of ``shape`` voxels whose first is the voxel ``start`` of this one.

        Unlike with `crop`, it may reach beyond this grid; ``start`` may be negative.
        """
        ox, oy, oz = (float(v) for v in self.index_to_world(start))
        return type(self)(shape, self.spacing, (ox, oy, oz), self.direction)

    def resampled(self, spacing: Vector3) -> Self:
        """Return the grid with another spacing ``(z, y, x)`` mm that covers the same box.

        The outer faces of the first voxels stay where they are; the number of voxels is rounded,
        so the far faces may move by up to half a new voxel.

        Raises
        ------
        GeometryError
            If the spacing is not three positive numbers.
        """
        old = np.asarray(self.spacing)
        new = np.asarray(spacing, dtype=np.float64)
        if new.shape != (3,) or not (np.isfinite(new) & (new > 0)).all():
            msg = f"voxel spacing (z, y, x) must be three positive numbers in mm, not {spacing}"
            raise GeometryError(msg)
        z, y, x = (
            max(1, int(np.rint(n * a / b))) for n, a, b in zip(self.shape, old, new, strict=True)
        )
        shift = (new / old - 1.0) / 2.0  # from the old first centre, in old voxels
        ox, oy, oz = (float(v) for v in self.index_to_world(shift))
        return type(self)(
            (z, y, x), (float(new[0]), float(new[1]), float(new[2])), (ox, oy, oz), self.direction
        )

    # ------------------------------------------------------------------ comparison
    def difference(self, other: "VolumeGeometry", tolerance: float = GRID_TOLERANCE) -> str | None:
        """Say in words how two grids differ, or return ``None`` when they are the same.

        Parameters
        ----------
        other
            The grid to compare with.
        tolerance
            Largest distance between corresponding corner voxels, as a fraction of the smallest
            voxel side.
        """
        if self.shape != other.shape:
            return f"shapes (z, y, x) {self.shape} and {other.shape} differ"
        limit = tolerance * min(*self.spacing, *other.spacing)
        corners = _corners(self.shape)
        distance = np.linalg.norm(
            self.index_to_world(corners) - other.index_to_world(corners), axis=-1
        ).max()
        if distance <= limit:
            return None
        if not np.allclose(self.spacing, other.spacing, rtol=1e-3):
            return f"spacings (z, y, x) {_mm(self.spacing)} and {_mm(other.spacing)} mm differ"
        if not np.allclose(self.direction, other.direction, atol=1e-3):
            return "the orientations of the axes differ"
        if not np.allclose(self.origin, other.origin, atol=limit):
            return f"origins (x, y, z) {_mm(self.origin)} and {_mm(other.origin)} mm differ"
        return f"corresponding corners lie up to {distance:.3f} mm apart"

    def is_close(self, other: "VolumeGeometry", tolerance: float = GRID_TOLERANCE) -> bool:
        """Tell whether two grids are the same within ``tolerance`` (see `difference`)."""
        return self.difference(other, tolerance) is None

    # ------------------------------------------------------------------ serialisation
    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers for JSON; `from_dict` reads them back exactly."""
        return {
            "shape": list(self.shape),
            "spacing": list(self.spacing),
            "origin": list(self.origin),
            "direction": [list(row) for row in self.direction],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        return cls(values["shape"], values["spacing"], values["origin"], values["direction"])

    @classmethod
    def from_affine(cls, shape: Index3, affine: npt.ArrayLike) -> Self:
        """Build a grid from its `affine` (index ``(z, y, x, 1)`` to LPS mm).

        Raises
        ------
        GeometryError
            If the axes are not at right angles.
        """
        matrix = np.asarray(affine, dtype=np.float64)
        axes_xyz = matrix[:3, :3][:, ::-1]
        lengths = np.linalg.norm(axes_xyz, axis=0)
        if not np.isfinite(matrix).all() or (lengths <= 0).any():
            msg = f"the affine {matrix.tolist()} is not a grid in space"
            raise GeometryError(msg)
        sx, sy, sz = (float(v) for v in lengths)
        ox, oy, oz = (float(v) for v in matrix[:3, 3])
        direction = (axes_xyz / lengths).tolist()
        return cls(shape, (sz, sy, sx), (ox, oy, oz), direction)


def _apply(matrix: FloatArray, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
    moved: npt.NDArray[np.float64] = (
        np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
    )
    return moved


def _corners(shape: Index3) -> npt.NDArray[np.float64]:
    ends = [(0, n - 1) for n in shape]
    return np.array(np.meshgrid(*ends, indexing="ij"), dtype=np.float64).reshape(3, -1).T


def _mm(values: Vector3) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"
