"""Slice masks cut to their bounding box and packed to bits: memory follows the object's size."""

from dataclasses import dataclass

import numpy as np

from napari_lungfm._core.types import SliceMask


@dataclass(frozen=True)
class SliceCrop:
    """The object on one slice; an immutable value that two slices or states can share.

    Parameters
    ----------
    y0, x0
        First row and column of the tight bounding box.
    shape
        Its rows and columns.
    bits
        The voxels in it in C order, eight to a byte, the first in the highest bit.
    """

    y0: int
    x0: int
    shape: tuple[int, int]
    bits: bytes

    @classmethod
    def of(cls, mask: SliceMask) -> "SliceCrop | None":
        """Cut a slice mask ``(y, x)``; ``None`` if nothing is on it."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if rows.size == 0:
            return None
        y0, x0 = int(rows[0]), int(columns[0])
        part = mask[y0 : int(rows[-1]) + 1, x0 : int(columns[-1]) + 1]
        height, width = part.shape
        return cls(y0, x0, (int(height), int(width)), np.packbits(part).tobytes())

    @property
    def box(self) -> tuple[slice, slice]:
        """Index of the bounding box in a slice ``(y, x)``."""
        height, width = self.shape
        return (slice(self.y0, self.y0 + height), slice(self.x0, self.x0 + width))

    @property
    def part(self) -> SliceMask:
        """The mask inside the bounding box."""
        height, width = self.shape
        packed = np.frombuffer(self.bits, dtype=np.uint8)
        return np.unpackbits(packed, count=height * width).reshape(self.shape).astype(bool)

    @property
    def area(self) -> int:
        """Number of voxels."""
        return sum(byte.bit_count() for byte in self.bits)

    def mask(self, shape: tuple[int, int]) -> SliceMask:
        """Return the mask on a slice ``(y, x)`` of this shape."""
        whole = np.zeros(shape, dtype=bool)
        whole[self.box] = self.part
        return whole


def whole_mask(crop: SliceCrop | None, shape: tuple[int, int]) -> SliceMask:
    """Return the mask ``(y, x)`` of a crop, or an empty one."""
    return np.zeros(shape, dtype=bool) if crop is None else crop.mask(shape)
