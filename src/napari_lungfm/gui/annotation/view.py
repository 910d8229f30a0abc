"""Which slice a viewer shows, and going to another one."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image

from napari_lungfm.gui.annotation.cases import seen_instead
from napari_lungfm.gui.annotation.images import why_turned


class SliceView:
    """The axial slices of an image layer in a viewer.

    Parameters
    ----------
    viewer
        The viewer.
    layer
        A 3D layer; it lies on the last three axes of the viewer.
    """

    def __init__(self, viewer: ViewerModel, layer: Image) -> None:
        self._viewer, self._layer = viewer, layer

    @property
    def z(self) -> int:
        """The slice in view; the nearest one where the view lies outside the image."""
        index = round(float(self._layer.world_to_data(self._viewer.dims.point)[0]))
        return min(max(index, 0), self._layer.data.shape[0] - 1)

    @property
    def problem(self) -> str | None:
        """Why a prompt cannot be drawn in this view, and what to do."""
        dims = self._viewer.dims
        if dims.ndisplay != 2:
            return "Prompts are drawn on axial slices: switch to the 2D view (Ctrl+Y), then draw."
        if set(dims.displayed) != {dims.ndim - 2, dims.ndim - 1}:
            return (
                "This view is not axial; a prompt here would be misplaced: roll the axes "
                "(Ctrl+E) until the slider is z, then draw."
            )
        return why_turned(self._layer)

    def why_another(self, voxels: Iterable[Any] | None = None) -> str | None:
        """Say that another case than this one is what one sees, and what to do.

        Parameters
        ----------
        voxels
            Where, in voxels ``(z, y, x)`` of the layer; by default, in the middle of the view.
        """
        if voxels is None:
            first = self._viewer.dims.ndim - self._layer.ndim
            point = np.array(self._viewer.dims.point, dtype=float)
            centre = np.asarray(self._viewer.scene.camera.center)[-2:]
            point[list(self._viewer.dims.displayed[-2:])] = centre
            voxels = [self._layer.world_to_data(point[first:])]
        other = seen_instead(self._viewer, self._layer, voxels)
        if other is None:
            return None
        return (
            f"Nothing was done: you see '{other.name}' here, but '{self._layer.name}' is being "
            "annotated. Choose under Image the one that you mean."
        )

    @property
    def is_axial(self) -> bool:
        """Whether the viewer shows one axial slice."""
        dims = self._viewer.dims
        return dims.ndisplay == 2 and set(dims.displayed) == {dims.ndim - 2, dims.ndim - 1}

    def shows(self, first: int, last: int) -> bool:
        """Tell whether something on the slices first to last may be in view."""
        return not self.is_axial or first <= self.z <= last

    def go_to(self, z: int) -> None:
        """Show a slice."""
        depth = self._layer.data.shape[0]
        world = self._layer.data_to_world((min(max(z, 0), depth - 1), 0, 0))
        self._viewer.dims.set_point(self._viewer.dims.ndim - 3, float(world[0]))
