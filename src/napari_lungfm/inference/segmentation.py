"""Whole masks from prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import LabelArray, ProgressCallback, SliceMask
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Structure, Volume, VolumeGeometry
from napari_lungfm.inference.propagation import propagate_object
from napari_lungfm.models.prompts import Prompt, prompted_slices
from napari_lungfm.models.protocols import PromptableModel, SlicePredictor, VolumePredictor


def segment_object(
    model: PromptableModel,
    volume: Volume,
    prompts: Sequence[Prompt],
    *,
    fill: bool = True,
    max_extent_mm: float | None = None,
    label: int = int(Structure.TUMOUR),
    progress: ProgressCallback | None = None,
) -> LabelMap:
    """Segment one object of a volume.

    Parameters
    ----------
    model
        A promptable model.
    volume
        The image in HU, axial slices along the first array axis; rows and columns may be swapped
        and any axis flipped.
    prompts
        All prompts of the object, in voxels of ``volume``.
    fill, max_extent_mm
        See `propagate_object`.
    label
        Label value in the result, 1 to 255.
    progress
        Called after every slice with the slices done and the most that can come.

    Returns
    -------
    LabelMap
        uint8 on the grid of ``volume``.

    Raises
    ------
    PromptError, GeometryError, UsageError
        See `propagate_object`.
    """
    return segment_objects(
        model,
        volume,
        {label: prompts},
        fill=fill,
        max_extent_mm=max_extent_mm,
        progress=progress,
    )


def segment_objects(
    model: PromptableModel,
    volume: Volume,
    objects: Mapping[int, Sequence[Prompt]],
    *,
    fill: bool = True,
    max_extent_mm: float | None = None,
    progress: ProgressCallback | None = None,
) -> LabelMap:
    """Segment several objects one after the other; a finished one is never overwritten.

    Parameters
    ----------
    model, volume, fill, max_extent_mm, progress
        See `segment_object`.
    objects
        Label value → prompts of the object. Where two objects claim a voxel, the one that stands
        first keeps it.

    Returns
    -------
    LabelMap
        uint8 on the grid of ``volume``.

    Raises
    ------
    PromptError, GeometryError, UsageError
        See `propagate_object`; also if a label is not 1 to 255.
    """
    for label in objects:
        if not 1 <= label <= 255:
            msg = f"a label must be between 1 and 255, not {label}"
            raise UsageError(msg)
    report = _Progress(progress, [_most_slices(p, volume, fill=fill) for p in objects.values()])
    predictor = model.open(volume)
    crops = []
    for prompts in objects.values():
        crops.append(
            _collect(
                predictor, prompts, volume.geometry, report, fill=fill, max_extent_mm=max_extent_mm
            )
        )
    array = np.zeros(volume.shape, dtype=np.uint8)
    for label, crop in zip(objects, crops, strict=True):
        crop.paint(array, label)
    names = {label: LUNG_LABELS.get(label, f"object {label}") for label in objects}
    return LabelMap(array, volume.geometry, names)


@dataclass
class _Crops:
    """An object's slices, each cut to its bounding box: memory follows the object's size."""

    slices: dict[int, tuple[int, int, SliceMask]] = field(default_factory=dict)

    def add(self, z: int, mask: SliceMask) -> None:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if rows.size:
            y, x = int(rows[0]), int(columns[0])
            self.slices[z] = (y, x, mask[y : rows[-1] + 1, x : columns[-1] + 1].copy())

    def paint(self, array: LabelArray, label: int) -> None:
        for z, (y, x, mask) in self.slices.items():
            target = array[z, y : y + mask.shape[0], x : x + mask.shape[1]]
            target[mask & (target == 0)] = label


class _Progress:
    def __init__(self, callback: ProgressCallback | None, sizes: Sequence[int]) -> None:
        self._callback, self._sizes = callback, sizes
        self._object, self._slice = 0, 0

    def step(self) -> None:
        self._slice += 1
        self._tell()

    def finish_object(self) -> None:
        self._object, self._slice = self._object + 1, 0
        self._tell()

    def _tell(self) -> None:
        if self._callback is not None:
            self._callback(sum(self._sizes[: self._object]) + self._slice, sum(self._sizes))


def _most_slices(prompts: Sequence[Prompt], volume: Volume, *, fill: bool) -> int:
    return volume.shape[0] if fill else len(prompted_slices(prompts))


def _collect(
    predictor: SlicePredictor | VolumePredictor,
    prompts: Sequence[Prompt],
    geometry: VolumeGeometry,
    report: _Progress,
    *,
    fill: bool,
    max_extent_mm: float | None,
) -> _Crops:
    crops = _Crops()
    stream = propagate_object(predictor, prompts, geometry, fill=fill, max_extent_mm=max_extent_mm)
    for z, prediction in stream:
        crops.add(z, prediction.mask)
        report.step()
    report.finish_object()
    return crops
