"""Keeping OpenGL from breaking down when layers are taken out."""

import contextlib
from typing import Any


def make_current(viewer: Any) -> None:
    """Make the OpenGL context of a viewer's canvas the current one; nothing without a window.

    napari frees what a removed layer had in OpenGL at once, whichever context is current then. Qt
    composes a window in a context of its own, and vispy believes of its own one what was done in
    the other: the next frame is drawn by the wrong program, from buffers that are gone, which
    ends the process on Mesa now and then.

    Parameters
    ----------
    viewer
        A viewer; what is needed of it is not public, and its absence is no error.
    """
    with contextlib.suppress(AttributeError, RuntimeError):
        viewer.window._qt_viewer.canvas._scene_canvas.set_current()
