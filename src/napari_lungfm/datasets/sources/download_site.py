"""A web server on this computer that hands files out as the publishers of the data sets do.

For rehearsals and tests, where no network is: `phantom_downloads` writes the files.
"""

import csv
import hashlib
import http.server
import re
import tarfile
import threading
import urllib.parse
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self
from xml.sax.saxutils import escape

from napari_lungfm._core.files import atomic_path
from napari_lungfm._core.types import PathInput

#: Keys in one page of a list, as at Amazon.
_PAGE = 1000
_BUCKET = "bucket"
_COLUMNS = ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "series_aws_url"]


class DownloadSite:
    """Serve a folder on the loopback interface while the context lasts.

    Every file in it is an object of one bucket (S3's ListObjectsV2 and ranges, paths as keys),
    and thereby also a plain download.

    Parameters
    ----------
    folder
        What is served; files must not change meanwhile.
    """

    def __init__(self, folder: PathInput) -> None:
        self.folder = Path(folder).resolve()
        self._server = _Server(self.folder)

    def __enter__(self) -> Self:
        """Begin to serve."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        """Address that has the bucket under ``ENDPOINT/BUCKET/KEY``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def address(self, file: PathInput) -> str:
        """Return the address of a file in the folder."""
        key = Path(file).resolve().relative_to(self.folder).as_posix()
        return f"{self.endpoint}/{_BUCKET}/{urllib.parse.quote(key)}"

    def write_manifest(self, collection: PathInput, path: PathInput) -> Path:
        """List the series of a download of Lung1 within the folder, as `idc-index` would.

        Parameters
        ----------
        collection
            What `phantom_downloads.write_lung1` wrote: patient/study/modality_series/*.dcm.
        path
            The CSV, for ``datasets fetch lung1 --manifest``.
        """
        rows = []
        for series in sorted(each for each in Path(collection).glob("*/*/*") if each.is_dir()):
            modality, _, uid = series.name.partition("_")
            key = series.resolve().relative_to(self.folder).as_posix()
            address = f"s3://{_BUCKET}/{key}/*"
            rows.append([series.parts[-3], series.parts[-2], uid, modality, address])
        with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(_COLUMNS)
            writer.writerows(rows)
        return Path(path)


def pack(folder: PathInput, path: PathInput) -> str:
    """Write a folder into a tar under its own name, as Task06 is published; return the md5."""
    with atomic_path(path) as temporary, tarfile.open(temporary, "w") as tar:
        tar.add(folder, Path(folder).name)
    return _md5(Path(path))


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with a list or with a file."""
        asked = urllib.parse.urlsplit(self.path)
        place, _, key = urllib.parse.unquote(asked.path).lstrip("/").partition("/")
        query = dict(urllib.parse.parse_qsl(asked.query))
        file = (self.server.folder / key).resolve()
        if place != _BUCKET or not file.is_relative_to(self.server.folder):
            self.send_error(404)
        elif not key and query.get("list-type") == "2":
            token = int(query.get("continuation-token", "0"))
            self._send(_listed(self.server.folder, query.get("prefix", ""), token))
        elif file.is_file():
            self._send_file(file)
        else:
            self.send_error(404)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, file: Path) -> None:
        size, tag = file.stat().st_size, f'"{_md5(file)}"'
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and self.headers.get("If-Range", tag) == tag else 0
        if start >= size > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.send_header("ETag", tag)
        self.end_headers()
        with file.open("rb") as stream:
            stream.seek(start)
            while block := stream.read(2**20):
                self.wfile.write(block)


def _listed(folder: Path, prefix: str, start: int) -> bytes:
    keys = [
        key
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (key := file.relative_to(folder).as_posix()).startswith(prefix)
    ]
    page, more = keys[start : start + _PAGE], start + _PAGE < len(keys)
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>{(folder / key).stat().st_size}</Size>"
        f"<ETag>&quot;{_md5(folder / key)}&quot;</ETag></Contents>"
        for key in page
    )
    token = f"<NextContinuationToken>{start + _PAGE}</NextContinuationToken>" if more else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{contents}{token}</ListBucketResult>"
    ).encode()


@cache
def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
