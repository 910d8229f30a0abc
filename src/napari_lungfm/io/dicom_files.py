"""Find DICOM files in a folder and read them, with one line for each that cannot be read."""

import contextlib
import os
import stat
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from napari_lungfm._core.exceptions import DicomError, InputFileError

_PREAMBLE = 128
_START = _PREAMBLE + 4
#: Groups that a DICOM data set without preamble can begin with.
_FIRST_GROUPS = (0x0002, 0x0008)
_DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
#: Objects with pixels that are no scan: segmentations, dose, presentation, maps of numbers.
_NOT_A_SCAN = {
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.481.2",  # RT Dose
    "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map
}
#: Names that end so promise DICOM.
_DICOM_SUFFIXES = {".dcm", ".dicom", ".dic", ".ima"}
#: Names that end so promise something else. Slices often end in a part of a UID or in nothing.
_OTHER_SUFFIXES = {
    ".bmp", ".cfg", ".conf", ".csv", ".db", ".dll", ".done", ".exe", ".gif", ".gz", ".htm",
    ".html", ".inf", ".ini", ".jpeg", ".jpg", ".js", ".json", ".lnk", ".lock", ".log", ".md",
    ".md5", ".mha", ".mhd", ".nhdr", ".nii", ".nrrd", ".pdf", ".png", ".py", ".raw", ".rst",
    ".sh", ".sha256", ".tar", ".tif", ".tiff", ".toml", ".tsv", ".txt", ".xls", ".xlsx", ".xml",
    ".yaml", ".yml", ".zip",
}  # fmt: skip
_HEADER_KEYWORDS = (
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "Modality",
    "SeriesDescription",
    "PatientID",
    "SliceThickness",
    "SpacingBetweenSlices",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "WindowCenter",
    "WindowWidth",
    "RescaleIntercept",
    "RescaleSlope",
    "GantryDetectorTilt",
    "SpecificCharacterSet",
    "ReferencedFrameOfReferenceSequence",
)


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A DICOM file and its header without the pixels."""

    path: Path
    header: Any

    def text(self, keyword: str) -> str:
        """Return an element as text, empty where it is absent or has no value."""
        value = self.header.get(keyword)
        return "" if value is None else str(value).strip()

    @property
    def is_scan(self) -> bool:
        """Whether the object is an image as a scanner or a reconstruction makes it."""
        sop_class = self.text("SOPClassUID")
        if sop_class in _NOT_A_SCAN:
            return False
        named_image = "ImageStorage" in str(UID(sop_class).keyword) if sop_class else False
        return named_image or "Rows" in self.header


@dataclass(frozen=True)
class Scan:
    """What a folder holds: readable DICOM files, and DICOM files that are damaged."""

    files: tuple[DicomFile, ...]
    damaged: tuple[tuple[Path, str], ...]


def looks_like_dicom(path: Path) -> bool:
    """Tell whether a file begins like DICOM, with or without preamble; its name plays no part.

    Raises
    ------
    InputFileError
        If the file cannot be opened: it could be a slice, so it is not passed over.
    """
    return _is_start_of_dicom(_start_of(path))


def _start_of(path: Path) -> bytes:
    """Return the bytes up to the end of the prefix 'DICM', fewer of a shorter file."""
    try:
        with path.open("rb") as stream:
            return stream.read(_START)
    except OSError as error:
        msg = f"cannot read '{path}': {error.strerror or error}"
        raise InputFileError(msg) from error


def _is_start_of_dicom(start: bytes) -> bool:
    return start[_PREAMBLE:] == b"DICM" or _begins_with_element(start)


def _begins_with_element(start: bytes) -> bool:
    """Whether the bytes are a plausible first element of a data set without preamble."""
    if len(start) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", start[:4])
        if group not in _FIRST_GROUPS or element > 0x00FF:
            continue
        explicit = start[4:6].isalpha() and start[4:6].isupper()
        length = struct.unpack(f"{order}I", start[4:8])[0]
        if explicit or length <= 256:
            return True
    return False


def scan_folder(folder: Path, *, recursive: bool = True) -> Scan:
    """Read the headers of all DICOM files in a folder, in the order of their paths.

    A file that does not begin like DICOM counts as damaged when it must have been DICOM once: by
    its name (``.dcm``, ``.ima``), or because it is empty, cut off or blank and lies beside DICOM
    files without a name of another kind. Otherwise the end of a stack could be lost in silence.

    Raises
    ------
    InputFileError
        If there is no such folder, or a folder or file in it may not be read.
    """
    if not folder.is_dir():
        reason = "it is a file, not a folder" if folder.exists() else "there is no such folder"
        msg = f"cannot read DICOM from '{folder}': {reason}"
        raise InputFileError(msg)
    files: list[DicomFile] = []
    damaged: list[tuple[Path, str]] = []
    strangers: list[tuple[Path, bytes | None]] = []
    for path in _paths_in(folder, recursive=recursive):
        if path.name.upper() == "DICOMDIR" or not _is_file_or_dead_link(path):
            continue
        start = _start_of(path) if path.exists() else None
        if start is None or not _is_start_of_dicom(start):
            strangers.append((path, start))
            continue
        try:
            header = read_dataset(path, pixels=False, keywords=_HEADER_KEYWORDS)
        except DicomError as error:
            damaged.append((path, str(error)))
            continue
        if header.get("SOPClassUID") == _DICOMDIR_CLASS:
            continue
        if header.get("SeriesInstanceUID"):
            files.append(DicomFile(path, header))
        elif start[_PREAMBLE:] == b"DICM" or len(header) or _suffix(path) in _DICOM_SUFFIXES:
            damaged.append((path, _damage(path, "it has no SeriesInstanceUID")))
    damaged += _lost_slices(strangers, files)
    return Scan(tuple(files), tuple(sorted(damaged)))


def _paths_in(folder: Path, *, recursive: bool) -> list[Path]:
    """Sorted paths of all that is no folder; raises where `Path.rglob` would skip in silence."""

    def refuse(error: OSError) -> None:
        msg = (
            f"cannot look into the folder '{error.filename}': {error.strerror or error}; "
            "it may hold slices"
        )
        raise InputFileError(msg) from error

    paths: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        paths += [Path(place, name) for name in names]
        if not recursive:
            folders.clear()
    return sorted(paths)


def _is_file_or_dead_link(path: Path) -> bool:
    """Whether to look at a path: sockets and pipes hold no slices and would block."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return path.is_symlink()
    except OSError as error:
        msg = f"cannot read '{path}': {error.strerror or error}"
        raise InputFileError(msg) from error


