"""Where and how precisely a network runs."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeAlias, TypeVar

import torch

from napari_lungfm._core.exceptions import LungFMError, LungFMWarning, UsageError
from napari_lungfm.models.devices import check_device_name

T = TypeVar("T")
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]


class OutOfMemoryError(LungFMError, MemoryError):
    """The model does not fit into memory, on a GPU or on the CPU."""


def pick_device(name: str = "auto") -> torch.device:
    """Return the device that a name stands for.

    Parameters
    ----------
    name
        ``"auto"`` takes CUDA, then MPS, then the CPU.

    Raises
    ------
    UsageError
        If there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    check_device_name(name)
    kind, _, number = name.partition(":")
    if kind == "cuda" and torch.cuda.device_count() <= int(number or 0):
        msg = f"the device '{name}' was asked for, but torch sees {torch.cuda.device_count()} CUDA"
        msg += " devices; use --device cpu, or install a CUDA build of torch"
        raise UsageError(msg)
    if kind == "mps" and not torch.backends.mps.is_available():
        msg = "the device 'mps' was asked for, but torch sees none; use --device cpu"
        raise UsageError(msg)
    return torch.device(name)


class Runtime:
    """A network on a device.

    A GPU that runs out of memory is left once and for all, with a warning; the work goes on on
    the CPU.

    Parameters
    ----------
    module
        The network; it is moved to the device and set to inference.
    device
        See `pick_device`.
    precision
        ``"float32"``; ``"bfloat16"`` for mixed precision (autocast); ``"auto"`` takes bfloat16
        on CUDA devices that have it and float32 elsewhere.

    Raises
    ------
    UsageError
        If there is no such device, or it does not have this precision.
    """

    def __init__(
        self, module: torch.nn.Module, device: str = "auto", precision: Precision = "auto"
    ) -> None:
        self.device = pick_device(device)
        self._mixed = _is_mixed(self.device, precision)
        self._module = module.eval()
        self.run(lambda: module.to(self.device))

    @property
    def on_cpu(self) -> bool:
        """The network runs on the CPU."""
        return self.device.type == "cpu"

    @property
    def precision(self) -> str:
        """``"float32"`` or ``"bfloat16"``."""
        return "bfloat16" if self._mixed else "float32"

    def run(self, work: Callable[[], T]) -> T:
        """Call ``work`` without gradients, on the CPU if the GPU has too little memory.

        ``work`` may be called twice, and has to send its inputs to `device` itself.

        Raises
        ------
        OutOfMemoryError
            If the CPU's memory is too small as well.
        """
        while True:
            try:
                return self._call(work)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                if self.on_cpu:
                    msg = "this computer has too little memory for the model; take a smaller one"
                    raise OutOfMemoryError(msg) from error
            # Only here, where the error no longer keeps the tensors of the failed call alive.
            self._leave_gpu()

    def _call(self, work: Callable[[], T]) -> T:
        with torch.inference_mode(), self._autocast():
            return work()

    def _autocast(self) -> AbstractContextManager[object]:
        if not self._mixed:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _leave_gpu(self) -> None:
        warnings.warn(
            f"the device '{self.device}' ran out of memory; the model goes on on the CPU, slower",
            LungFMWarning,
            stacklevel=3,
        )
        self._module.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.device, self._mixed = torch.device("cpu"), False


def _is_mixed(device: torch.device, precision: Precision) -> bool:
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    if precision not in ("float32", "bfloat16"):
        msg = f"there is no precision '{precision}'; choose from auto, float32, bfloat16"
        raise UsageError(msg)
    if precision == "bfloat16" and device.type != "cuda":
        msg = f"bfloat16 is for CUDA devices, not for '{device.type}'; use float32 or auto"
        raise UsageError(msg)
    return precision == "bfloat16"


#: What plain RuntimeErrors say that mean the same as `torch.OutOfMemoryError`: MPS; the CUDA
#: driver, where not even a context fits; cuBLAS's workspace; the CPU, on Linux and on Windows.
_OUT_OF_MEMORY = (
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        text in str(error) for text in _OUT_OF_MEMORY
    )
