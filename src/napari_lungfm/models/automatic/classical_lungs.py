"""Left and right lung without a trained model: the fallback where lungmask is not at hand.

Thresholding, connected components, hole filling and a split by erosion, in the manner of Hu,
Hoffman and Reinhardt, Automatic lung segmentation for accurate quantitation of volumetric X-ray
CT images, IEEE Trans Med Imaging 20 (2001). Constants were set on phantoms and by looking at one
real chest. Consolidated lung, effusions and large tumours at the chest wall are left out, and a
lung that the image cuts off at its side is not found at all.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import clear_border, watershed

from napari_lungfm._core.types import MaskArray, ProgressCallback, SliceMask
from napari_lungfm.geometry import (
    LUNG_LABELS,
    LabelMap,
    Structure,
    Volume,
    axis_codes,
    bounding_region,
    reorient,
    to_axial,
)
from napari_lungfm.models.automatic.protocol import CancelCallback, Steps
from napari_lungfm.preprocessing import check_no_nan

#: Voxels below are air or lung. Between lung (about −850 HU) and soft tissue (about 40 HU).
AIR_THRESHOLD_HU = -400.0
#: Sections of windpipe and main bronchi are smaller than this.
_LARGEST_AIRWAY_MM2 = 1500.0
#: What is smaller is no lung (gas in the gut, noise).
_SMALLEST_LUNG_ML = 30.0
#: Neither lung is a smaller part of both.
_SMALLEST_PART = 0.15
#: Vessels and nodules at the border up to about twice this width belong to the lung.
_CLOSING_MM = 6.0
_SMOOTHING_MM = 0.8
#: Edge of the voxels on which the lungs are told apart.
_SPLIT_MM = 3.0


class ClassicalLungs:
    """Finds the lungs by thresholds and components; nothing is trained."""

    name = "lungs-classical"
    labels: Mapping[int, str] = {
        value: LUNG_LABELS[value] for value in (Structure.LEFT_LUNG, Structure.RIGHT_LUNG)
    }
    parameters = 0

    def segment(
        self,
        volume: Volume,
        *,
        progress: ProgressCallback | None = None,
        cancelled: CancelCallback | None = None,
    ) -> LabelMap:
        """See `AutomaticModel.segment`."""
        check_no_nan(volume.array)
        axial = to_axial(volume)
        steps = Steps(2 * axial.shape[0] + 2, progress, cancelled)
        inside = _lung_air(axial, steps)
        sides = _split(inside, axial.spacing)
        steps.advance()
        array = _closed(sides, axial.spacing, steps)
        found = LabelMap(array, axial.geometry, self.labels)
        turned = reorient(found, axis_codes(volume.geometry))
        steps.advance()
        return LabelMap(np.ascontiguousarray(turned.array), volume.geometry, self.labels)


def _lung_air(volume: Volume, steps: Steps) -> MaskArray:
    """Air inside the body that is no airway: boolean ``(z, y, x)``."""
    spacing = volume.spacing
    sigma = [_SMOOTHING_MM / mm for mm in spacing[1:]]
    inside = np.zeros(volume.shape, dtype=np.bool_)
    for z, plane in enumerate(volume.array):
        hu = ndimage.gaussian_filter(plane.astype(np.float32), sigma)
        inside[z] = _enclosed(hu < AIR_THRESHOLD_HU)
        steps.advance()
    lungs = _large_components(inside, spacing)
    if lungs.any():
        typical = float(np.median(volume.array[lungs]))
        # The inside of an airway is air (−1000 HU); halfway to what this patient's lung has.
        limit = (typical - 1000.0) / 2.0
        for z, plane in enumerate(volume.array):
            lungs[z] &= ~_airways(lungs[z], plane, limit, spacing[1] * spacing[2])
    return _large_components(lungs, spacing)


def _enclosed(air: SliceMask) -> SliceMask:
    """Air on a slice that does not reach the border: what lies around the patient does."""
    enclosed: SliceMask = clear_border(air)
    return enclosed


def _airways(
    lungs: SliceMask, hu: npt.NDArray[Any], limit_hu: float, pixel_mm2: float
) -> SliceMask:
    """Sections of windpipe and main bronchi on a slice: small regions of nothing but air."""
    numbered, count = ndimage.label(lungs)
    if not count:
        return lungs
    numbers = np.arange(1, count + 1)
    areas = np.bincount(numbered.ravel(), minlength=count + 1)[1:] * pixel_mm2
    medians = np.atleast_1d(ndimage.median(hu, numbered, numbers))
    airways = numbers[(areas < _LARGEST_AIRWAY_MM2) & (medians < limit_hu)]
    inside: SliceMask = np.isin(numbered, airways)
    return inside


def _large_components(mask: MaskArray, spacing: tuple[float, float, float]) -> MaskArray:
    """Keep the two largest components, or the largest where it holds both lungs."""
    numbered, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(numbered.ravel())
    sizes[0] = 0
    voxel_ml = float(np.prod(spacing)) / 1000.0
    order = np.argsort(sizes)[::-1][:2]
    smallest = max(_SMALLEST_LUNG_ML / voxel_ml, _SMALLEST_PART / 2 * sizes[order[0]])
    kept = [int(n) for n in order if sizes[n] >= smallest]
    inside: MaskArray = np.isin(numbered, kept) if kept else np.zeros_like(mask)
    return inside


def _split(lungs: MaskArray, spacing: tuple[float, float, float]) -> npt.NDArray[np.uint8]:
    """Label each voxel of axial lungs as left or right lung."""
    region = bounding_region(lungs, margin=1)
    result = np.zeros(lungs.shape, dtype=np.uint8)
    if region is None:
        return result
    part = lungs[region]
    # Erosions are slow on fine grids, and where the lungs touch matters to a few millimetres.
    step = tuple(slice(None, None, max(1, round(_SPLIT_MM / mm))) for mm in spacing)
    coarse = part[step]
    coarse_spacing = [mm * (s.step or 1) for mm, s in zip(spacing, step, strict=True)]
    markers = _markers(coarse, coarse_spacing)
    if markers is None:
        result[region] = part * np.uint8(_side_of_one(lungs))
        return result
    depth = ndimage.distance_transform_edt(coarse, sampling=coarse_spacing)
    sides = watershed(-depth, markers, mask=coarse)
    result[region] = _spread(sides, part, step)
    return result


def _markers(lungs: MaskArray, spacing: list[float]) -> npt.NDArray[np.int32] | None:
    """Erode until the lungs come apart; ``None`` where there is only one."""
    depth = ndimage.distance_transform_edt(np.pad(lungs, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    for radius in np.arange(0.0, 0.9 * float(depth.max()), max(1.0, min(spacing) / 2)):
        numbered, count = ndimage.label(depth > radius)
        if count < 2:
            continue
        sizes = np.bincount(numbered.ravel())
        sizes[0] = 0
        first, second = np.argsort(sizes)[::-1][:2]
        if sizes[second] < _SMALLEST_PART * sizes[first]:
            continue
        columns = [float(np.nonzero(numbered == n)[2].mean()) for n in (first, second)]
        left, right = (first, second) if columns[0] > columns[1] else (second, first)
        markers = np.zeros(lungs.shape, dtype=np.int32)
        markers[numbered == left] = int(Structure.LEFT_LUNG)
        markers[numbered == right] = int(Structure.RIGHT_LUNG)
        return markers
    return None


def _side_of_one(lungs: MaskArray) -> Structure:
    """Which lung a single one is: columns of an axial slice run towards the patient's left."""
    middle = (lungs.shape[2] - 1) / 2
    is_left = float(np.nonzero(lungs)[2].mean()) > middle
    return Structure.LEFT_LUNG if is_left else Structure.RIGHT_LUNG


