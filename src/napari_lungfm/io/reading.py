"""One call for every kind of CT: an image file, a DICOM file or a DICOM folder."""

from pathlib import Path

from napari_lungfm._core.exceptions import InputFileError, UsageError
from napari_lungfm._core.types import PathInput, ProgressCallback
from napari_lungfm.geometry import Volume
from napari_lungfm.io.dicom_files import looks_like_dicom
from napari_lungfm.io.dicom_series import read_series, read_series_of
from napari_lungfm.io.images import READ_SUFFIXES, image_suffix, read_image


def read_volume(
    path: PathInput, *, series: str | None = None, progress: ProgressCallback | None = None
) -> Volume:
    """Read a CT from a NIfTI, NRRD or MetaImage file, a DICOM folder or a DICOM file.

    Parameters
    ----------
    path
        A DICOM folder is searched with its sub-folders. A DICOM file stands for the whole
        series that it belongs to, looked for in the file's own folder: one slice alone is never
        what is meant by a CT.
    series
        Which series of a folder that holds several; see `read_series`.
    progress
        Called with the slices read and their number while a DICOM series is read.

    Raises
    ------
    InputFileError
        If there is nothing at ``path`` or nothing that can be read; `DicomError` for DICOM.
    UsageError
        If ``series`` is given for a file, or if a folder holds several series and none is
        chosen.
    DataError, GeometryError
        If the voxels or the grid cannot be used.
    """
    target = Path(path)
    if target.is_dir():
        return read_series(target, series=series, progress=progress)
    if not target.is_file():
        msg = f"cannot read '{path}': there is no such file or folder"
        raise InputFileError(msg)
    if series is not None:
        msg = f"a series can be chosen in a DICOM folder only, and '{path}' is a file"
        raise UsageError(msg)
    if image_suffix(target) is not None:
        return read_image(target)
    if looks_like_dicom(target):
        return read_series_of(target, progress=progress)
    known = ", ".join(READ_SUFFIXES)
    msg = f"cannot read '{path}': it is not DICOM and its name ends in none of {known}"
    raise InputFileError(msg)
