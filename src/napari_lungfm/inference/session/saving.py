"""A saved session: one zip file with the log, and the masks that the model found.

Members: ``log.jsonl``, the event log; ``masks.npz``, what the model found in each action;
``manifest.json``, the schema version and the SHA-256 of the other two.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_lungfm._core.files import atomic_path
from napari_lungfm._core.types import PathInput
from napari_lungfm.inference.session.errors import SessionFileError, SessionMismatchError
from napari_lungfm.inference.session.log import SCHEMA_VERSION
from napari_lungfm.inference.session.timeline import Record
from napari_lungfm.inference.session.transitions import Findings
from napari_lungfm.models.crops import SliceCrop

_LOG, _MASKS, _MANIFEST = "log.jsonl", "masks.npz", "manifest.json"
#: Every member has this date, so that equal sessions are equal files.
_DATE = (1980, 1, 1, 0, 0, 0)
#: What reading a zip file of somebody else's may end in; RuntimeError: locked with a password.
_NOT_OURS = (
    zipfile.BadZipFile,
    zlib.error,
    KeyError,
    TypeError,
    ValueError,
    EOFError,
    RuntimeError,
)


def write_saved(path: PathInput, log: str, records: Sequence[Record]) -> None:
    """Write a saved session, whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    members = {_LOG: log.encode(), _MASKS: _packed(records)}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    members[_MANIFEST] = json.dumps(manifest, indent=1).encode()
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)


def read_saved(path: PathInput) -> tuple[bytes, list[Findings]]:
    """Return the log of a saved session, and what the model found in each action.

    Raises
    ------
    OSError
        If the file cannot be read.
    SessionFileError
        If it is damaged: log or masks are not those that were saved.
    SessionMismatchError
        If a newer version wrote it.
    """
    source = Path(path)
    try:
        with zipfile.ZipFile(source) as archive:
            members = {name: archive.read(name) for name in (_LOG, _MASKS, _MANIFEST)}
        manifest = json.loads(members.pop(_MANIFEST))
        version, hashes = int(manifest["schema_version"]), dict(manifest["sha256"])
    except _NOT_OURS as error:
        msg = f"'{source}' is not a saved session, or it is damaged ({error})"
        raise SessionFileError(msg) from error
    if version > SCHEMA_VERSION:
        msg = (
            f"the saved session '{source}' has schema version {version}, but this program knows "
            f"versions up to {SCHEMA_VERSION}; update napari-lungfm"
        )
        raise SessionMismatchError(msg)
    for name, data in members.items():
        if hashlib.sha256(data).hexdigest() != hashes.get(name):
            msg = f"'{name}' in the saved session '{source}' is not what was saved"
            raise SessionFileError(msg)
    return members[_LOG], _unpacked(members[_MASKS])


def _packed(records: Sequence[Record]) -> bytes:
    """Rows of action, z, y0, x0, height, width (0 where nothing is), and all bits in a row."""
    rows: list[tuple[int, ...]] = []
    bits: list[bytes] = []
    for number, record in enumerate(records):
        for z, crop in record.findings:
            if crop is None:
                rows.append((number, z, 0, 0, 0, 0))
            else:
                rows.append((number, z, crop.y0, crop.x0, *crop.shape))
                bits.append(crop.bits)
    stream = io.BytesIO()
    np.savez(
        stream,
        actions=np.array(len(records)),
        rows=np.array(rows, dtype=np.int32).reshape(-1, 6),
        bits=np.frombuffer(b"".join(bits), dtype=np.uint8),
    )
    return stream.getvalue()


def _unpacked(data: bytes) -> list[Findings]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        rows, bits = arrays["rows"].tolist(), arrays["bits"].tobytes()
        findings: list[list[tuple[int, SliceCrop | None]]] = [[] for _ in range(arrays["actions"])]
    start = 0
    for number, z, y0, x0, height, width in rows:
        crop = None
        if height:
            stop = start + (height * width + 7) // 8
            crop = SliceCrop(y0, x0, (height, width), bits[start:stop])
            start = stop
        findings[number].append((z, crop))
    return [tuple(each) for each in findings]
