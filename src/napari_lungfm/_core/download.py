"""Download files over HTTP so that it can be interrupted and gone on with."""

import contextlib
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

import napari_lungfm
from napari_lungfm._core.exceptions import LungFMError, OutputError
from napari_lungfm._core.files import make_folder, output_error
from napari_lungfm._core.types import ProgressCallback

#: Asked between two blocks; ``True`` stops the download.
Cancelled: TypeAlias = Callable[[], bool]

_BLOCK = 2**18
#: What is read into memory at most.
_MOST = 2**26
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)
_ANSWERS = {
    401: "it wants a login",
    403: "it refuses access",
    404: "there is no such file (404)",
    410: "the file was taken away (410)",
    429: "it is asked too often (429)",
}
_WORTH_RETRYING = frozenset({408, 425, 429, 500, 502, 503, 504})


class DownloadError(LungFMError, OSError):
    """A download failed; what is there already is kept where it can be used."""


class DownloadCancelledError(DownloadError):
    """A download was cancelled; the next one goes on from where it stopped."""


class _LostError(Exception):
    """The connection failed or broke; another try may go on."""


@dataclass(frozen=True)
class Transfer:
    """How to download.

    Parameters
    ----------
    part
        Where the file grows; it stays when the download stops early.
    size
        Bytes that the file must have, where known.
    smallest
        Where the size is not known: what has fewer bytes is an error message, and no file.
    trust_part
        Go on with bytes from another address or of unknown age: right where a check value will
        be compared in the end.
    progress
        Called with bytes done and bytes in all (0 where the server does not say).
    cancelled
        Asked between two blocks.
    timeout
        Seconds without an answer before a connection counts as lost.
    attempts
        Connections in a row that may bring nothing.
    pause
        Seconds before the second attempt; doubled each time.
    """

    part: Path
    size: int | None = None
    smallest: int = 0
    trust_part: bool = False
    progress: ProgressCallback | None = None
    cancelled: Cancelled | None = None
    timeout: float = 30.0
    attempts: int = 4
    pause: float = 1.0


def download(address: str, transfer: Transfer) -> None:
    """Bring `Transfer.part` up to the whole file at an address.

    Raises
    ------
    DownloadError
        If the server does not give the file; the message says why.
    DownloadCancelledError
        If it was cancelled.
    OutputError
        If it cannot be written.
    """
    _check_scheme(address)
    make_folder(transfer.part.parent)
    if transfer.trust_part and transfer.size == _length(transfer.part):
        return  # whole already; the check value decides whether it is right
    fruitless = 0
    while True:
        before = _length(transfer.part)
        try:
            _attempt(address, transfer)
        except _LostError as error:
            fruitless = 0 if _length(transfer.part) > before else fruitless + 1
            if fruitless >= transfer.attempts:
                raise DownloadError(_about(address, str(error))) from error
            _wait(transfer.pause, fruitless, transfer.cancelled)
        else:
            return


def read_address(
    address: str,
    *,
    cancelled: Cancelled | None = None,
    timeout: float = 30.0,
    attempts: int = 4,
    pause: float = 1.0,
) -> bytes:
    """Return what stands at an address, a list say, that is small enough for memory.

    Parameters
    ----------
    address
        Where.
    cancelled, timeout, attempts, pause
        As in `Transfer`.

    Raises
    ------
    DownloadError
        If the server does not give it, or gives more than 64 MiB.
    DownloadCancelledError
        If it was cancelled.
    """
    _check_scheme(address)
    request = urllib.request.Request(address, headers={"User-Agent": _user_agent()})
    for fruitless in range(1, attempts + 1):
        try:
            return _read_once(request, timeout)
        except urllib.error.HTTPError as error:
            reason = _reason(error)
            if error.code not in _WORTH_RETRYING or fruitless == attempts:
                raise DownloadError(_about(address, reason)) from error
        except _LostError as error:
            if fruitless == attempts:
                raise DownloadError(_about(address, str(error))) from error
        _wait(pause, fruitless, cancelled)
    msg = f"'{address}' was not asked for: at least one attempt is needed"
    raise DownloadError(msg)


def looks_like_web_page(head: bytes) -> bool:
    """Tell whether bytes are the start of an HTML page, as servers send for a wrong address."""
    return bool(_WEB_PAGE.match(head))


def discard(part: Path) -> None:
    """Remove a part and what is known of it."""
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _attempt(address: str, transfer: Transfer) -> None:
    """Connect once; return when the file is whole."""
    request = urllib.request.Request(address, headers={"User-Agent": _user_agent()})
    offset = _resume(request, address, transfer)
    try:
        with _connection(request, transfer.timeout) as response:
            _receive(response, address, transfer, offset)
    except urllib.error.HTTPError as error:
        _explain(error, address, transfer.part, offset)


def _read_once(request: urllib.request.Request, timeout: float) -> bytes:
    with _connection(request, timeout) as response:
        content: bytes = response.read(_MOST + 1)
        expected = response.headers.get("Content-Length", "")
    if len(content) > _MOST:
        msg = _about(request.full_url, f"it gives more than {_MOST} bytes, which is no list")
        raise DownloadError(msg)
    if expected.isdigit() and len(content) < int(expected):
        msg = f"the connection broke off after {len(content)} of {expected} bytes"
        raise _LostError(msg)
    return content


