"""Colours of objects."""

from collections.abc import Mapping

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.colormaps.standardize_color import transform_color

#: Colours that can be told apart on grey, also by most colour-blind people
#: (Okabe and Ito 2008, "Color Universal Design"; its black left out).
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
#: The first object of a session has the label of tumours.
_FIRST = 3


def default_colour(label: int) -> str:
    """Return the colour of a new object."""
    return PALETTE[(label - _FIRST) % len(PALETTE)]


def label_colormap(colours: Mapping[int, str]) -> DirectLabelColormap:
    """Return a colormap of these labels; others are grey, the background is clear."""
    table: dict[int | None, np.ndarray] = {
        label: transform_color(colour)[0] for label, colour in colours.items()
    }
    grey = transform_color("#b0b0b0")[0]
    return DirectLabelColormap(color_dict={None: grey, 0: np.zeros(4, dtype=np.float32), **table})
