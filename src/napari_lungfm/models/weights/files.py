"""Read and write files of weights. No pickled code is ever run."""

import hashlib
import importlib
import json
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lungfm._core.download import looks_like_web_page
from napari_lungfm._core.exceptions import InputFileError, OutputError
from napari_lungfm._core.files import atomic_path, hash_file
from napari_lungfm._core.imports import is_available, require
from napari_lungfm._core.types import PathInput, ProgressCallback
from napari_lungfm.models.weights.errors import WeightsError

if TYPE_CHECKING:
    import torch

#: Entry under which a file says that it was trained with this package.
OUR_ENTRY = "napari_lungfm"
#: Version of what stands under that entry.
OUR_SCHEMA_VERSION = 1
_PURPOSE = "reading weights"
_ZIP_START = b"PK\x03\x04"
#: As torch names what it refuses: "Unsupported global: GLOBAL a.b", "unsupported class a.b".
_GLOBAL = re.compile(r"(?:GLOBAL|[Uu]nsupported (?:global|class):?) (?!GLOBAL )([\w.]+)")
#: What torch and zipfile raise on damaged files; found by changing bytes at random.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,  # NotImplementedError, an encrypted part
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
    OverflowError,
    MemoryError,
)


@dataclass(frozen=True, eq=False)
class RawFile:
    """What a file holds, before names are cleaned.

    Parameters
    ----------
    content
        The unpickled object, or the tensors of a safetensors file.
    ours
        What the file says of its training with this package; ``None`` for others' files.
    """

    content: Any
    ours: Mapping[str, Any] | None


def read_file(path: PathInput, *, known_whole: bool = False) -> RawFile:
    """Read a PyTorch or safetensors file without running any code in it.

    Tensors are mapped, not copied, where the format allows it.

    Parameters
    ----------
    path
        The file.
    known_whole
        A digest of the file has been compared already, so the checksums inside a PyTorch file
        need not be.

    Raises
    ------
    InputFileError
        If there is no such file or it cannot be opened.
    WeightsError
        If it is damaged, is no file of weights, or holds pickled code.
    MissingDependencyError
        If torch is not installed.
    """
    path = Path(path)
    require("torch", purpose=_PURPOSE)
    head = _head(path)
    if not head:
        msg = f"'{path}' is empty; get the file again"
        raise WeightsError(msg)
    if looks_like_web_page(head):
        msg = f"'{path}' is a web page, not weights; the download ended at a login or error page"
        raise WeightsError(msg)
    if path.suffix == ".safetensors" or _is_safetensors(head):
        return _read_safetensors(path)
    return _read_torch(path, head, known_whole=known_whole)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(512)
    except OSError as error:
        msg = f"cannot read '{path}': {error.strerror or error}; check the name"
        raise InputFileError(msg) from error


def _is_safetensors(head: bytes) -> bool:
    # The format starts with the length of its JSON header, 8 bytes, little-endian.
    return head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 100_000_000


def _read_safetensors(path: Path) -> RawFile:
    library = require("safetensors", purpose="reading a safetensors file")
    try:
        with library.safe_open(str(path), framework="pt") as stream:
            metadata = stream.metadata() or {}
            content = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except (library.SafetensorError, OSError, ValueError) as error:
        msg = f"'{path}' is damaged or cut short ({_first_line(error)}); get the file again"
        raise WeightsError(msg) from error
    return RawFile(content, _parse_ours(metadata.get(OUR_ENTRY), path))


def _read_torch(path: Path, head: bytes, *, known_whole: bool) -> RawFile:
    import torch  # noqa: PLC0415

    is_zip = head.startswith(_ZIP_START)
    if is_zip and not known_whole:
        _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise WeightsError(_unpickling_message(path, str(error))) from error
    except _DAMAGE as error:
        msg = f"'{path}' is damaged or no file of weights ({_first_line(error)}); get it again"
        raise WeightsError(msg) from error
    ours = content.get(OUR_ENTRY) if isinstance(content, Mapping) else None
    return RawFile(content, _parse_ours(ours, path))


