"""NIfTI, NRRD and MetaImage files through SimpleITK, read and written whole or not at all."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from napari_lungfm._core.exceptions import (
    DataError,
    GeometryError,
    InputFileError,
    OutputError,
    UsageError,
)
from napari_lungfm._core.files import atomic_path
from napari_lungfm._core.types import LabelArray, PathInput, VoxelArray
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Volume
from napari_lungfm.io.itk import (
    check_finite,
    check_scalar_3d,
    from_sitk,
    geometry_from_sitk,
    is_whole,
    quiet_itk,
    to_sitk,
)
from napari_lungfm.io.nifti import check_voxels

__all__ = [
    "READ_SUFFIXES",
    "WRITE_SUFFIXES",
    "from_sitk",
    "image_suffix",
    "read_image",
    "read_label_map",
    "read_note",
    "to_sitk",
    "write_image",
    "write_label_map",
]

#: Formats that can be read, by the end of the file name.
READ_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
#: Formats that can be written: those of one file, because two cannot be renamed as one.
WRITE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")

_NIFTI = (".nii.gz", ".nii")
#: Where ITK has the note of a file, in NIfTI its ``descrip``.
_NOTE = "ITK_FileNotes"


def image_suffix(path: PathInput) -> str | None:
    """Return the entry of `READ_SUFFIXES` that a file name ends with, or ``None``."""
    name = Path(path).name.lower()
    return next((suffix for suffix in READ_SUFFIXES if name.endswith(suffix)), None)


def read_image(path: PathInput) -> Volume:
    """Read a three-dimensional image.

    Parameters
    ----------
    path
        A file whose name ends as `READ_SUFFIXES` say.

    Returns
    -------
    Volume
        Voxels ``(z, y, x)``: int16 where all values are whole and fit (HU), otherwise float32.

    Raises
    ------
    InputFileError
        If the file is missing, truncated, damaged or of an unknown format.
    DataError
        If it is not one 3D volume of one value per voxel, or holds NaN or infinities.
    GeometryError
        If its grid is sheared.
    """
    image = _read(Path(path))
    return from_sitk(image, metadata={"source": str(path), "notes": []}, source=f"'{path}'")


def read_label_map(path: PathInput, labels: Mapping[int, str] | None = None) -> LabelMap:
    """Read a label map.

    Parameters
    ----------
    path
        As in `read_image`.
    labels
        Label value → name. By default the values 1 to 3 that occur are named as in
        `LUNG_LABELS`.

    Returns
    -------
    LabelMap
        In the smallest unsigned integer dtype that holds the labels.

    Raises
    ------
    DataError
        If there are values that are not whole numbers of at least 0, besides the reasons of
        `read_image`.
    """
    image = _read(Path(path))
    source = f"'{path}'"
    check_scalar_3d(image.GetSize(), image.GetNumberOfComponentsPerPixel(), source)
    geometry = geometry_from_sitk(image, source=source)
    array = _as_labels(sitk.GetArrayViewFromImage(image), source)
    if labels is None:
        present = {int(v) for v in np.unique(array)}
        labels = {value: name for value, name in LUNG_LABELS.items() if value in present}
    return LabelMap(array, geometry, dict(labels))


def write_image(volume: Volume, path: PathInput) -> None:
    """Write an image, compressed where the format can, with its geometry.

    Raises
    ------
    UsageError
        If the file name does not end as `WRITE_SUFFIXES` say.
    OutputError
        If it cannot be written; an older file then stays as it was.
    """
    _write(to_sitk(volume), path)


def write_label_map(label_map: LabelMap, path: PathInput, *, note: str = "") -> None:
    """Write a label map in the smallest integer dtype that holds it; see `write_image`.

    Parameters
    ----------
    label_map
        The labels.
    path
        The file.
    note
        A word for the header that says what it is, up to 79 ASCII letters; `read_note` reads it.
    """
    low, high = int(label_map.array.min()), int(label_map.array.max())
    dtype = np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
    array = label_map.array.astype(dtype, copy=False)
    image = to_sitk(LabelMap(array, label_map.geometry, label_map.labels))
    if note:
        image.SetMetaData(_NOTE, note)
    _write(image, path)


def read_note(path: PathInput) -> str:
    """Return the note in the header of an image file; empty where it has none.

    Raises
    ------
    InputFileError
        See `read_image`.
    """
    image = _read_header(Path(path))
    return str(image.GetMetaData(_NOTE)).strip() if image.HasMetaDataKey(_NOTE) else ""


def check_output(path: PathInput) -> None:
    """Refuse an output that could not be written, before the work for it is done.

    Raises
    ------
    UsageError
        If the file name does not end as `WRITE_SUFFIXES` say.
    OutputError
        If the folder cannot be made or written to, or ``path`` is a folder.
    """
    _write_suffix(path)
    with atomic_path(path, commit=False):
        pass


def _write_suffix(path: PathInput) -> str:
    suffix = image_suffix(path)
    if suffix is None or suffix not in WRITE_SUFFIXES:
        msg = f"cannot write '{path}': its name must end in one of {', '.join(WRITE_SUFFIXES)}"
        raise UsageError(msg)
    return suffix


def _as_labels(array: VoxelArray, source: str) -> LabelArray:
    check_finite(array, source)
    if not is_whole(array):
        fractional = array != np.rint(array)
        first = tuple(int(i) for i in np.argwhere(fractional)[0])
        msg = (
            f"{source} is not a label map: {np.count_nonzero(fractional)} voxels are not whole "
            f"numbers, the first is {float(array[first]):g} at (z, y, x) = {first}"
        )
        raise DataError(msg)
    low, high = int(array.min()), int(array.max())
    if low < 0:
        msg = f"{source} is not a label map: its smallest value is {low}, labels start at 0"
        raise DataError(msg)
    converted: LabelArray = np.array(array, dtype=np.min_scalar_type(high))
    return converted


def _read(path: Path) -> sitk.Image:
    return _reading(path, lambda reader: reader.Execute())


def _read_header(path: Path) -> sitk.ImageFileReader:
    return _reading(path, lambda reader: reader)


def _reading(path: Path, get: Callable[[sitk.ImageFileReader], Any]) -> Any:
    if not path.is_file():
        reason = "it is a folder" if path.is_dir() else "there is no such file"
        msg = f"cannot read '{path}': {reason}"
        raise InputFileError(msg)
    suffix = image_suffix(path)
    if suffix is None:
        msg = f"cannot read '{path}': its name ends in none of {', '.join(READ_SUFFIXES)}"
        raise InputFileError(msg)
    try:
        with quiet_itk():
            return get(_inspect(path, suffix))
    except RuntimeError as error:
        if "orthonormal" in str(error):
            msg = f"the grid of '{path}' is sheared; resample it to a rectangular grid first"
            raise GeometryError(msg) from error
        beside = ", or its data file is missing" if suffix in (".nhdr", ".mhd") else ""
        msg = f"cannot read '{path}': it is truncated, damaged or not {suffix}{beside}"
        raise InputFileError(msg) from error


def _inspect(path: Path, suffix: str) -> sitk.ImageFileReader:
    """Open a file and refuse what its header or length already shows to be unusable."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    check_scalar_3d(reader.GetSize(), reader.GetNumberOfComponents(), f"'{path}'")
    if suffix in _NIFTI:
        check_voxels(
            path,
            reader.GetSize(),
            datatype=int(reader.GetMetaData("datatype")),
            bits=int(reader.GetMetaData("bitpix")),
            offset=int(float(reader.GetMetaData("vox_offset"))),
        )
    return reader


def _write(image: sitk.Image, path: PathInput) -> None:
    suffix = _write_suffix(path)
    with atomic_path(path) as temporary:
        try:
            with quiet_itk():
                sitk.WriteImage(image, str(temporary), useCompression=True)
                if suffix in _NIFTI:  # ITK's writer says nothing when the disk is full
                    _inspect(temporary, suffix)
        except (RuntimeError, InputFileError) as error:
            msg = f"cannot write '{path}': the disk is full or failed; nothing was left there"
            raise OutputError(msg) from error
