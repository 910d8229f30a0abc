"""From napari layers to volumes and label maps, or one line that says why not."""

from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer

from napari_lungfm._core.exceptions import GeometryError
from napari_lungfm.geometry import LabelMap, Volume, match_geometry
from napari_lungfm.gui.annotation.errors import LayerError
from napari_lungfm.plugin.layer_geometry import LayerInfo, info_of_layer


def volume_of(layer: Image) -> Volume:
    """Return the image of a layer; the voxels are not copied.

    Raises
    ------
    LayerError
        If it is no 3D grey-value image on a grid whose spacing is known.
    """
    name = f"'{layer.name}'"
    if layer.rgb:
        msg = f"{name} is a colour (RGB) image; choose a CT with one grey value per voxel"
        raise LayerError(msg)
    if layer.multiscale:
        msg = f"{name} has several resolutions; open the image at its full resolution alone"
        raise LayerError(msg)
    if layer.ndim != 3:
        what = "a single 2D image" if layer.ndim == 2 else f"an image with {layer.ndim} axes"
        msg = f"{name} is {what}; open the whole CT series, a volume with the axes z, y, x"
        raise LayerError(msg)
    if np.dtype(layer.dtype).kind not in "iuf":
        msg = f"{name} holds {layer.dtype} values; choose an image in HU"
        raise LayerError(msg)
    turned = why_turned(layer)
    if turned:
        raise LayerError(turned)
    try:
        info = info_of_layer(layer)
    except GeometryError as error:
        raise LayerError(str(error)) from error
    facts = {"source": info.source, "assumed": assumption_about(layer)}
    return Volume(np.asarray(layer.data), info.geometry, facts)


def assumption_about(layer: Image | None) -> str:
    """Return what is taken for granted of the place of an image, one line; mostly empty.

    What our own reader has noted was said when the image was opened.
    """
    if layer is None or LayerInfo.from_metadata(layer.metadata) is not None:
        return ""
    try:
        return "; ".join(info_of_layer(layer).notes)
    except GeometryError:  # said when it is to be worked on
        return ""


def why_turned(layer: Layer) -> str | None:
    """Say that a layer was turned or sheared, so that its voxels are not where they seem."""
    origin = np.asarray(layer.data_to_world((0.0,) * layer.ndim))
    steps = [np.asarray(layer.data_to_world(tuple(step))) - origin for step in np.eye(layer.ndim)]
    matrix = np.array(steps)
    off_diagonal = matrix - np.diag(np.diag(matrix))
    if np.abs(off_diagonal).max() < 1e-6 * np.abs(matrix).max():
        return None
    return (
        f"'{layer.name}' is turned in the viewer, so a prompt would be misplaced: turn it back "
        "(Ctrl+Alt+T turns by 90 degrees), then draw"
    )


def placement_of(layer: Layer) -> dict[str, Any]:
    """Return the keyword arguments that put another layer onto this one."""
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def reference_of(layer: Labels, volume: Volume) -> LabelMap:
    """Return the labels of a layer on the grid of the image.

    Raises
    ------
    LayerError
        If they are on another grid.
    """
    if layer.ndim != 3 or layer.multiscale:
        msg = f"'{layer.name}' is no 3D label layer; choose a reference with the axes z, y, x"
        raise LayerError(msg)
    array = np.asarray(layer.data)
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    try:
        info = info_of_layer(layer)
        return match_geometry(LabelMap(array, info.geometry, info.labels), volume.geometry)
    except GeometryError as error:
        msg = f"the reference '{layer.name}' does not fit the image: {error}"
        raise LayerError(msg) from error
