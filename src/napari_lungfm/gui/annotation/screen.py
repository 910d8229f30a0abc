"""Drawing in napari where it does more than is wanted, or shows what is not there."""

from typing import Any

import numpy as np
from napari.layers import Labels, Points

from napari_lungfm._core.types import Region


def draw_part(layer: Labels, region: Region) -> bool:
    """Draw a part of the labels whose values have changed.

    napari does so for its own brush only; what it uses for that is not public, so that whoever
    calls this has to draw the whole layer where it does not work.

    Parameters
    ----------
    layer
        The layer; its data are in memory.
    region
        Where values have changed, with plain bounds.

    Returns
    -------
    bool
        Whether what is on screen is right now; also where the part is not in view.
    """
    try:
        return _draw_part(layer, region)
    except (AttributeError, TypeError, ValueError, IndexError):  # another version of napari
        return False


def limit_markers(layer: Points, smallest: float, largest: float) -> None:
    """Keep points between two sizes in pixels of the canvas, however near the image is.

    Where no point is in view, napari draws one of size 0 on the first voxel, and a smallest size
    would show it: a white dot in the corner of every slice. There is none then.
    """
    shown = getattr(layer, "_view_indices", layer.data)
    wanted = (float(smallest) if len(shown) else 0.0, float(largest))
    if layer.canvas_size_limits != wanted:
        layer.canvas_size_limits = wanted


def _draw_part(layer: Any, region: Region) -> bool:
    shown = layer._slice
    displayed = shown.slice_input.displayed
    if not layer.visible or len(displayed) != 2 or not layer.loaded:
        return False
    point = shown.slice_input.world_slice.point
    place = np.round(layer.world_to_data(point)).astype(int)
    rest = shown.slice_input.not_displayed
    if any(not region[axis].start <= place[axis] < region[axis].stop for axis in rest):
        return True
    raw, part = shown.image.raw, tuple(region[axis] for axis in displayed)
    if not np.may_share_memory(raw, layer.data):
        return False
    if layer.contour == 0:  # outlines are found by napari below
        shown.image.view[part] = layer.colormap._data_to_texture(raw[part])
    layer._accumulate_updated_slice(region)
    layer._partial_labels_refresh()
    return True
