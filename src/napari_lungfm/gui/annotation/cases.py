"""Going from one case to the next in one viewer."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_lungfm.plugin.layer_geometry import METADATA_KEY

#: What marks layers that were read from a file by ourselves; napari marks those that it reads.
OPENED = "napari-lungfm-opened"
#: How napari draws an image that lets nothing below it through.
_COVERING = ("opaque", "translucent", "translucent_no_depth")


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
    """Tell whether layers lie on one grid, or in the space of one study.

    Two images of different files that name no space are of different cases on one grid as well:
    volumes that were cut out and resampled alike are no rarity.
    """
    mine, yours = _frame(one), _frame(other)
    if mine is not None and yours is not None:
        return mine == yours
    if isinstance(one, Image) and isinstance(other, Image):
        files = (_file(one), _file(other))
        if None not in files and files[0] != files[1]:
            return False
    if one.ndim != other.ndim or not _near(one.scale, other.scale):
        return False
    shapes = {np.shape(each.data) for each in (one, other) if _has_grid(each)}
    return _near(one.translate, other.translate) and len(shapes) < 2


def was_opened(layer: Layer) -> bool:
    """Tell whether a layer was read from a file, or is sample data: it can be opened again."""
    source = layer.source
    return bool(layer.metadata.get(OPENED)) or source.path is not None or source.sample is not None


def is_new_case(image: Image, chosen: Image) -> bool:
    """Tell whether an image that was added is the next case to work on.

    It is a volume that was opened, or that we have made, and no further image of the case that is
    chosen; what other plugins compute is none.
    """
    is_volume = image.ndim == 3 and not image.rgb and not image.multiscale
    known = was_opened(image) or METADATA_KEY in image.metadata
    return is_volume and known and not same_case(image, chosen)


def covers(layer: Layer) -> bool:
    """Tell whether nothing is seen through a layer: an image in its full opacity."""
    dense = isinstance(layer, Image) and layer.opacity > 0.99
    return dense and layer.visible and str(layer.blending) in _COVERING


def seen_instead(viewer: ViewerModel, image: Image, voxels: Iterable[Any]) -> Image | None:
    """Return the image of another case that is what one sees at a place of an image.

    Parameters
    ----------
    viewer
        The viewer, in 2D; in 3D nothing is found.
    image
        The image that is worked on.
    voxels
        Places ``(z, y, x)`` in its voxels; they may lie outside it.
    """
    if viewer.dims.ndisplay != 2:
        return None
    first = viewer.dims.ndim - image.ndim
    for voxel in voxels:
        place = image.data_to_world(voxel)
        point = np.array(viewer.dims.point, dtype=float)
        for axis in viewer.dims.displayed:
            point[axis] = place[axis - first]
        top = next((each for each in reversed(viewer.layers) if _is_seen(each, point)), None)
        if isinstance(top, Image) and top is not image and not same_case(top, image):
            return top
    return None


def _is_seen(layer: Layer, point: Any) -> bool:
    """Tell whether an image is seen at a point of the world, if nothing lies above it."""
    if not covers(layer) or layer.ndim > len(point):
        return False
    low, high = layer.extent.data
    place = np.asarray(layer.world_to_data(point[-layer.ndim :]))
    return bool((place >= low - 0.5).all() and (place <= high + 0.5).all())


def _file(layer: Layer) -> str | None:
    facts = layer.metadata.get(METADATA_KEY)
    known = facts.get("source") if isinstance(facts, dict) else None
    return known or layer.source.path


def _frame(layer: Layer) -> Any:
    facts = layer.metadata.get(METADATA_KEY)
    return facts.get("frame_of_reference") if isinstance(facts, dict) else None


def _has_grid(layer: Layer) -> bool:
    return isinstance(layer.data, np.ndarray) and layer.data.ndim == layer.ndim > 2


def _near(one: Any, other: Any) -> bool:
    return bool(np.allclose(one, other, rtol=1e-6, atol=1e-4))
