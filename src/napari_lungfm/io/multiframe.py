"""Enhanced CT: a whole series in one multi-frame file."""

from pathlib import Path

import numpy as np

from napari_lungfm._core.exceptions import DataError, DicomError
from napari_lungfm._core.types import VoxelArray
from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.io.dicom_files import one_line, quiet_pydicom
from napari_lungfm.io.itk import compact_intensities


def read_multiframe(path: Path) -> tuple[VoxelArray, VolumeGeometry]:
    """Read an enhanced image with highdicom, which also proves that its frames are regular.

    Parameters
    ----------
    path
        A file with NumberOfFrames above 1.

    Returns
    -------
    array : ndarray
        Rescaled values ``(z, y, x)``: int16 where whole and fitting, otherwise float32.
    geometry : VolumeGeometry

    Raises
    ------
    DicomError
        If the frames are no regular volume or cannot be decoded.
    """
    import highdicom  # noqa: PLC0415  (a fifth of a second, and rarely needed)

    try:
        with quiet_pydicom():
            volume = highdicom.imread(path).get_volume(
                apply_real_world_transform=False, apply_modality_transform=None
            )
        array = compact_intensities(np.asarray(volume.array), f"'{path}'")
    except (DataError, ValueError, RuntimeError, AttributeError, KeyError, TypeError,
            IndexError, NotImplementedError, EOFError) as error:  # fmt: skip
        msg = f"the multi-frame image '{path}' cannot be read as a volume: {one_line(error)}"
        raise DicomError(msg) from error
    affine = np.array(volume.affine)
    if np.linalg.det(np.column_stack([affine[:3, 2], affine[:3, 1], affine[:3, 0]])) < 0:
        # Slices against the normal of rows and columns: turn them as `arrange` does.
        affine[:3, 3] += affine[:3, 0] * (array.shape[0] - 1)
        affine[:3, 0] *= -1
        array = np.ascontiguousarray(array[::-1])
    return array, VolumeGeometry.from_affine(array.shape, affine)
