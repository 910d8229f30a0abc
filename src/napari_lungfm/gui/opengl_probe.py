"""Make an OpenGL context with Qt and print what it is, as one line of JSON.

Run as ``python -m napari_lungfm.gui.opengl_probe`` in a process of its own, since a missing
display or a bad driver ends the process.
"""

import ctypes
import json
import sys

from qtpy.QtGui import QGuiApplication, QOffscreenSurface, QOpenGLContext

GL_RENDERER = 0x1F01  # from the OpenGL registry, gl.xml
GL_VERSION = 0x1F02


def probe() -> dict[str, object]:
    """Return whether a context could be made, and its version and renderer."""
    application = QGuiApplication(sys.argv[:1])
    context = QOpenGLContext()
    if not context.create():
        return {"works": False, "why": f"Qt made no context on '{application.platformName()}'"}
    surface = QOffscreenSurface()
    surface.setFormat(context.format())
    surface.create()
    if not context.makeCurrent(surface):
        return {"works": False, "why": "Qt could not make its OpenGL context current"}
    get_string = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_uint)(
        int(context.getProcAddress(b"glGetString"))
    )
    texts = [get_string(code) for code in (GL_VERSION, GL_RENDERER)]
    version, renderer = ((text or b"unknown").decode() for text in texts)
    context.doneCurrent()
    return {"works": True, "version": version, "renderer": renderer}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe()) + "\n")
