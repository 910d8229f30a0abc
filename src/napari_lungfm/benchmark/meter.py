"""What a unit costs: time, memory of the process, and memory of the GPU where it uses one."""

import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from napari_lungfm._core.measure import Meter

_MIB = 2**20


@dataclass
class UnitMeter(Meter):
    """A `Meter` that looks at GPUs too; it never loads torch itself.

    Attributes
    ----------
    peak_gpu_mb
        Largest memory of tensors on CUDA devices during the block, in MiB, all devices together;
        on Apple's GPUs, which know no peak, what the driver holds at its end. ``None`` where the
        block used no GPU.
    """

    peak_gpu_mb: float | None = None
    _before: int = 0

    def __enter__(self) -> Self:
        """Reset the peaks and start the clock."""
        cuda = _cuda()
        if cuda is not None:
            devices = range(cuda.device_count())
            for device in devices:
                cuda.reset_peak_memory_stats(device)
            self._before = sum(cuda.memory_allocated(device) for device in devices)
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the clock and read the peaks."""
        super().__exit__(kind, error, trace)
        self.peak_gpu_mb = self._gpu_peak()

    def _gpu_peak(self) -> float | None:
        cuda = _cuda()
        if cuda is not None:
            peak = sum(cuda.max_memory_allocated(device) for device in range(cuda.device_count()))
            # A unit on the CPU leaves what lies on the GPU as it was.
            return peak / _MIB if peak > self._before else None
        mps = _mps()
        if mps is None or not mps.current_allocated_memory():
            return None
        return float(mps.driver_allocated_memory()) / _MIB


def _cuda() -> Any:
    """Return torch's CUDA where this process uses it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return torch.cuda


def _mps() -> Any:
    torch = sys.modules.get("torch")
    if torch is None or not torch.backends.mps.is_available():
        return None
    return torch.mps
