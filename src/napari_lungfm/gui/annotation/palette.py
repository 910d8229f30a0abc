"""Colours of objects, as napari takes them."""

from collections.abc import Mapping

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.colormaps.standardize_color import transform_color

from napari_lungfm.plugin.palette import OTHER_COLOUR


def label_colormap(colours: Mapping[int, str]) -> DirectLabelColormap:
    """Return a colormap of these labels; others are grey, the background is clear."""
    table: dict[int | None, np.ndarray] = {
        label: transform_color(colour)[0] for label, colour in colours.items()
    }
    grey = transform_color(OTHER_COLOUR)[0]
    return DirectLabelColormap(color_dict={None: grey, 0: np.zeros(4, dtype=np.float32), **table})
