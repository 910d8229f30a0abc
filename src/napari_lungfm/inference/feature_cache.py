"""A bounded cache of encoder features: in memory up to a budget, then on disk.

What comes back is the same to the last bit whether it was just computed, in memory or on disk:
features are rounded to the storage precision before they are used for the first time.
"""

import hashlib
import os
import shutil
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from napari_lungfm._core.exceptions import LungFMWarning, OutputError, UsageError
from napari_lungfm._core.files import atomic_path, make_folder
from napari_lungfm._core.scratch import scratch_folder
from napari_lungfm._core.types import PathInput
from napari_lungfm.models.foundation.features import FeatureKey, Features, size_of

StoragePrecision: TypeAlias = Literal["float16", "bfloat16", "float32"]
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_SUFFIX = ".safetensors"
#: Where a lasting file has the hash of what is in it.
_CONTENT = "content"


@dataclass(frozen=True)
class CacheStatistics:
    """What a cache did so far and holds now.

    Parameters
    ----------
    memory_hits, disk_hits, misses
        How often features were found in memory, found on disk, and not found.
    memory_bytes, disk_bytes
        What is held.
    dropped
        Slices that were thrown away because both budgets were used up.
    """

    memory_hits: int
    disk_hits: int
    misses: int
    memory_bytes: int
    disk_bytes: int
    dropped: int

    @property
    def hits(self) -> int:
        """How often features were found."""
        return self.memory_hits + self.disk_hits


