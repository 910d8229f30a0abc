"""Decode one DICOM slice to rescaled values (HU for CT)."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydicom.encaps import generate_fragments
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from napari_lungfm._core.exceptions import DicomError
from napari_lungfm.io.dicom_files import one_line, quiet_pydicom, read_dataset
from napari_lungfm.io.itk import quiet_itk

#: HU of air outside the scanned circle; what padding below it becomes.
AIR_HU = -1024
#: Highest HU of a 12-bit CT; padding above it is no tissue either.
_TOP_HU = 3071

_BY_PYDICOM = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
}
_BY_GDCM = {
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-Lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
}
_END_OF_IMAGE = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000


def read_slice_values(path: Path) -> tuple[npt.NDArray[Any], int]:
    """Decode the pixels of a single-frame file and rescale them.

    Uncompressed and RLE data go through pydicom, JPEG, JPEG-LS and JPEG 2000 through the GDCM in
    SimpleITK, which needs no further package.

    Padding, where PixelPaddingValue names it, carries values that no tissue has (often −2000
    stored, −3024 after the rescale). In CT such voxels become `AIR_HU`; padding that already is
    a possible HU, and values that merely look like padding, stay as they are.

    Returns
    -------
    values : ndarray
        ``(y, x)``, int64 where slope and intercept are whole, otherwise float64.
    padded : int
        Number of padding voxels that were set to `AIR_HU`.

    Raises
    ------
    DicomError
        If the file is truncated or damaged, not grey-scale, or in a transfer syntax that cannot
        be decoded.
    """
    dataset = read_dataset(path)
    _check_description(dataset, path)
    syntax = _transfer_syntax(dataset)
    if syntax in _BY_PYDICOM:
        values = _rescale(_decode_with_pydicom(dataset, path), dataset, path)
    elif syntax in _BY_GDCM:
        values = _decode_with_gdcm(dataset, path)
    else:
        msg = (
            f"'{path}' is stored as '{syntax.name}' ({syntax}), which cannot be decoded; "
            "convert it to an uncompressed transfer syntax first"
        )
        raise DicomError(msg)
    if values.shape != (dataset.Rows, dataset.Columns):
        msg = f"'{path}' decodes to {values.shape} pixels, not {dataset.Rows, dataset.Columns}"
        raise DicomError(msg)
    return values, _replace_padding(values, dataset, rescale_of(dataset, path))


def rescale_of(header: Any, path: Path) -> tuple[float, float]:
    """Return RescaleSlope and RescaleIntercept, 1 and 0 where they are absent.

    Raises
    ------
    DicomError
        If they are not finite numbers or the slope is 0.
    """
    try:
        slope = header.get("RescaleSlope")
        intercept = header.get("RescaleIntercept")
        pair = (
            1.0 if slope is None else float(slope),
            0.0 if intercept is None else float(intercept),
        )
    except (ValueError, TypeError) as error:
        msg = f"RescaleSlope or RescaleIntercept of '{path}' is no number: {one_line(error)}"
        raise DicomError(msg) from error
    if not np.isfinite(pair).all() or pair[0] == 0:
        msg = f"RescaleSlope {pair[0]:g} and RescaleIntercept {pair[1]:g} of '{path}' are not valid"
        raise DicomError(msg)
    return pair


def _check_description(dataset: Any, path: Path) -> None:
    samples = dataset.get("SamplesPerPixel", 1)
    if samples != 1:
        kind = dataset.get("PhotometricInterpretation", "colour")
        msg = f"'{path}' is a colour image ({samples} samples per pixel, {kind}), not a CT slice"
        raise DicomError(msg)
    if "PixelData" not in dataset:
        msg = f"'{path}' is truncated or has no pixel data; fetch the file again"
        raise DicomError(msg)


def _transfer_syntax(dataset: Any) -> UID:
    """Return the transfer syntax; a file without meta information is in the one it was read in."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return UID(str(dataset.file_meta.TransferSyntaxUID))


