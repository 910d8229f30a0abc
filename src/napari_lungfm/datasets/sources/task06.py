"""Task06_Lung of the Medical Segmentation Decathlon: one tar, or the folder in it."""

import hashlib
import json
import re
import shutil
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from napari_lungfm._core.download import Cancelled, DownloadError, Transfer, discard, download
from napari_lungfm._core.exceptions import InputFileError, OutputError, UsageError
from napari_lungfm._core.files import hash_file, make_folder, output_error
from napari_lungfm._core.types import PathInput, ProgressCallback
from napari_lungfm.datasets.sources.cards import TASK06, Archive
from napari_lungfm.datasets.sources.origin import read_origin, record_origin
from napari_lungfm.datasets.sources.room import check_room

_INDEX = "dataset.json"


@dataclass(frozen=True)
class LabelledImage:
    """One labelled case: its name, its CT and its mask (1 = tumour)."""

    name: str
    image: Path
    mask: Path


def fetch_task06(
    out: PathInput,
    *,
    archive: PathInput | None = None,
    address: str | None = None,
    keep_archive: bool = False,
    card: Archive | None = None,
    progress: ProgressCallback | None = None,
    cancelled: Cancelled | None = None,
    pause: float = 1.0,
) -> Path:
    """Download Task06 or take a tar that is here, check it, and unpack it.

    A tar of the published name that lies in ``out`` is taken instead of a download. Every tar is
    compared with its md5 before anything is unpacked, and only one that was downloaded by this
    function is ever removed. What is unpacked already is returned, provided that it came from
    that very tar, as far as that is recorded. A download that was interrupted goes on where it
    stopped; the folder gets its name only when all of it is there.

    Parameters
    ----------
    out
        Folder that gets ``Task06_Lung``.
    archive
        A tar that was downloaded before; it is not changed.
    address
        Where to get the tar instead of the published address.
    keep_archive
        Keep the downloaded tar beside the folder.
    card
        What the tar must be; as published by default.
    progress
        Called with bytes done and bytes in all, first for the download, then for the unpacking.
    cancelled
        Asked between two blocks; ``True`` stops.
    pause
        Seconds before a lost connection is tried again.

    Returns
    -------
    Path
        The folder with ``dataset.json``.

    Raises
    ------
    DownloadError
        If the tar cannot be had, or is not the published one.
    InputFileError
        If a tar that is here is not the published one, or is not safe to unpack; or if the
        folder was unpacked from another one.
    OutputError
        If the disk has no room for it, or cannot be written to.
    """
    card = card or _published()
    folder = Path(out) / card.folder
    if folder.is_dir():
        if archive is not None:
            _check_given(Path(archive), card, progress)
        _check_unpacked(folder, card)
        return folder
    lying = folder.parent / card.filename
    source = Path(archive) if archive is not None else lying
    if archive is not None or source.is_file():
        if source.is_file():
            check_room(folder.parent, source.stat().st_size, f"unpacking '{source}'")
        _check_given(source, card, progress)
        return _unpack(source, folder, progress, card, f"the file {source.name}")
    part = lying.with_name(f".{card.filename}.part")
    if card.size is not None:
        there = part.stat().st_size if part.is_file() else 0
        check_room(folder.parent, max(0, card.size - there) + card.size, card.folder)
    transfer = Transfer(
        part, size=card.size, trust_part=True, progress=progress, cancelled=cancelled, pause=pause
    )
    place = address or card.address
    _download(place, transfer, card)
    # The tar keeps the name of a part meanwhile: what has the published name is the user's.
    _unpack(part, folder, progress, card, place)
    if keep_archive:
        part.replace(lying)
    discard(part)
    return folder


def labelled_images(folder: PathInput) -> tuple[LabelledImage, ...]:
    """List the labelled cases of an unpacked Task06, sorted by name.

    Raises
    ------
    InputFileError
        If it is not the folder of Task06, or files that its ``dataset.json`` lists are not there.
    """
    place = Path(folder)
    index = place / _INDEX
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["training"]
        pairs = [(place / entry["image"], place / entry["label"]) for entry in listed]
    except OSError as error:
        msg = (
            f"cannot read '{index}': {error.strerror or error}; give the folder '{TASK06.title}' "
            "was unpacked to, with imagesTr and labelsTr"
        )
        raise InputFileError(msg) from error
    except (ValueError, KeyError, TypeError) as error:
        msg = f"'{index}' lists no images and labels under 'training'; unpack the tar again"
        raise InputFileError(msg) from error
    missing = [path for pair in pairs for path in pair if not path.is_file()]
    if missing or not pairs:
        what = f"{len(missing)} files are not there, the first '{missing[0]}'" if missing else (
            "there is no labelled case"
        )  # fmt: skip
        msg = f"'{place}' is not whole: {what}; unpack the tar again"
        raise InputFileError(msg)
    found = [LabelledImage(_stem(mask), image, mask) for image, mask in pairs]
    return tuple(sorted(found, key=lambda each: each.name))


