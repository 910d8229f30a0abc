"""Multiply-accumulates of whatever a model computes.

Counted by PyTorch's ``FlopCounterMode`` while the model runs: convolutions, matrix products and
attention, two floating-point operations each being one multiply-accumulate. Additions,
normalisations, activations and resampling are left out, as is usual. On the CPU that counter
misses fused attention, which is counted here. torch is loaded when something is counted.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from types import TracebackType
from typing import Any, Self, TypeVar

ResultT = TypeVar("ResultT")


class MacCounter(AbstractContextManager["MacCounter"]):
    """Counts multiply-accumulates of this thread within a ``with`` block.

    Backward passes within the block are counted too. Blocks may be nested; each counts for
    itself.
    """

    def __init__(self) -> None:
        from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415

        # torch leaves these calls without types, hence Any.
        self._counter: Any = FlopCounterMode(display=False, custom_mapping=_fused_on_cpu())

    def __enter__(self) -> Self:
        self._counter.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._counter.__exit__(kind, error, trace)

    @property
    def total(self) -> int:
        """Multiply-accumulates up to now."""
        return int(self._counter.get_total_flops()) // 2


def count_macs(call: Callable[[], ResultT]) -> tuple[int, ResultT]:
    """Call something; return its multiply-accumulates and its result.

    On tensors of the ``meta`` device nothing is computed and the count is the same. Counting
    slows small networks down by half: what is timed must not be counted at the same time.
    """
    with MacCounter() as counter:
        result = call()
    return counter.total, result


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Return the operations of attention between tensors of these shapes."""
    from torch.utils.flop_counter import sdpa_flop_count  # noqa: PLC0415

    count: Any = sdpa_flop_count
    return int(count(query, key, value))


@lru_cache(maxsize=1)
def _fused_on_cpu() -> dict[Any, Callable[..., int]]:
    import torch  # noqa: PLC0415

    return {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
