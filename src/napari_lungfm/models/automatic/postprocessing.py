"""What may be done to an automatic label map afterwards, by name; nothing of it by default."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from scipy import ndimage

from napari_lungfm._core.exceptions import LungFMWarning, UsageError
from napari_lungfm._core.types import MaskArray
from napari_lungfm.geometry import LabelMap, Structure, bounding_region

#: A tumour component that is farther than this from both lungs is no lung tumour. Wide enough for
#: a chest wall between a tumour and what is left of the lung around it.
LUNG_MARGIN_MM = 10.0


def largest_components(label_map: LabelMap) -> LabelMap:
    """Keep the largest component of every label (voxels touching at faces, edges or corners)."""
    return _largest(label_map, label_map.present())


def largest_lungs(label_map: LabelMap) -> LabelMap:
    """Keep the largest component of each lung; there may be several tumours."""
    lungs = (int(Structure.LEFT_LUNG), int(Structure.RIGHT_LUNG))
    return _largest(label_map, [value for value in lungs if value in label_map.present()])


def lung_constraint(label_map: LabelMap) -> LabelMap:
    """Drop tumour components that lie farther than `LUNG_MARGIN_MM` from both lungs.

    Without any lung nothing is dropped, with a warning: there is nothing to judge by.
    """
    tumour = label_map.mask(int(Structure.TUMOUR))
    lungs = (label_map.array == Structure.LEFT_LUNG) | (label_map.array == Structure.RIGHT_LUNG)
    if not tumour.any():
        return label_map
    if not lungs.any():
        text = "lung-constraint did nothing: no lung was found to judge the tumour by"
        warnings.warn(text, LungFMWarning, stacklevel=2)
        return label_map
    margin = int(np.ceil(LUNG_MARGIN_MM / min(label_map.spacing))) + 1
    region = bounding_region(tumour, margin=margin)
    if region is None:  # cannot be: there is a tumour
        return label_map
    numbered, count = ndimage.label(tumour[region], structure=np.ones((3, 3, 3)))
    away = ndimage.distance_transform_edt(~lungs[region], sampling=label_map.spacing)
    if not lungs[region].any():
        away = np.full(away.shape, np.inf)
    nearest = np.atleast_1d(ndimage.minimum(away, numbered, np.arange(1, count + 1)))
    far = 1 + np.flatnonzero(nearest > LUNG_MARGIN_MM)
    array = label_map.array.copy()
    array[region][np.isin(numbered, far)] = 0
    return LabelMap(array, label_map.geometry, label_map.labels)


#: Name → what it does.
POSTPROCESSING: Mapping[str, Callable[[LabelMap], LabelMap]] = MappingProxyType(
    {
        "largest-components": largest_components,
        "largest-lungs": largest_lungs,
        "lung-constraint": lung_constraint,
    }
)


def parse_steps(steps: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of steps, given as a list or with commas between them.

    Raises
    ------
    UsageError
        If there is no such step, or ``none`` stands beside others.
    """
    names = steps.split(",") if isinstance(steps, str) else list(steps)
    given = tuple(name.strip() for name in names if name.strip())
    wanted = tuple(name for name in given if name != "none")
    if wanted and wanted != given:
        msg = f"post-processing 'none' stands alone, not beside {', '.join(wanted)}"
        raise UsageError(msg)
    for name in wanted:
        if name not in POSTPROCESSING:
            msg = f"there is no post-processing '{name}'; choose from {', '.join(POSTPROCESSING)}"
            raise UsageError(msg)
    return wanted


def postprocess(label_map: LabelMap, steps: Sequence[str]) -> LabelMap:
    """Apply steps of `POSTPROCESSING` one after the other."""
    for name in parse_steps(steps):
        label_map = POSTPROCESSING[name](label_map)
    return label_map


def _largest(label_map: LabelMap, values: Sequence[int]) -> LabelMap:
    array = label_map.array.copy()
    for value in values:
        region = bounding_region(label_map.mask(value))
        if region is not None:
            part = label_map.array[region] == value
            array[region][part & ~_largest_component(part)] = 0
    return LabelMap(array, label_map.geometry, label_map.labels)


def _largest_component(mask: MaskArray) -> MaskArray:
    numbered, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count < 2:
        return mask
    sizes = np.bincount(numbered.ravel())
    sizes[0] = 0
    largest: MaskArray = numbered == int(np.argmax(sizes))
    return largest