def other_archive(md5: str) -> Archive:
    """Return the card of a tar with the folder of Task06 that is not the published one.

    Its size is not known, so that there is no look at the room on the disk beforehand.

    Parameters
    ----------
    md5
        Its check value in hexadecimal digits.

    Raises
    ------
    UsageError
        If that is no md5.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{32}", md5):
        msg = f"'{md5}' is no md5: 32 hexadecimal digits are expected"
        raise UsageError(msg)
    return replace(_published(), md5=md5.lower(), size=None)


def _check_unpacked(folder: Path, card: Archive) -> None:
    """Raise unless a folder is whole and, as far as that is known, came from the tar."""
    labelled_images(folder)
    md5 = read_origin(folder).md5
    if md5 is not None and md5 != card.md5:
        msg = (
            f"'{folder}' was unpacked from a tar with the md5 {md5}, not {card.md5}; take it away "
            "or choose another folder"
        )
        raise InputFileError(msg)


def _published() -> Archive:
    if TASK06.archive is None:  # pragma: no cover - the card has it
        msg = "no archive is published"
        raise InputFileError(msg)
    return TASK06.archive


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _download(address: str, transfer: Transfer, card: Archive) -> None:
    went_on = transfer.part.is_file()
    while True:
        download(address, transfer)
        found = _md5(transfer.part, None)
        if found == card.md5:
            return
        discard(transfer.part)
        if not went_on:
            msg = (
                f"'{address}': the md5 of what came is {found}, not {card.md5}; fetch it again or "
                "from another address"
            )
            raise DownloadError(msg)
        went_on = False  # the old part may have been to blame: once more from the start


def _check_given(source: Path, card: Archive, progress: ProgressCallback | None) -> None:
    found = _md5(source, progress)
    if found != card.md5:
        published = "" if card.size is None else f", {card.size} are published"
        msg = (
            f"'{source}' is not the published {card.filename}: its md5 is {found}, not {card.md5} "
            f"({source.stat().st_size} bytes{published}); move it away and fetch again, or give "
            "the --md5 of another one"
        )
        raise InputFileError(msg)


def _md5(path: Path, progress: ProgressCallback | None) -> str:
    return hash_file(path, {"md5": hashlib.md5(usedforsecurity=False)}, progress)["md5"]


def _unpack(
    source: Path, folder: Path, progress: ProgressCallback | None, card: Archive, place: str
) -> Path:
    """Unpack beside ``folder`` and rename; what a killed process left is begun anew.

    ``place`` is where the tar came from; it is recorded unless the tar is the published one.
    """
    temporary = make_folder(folder.parent) / f".{folder.name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    total = source.stat().st_size
    try:
        with tarfile.open(source) as tar:
            for member in tar:
                if _wanted(member, folder.name, source):
                    tar.extract(member, temporary, filter="data")
                if progress is not None:
                    progress(member.offset_data + member.size, total)
        labelled_images(temporary / folder.name)
        elsewhere = () if card.md5 == _published().md5 else (place,)
        record_origin(temporary / folder.name, elsewhere, card.md5)
        (temporary / folder.name).replace(folder)
    except (tarfile.TarError, EOFError) as error:
        msg = f"'{source}' cannot be unpacked: {error}; download it again"
        raise InputFileError(msg) from error
    except (InputFileError, OutputError):
        raise
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _wanted(member: Any, top: str, source: Path) -> bool:
    """Whether to unpack a member; raises on those that no honest archive holds."""
    path = PurePosixPath(member.name)
    parts = [part for part in path.parts if part != "."]
    if any(part.startswith("._") for part in parts):
        return False  # what macOS adds beside each file
    if path.is_absolute() or ".." in parts or not parts or parts[0] != top:
        what = f"it holds '{member.name}', which is not in '{top}'"
    elif not (member.isfile() or member.isdir()):
        what = f"'{member.name}' in it is a link or device"
    else:
        return True
    msg = f"'{source}' is not unpacked: {what}; get the published file"
    raise InputFileError(msg)
