"""How an object is expected to end beyond its outermost prompted slice: as an ellipsoid does."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class EllipsoidCap:
    """The cap of an ellipsoid over a slice.

    Parameters
    ----------
    offset_mm
        Distance of the slice from the ellipsoid's equator.
    half_axis_mm
        The ellipsoid's half-axis along z, larger than the offset.
    """

    offset_mm: float
    half_axis_mm: float

    @classmethod
    def over(
        cls, end: int, sizes_mm: Mapping[int, float], slice_mm: float, elongation: float = 1.0
    ) -> Self:
        """Return the cap over the outermost of several slices.

        A single slice is an equator, with ``elongation`` times its size as z half-axis. Of
        several, the largest one (at a distance d and of size R) is the equator of the ellipsoid
        that passes through the outermost one (of size r): its z half-axis is
        c = d / √(1 − (r / R)²), of which c − d lies beyond. More than over a single slice it
        may not be.

        Parameters
        ----------
        end
            The outermost slice.
        sizes_mm
            Slice → radius of the object there, in mm, ``end`` among them.
        slice_mm
            Distance between slices in mm.
        elongation
            Reach along z of an object, relative to its size in the plane.
        """
        size = sizes_mm[end]
        equator = max(sizes_mm, key=lambda z: (sizes_mm[z], -abs(z - end)))
        if equator != end:
            distance = abs(end - equator) * slice_mm
            half_axis = distance / math.sqrt(1.0 - (size / sizes_mm[equator]) ** 2)
            if half_axis - distance <= elongation * size:
                return cls(distance, half_axis)
        return cls(0.0, elongation * size)

    @property
    def height_mm(self) -> float:
        """Distance from the slice to the tip."""
        return self.half_axis_mm - self.offset_mm

    def scale(self, distance_mm: float) -> float:
        """Size at a distance beyond the slice, as a fraction of the size on it; 0 beyond."""
        left = self.half_axis_mm**2 - (self.offset_mm + distance_mm) ** 2
        if left <= 0.0:
            return 0.0
        return math.sqrt(left / (self.half_axis_mm**2 - self.offset_mm**2))