@contextlib.contextmanager
def _connection(
    request: urllib.request.Request, timeout: float
) -> Iterator[http.client.HTTPResponse]:
    """Open an address; connections that fail or break raise `_LostError`."""
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            yield response
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise _LostError(f"no connection ({error.reason}); are you online?") from error
    except LungFMError:
        raise
    except (http.client.HTTPException, OSError) as error:
        msg = f"the connection broke off ({str(error) or type(error).__name__})"
        raise _LostError(msg) from error


def _resume(request: urllib.request.Request, address: str, transfer: Transfer) -> int:
    """Ask for the rest of a part, if it may be gone on with; return where the rest begins."""
    offset = _length(transfer.part)
    notes = _read_notes(transfer.part)
    same = notes.get("address") == address
    validator = notes.get("validator") if same else None
    if offset and not transfer.trust_part and validator is None:
        discard(transfer.part)
        offset = 0
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        if validator is not None:
            request.add_header("If-Range", validator)
    return offset


def _receive(
    response: http.client.HTTPResponse, address: str, transfer: Transfer, offset: int
) -> None:
    start = _start_of(response, offset)
    length = response.headers.get("Content-Length")
    total = start + int(length) if length is not None and length.isdigit() else 0
    first = response.read(_BLOCK)
    is_page = response.headers.get_content_type() == "text/html" or (
        start == 0 and looks_like_web_page(first)
    )
    if is_page:
        raise DownloadError(_about(address, "it answers with a web page instead of the file"))
    if transfer.size is not None and total and total != transfer.size:
        discard(transfer.part)
        reason = f"it offers {total} bytes, the published file has {transfer.size}"
        raise DownloadError(_about(address, reason))
    _check_room(transfer.part, total - start)
    _write_notes(transfer.part, address, response)
    done = _store(response, first, transfer, start, total)
    if total and done < total:
        msg = f"the connection broke off after {done} of {total} bytes"
        raise _LostError(msg)
    if done < (transfer.smallest if transfer.size is None else transfer.size):
        discard(transfer.part)
        reason = f"it gave {done} bytes only, which is too small for the file"
        raise DownloadError(_about(address, reason))


def _store(
    response: http.client.HTTPResponse, first: bytes, transfer: Transfer, start: int, total: int
) -> int:
    """Write what comes; return how long the part is then."""
    done, block = start, first
    with _writing(transfer.part), transfer.part.open("ab" if start else "wb") as stream:
        while block:
            _write(stream, block, transfer.part)
            done += len(block)
            if transfer.progress is not None:
                transfer.progress(done, total)
            if transfer.cancelled is not None and transfer.cancelled():
                msg = f"cancelled after {done} bytes; fetching again goes on from there"
                raise DownloadCancelledError(msg)
            block = response.read(_BLOCK)
    return done


def _start_of(response: http.client.HTTPResponse, offset: int) -> int:
    """Return where the bytes of an answer begin in the file."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    span = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if span != str(offset):
        msg = f"the server sent another part of the file (from '{span}') than from {offset}"
        raise DownloadError(msg)
    return offset


def _explain(error: urllib.error.HTTPError, address: str, part: Path, offset: int) -> None:
    """Turn an answer that is no success into an error; return if the part is whole already."""
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
        if error.headers.get("Content-Range", "").strip() == f"bytes */{offset}":
            return
        discard(part)
        msg = "the part that was there does not fit the file"
        raise _LostError(msg) from error
    reason = _reason(error)
    if error.code in _WORTH_RETRYING:
        raise _LostError(reason) from error
    raise DownloadError(_about(address, reason)) from error


def _reason(error: urllib.error.HTTPError) -> str:
    return _ANSWERS.get(error.code, f"it answers {error.code} {error.reason}")


def _check_scheme(address: str) -> None:
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        msg = f"'{address}' is no http or https address"
        raise DownloadError(msg)


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        msg = (
            f"cannot write '{part}': {needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are "
            "free; choose another folder or free it"
        )
        raise OutputError(msg)


@contextlib.contextmanager
def _writing(part: Path) -> Iterator[None]:
    try:
        yield
    except (PermissionError, FileNotFoundError, IsADirectoryError) as error:
        raise output_error(part, error) from error


def _write(stream: IO[bytes], block: bytes, part: Path) -> None:
    # Apart from reading, whose errors are OSErrors too.
    try:
        stream.write(block)
        stream.flush()
    except OSError as error:
        raise output_error(part, error) from error


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_notes(part: Path) -> dict[str, str]:
    try:
        notes = json.loads(_notes(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _write_notes(part: Path, address: str, response: http.client.HTTPResponse) -> None:
    """Keep what says later whether the file at the address is still the same."""
    tag = response.headers.get("ETag", "")
    # A weak tag promises no identical bytes (RFC 9110, 13.1.5).
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    notes = {"address": address} | ({"validator": validator} if validator else {})
    try:
        _notes(part).write_text(json.dumps(notes), encoding="utf-8")
    except OSError as error:
        raise output_error(_notes(part), error) from error


def _wait(pause: float, fruitless: int, cancelled: Cancelled | None) -> None:
    until = time.monotonic() + pause * 2 ** max(fruitless - 1, 0)
    while time.monotonic() < until:
        if cancelled is not None and cancelled():
            msg = "cancelled; fetching again goes on from where it stopped"
            raise DownloadCancelledError(msg)
        time.sleep(min(0.1, pause))


def _about(address: str, reason: str) -> str:
    return f"'{address}': {reason}"


def _user_agent() -> str:
    return f"napari-lungfm/{napari_lungfm.__version__}"
