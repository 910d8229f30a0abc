"""Public buckets that speak S3, over plain HTTPS: list objects, download and check them."""

import hashlib
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from napari_lungfm._core.download import (
    Cancelled,
    DownloadError,
    Transfer,
    discard,
    download,
    read_address,
)
from napari_lungfm._core.files import hash_file, output_error


@dataclass(frozen=True)
class StoredObject:
    """An object of a bucket.

    Parameters
    ----------
    key
        Its name in the bucket.
    size
        Bytes.
    etag
        What the store says of its content, without quotes: the md5 where the object was stored
        in one piece, the md5 of the parts' md5 and a dash and their number otherwise.
    """

    key: str
    size: int
    etag: str

    @property
    def filename(self) -> str:
        """Last part of the key; safe as the name of a file.

        Raises
        ------
        DownloadError
            If it is none.
        """
        name = PurePosixPath(self.key).name
        if not name or name.startswith(".") or "\\" in name or "\0" in name:
            msg = f"the object '{self.key}' has no name that a file could have"
            raise DownloadError(msg)
        return name


@dataclass(frozen=True)
class Bucket:
    """Where a bucket is.

    Parameters
    ----------
    name
        Its name.
    endpoint
        Address of a mirror that has it under ``ENDPOINT/NAME/``; Amazon's own by default.
    timeout, attempts, pause
        As in `Transfer`.
    """

    name: str
    endpoint: str | None = None
    timeout: float = 30.0
    attempts: int = 4
    pause: float = 1.0

    @property
    def address(self) -> str:
        """Address of the bucket, with a slash at the end."""
        if self.endpoint is None:
            return f"https://{self.name}.s3.amazonaws.com/"
        return f"{self.endpoint.rstrip('/')}/{self.name}/"

    def list_objects(
        self, prefix: str, cancelled: Cancelled | None = None
    ) -> tuple[StoredObject, ...]:
        """List the objects whose keys begin with ``prefix``, with S3's ListObjectsV2.

        Raises
        ------
        DownloadError
            If the server does not answer, or not with a list.
        """
        found: list[StoredObject] = []
        token: str | None = None
        while True:
            query = {"list-type": "2", "prefix": prefix}
            if token is not None:
                query["continuation-token"] = token
            address = f"{self.address}?{urllib.parse.urlencode(query)}"
            text = read_address(
                address, cancelled=cancelled, timeout=self.timeout, attempts=self.attempts,
                pause=self.pause,
            )  # fmt: skip
            page, token = _parse(text, address)
            found += page
            if token is None:
                return tuple(found)

    def get(
        self,
        item: StoredObject,
        target: Path,
        cancelled: Cancelled | None = None,
        *,
        verify: bool = False,
    ) -> bool:
        """Bring an object to a file, and check it; go on with what is there of it.

        Parameters
        ----------
        item
            Which.
        target
            The file; it has this name only once it is whole and right.
        cancelled
            Asked between two blocks; ``True`` stops.
        verify
            Read a file that is there and compare it with the ETag, where that is computable, and
            download it again if it is another; otherwise only its size is compared.

        Returns
        -------
        bool
            Whether it was downloaded; False where it was there already.

        Raises
        ------
        DownloadError
            If it cannot be had, or is not what the list said.
        OutputError
            If it cannot be written.
        """
        there = target.is_file() and target.stat().st_size == item.size
        if there and not (verify and _problem(target, item)):
            return False
        part = target.with_name(f".{target.name}.part")
        address = self.address + urllib.parse.quote(item.key)
        transfer = Transfer(
            part, size=item.size, trust_part=_expected(item) is not None, cancelled=cancelled,
            timeout=self.timeout, attempts=self.attempts, pause=self.pause,
        )  # fmt: skip
        went_on = part.is_file()
        download(address, transfer)
        problem = _problem(part, item)
        if problem is not None and went_on:  # the old part may have been to blame
            discard(part)
            download(address, replace(transfer, trust_part=False))
            problem = _problem(part, item)
        if problem is not None:
            discard(part)
            msg = f"'{address}': {problem}; fetch it again"
            raise DownloadError(msg)
        try:
            part.replace(target)
        except OSError as error:
            raise output_error(target, error) from error
        discard(part)
        return True


def _parse(text: bytes, address: str) -> tuple[list[StoredObject], str | None]:
    """Return the objects of one page, and what asks for the next."""
    try:
        root = ET.fromstring(text)
        if _tag(root) != "ListBucketResult":
            msg = f"it is <{_tag(root)}>"
            raise ValueError(msg)
        found = [_object(entry) for entry in root if _tag(entry) == "Contents"]
    except (ET.ParseError, KeyError, ValueError) as error:
        msg = f"'{address}' answers with no list of objects ({error})"
        raise DownloadError(msg) from error
    fields = _fields(root)
    more = fields.get("IsTruncated", "false") == "true"
    token = fields.get("NextContinuationToken")
    if more and not token:
        msg = f"'{address}' answers with a part of a list, and not how to get the rest"
        raise DownloadError(msg)
    return found, token if more else None


def _object(entry: ET.Element) -> StoredObject:
    fields = _fields(entry)
    return StoredObject(fields["Key"], int(fields["Size"]), fields.get("ETag", "").strip('"'))


def _fields(element: ET.Element) -> dict[str, str]:
    return dict(_pairs(element))


def _pairs(element: ET.Element) -> Iterator[tuple[str, str]]:
    for child in element:
        yield _tag(child), child.text or ""


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]  # without the name space


def _expected(item: StoredObject) -> str | None:
    """Return the check value that can be computed from the content alone."""
    digest, dash, parts = item.etag.partition("-")
    computable = len(digest) == 32 and (not dash or parts == "1")
    return item.etag if computable else None


def _problem(path: Path, item: StoredObject) -> str | None:
    """Say what is wrong with a file, or return ``None``."""
    size = path.stat().st_size
    if size != item.size:
        return f"{size} bytes came, {item.size} are listed"
    expected = _expected(item)
    if expected is None:
        return None
    found = hash_file(path, {"md5": hashlib.md5(usedforsecurity=False)})["md5"]
    if "-" in expected:  # stored as one part: the md5 of its md5
        found = hashlib.md5(bytes.fromhex(found), usedforsecurity=False).hexdigest() + "-1"
    return None if found == expected else f"its md5 is {found}, the list says {expected}"
