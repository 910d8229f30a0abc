"""Let torchvision from the package registry work beside a CPU build of torch.

torchvision registers fake kernels for its compiled operators at import. Where its binary was
built against another build of torch (the registry's CUDA build, beside a CPU-only torch), the
binary does not load, the operators do not exist, and ``import torchvision`` dies with
``operator torchvision::nms does not exist``. Declaring the schemas of the missing operators
first is enough for its transforms and models, which is all that this package and its
dependencies use; calling the operators themselves stays impossible and says so.
"""

import importlib
import importlib.util
import threading

#: Operators for which ``torchvision/_meta_registrations.py`` registers fake kernels without
#: checking that they exist, and their schemas there (torchvision 0.28).
MISSING_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

_lock = threading.Lock()
_libraries: list[object] = []  # torch.library.Library drops its schemas when collected


def ensure_torchvision_ops() -> tuple[str, ...]:
    """Make ``import torchvision`` work, where its compiled operators cannot load.

    Does nothing where torch or torchvision is absent, where torchvision imports by itself, or
    when called again.

    Returns
    -------
    tuple of str
        The operators that were declared by this call.
    """
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchvision") is None:
        return ()
    with _lock:
        if _libraries or _imports_by_itself():
            return ()
        return _declare_missing()


def _imports_by_itself() -> bool:
    """Import torchvision as it is; a failed import leaves nothing behind in ``sys.modules``."""
    try:
        importlib.import_module("torchvision")
    except (RuntimeError, OSError):
        return False
    return True


def _declare_missing() -> tuple[str, ...]:
    import torch  # noqa: PLC0415

    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    declared = []
    for name, schema in MISSING_SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)  # type: ignore[no-untyped-call]
            declared.append(name)
    _libraries.append(library)
    return tuple(declared)