def _decode_with_pydicom(dataset: Any, path: Path) -> npt.NDArray[Any]:
    stored_bits = int(dataset.get("BitsStored", dataset.BitsAllocated))
    high_bit = int(dataset.get("HighBit", stored_bits - 1))
    try:
        with quiet_pydicom():
            stored = np.asarray(dataset.pixel_array)
    except (ValueError, AttributeError, RuntimeError, NotImplementedError, EOFError,
            IndexError, KeyError, TypeError) as error:  # fmt: skip
        msg = f"the pixel data of '{path}' cannot be read: {one_line(error)}"
        raise DicomError(msg) from error
    unused = int(dataset.BitsAllocated) - stored_bits
    if unused <= 0 or not np.issubdtype(stored.dtype, np.integer):
        return stored
    if high_bit != stored_bits - 1:
        msg = f"'{path}' stores its pixels in an unsupported way (HighBit {high_bit})"
        raise DicomError(msg)
    # Bits above BitsStored are no part of the value (old files keep overlays there).
    wide = stored.astype(np.int64)
    shift = 64 - stored_bits
    signed = int(dataset.get("PixelRepresentation", 0)) == 1
    return (wide << shift) >> shift if signed else wide & ((1 << stored_bits) - 1)


def _rescale(stored: npt.NDArray[Any], dataset: Any, path: Path) -> npt.NDArray[Any]:
    slope, intercept = rescale_of(dataset, path)
    if slope.is_integer() and intercept.is_integer():
        return stored.astype(np.int64) * int(slope) + int(intercept)
    return stored.astype(np.float64) * slope + intercept


def _decode_with_gdcm(dataset: Any, path: Path) -> npt.NDArray[Any]:
    _check_stream_is_whole(dataset, path)
    slope, intercept = rescale_of(dataset, path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            array = sitk.GetArrayFromImage(reader.Execute())  # already rescaled by GDCM
    except RuntimeError as error:
        msg = f"the pixel data of '{path}' cannot be decompressed; fetch the file again"
        raise DicomError(msg) from error
    whole = slope.is_integer() and intercept.is_integer()
    values: npt.NDArray[Any] = array.reshape(array.shape[-2:]).astype(
        np.int64 if whole else np.float64
    )
    return values


def _check_stream_is_whole(dataset: Any, path: Path) -> None:
    """Refuse a compressed stream without end: decoders fill what is missing and say nothing."""
    try:
        *_, last = generate_fragments(dataset.PixelData)
    except (ValueError, TypeError) as error:
        msg = f"the compressed pixel data of '{path}' are damaged: {one_line(error)}"
        raise DicomError(msg) from error
    if not last.rstrip(b"\x00").endswith(_END_OF_IMAGE):
        msg = f"the compressed pixel data of '{path}' are truncated; fetch the file again"
        raise DicomError(msg)


def _replace_padding(values: npt.NDArray[Any], dataset: Any, rescale: tuple[float, float]) -> int:
    """Set padding outside the range of HU to air, in place; return the number of voxels."""
    padding = dataset.get("PixelPaddingValue")
    if padding is None or dataset.get("Modality", "CT") not in ("CT", "", None):
        return 0
    limit = dataset.get("PixelPaddingRangeLimit")
    stored = [_as_stored(v, dataset) for v in (padding, padding if limit is None else limit)]
    slope, intercept = rescale
    low, high = sorted(v * slope + intercept for v in stored)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    inside = (values >= low - slack) & (values <= high + slack)
    inside &= (values < AIR_HU) | (values > _TOP_HU)
    values[inside] = AIR_HU
    return int(np.count_nonzero(inside))


def _as_stored(value: Any, dataset: Any) -> int:
    """Read the value as the pixels are read: its VR (US or SS) is often the wrong one."""
    number = int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
    bits = int(dataset.BitsAllocated)
    number &= (1 << bits) - 1
    signed = int(dataset.get("PixelRepresentation", 0)) == 1
    return number - (1 << bits) if signed and number >> (bits - 1) else number
