"""Optional dependencies: one place that imports them and says how to get them."""

import importlib
import importlib.util
from types import ModuleType

from napari_lungfm._core.exceptions import MissingDependencyError

#: Importable module → the extra of this package that installs it.
EXTRA_OF_MODULE = {
    "torch": "sam",
    "torchvision": "sam",
    "sam2": "sam",
    "segment_anything": "sam",
    "safetensors": "sam",
    "timm": "sam",
    "monai": "auto",
    "lungmask": "auto",
    "nnunetv2": "auto",
    "lightning": "auto",
    "peft": "auto",
    "idc_index": "idc",
    "dask": "distributed",
    "distributed": "distributed",
    "napari": "napari",
    "magicgui": "napari",
    "qtpy": "napari",
    "superqt": "napari",
}


def is_available(module: str) -> bool:
    """Tell whether a module could be imported, without importing it."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def require(module: str, *, purpose: str) -> ModuleType:
    """Import an optional module or say how to install it.

    Parameters
    ----------
    module
        Dotted name of the module.
    purpose
        What it is needed for, as it should read in ``"<purpose> needs <module>"``.

    Raises
    ------
    MissingDependencyError
        If the module cannot be imported.
    """
    top = module.partition(".")[0]
    try:
        if top == "torchvision":
            from napari_lungfm._core.torchvision_ops import ensure_torchvision_ops  # noqa: PLC0415

            ensure_torchvision_ops()
        return importlib.import_module(module)
    except ImportError as error:
        extra = EXTRA_OF_MODULE.get(top, "all")
        msg = (
            f"{purpose} needs the module '{module}', which cannot be imported ({error}); "
            f"install it with: pip install 'napari-lungfm[{extra}]'"
        )
        raise MissingDependencyError(msg) from error
