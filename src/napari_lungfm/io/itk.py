"""Between SimpleITK images and `Volume` or `LabelMap`, and keeping ITK off stderr."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from napari_lungfm._core.exceptions import DataError, GeometryError
from napari_lungfm._core.types import VoxelArray
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry
from napari_lungfm.io.nifti import not_finite

#: Largest cosine between two axes that counts as rounding (0.06 degrees; over the 400 mm of a
#: chest it moves a voxel by 0.4 mm, less than half of one). More is a sheared grid.
MAX_AXIS_COSINE = 1e-3

_INT16 = np.iinfo(np.int16)
_STDERR = 2
_quiet_lock = threading.RLock()


def to_sitk(image: Volume | LabelMap) -> sitk.Image:
    """Return a SimpleITK image with the same voxels (copied) and grid."""
    array = np.ascontiguousarray(image.array)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    converted = sitk.GetImageFromArray(array.astype(array.dtype.newbyteorder("="), copy=False))
    geometry = image.geometry
    converted.SetSpacing(geometry.spacing[::-1])
    converted.SetOrigin(geometry.origin)
    converted.SetDirection(np.asarray(geometry.direction).ravel().tolist())
    return converted


def from_sitk(
    image: sitk.Image, *, metadata: Mapping[str, Any] | None = None, source: str = "the image"
) -> Volume:
    """Return a three-dimensional scalar SimpleITK image as a `Volume`.

    Parameters
    ----------
    image
        The image; its voxels are copied.
    metadata
        Becomes `Volume.metadata`.
    source
        How to call the image in an error message.

    Returns
    -------
    Volume
        int16 where all values are whole and fit, otherwise float32.

    Raises
    ------
    DataError
        If the image has not three dimensions and one component, or voxels that are not finite.
    GeometryError
        If the grid is sheared.
    """
    check_scalar_3d(image.GetSize(), image.GetNumberOfComponentsPerPixel(), source)
    geometry = geometry_from_sitk(image, source=source)
    array = compact_intensities(sitk.GetArrayViewFromImage(image), source)
    return Volume(array, geometry, dict(metadata or {}))


def geometry_from_sitk(image: sitk.Image, *, source: str = "the image") -> VolumeGeometry:
    """Return the grid of a three-dimensional SimpleITK image.

    Raises
    ------
    GeometryError
        If the grid is sheared; axes that are only rounded are made orthonormal.
    """
    x, y, z = image.GetSize()
    sx, sy, sz = image.GetSpacing()
    direction = orthonormal(np.reshape(image.GetDirection(), (3, 3)), source=source)
    return VolumeGeometry((z, y, x), (sz, sy, sx), image.GetOrigin(), direction.tolist())


def orthonormal(direction: npt.ArrayLike, *, source: str) -> npt.NDArray[np.float64]:
    """Return the orthonormal matrix nearest to a direction, if only rounding parts them.

    The nearest one in the Frobenius norm is ``U Vᵀ`` of the singular value decomposition
    (orthogonal Procrustes problem, Schönemann 1966); mirrored axes stay mirrored.

    Parameters
    ----------
    direction
        3 × 3 matrix, columns of unit length up to rounding.
    source
        How to call the image in an error message.

    Raises
    ------
    GeometryError
        If two axes are further from a right angle than `MAX_AXIS_COSINE`.
    """
    matrix = np.asarray(direction, dtype=np.float64)
    gram = matrix.T @ matrix
    if not np.isfinite(gram).all() or not np.allclose(np.diag(gram), 1.0, atol=MAX_AXIS_COSINE):
        msg = f"the axes of {source} have no valid direction: {matrix.tolist()}"
        raise GeometryError(msg)
    cosine = np.abs(gram - np.diag(np.diag(gram))).max()
    if cosine > MAX_AXIS_COSINE:
        angle = float(np.degrees(np.arccos(min(1.0, cosine))))
        msg = (
            f"the grid of {source} is sheared: two axes meet at {angle:.2f} degrees instead of "
            "90; resample it to a rectangular grid first"
        )
        raise GeometryError(msg)
    u, _, vt = np.linalg.svd(matrix)
    nearest: npt.NDArray[np.float64] = u @ vt
    return nearest


def check_scalar_3d(size: tuple[int, ...], components: int, source: str) -> None:
    """Raise `DataError` unless an image of this size has three dimensions and one component."""
    text = " x ".join(str(n) for n in size)
    if len(size) != 3:
        what = "a single 2D image" if len(size) == 2 else f"a {len(size)}D image"
        msg = f"{source} is {what} of {text} voxels (x, y, ...); one 3D volume is needed"
        raise DataError(msg)
    if components != 1:
        msg = (
            f"{source} has {components} components per voxel (colour, vectors or overlapping "
            "segments); one value per voxel is needed"
        )
        raise DataError(msg)


def compact_intensities(array: VoxelArray, source: str) -> VoxelArray:
    """Copy voxels ``(z, y, x)`` to int16 if all are whole and fit, otherwise to float32.

    Raises
    ------
    DataError
        If there are values that are not finite.
    """
    check_finite(array, source)
    low, high = float(array.min()), float(array.max())
    fits = low >= _INT16.min and high <= _INT16.max
    whole = fits and is_whole(array)
    return np.array(array, dtype=np.int16 if whole else np.float32)


def is_whole(array: VoxelArray) -> bool:
    """Tell whether all values are whole numbers; works slice by slice to spare memory."""
    if np.issubdtype(array.dtype, np.integer):
        return True
    return all(bool((plane == np.rint(plane)).all()) for plane in array)


def check_finite(array: VoxelArray, source: str) -> None:
    """Raise `DataError` with the number and the first index of NaN and infinite voxels."""
    if not np.issubdtype(array.dtype, np.floating):
        return
    count, first = 0, None
    for z, plane in enumerate(array):
        bad = ~np.isfinite(plane)
        found = int(np.count_nonzero(bad))
        if found and first is None:
            y, x = (int(i) for i in np.argwhere(bad)[0])
            first = (z, y, x)
        count += found
    if first is not None:
        raise not_finite(source, count, first)


@contextlib.contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep the libraries inside ITK from writing to stderr while the block runs.

    Some of them (MetaIO, niftilib, GDCM) print past ITK's own switch, straight to the file
    descriptor. What arrives there is printed afterwards when the block ends well, for then it
    came from elsewhere, and dropped when it raises, for then the error says it.
    """
    with _quiet_lock, tempfile.TemporaryFile() as sink:
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        saved = _redirect_stderr(sink.fileno())
        failed = True
        try:
            yield
            failed = False
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)
            if saved is not None:
                os.dup2(saved, _STDERR)
                os.close(saved)
                sink.seek(0)
                text = b"" if failed else sink.read()
                if text:
                    os.write(_STDERR, text)


def _redirect_stderr(target: int) -> int | None:
    """Point file descriptor 2 elsewhere; ``None`` where the process has none (pythonw)."""
    try:
        saved = os.dup(_STDERR)
    except OSError:
        return None
    os.dup2(target, _STDERR)
    return saved
