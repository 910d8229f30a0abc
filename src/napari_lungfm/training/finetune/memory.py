"""Less memory, less time: activations computed twice, features of frozen encoders computed once."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

#: The feature maps of one slice.
Features = tuple[Tensor, ...]


def checkpoint_blocks(blocks: Iterable[nn.Module]) -> None:
    """Let blocks of a network forget their activations and compute them again when needed.

    Weights, names of weights and results stay the same. The network can no longer be copied
    independently of this one (`copy.deepcopy`); take its state dict.

    Parameters
    ----------
    blocks
        Modules without randomness of their own, such as the blocks of an image encoder.
    """
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


class FrozenFeatures:
    """What a frozen encoder makes of slices, computed one by one and kept while there is room.

    One at a time, so that a result never depends on which slices shared a batch: a resumed fit,
    whose memory is empty, gets the same. The features used last are kept, in main memory.

    Parameters
    ----------
    max_bytes
        The most that is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._kept: OrderedDict[Hashable, Features] = OrderedDict()
        self.computed = 0

    def get(self, key: Hashable, encode: Callable[[], Features], device: torch.device) -> Features:
        """Return features on a device.

        Parameters
        ----------
        key
            What identifies the input: case, slice, crop.
        encode
            Computes them; called without gradients.
        device
            Where they are wanted.
        """
        found = self._kept.get(key)
        if found is None:
            with torch.no_grad():
                found = tuple(tensor.detach().cpu() for tensor in encode())
            self.computed += 1
            self._kept[key] = found
            self._bytes += _size(found)
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                self._bytes -= _size(self._kept.popitem(last=False)[1])
        else:
            self._kept.move_to_end(key)
        return tuple(tensor.to(device) for tensor in found)


def _size(features: Features) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in features)