def _lost_slices(
    strangers: Sequence[tuple[Path, bytes | None]], files: Sequence[DicomFile]
) -> list[tuple[Path, str]]:
    """Those of the files unlike DICOM that must have been DICOM once, and what is wrong."""
    suffixes_beside: dict[Path, set[str]] = {}
    for file in files:
        suffixes_beside.setdefault(file.path.parent, set()).add(_suffix(file.path))
    found = []
    for path, start in strangers:
        suffix, beside = _suffix(path), suffixes_beside.get(path.parent, set())
        # Hidden files are of the system (macOS keeps a '._name' for each file, also for slices).
        if path.name.startswith("."):
            continue
        likely = suffix in beside or (bool(beside) and suffix not in _OTHER_SUFFIXES)
        if suffix in _DICOM_SUFFIXES or (likely and _is_blank(start)):
            found.append((path, _damage(path, _what_is_wrong(start))))
    return found


def _is_blank(start: bytes | None) -> bool:
    """Whether nothing or too little is left; short text (README) never was a slice."""
    if not start or not any(start):
        return True
    return len(start) < _START and not (start.isascii() and _is_printable(start))


def _is_printable(start: bytes) -> bool:
    return all(c.isprintable() or c.isspace() for c in start.decode("ascii"))


def _what_is_wrong(start: bytes | None) -> str:
    if start is None:
        return "it is a link to a file that is not there"
    if not start:
        return "it is empty"
    if len(start) < _START:
        return f"it is cut off after {len(start)} bytes"
    return "it does not begin like DICOM"


def _damage(path: Path, reason: str) -> str:
    return f"'{path}' is a damaged DICOM file: {reason}"


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def read_dataset(path: Path, *, pixels: bool = True, keywords: Sequence[str] | None = None) -> Any:
    """Read a DICOM file, also one without preamble or suffix.

    Parameters
    ----------
    path
        The file.
    pixels
        Whether to read beyond the header.
    keywords
        The only elements to read; by default all.

    Returns
    -------
    pydicom.Dataset

    Raises
    ------
    InputFileError
        If the file cannot be opened.
    DicomError
        If it cannot be read as DICOM.
    """
    try:
        with quiet_pydicom():
            return pydicom.dcmread(
                path,
                stop_before_pixels=not pixels,
                force=True,
                specific_tags=None if keywords is None else list(keywords),
            )
    except (InvalidDicomError, EOFError, ValueError, TypeError, struct.error, KeyError,
            AttributeError, NotImplementedError) as error:  # fmt: skip
        raise DicomError(_damage(path, one_line(error))) from error
    except OSError as error:
        msg = f"cannot read '{path}': {error.strerror or error}"
        raise InputFileError(msg) from error


@contextlib.contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings: what matters of them is checked and said by this package."""
    logger = pydicom.config.logger
    level = logger.level
    logger.setLevel("CRITICAL")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line of bearable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