class BoundedFeatureCache:
    """A `FeatureCache` with a budget for memory and one for the disk.

    Safe to use from several threads. Used as a context manager it removes its temporary folder.

    Parameters
    ----------
    memory_bytes
        The most that is held in memory. Beyond it, what was not used for longest goes to disk.
    disk_bytes
        The most that is held on disk; 0 for none. Of a temporary folder no more than half of
        what was free is used.
    folder
        Where files go. They stay, and are found again by a later session on the same volume,
        model and window. ``None`` takes a temporary folder; what a process that was killed left
        behind goes when the next one needs such a folder.
    precision
        What features are rounded to. Half precision (the default) changes logits by about 1e-3
        of their size. Values beyond its range (65,504) keep the whole slice in float32.

    Raises
    ------
    UsageError
        If a budget is negative or there is no such precision.
    OutputError
        If the folder cannot be written to.
    """

    def __init__(
        self,
        memory_bytes: int = 2**30,
        disk_bytes: int = 8 * 2**30,
        *,
        folder: PathInput | None = None,
        precision: StoragePrecision = "float16",
    ) -> None:
        if memory_bytes < 0 or disk_bytes < 0:
            msg = f"cache budgets cannot be negative: {memory_bytes}, {disk_bytes} bytes"
            raise UsageError(msg)
        if precision not in _DTYPES:
            msg = f"features cannot be stored as '{precision}'; choose from {', '.join(_DTYPES)}"
            raise UsageError(msg)
        self._dtype = _DTYPES[precision]
        self._precision = precision
        self._memory_budget, self._disk_budget = memory_bytes, disk_bytes
        self._lock = threading.RLock()
        self._memory: OrderedDict[str, Features] = OrderedDict()
        self._files: OrderedDict[str, int] = OrderedDict()
        self._memory_hits = self._disk_hits = self._misses = self._dropped = 0
        self._memory_bytes = self._disk_bytes = 0
        self._temporary = folder is None
        self._folder = None if folder is None else make_folder(folder)
        self._find_files()

    # ------------------------------------------------------------------ the protocol
    def get(self, key: FeatureKey) -> Features | None:
        """Return the features of a key, or ``None``."""
        name = self._name(key)
        with self._lock:
            found = self._memory.get(name)
            if found is not None:
                self._memory.move_to_end(name)
                self._memory_hits += 1
                return found
            found = self._read(name)
            if found is None:
                self._misses += 1
                return None
            self._disk_hits += 1
            self._hold(name, found)
            return found

    def __contains__(self, key: FeatureKey) -> bool:
        """Tell whether there are features of a key; their file, if any, is not read."""
        name = self._name(key)
        with self._lock:
            return name in self._memory or name in self._files

    def put(self, key: FeatureKey, features: Features) -> Features:
        """Keep features and return them rounded, on the CPU."""
        name = self._name(key)
        rounded = self._rounded(features)
        with self._lock:
            self._forget_file(name)
            self._hold(name, rounded)
        return rounded

    # ------------------------------------------------------------------ for its owner
    @property
    def statistics(self) -> CacheStatistics:
        """What the cache did so far and holds now."""
        with self._lock:
            return CacheStatistics(
                self._memory_hits,
                self._disk_hits,
                self._misses,
                self._memory_bytes,
                self._disk_bytes,
                self._dropped,
            )

    @property
    def folder(self) -> Path | None:
        """Where files are; ``None`` while a temporary folder was not needed."""
        return self._folder

    def clear(self) -> None:
        """Throw everything away, files included; the statistics of use go on."""
        with self._lock:
            self._memory.clear()
            self._memory_bytes = 0
            for name in list(self._files):
                self._forget_file(name)

    def close(self) -> None:
        """Free the memory; remove a temporary folder, write to a lasting one what is not there."""
        with self._lock:
            if not self._temporary:
                for name, features in self._memory.items():
                    self._spill(name, features)
            self._memory.clear()
            self._memory_bytes = 0
            if self._temporary and self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None
                self._files.clear()
                self._disk_bytes = 0

    def __enter__(self) -> Self:
        """Return the cache."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    # ------------------------------------------------------------------ memory
    def _name(self, key: FeatureKey) -> str:
        return f"{key.digest}-{self._precision}"

    def _rounded(self, features: Features) -> Features:
        plain = tuple(f.detach().to("cpu", dtype=torch.float32) for f in features)
        rounded = tuple(f.to(self._dtype).contiguous() for f in plain)
        pairs = zip(plain, rounded, strict=True)
        fits = all(torch.isfinite(r).all() or not torch.isfinite(p).all() for p, r in pairs)
        return rounded if fits else tuple(f.contiguous() for f in plain)

    def _hold(self, name: str, features: Features) -> None:
        self._memory_bytes += size_of(features) - size_of(self._memory.pop(name, ()))
        self._memory[name] = features
        while self._memory_bytes > self._memory_budget and self._memory:
            oldest, evicted = self._memory.popitem(last=False)
            self._memory_bytes -= size_of(evicted)
            self._spill(oldest, evicted)

    # ------------------------------------------------------------------ disk
    def _spill(self, name: str, features: Features) -> None:
        if name in self._files:
            return
        size = size_of(features)
        if size > self._disk_budget:
            self._dropped += 1
            return
        while self._files and self._disk_bytes + size > self._disk_budget:
            self._forget_file(next(iter(self._files)))
            self._dropped += 1
        try:
            self._write(name, features)
        except OutputError as error:
            # A cache that cannot write is slower, not wrong: the session goes on.
            warnings.warn(f"the feature cache stops using the disk: {error}", LungFMWarning, 2)
            self._disk_budget = 0
            self._dropped += 1

    def _write(self, name: str, features: Features) -> None:
        if self._folder is None:
            self._folder = self._temporary_folder()
        path = self._path(name)
        tensors = {f"{i:02d}": f for i, f in enumerate(features)}
        try:
            if self._temporary:  # nobody else reads it: no need to wait for the disk
                save_file(tensors, path)
            else:
                with atomic_path(path) as temporary:
                    save_file(tensors, temporary, {_CONTENT: _hash(features)})
        except SafetensorError as error:  # it has no OSError for a full disk
            path.unlink(missing_ok=True)
            msg = f"cannot write '{path}': {error}"
            raise OutputError(msg) from error
        self._files[name] = path.stat().st_size
        self._disk_bytes += self._files[name]

    def _temporary_folder(self) -> Path:
        folder = scratch_folder("lungfm-features-")
        # Others need room there too, and on some systems it is memory.
        self._disk_budget = min(self._disk_budget, shutil.disk_usage(folder).free // 2)
        return folder

    def _read(self, name: str) -> Features | None:
        if name not in self._files:
            return None
        try:
            with safe_open(self._path(name), framework="pt") as file:
                content = (file.metadata() or {}).get(_CONTENT)
                # clone: a tensor mapped onto the file would keep it from being removed on Windows.
                features = tuple(file.get_tensor(key).clone() for key in sorted(file.keys()))
        except (OSError, SafetensorError):  # removed or damaged by somebody else
            self._forget_file(name)
            return None
        # Bits may flip in years on a disk. Files of this very process are not hashed.
        if not self._temporary and content != _hash(features):
            self._forget_file(name)
            return None
        self._files.move_to_end(name)
        return features

    def _forget_file(self, name: str) -> None:
        size = self._files.pop(name, None)
        if size is not None:
            self._disk_bytes -= size
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return Path(self._folder or os.curdir) / f"{name}{_SUFFIX}"

    def _find_files(self) -> None:
        if self._folder is None:
            return
        found = [(path.stat(), path) for path in self._folder.glob(f"*-{self._precision}{_SUFFIX}")]
        for status, path in sorted(found, key=lambda item: item[0].st_mtime):
            self._files[path.name.removesuffix(_SUFFIX)] = status.st_size
            self._disk_bytes += status.st_size
        while self._files and self._disk_bytes > self._disk_budget:
            self._forget_file(next(iter(self._files)))


def _hash(features: Features) -> str:
    mark = hashlib.blake2b(digest_size=16)
    for each in features:
        mark.update(repr((tuple(each.shape), each.dtype)).encode())
        mark.update(each.contiguous().view(torch.uint8).numpy().data)
    return mark.hexdigest()
