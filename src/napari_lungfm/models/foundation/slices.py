"""A volume as the lazy sequence of 8-bit slices that models look at."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.types import VoxelArray
from napari_lungfm.models.foundation.zoom import Crop
from napari_lungfm.preprocessing.windowing import Window, to_uint8


@dataclass(frozen=True, eq=False)
class SliceSource:
    """Slices of a volume through one window, made when they are asked for.

    Nothing is kept but a checksum per slice: a session on 300 slices of 512 × 512 needs no second
    copy of the volume.

    Parameters
    ----------
    array
        HU ``(z, y, x)``.
    window
        One window for all slices: grey values mean the same HU everywhere.
    """

    array: VoxelArray
    window: Window
    _digests: dict[int, str] = field(default_factory=dict, init=False, repr=False)

    @property
    def depth(self) -> int:
        """Number of slices."""
        return int(self.array.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        return (self.array.shape[1], self.array.shape[2])

    def grey(self, z: int, crop: Crop) -> npt.NDArray[np.uint8]:
        """Return the crop of slice ``z`` as uint8 ``(y, x)``.

        Raises
        ------
        DataError
            If a voxel is NaN.
        """
        part: VoxelArray = self.array[z][crop.slices]
        return to_uint8(part, self.window)

    def digest(self, z: int) -> str:
        """Return a checksum of the voxels of slice ``z``.

        Slices are named by content, not by volume and number: no volume has to be read as a
        whole to open it, and edited copies share what they have in common.
        """
        if z not in self._digests:
            voxels = np.ascontiguousarray(self.array[z])
            head = f"{voxels.dtype.str}{voxels.shape}".encode()
            digest = hashlib.blake2b(head, digest_size=16)
            digest.update(voxels.data)
            self._digests[z] = digest.hexdigest()
        return self._digests[z]
