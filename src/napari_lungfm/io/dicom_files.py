"""Find DICOM files in a folder and read them, with one line for each that cannot be read."""

import contextlib
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
    try:
        with path.open("rb") as stream:
            start = stream.read(_PREAMBLE + 4)
    except OSError as error:
        msg = f"cannot read '{path}': {error.strerror or error}"
        raise InputFileError(msg) from error
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

    Raises
    ------
    InputFileError
        If there is no such folder.
    """
    if not folder.is_dir():
        reason = "it is a file, not a folder" if folder.exists() else "there is no such folder"
        msg = f"cannot read DICOM from '{folder}': {reason}"
        raise InputFileError(msg)
    files: list[DicomFile] = []
    damaged: list[tuple[Path, str]] = []
    for path in sorted(folder.rglob("*") if recursive else folder.iterdir()):
        if not path.is_file() or path.name.upper() == "DICOMDIR" or not looks_like_dicom(path):
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
        elif _has_preamble(path):
            reason = f"'{path}' is a damaged DICOM file: it has no SeriesInstanceUID"
            damaged.append((path, reason))
    return Scan(tuple(files), tuple(damaged))


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
        msg = f"'{path}' is a damaged DICOM file: {one_line(error)}"
        raise DicomError(msg) from error
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


def _has_preamble(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
