"""Delineate lung tumours in CT with promptable foundation models.

One headless engine serves a napari plugin and the ``napari-lungfm-bench`` command. Importing
this package, or any of its command-line and plugin entry points, does not import torch, napari
or Qt: those load when first needed.
"""

from importlib.metadata import PackageNotFoundError, version

from napari_lungfm._core.exceptions import LungFMError, LungFMWarning

try:
    __version__ = version("napari-lungfm")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["LungFMError", "LungFMWarning", "__version__"]
