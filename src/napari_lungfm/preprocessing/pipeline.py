"""From a CT as it was stored to what a network of the paper sees, and back."""

from dataclasses import dataclass

import numpy as np

from napari_lungfm._core.exceptions import DataError, GeometryError
from napari_lungfm._core.types import MaskArray, Vector3
from napari_lungfm.geometry import (
    LabelMap,
    Volume,
    VolumeGeometry,
    axis_codes,
    lattice_offset,
    reorient,
    to_axial,
)
from napari_lungfm.preprocessing.cropping import place_on
from napari_lungfm.preprocessing.resampling import (
    Interpolation,
    resample_labels,
    resample_volume,
    resampled_grid,
)
from napari_lungfm.preprocessing.windowing import HU_RANGE, check_no_nan, clip_and_scale

#: Spacing ``(z, y, x)`` in mm to which the paper resamples.
PAPER_SPACING: Vector3 = (3.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Preprocessed:
    """A prepared image that knows the grid it came from.

    Parameters
    ----------
    volume
        What a network sees: axes as in `geometry.to_axial`.
    source
        The grid of the image as it was stored.
    """

    volume: Volume
    source: VolumeGeometry

    def to_source(self, labels: LabelMap | MaskArray) -> LabelMap:
        """Bring labels back to the source grid.

        Where the two grids share their voxels (swapped or flipped axes, cropped, padded), no
        label changes and only those in padding are dropped; otherwise they are resampled by
        place in the patient (`resample_labels`).

        Parameters
        ----------
        labels
            A boolean mask ``(z, y, x)`` on the grid of `volume`, which becomes the tumour; or a
            label map on any grid in the same patient.

        Raises
        ------
        GeometryError
            If a mask does not have the shape of `volume`.
        DataError
            If a mask is not boolean.
        """
        label_map = labels if isinstance(labels, LabelMap) else self._from_mask(labels)
        turned = reorient(label_map, axis_codes(self.source))
        if lattice_offset(turned.geometry, self.source) is not None:
            return place_on(turned, self.source)
        return resample_labels(turned, self.source)

    def from_source(self, label_map: LabelMap) -> LabelMap:
        """Bring labels of the source image onto the grid of `volume`, as `to_source` does."""
        return Preprocessed(self.volume, self.volume.geometry).to_source(label_map)

    def _from_mask(self, mask: MaskArray) -> LabelMap:
        if mask.dtype != np.bool_:
            msg = f"the mask must be boolean, not {mask.dtype}; make it a LabelMap or compare it"
            raise DataError(msg)
        if mask.shape != self.volume.shape:
            msg = (
                f"the mask has shape {mask.shape}, the prepared image {self.volume.shape} "
                "(z, y, x); give the mask of this image"
            )
            raise GeometryError(msg)
        return LabelMap.from_mask(mask, self.volume.geometry)


def paper_preprocessing(
    volume: Volume,
    spacing: Vector3 = PAPER_SPACING,
    *,
    interpolation: Interpolation = "linear",
) -> Preprocessed:
    """Prepare a CT as the paper did: axial, resampled, clipped to ±1000 HU, scaled to [0, 1].

    The paper does not name the interpolation; linear is ours.

    Parameters
    ----------
    volume
        CT in HU, in any orientation.
    spacing
        New spacing ``(z, y, x)`` in mm. A CT that has it already is not resampled.
    interpolation
        How values between voxel centres are found; see `resample_volume`.

    Returns
    -------
    Preprocessed
        With a float32 volume.

    Raises
    ------
    DataError
        If a voxel is NaN.
    GeometryError
        If the spacing is not positive.
    """
    check_no_nan(volume.array)
    axial = to_axial(volume)
    grid = resampled_grid(axial, spacing)
    resampled = (
        axial
        if grid is axial.geometry
        else resample_volume(axial, grid, interpolation=interpolation)
    )
    scaled = clip_and_scale(resampled.array, *HU_RANGE)
    return Preprocessed(Volume(scaled, grid, volume.metadata), volume.geometry)
