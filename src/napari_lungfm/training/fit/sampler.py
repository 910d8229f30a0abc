"""Which items of the training data come up, the same after an interruption."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from napari_lungfm.training.fit.devices import world


class StepSampler(torch.utils.data.Sampler[tuple[int, int]]):
    """Gives ``(epoch, number)`` instead of bare numbers.

    A dataset that makes its item from these two alone gives the same items after an interruption,
    with any number of workers and devices. Lightning calls `set_epoch`.

    Parameters
    ----------
    length
        Items per epoch, of all devices together.
    """

    def __init__(self, length: int) -> None:
        self._length, self._epoch = length, 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length // world()[1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rank, processes = world()
        for number in range(len(self)):
            yield self._epoch, number * processes + rank


def start_sampler(loader: Any, checkpoint: Mapping[str, Any]) -> None:
    """Say to the sampler which epoch comes first.

    On resuming lightning lets the loader's processes begin before it calls `set_epoch`, so that
    they would prepare the items of the very first epoch.
    """
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, StepSampler):
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        sampler.set_epoch(int(progress["current"]["processed"]))
