"""What ITK's NIfTI reader passes over in silence: files that end early, NaN and infinities."""

import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_lungfm._core.exceptions import DataError, InputFileError

_CHUNK = 1 << 22
_GZIP_MAGIC = b"\x1f\x8b"
_HEADER_SIZES = (348, 540)  # NIfTI-1 and NIfTI-2, first field of the header
_FLOAT_OF_DATATYPE = {16: "f4", 64: "f8"}  # NIFTI_TYPE_FLOAT32, NIFTI_TYPE_FLOAT64


def check_voxels(path: Path, size: Sequence[int], *, datatype: int, bits: int, offset: int) -> None:
    """Read through the voxels of a NIfTI file without keeping them.

    ITK gives zeros, and no error, where a file ends early and where a voxel is not finite.

    Parameters
    ----------
    path
        The file, compressed or not (its content decides).
    size
        Number of voxels ``(x, y, z)``.
    datatype, bits, offset
        The header fields ``datatype``, ``bitpix`` and ``vox_offset``.

    Raises
    ------
    InputFileError
        If the file is truncated or its compressed data are damaged.
    DataError
        If there are NaN or infinite voxels; the message has their number and the first index.
    """
    expected = int(np.prod(size)) * bits // 8
    count, first, found = 0, -1, 0
    try:
        with _open(path) as stream:
            header = stream.read(offset)
            order = "<" if int.from_bytes(header[:4], "little") in _HEADER_SIZES else ">"
            kind = _FLOAT_OF_DATATYPE.get(datatype)
            while chunk := stream.read(min(_CHUNK, expected - found)):
                if kind is not None:
                    whole = len(chunk) // (bits // 8) * (bits // 8)
                    bad = np.flatnonzero(~np.isfinite(np.frombuffer(chunk[:whole], order + kind)))
                    if bad.size and first < 0:
                        first = found // (bits // 8) + int(bad[0])
                    count += bad.size
                found += len(chunk)
            while stream.read(_CHUNK):  # to the end, where the checksum is
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        msg = f"cannot read '{path}': its compressed data are truncated or damaged ({error})"
        raise InputFileError(msg) from error
    if found < expected:
        msg = f"cannot read '{path}': it is truncated, {found} of {expected} bytes are there"
        raise InputFileError(msg)
    if count:
        index = tuple(int(i) for i in np.unravel_index(first, tuple(size)[::-1]))
        raise not_finite(f"'{path}'", count, index)


def not_finite(source: str, count: int, first: tuple[int, ...]) -> DataError:
    """Return the error for voxels that are not finite; ``first`` is an index (z, y, x)."""
    msg = (
        f"{source} holds {count} voxels that are NaN or infinite, the first at "
        f"(z, y, x) = {first}; replace them first"
    )
    return DataError(msg)


def _open(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as stream:
        zipped = stream.read(2) == _GZIP_MAGIC
    return gzip.open(path, "rb") if zipped else path.open("rb")
