"""Less memory, less time: activations computed twice, features of frozen encoders computed once."""

import hashlib
import shutil
import warnings
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from napari_lungfm._core.exceptions import LungFMWarning, OutputError
from napari_lungfm._core.files import atomic_path, make_folder
from napari_lungfm.training.finetune.recipe import FeaturePrecision, FeatureRecipe

#: The feature maps of one slice.
Features = tuple[Tensor, ...]

_SUFFIX = ".safetensors"
_GIB = 2**30


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
    whose memory is empty, gets the same. What is kept stays until the end: epochs go over all
    slices in an order of their own, so what would make room is as likely to come up as what
    would get it.

    Parameters
    ----------
    max_bytes
        The most that is kept in main memory.
    precision
        ``"float16"``: float32 features are rounded, before they are used for the first time, so
        that results do not depend on what is kept. Where values are beyond its range, the slice
        stays in float32.

    Attributes
    ----------
    computed, reused
        How often features were computed, and found.
    notes
        What has to be said of what was not kept.
    """

    def __init__(self, max_bytes: int, precision: FeaturePrecision = "exact") -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._halved = precision == "float16"
        self._kept: dict[Hashable, Features] = {}
        self._files: FeatureFiles | None = None
        self._expected = 0
        self.computed = self.reused = 0
        self.notes: list[str] = []

    @classmethod
    def of(cls, recipe: FeatureRecipe) -> "FrozenFeatures":
        """Return an empty one with a recipe's room in memory."""
        return cls(recipe.feature_mb * 2**20, recipe.feature_precision)

    def keep_in(self, files: "FeatureFiles", expected: int) -> None:
        """Keep on disk what has no room in memory, and say beforehand what has room nowhere.

        Parameters
        ----------
        files
            Where to.
        expected
            How many slices there are.
        """
        self._files, self._expected = files, expected

    def get(self, key: Hashable, encode: Callable[[], Features], device: torch.device) -> Features:
        """Return features on a device; they are not to be changed.

        Parameters
        ----------
        key
            What identifies the input: case, slice, crop; the same in every process.
        encode
            Computes them; called without gradients.
        device
            Where they are wanted.
        """
        found = self._kept.get(key)
        if found is None and self._files is not None:
            found = self._files.read(key)
        if found is None:
            with torch.no_grad():
                found = self._rounded(encode())
            self._keep(key, found)
            self.computed += 1
        else:
            self.reused += 1
        return tuple(tensor.to(device).to(_wide(tensor)) for tensor in found)

    def _rounded(self, features: Features) -> Features:
        plain = tuple(tensor.detach().cpu().contiguous() for tensor in features)
        if not self._halved:
            return plain
        halved = tuple(t.half() if t.dtype == torch.float32 else t for t in plain)
        fits = all(bool(torch.isfinite(tensor).all()) for tensor in halved)
        return halved if fits else plain

    def _keep(self, key: Hashable, features: Features) -> None:
        size = _size(features)
        if self.computed == 0:
            self._foretell(size)
        if self._bytes + size <= self._max_bytes:
            self._kept[key] = features
            self._bytes += size
        elif self._files is not None:
            try:
                self._files.write(key, features)
            except OutputError as error:  # slower, not wrong: the fit goes on
                self._files.close()
                self._say(f"features of the encoder are kept on disk no longer: {error}")

    def _foretell(self, size: int) -> None:
        """Say what does not fit, as soon as the size of one slice is known."""
        wanted = 0 if self._files is None else self._files.max_bytes
        disk = 0 if self._files is None else self._files.room
        needed, room = self._expected * size, self._max_bytes + disk
        if needed > room and self._max_bytes + wanted > 0:  # keeping nothing is a choice
            self._say(
                f"features of {self._expected} slices take {needed / _GIB:.3g} GiB, "
                f"{self._max_bytes / _GIB:.3g} GiB of which fit in memory (recipe: feature_mb) and "
                f"{disk / _GIB:.3g} GiB on disk (feature_disk_gb, at most half of what is free): "
                f"{1 - room / needed:.0%} of the slices go through the encoder whenever they come "
                "up" + ("" if self._halved else "; feature_precision: float16 takes half")
            )

    def _say(self, text: str) -> None:
        self.notes.append(text)
        warnings.warn(text, LungFMWarning, stacklevel=4)


class FeatureFiles:
    """Features on disk, a file for every slice, mapped into memory when they are wanted.

    Several processes may have one folder.

    Parameters
    ----------
    folder
        Where files go; it is for one encoder and one way of seeing slices. Those that are there
        are found.
    max_bytes
        The most that is kept there; at most half of what is free in addition is used.
    processes
        Among how many processes the room is shared.

    Raises
    ------
    OutputError
        If the folder cannot be made.
    """

    def __init__(self, folder: Path, max_bytes: int, processes: int = 1) -> None:
        self._folder = make_folder(folder)
        self.max_bytes = max_bytes
        there = sum(path.stat().st_size for path in folder.glob(f"*{_SUFFIX}"))
        free = shutil.disk_usage(folder).free // 2
        self._there = there
        self._left = max(0, min(max_bytes - there, free)) // processes

    @property
    def room(self) -> int:
        """Bytes that are kept already, and those that this process may add."""
        return self._there + self._left

    def read(self, key: Hashable) -> Features | None:
        """Return the features of a slice, mapped from their file; ``None`` if there are none."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                return tuple(file.get_tensor(name) for name in sorted(file.keys()))
        except (OSError, SafetensorError):  # damaged by a power cut, or by somebody else
            path.unlink(missing_ok=True)
            return None

    def write(self, key: Hashable, features: Features) -> None:
        """Keep features, where there is room left.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        size = _size(features)
        if size > self._left:
            return
        tensors = {f"{number:02d}": tensor for number, tensor in enumerate(features)}
        path = self._path(key)
        with atomic_path(path) as temporary:
            try:
                save_file(tensors, temporary)
            except SafetensorError as error:  # it has no OSError for a full disk
                msg = f"cannot write '{path}': {error}"
                raise OutputError(msg) from error
        self._left -= size

    def close(self) -> None:
        """Add nothing from now on."""
        self._left = 0

    def _path(self, key: Hashable) -> Path:
        digest = hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()
        return self._folder / f"{digest}{_SUFFIX}"


def _size(features: Features) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in features)


def _wide(tensor: Tensor) -> torch.dtype:
    """Half precision is for keeping alone."""
    return torch.float32 if tensor.dtype == torch.float16 else tensor.dtype
