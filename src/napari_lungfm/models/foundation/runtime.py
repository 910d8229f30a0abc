"""Where and how precisely a network runs."""

import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar, get_args

import torch

from napari_lungfm._core.exceptions import LungFMError, LungFMWarning, UsageError
from napari_lungfm.models.devices import check_device_name
from napari_lungfm.models.foundation.options import Precision

__all__ = ["OutOfMemoryError", "Precision", "PrecisionError", "Runtime", "pick_device"]

T = TypeVar("T")


class OutOfMemoryError(LungFMError, MemoryError):
    """The model does not fit into memory, on a GPU or on the CPU."""


class PrecisionError(LungFMError, ArithmeticError):
    """Values left the range of the precision that was asked for."""


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
    the CPU. Torch's own number of threads is left alone: it is that of the processors that the
    process may use (2 on two cores, 1 where it is pinned to one of them).

    Parameters
    ----------
    module
        The network; it is moved to the device and set to inference.
    device
        See `pick_device`.
    precision
        ``"float32"``; ``"bfloat16"`` or ``"float16"`` for mixed precision (autocast).
        ``"auto"`` takes bfloat16 on CUDA devices that have it in hardware and float32 elsewhere,
        on MPS too. float16 is never taken unasked: its range ends at 65,504, and no published
        weights could be tried in it. Where it is too narrow the encoder says so; see
        `check_finite`.

    Raises
    ------
    UsageError
        If there is no such device, or it does not have this precision.
    """

    def __init__(
        self, module: torch.nn.Module, device: str = "auto", precision: Precision = "auto"
    ) -> None:
        self.device = pick_device(device)
        self._mixed = _mixed(self.device, precision)
        self._module = module.eval()
        self.run(lambda: module.to(self.device))

    @property
    def on_cpu(self) -> bool:
        """The network runs on the CPU."""
        return self.device.type == "cpu"

    @property
    def precision(self) -> str:
        """``"float32"``, ``"bfloat16"`` or ``"float16"``."""
        return "float32" if self._mixed is None else str(self._mixed).removeprefix("torch.")

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

    def run_if_it_fits(self, work: Callable[[], T]) -> T | None:
        """Call ``work`` without gradients; return ``None`` if a GPU has too little memory for it.

        For work that can be done in smaller parts: the GPU is not left. On the CPU, `run`.

        Raises
        ------
        OutOfMemoryError
            If it runs on the CPU and memory is too small.
        """
        if self.on_cpu:
            return self.run(work)
        try:
            return self._call(work)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def check_finite(self, tensors: Iterable[torch.Tensor]) -> None:
        """Refuse results that left the range of float16; the others have that of float32.

        Raises
        ------
        PrecisionError
            If a value is infinite or NaN.
        """
        if self._mixed is torch.float16 and not all(t.isfinite().all() for t in tensors):
            msg = "the image encoder left the range of float16; use precision=float32"
            raise PrecisionError(msg)

    def _call(self, work: Callable[[], T]) -> T:
        with torch.inference_mode(), self._autocast():
            return work()

    def _autocast(self) -> AbstractContextManager[object]:
        if self._mixed is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._mixed)

    def _leave_gpu(self) -> None:
        warnings.warn(
            f"the device '{self.device}' ran out of memory; the model goes on on the CPU, slower",
            LungFMWarning,
            stacklevel=3,
        )
        self._module.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.device, self._mixed = torch.device("cpu"), None


#: Mixed precisions, and the devices that they are for.
_MIXED = {
    "bfloat16": (torch.bfloat16, ("cuda",)),
    "float16": (torch.float16, ("cuda", "mps")),
}


def _mixed(device: torch.device, precision: Precision) -> torch.dtype | None:
    """Return the type of mixed precision; ``None`` for float32."""
    if precision == "auto":
        # Emulated bfloat16, which torch counts as support by default, is slower than float32.
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else None
    if precision not in get_args(Precision):
        listed = ", ".join(get_args(Precision))
        msg = f"there is no precision '{precision}'; choose from {listed}"
        raise UsageError(msg)
    if precision == "float32":
        return None
    dtype, devices = _MIXED[precision]
    if device.type not in devices:
        where = " and ".join(name.upper() for name in devices)
        msg = f"{precision} is for {where} devices, not for '{device.type}'; use float32 or auto"
        raise UsageError(msg)
    return dtype


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
