"""Write files whole or not at all, and tell whether they are still the same."""

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from napari_lungfm._core.exceptions import InputFileError, OutputError
from napari_lungfm._core.types import PathInput, ProgressCallback

_CHUNK = 2**20
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "the name is too long",
}


def output_error(path: PathInput, error: OSError) -> OutputError:
    """Turn an `OSError` met while writing ``path`` into one precise line."""
    reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
    return OutputError(
        f"cannot write '{os.fspath(path)}': {reason}; choose another output or free it"
    )


def make_folder(path: PathInput) -> Path:
    """Create a folder and its parents, if need be, and make sure that it can be written to.

    Raises
    ------
    OutputError
        If it cannot be created or is read-only.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


@contextlib.contextmanager
def atomic_path(path: PathInput, *, commit: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it there when the block ends well.

    The temporary name ends like ``path`` (``.nii.gz`` stays ``.nii.gz``), because writers choose
    the format by it. When the block raises, the temporary file is removed and an older file at
    ``path`` stays as it was. With ``commit=False`` nothing is renamed: a rehearsal that finds out
    whether the place can be written to.

    Raises
    ------
    OutputError
        If the folder or the file cannot be written.
    """
    target = Path(path)
    make_folder(target.parent)
    temporary = _temporary_beside(target)
    try:
        yield temporary
        if commit:
            _sync_and_replace(temporary, target)
    except OSError as error:
        # A file that the block reads may be at fault as well: its own message names it.
        ours = error.filename is None or str(error.filename) in (str(temporary), str(target))
        if isinstance(error, OutputError) or error.errno not in _REASONS or not ours:
            raise
        raise output_error(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_beside(target: Path) -> Path:
    suffixes = "".join(target.suffixes[-2:])
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        handle, name = tempfile.mkstemp(prefix=".", suffix=f".tmp{suffixes}", dir=target.parent)
    except OSError as error:
        raise output_error(target, error) from error
    os.close(handle)
    return Path(name)


def _sync_and_replace(temporary: Path, target: Path) -> None:
    # Without fsync a power cut can leave the new name on an empty file.
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    # mkstemp makes files private (0600); a result should be as readable as any other file.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    temporary.replace(target)


def write_text(path: PathInput, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: PathInput, value: Any) -> None:
    """Write JSON atomically; NaN and infinities are refused, for JSON has none."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def slug(text: str) -> str:
    """Return text that is safe in a file name; texts that differ stay different."""
    safe = re.sub(r"[^A-Za-z0-9.+_]+", "-", text).strip("-.") or "x"
    if safe == text and len(safe) <= 60:
        return safe
    mark = hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
    return f"{safe[:50]}-{mark}"


def file_sha256(path: PathInput) -> str:
    """Return the SHA-256 of a file in hexadecimal digits.

    Raises
    ------
    InputFileError
        If the file cannot be read.
    """
    return hash_file(path, {"sha256": hashlib.sha256()})["sha256"]


def hash_file(
    path: PathInput, hashes: Mapping[str, Any], progress: ProgressCallback | None = None
) -> dict[str, str]:
    """Read a file once through several hashes.

    Parameters
    ----------
    path
        The file.
    hashes
        Fresh hash objects, as `hashlib` makes them, by name.
    progress
        Called with the bytes that were read and all there are.

    Returns
    -------
    dict of str to str
        Their hexadecimal digits by name.

    Raises
    ------
    InputFileError
        If the file cannot be read.
    """
    path = Path(path)
    try:
        total, done = path.stat().st_size, 0
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                for each in hashes.values():
                    each.update(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
    except OSError as error:
        msg = f"cannot read '{path}': {error.strerror or error}; check the file"
        raise InputFileError(msg) from error
    return {name: each.hexdigest() for name, each in hashes.items()}