def _spread(
    coarse: npt.NDArray[np.int32], fine: MaskArray, step: tuple[slice, ...]
) -> npt.NDArray[np.uint8]:
    """Give every voxel of a fine mask the label of the nearest labelled coarse voxel."""
    nearest = ndimage.distance_transform_edt(
        coarse == 0, return_distances=False, return_indices=True
    )
    filled = coarse[tuple(nearest)].astype(np.uint8)
    for axis, (part, size) in enumerate(zip(step, fine.shape, strict=True)):
        index = np.minimum((np.arange(size) + part.step // 2) // part.step, filled.shape[axis] - 1)
        filled = np.take(filled, index, axis=axis)
    labelled: npt.NDArray[np.uint8] = filled * fine
    return labelled


def _closed(
    sides: npt.NDArray[np.uint8], spacing: tuple[float, float, float], steps: Steps
) -> npt.NDArray[np.uint8]:
    """Take vessels and nodules into the lungs, slice by slice."""
    result = np.zeros_like(sides)
    for z, plane in enumerate(sides):
        for side in (Structure.LEFT_LUNG, Structure.RIGHT_LUNG):
            closed = _close(plane == side, spacing[1:])
            result[z][closed & (result[z] == 0)] = int(side)
        keep = plane != 0
        result[z][keep] = plane[keep]
        steps.advance()
    return result


def _close(mask: SliceMask, spacing: tuple[float, ...]) -> SliceMask:
    """Close a mask with a disc and fill its holes."""
    if not mask.any():
        return mask
    pad = [int(np.ceil(_CLOSING_MM / mm)) + 1 for mm in spacing]
    padded = np.pad(mask, [(p, p) for p in pad])
    grown = ndimage.distance_transform_edt(~padded, sampling=spacing) <= _CLOSING_MM
    filled = ndimage.binary_fill_holes(grown)
    shrunk = ndimage.distance_transform_edt(filled, sampling=spacing) > _CLOSING_MM
    inner: SliceMask = shrunk[pad[0] : -pad[0], pad[1] : -pad[1]] | mask
    return inner
