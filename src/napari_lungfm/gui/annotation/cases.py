"""Going from one case to the next in one viewer."""

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_lungfm.plugin.layer_geometry import METADATA_KEY


def show_case(viewer: ViewerModel, image: Image) -> None:
    """Put a case on top of the others, its image and what lies on it, and go there.

    Cases lie where their patients lay, so that one covers the other, or is nowhere near what the
    viewer shows. Images of one study (a PET on its CT) keep their order. Nothing is hidden: what
    a user has made visible or not stays so.

    Parameters
    ----------
    viewer
        The viewer.
    image
        The image of the case.
    """
    bring_to_top(viewer, image)
    if image.ndim == 3:
        _go_to(viewer, image)


def bring_to_top(viewer: ViewerModel, image: Image) -> None:
    """Put an image and what lies on it above other images, in the order that they are in."""
    layers = list(viewer.layers)
    own = [layer for layer in layers if layer is image or same_case(layer, image)]
    above = layers[layers.index(image) + 1 :]
    if any(isinstance(layer, Image) and layer not in own for layer in above):
        for layer in own:
            viewer.layers.move(viewer.layers.index(layer), len(viewer.layers))


def _go_to(viewer: ViewerModel, image: Image) -> None:
    """Show the middle of an image that is not in view; one that is stays as it is."""
    low, high = image.extent.world
    first = viewer.dims.ndim - image.ndim
    displayed = {axis - first for axis in viewer.dims.displayed}
    for axis in range(image.ndim):
        here = viewer.dims.point[first + axis]
        if axis not in displayed and not low[axis] <= here <= high[axis]:
            middle = image.data_to_world([(n - 1) // 2 for n in image.data.shape])[axis]
            viewer.dims.set_point(first + axis, float(middle))
    centre = np.asarray(viewer.scene.camera.center)[-2:]
    if viewer.dims.ndisplay == 2:
        axes = [axis - first for axis in viewer.dims.displayed]
        inside = all(low[a] <= c <= high[a] for a, c in zip(axes, centre, strict=True))
        if not inside:
            viewer.fit_to_view(layers=[image])


def same_case(one: Layer, other: Layer) -> bool:
    """Tell whether layers lie on one grid, or in the space of one study."""
    mine, yours = _frame(one), _frame(other)
    if mine is not None and yours is not None:
        return mine == yours
    if one.ndim != other.ndim or not _near(one.scale, other.scale):
        return False
    shapes = {np.shape(each.data) for each in (one, other) if _has_grid(each)}
    return _near(one.translate, other.translate) and len(shapes) < 2


def _frame(layer: Layer) -> Any:
    facts = layer.metadata.get(METADATA_KEY)
    return facts.get("frame_of_reference") if isinstance(facts, dict) else None


def _has_grid(layer: Layer) -> bool:
    return isinstance(layer.data, np.ndarray) and layer.data.ndim == layer.ndim > 2


def _near(one: Any, other: Any) -> bool:
    return bool(np.allclose(one, other, rtol=1e-6, atol=1e-4))
