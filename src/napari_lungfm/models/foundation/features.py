"""Encoder features of slices: computed once, kept in a cache that the caller chooses."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from napari_lungfm.models.foundation.runtime import Runtime
from napari_lungfm.models.foundation.slices import SliceSource
from napari_lungfm.models.foundation.zoom import Crop
from napari_lungfm.preprocessing.windowing import Window

#: The feature maps of one slice, each ``(1, channels, height, width)``.
Features: TypeAlias = tuple[torch.Tensor, ...]
#: Grey slices uint8 ``(y, x)`` of one crop → network input ``(n, 3, S, S)`` on the CPU.
Prepare: TypeAlias = Callable[[Sequence[npt.NDArray[np.uint8]]], torch.Tensor]
#: Network input on the device → feature maps, each ``(n, channels, height, width)``.
Encode: TypeAlias = Callable[[torch.Tensor], Features]
#: Slices that are encoded together on a GPU, unless told otherwise.
GPU_BATCH = 8


@dataclass(frozen=True)
class FeatureKey:
    """All that the features of a slice depend on.

    Parameters
    ----------
    image
        Checksum of the slice.
    window, crop
        How the model saw it.
    model, weights
        Name of the model and hash of its weights.
    precision
        Precision of the computation.
    """

    image: str
    window: Window
    crop: Crop
    model: str
    weights: str
    precision: str

    @property
    def digest(self) -> str:
        """A name for files: 32 hexadecimal digits."""
        return hashlib.blake2b(repr(self).encode(), digest_size=16).hexdigest()


class FeatureCache(Protocol):
    """Where features are kept."""

    def get(self, key: FeatureKey) -> Features | None:
        """Return what `put` returned for this key, to the last bit, or ``None``."""
        ...

    def __contains__(self, key: FeatureKey) -> bool:
        """Tell whether there are features of a key, without fetching them."""
        ...

    def put(self, key: FeatureKey, features: Features) -> Features:
        """Keep features and return them as they will come back.

        A cache that rounds returns the rounded values, so that a result never depends on
        whether features were just computed or came from the cache.
        """
        ...


class RecentFeatures:
    """The default cache: the features used last, as they were computed, in memory.

    Parameters
    ----------
    max_bytes
        The most that is kept.
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[FeatureKey, Features] = OrderedDict()

    def get(self, key: FeatureKey) -> Features | None:
        """Return the features of a key, if they are still there."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def __contains__(self, key: FeatureKey) -> bool:
        """Tell whether the features of a key are still there."""
        return key in self._kept

    def put(self, key: FeatureKey, features: Features) -> Features:
        """Keep features, dropping those that were not used for longest."""
        self._bytes += size_of(features) - size_of(self._kept.pop(key, ()))
        self._kept[key] = features
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            self._bytes -= size_of(self._kept.popitem(last=False)[1])
        return features


def size_of(features: Features) -> int:
    """Return the bytes that feature maps occupy."""
    return sum(tensor.numel() * tensor.element_size() for tensor in features)


class SliceFeatures:
    """Features of the slices of one volume under one model.

    Parameters
    ----------
    source
        The slices.
    runtime
        Where the model runs.
    prepare, encode
        The model's preprocessing and encoder.
    cache
        Where features are kept.
    name, weights
        Name of the model and hash of its weights, for the keys.
    batch_size
        How many slices are encoded together, at most; ``None`` for one at a time on a CPU, where
        batches gain nothing, and eight on a GPU. A GPU that has too little memory for them gets
        fewer from then on.
    """

    def __init__(
        self,
        source: SliceSource,
        runtime: Runtime,
        prepare: Prepare,
        encode: Encode,
        *,
        cache: FeatureCache,
        name: str,
        weights: str,
        batch_size: int | None = None,
    ) -> None:
        self._source, self._runtime = source, runtime
        self._prepare, self._encode = prepare, encode
        self._cache, self._name, self._weights = cache, name, weights
        self._batch_size = batch_size
        self._most: int | None = None  # how many the GPU has had memory for, once it had too little
        self._announced: tuple[tuple[int, Crop], ...] = ()
        self.encoded = 0  #: Number of slices that went through the encoder so far.

    def key(self, z: int, crop: Crop) -> FeatureKey:
        """Return the cache key of a slice."""
        return FeatureKey(
            self._source.digest(z),
            self._source.window,
            crop,
            self._name,
            self._weights,
            self._runtime.precision,
        )

    def get(self, z: int, crop: Crop, upcoming: Iterable[int] = ()) -> Features:
        """Return the features of slice ``z`` on the CPU or where they were computed.

        Parameters
        ----------
        z
            The slice.
        crop
            What the model sees of it.
        upcoming
            Slices that will, or may, be asked for next: in batches they are encoded along, so
            those that turn out not to be needed were encoded in vain.
        """
        found = self._cache.get(self.key(z, crop))
        if found is not None:
            return found
        announced = [other for other, seen in self._announced if seen == crop]
        later = sorted(announced, key=lambda other: (other < z, other))
        return self._compute([z, *self._ahead(z, crop, [*upcoming, *later])], crop)[0]

    def announce(self, slices: Iterable[tuple[int, Crop]]) -> None:
        """Say which slices will be asked for, in place of those announced before.

        Nothing is computed. In batches they are encoded along with the first of them that is
        asked for, and no further ahead than a batch: no cache has to hold all of them.

        Parameters
        ----------
        slices
            Slices, and what the model sees of each.
        """
        self._announced = tuple(dict.fromkeys(slices))

    @property
    def depth(self) -> int:
        """Number of slices of the volume."""
        return self._source.depth

    @property
    def _room(self) -> int:
        """How many slices are encoded together."""
        wanted = self._batch_size or (1 if self._runtime.on_cpu else GPU_BATCH)
        return min(wanted, self._most or wanted)

    def _ahead(self, z: int, crop: Crop, upcoming: Iterable[int]) -> list[int]:
        room = self._room - 1
        ahead: list[int] = []
        for other in upcoming:
            if len(ahead) >= room:
                break
            if other != z and other not in ahead and self.key(other, crop) not in self._cache:
                ahead.append(other)
        return ahead

    def _compute(self, slices: Sequence[int], crop: Crop) -> list[Features]:
        """Encode the first slice, and of the others as many as there is memory for."""
        maps = self._encoded(slices, crop)
        while maps is None:  # never for a single slice
            self._most = len(slices) // 2
            slices = slices[: self._most]
            maps = self._encoded(slices, crop)
        self._runtime.check_finite(maps)
        self.encoded += len(slices)
        # clone: a view would keep the whole batch alive in the cache.
        return [
            self._cache.put(self.key(z, crop), tuple(m[i : i + 1].clone() for m in maps))
            for i, z in enumerate(slices)
        ]

    def _encoded(self, slices: Sequence[int], crop: Crop) -> Features | None:
        """Feature maps of slices; ``None`` if the GPU has too little memory for so many."""
        images = self._prepare([self._source.grey(z, crop) for z in slices])
        call = self._runtime.run if len(slices) == 1 else self._runtime.run_if_it_fits
        return call(lambda: self._encode(images.to(self._runtime.device)))
