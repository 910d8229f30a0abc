"""Outputs: what may be written where, and how a mask is described."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lungfm._core.exceptions import UsageError

if TYPE_CHECKING:
    from napari_lungfm._core.types import MaskArray
    from napari_lungfm.geometry import VolumeGeometry


def refuse_overwriting(
    image: Path, outputs: Sequence[Path], *, others: Sequence[Path] = ()
) -> None:
    """Refuse an output that is an input, or that lies in the folder of the image's series.

    Parameters
    ----------
    image
        An image file, a DICOM folder with its sub-folders, or a DICOM file, which stands for the
        series in its own folder.
    outputs
        Files that would be written.
    others
        Other files that are read.

    Raises
    ------
    UsageError
        If there is such an output.
    """
    for output in outputs:
        for original in (image, *others):
            if _is_same(output, original):
                msg = f"'{output}' would overwrite the input '{original}'; choose another output"
                raise UsageError(msg)
        place = output.resolve().parent
        if image.is_dir():
            within = any(_is_same(folder, image) for folder in (place, *place.parents))
        else:
            within = _is_dicom_file(image) and _is_same(place, image.resolve().parent)
        if within:
            msg = f"'{output}' lies in the DICOM folder of '{image}'; choose a folder outside it"
            raise UsageError(msg)


def describe_mask(inside: "MaskArray", geometry: "VolumeGeometry") -> dict[str, Any]:
    """Return size and extent of a mask ``(z, y, x)`` as plain values."""
    voxels = int(inside.sum())
    slices = [z for z in range(inside.shape[0]) if inside[z].any()]
    return {
        "voxels": voxels,
        "volume_ml": voxels * geometry.voxel_volume_ml,
        "first_slice": slices[0] if slices else None,
        "last_slice": slices[-1] if slices else None,
    }


def _is_dicom_file(path: Path) -> bool:
    from napari_lungfm.io.images import image_suffix

    return path.is_file() and image_suffix(path) is None


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder; False where one is not there."""
    try:
        return one.samefile(other)
    except OSError:
        return False