def _check_archive(path: Path) -> None:
    """Compare the archive's own checksums, which torch does not look at."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except _DAMAGE as error:
        msg = f"'{path}' is cut short or damaged ({_first_line(error)}); get the file again"
        raise WeightsError(msg) from error
    if broken is not None:
        msg = (
            f"'{path}' is damaged: its part '{broken}' has a wrong checksum; get the file again, "
            "or save it again if it was saved without checksums"
        )
        raise WeightsError(msg)


def _unpickling_message(path: Path, text: str) -> str:
    found = _GLOBAL.search(text)
    if found is None:
        return f"'{path}' is damaged or no file of weights; get the file again"
    return (
        f"'{path}' holds pickled code or objects ('{found.group(1)}') beside tensors; it was not "
        "loaded and nothing in it was run; ask for a plain state dict or a safetensors file"
    )


def _parse_ours(entry: Any, path: Path) -> Mapping[str, Any] | None:
    if entry is None:
        return None
    try:
        ours = json.loads(entry) if isinstance(entry, str) else entry
    except json.JSONDecodeError:
        ours = None
    if not isinstance(ours, Mapping) or not isinstance(ours.get("model"), str):
        msg = f"the entry '{OUR_ENTRY}' of '{path}' cannot be read; export the weights again"
        raise WeightsError(msg)
    version = ours.get("schema_version")
    if version != OUR_SCHEMA_VERSION:
        msg = (
            f"'{path}' was written by another version of this package (schema version {version}, "
            f"this one reads {OUR_SCHEMA_VERSION}); update napari-lungfm or export it again"
        )
        raise WeightsError(msg)
    return ours


def write_fine_tuned(
    path: PathInput,
    tensors: "Mapping[str, torch.Tensor]",
    *,
    model: str,
    label: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write weights that were trained with this package as a safetensors file.

    Parameters
    ----------
    path
        File to write, atomically.
    tensors
        State dict of the stock network.
    model
        Name in the catalogue of the model that was trained further.
    label
        What these weights are to be called: ``model:label`` once imported.
    details
        Anything else worth keeping (training cases, epochs); plain JSON values.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    ours = {
        **(details or {}),
        "schema_version": OUR_SCHEMA_VERSION,
        "model": model,
        "label": label,
    }
    write_tensors(path, tensors, {OUR_ENTRY: json.dumps(ours)})


def write_tensors(
    path: PathInput,
    tensors: "Mapping[str, torch.Tensor]",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors as a safetensors file, whole or not at all.

    Parameters
    ----------
    path
        The file.
    tensors
        Name → tensor, on any device; those that share memory are written once each.
    metadata
        What the file says of itself.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    library = require("safetensors.torch", purpose="writing weights")
    failure = require("safetensors", purpose="writing weights").SafetensorError
    # Tensors that share memory are refused by the format.
    separate = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            library.save_file(separate, temporary, dict(metadata or {}) or None)
        except failure as error:  # it has no OSError for a full disk
            msg = f"cannot write '{path}': {error}; choose another output or free it"
            raise OutputError(msg) from error


def computable_algorithms() -> frozenset[str]:
    """Return the algorithms that `file_digests` has here."""
    return frozenset({"md5", "sha256"} | ({"xxh128"} if is_available("xxhash") else set()))


def file_digests(path: PathInput, progress: ProgressCallback | None = None) -> dict[str, str]:
    """Return the md5, sha256 and, where ``xxhash`` is installed, xxh128 of a file.

    Raises
    ------
    InputFileError
        If the file cannot be read.
    """
    hashes: dict[str, Any] = {
        "md5": hashlib.md5(usedforsecurity=False),
        "sha256": hashlib.sha256(),
    }
    if "xxh128" in computable_algorithms():
        hashes["xxh128"] = importlib.import_module("xxhash").xxh3_128()
    return hash_file(path, hashes, progress)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    if not re.search("[a-z]", text):  # a bare key or number says nothing
        return type(error).__name__
    return text.splitlines()[0][:120].rstrip(".")
