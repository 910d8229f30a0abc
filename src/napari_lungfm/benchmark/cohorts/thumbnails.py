"""One small picture per case: the slice with most tumour, and a coronal slice through it."""

import io as streams

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from napari_lungfm._core.types import LabelArray, SliceMask, VoxelArray
from napari_lungfm.geometry import LabelMap, Structure, Volume, reorient

#: Lung window, level and width in HU.
LEVEL, WIDTH = -600.0, 1500.0
#: Height in pixels; the width follows.
HEIGHT = 160
#: Colour of each structure (Okabe and Ito 2008).
COLOURS = {
    Structure.LEFT_LUNG: (86, 180, 233),
    Structure.RIGHT_LUNG: (0, 158, 115),
    Structure.TUMOUR: (230, 97, 1),
}
#: Rows towards the back, columns towards the left: how radiologists look at slices.
_CODES = "SPL"

Picture = npt.NDArray[np.uint8]


def thumbnail(volume: Volume, reference: LabelMap) -> bytes:
    """Return a JPEG of a case with the outlines of its reference.

    Parameters
    ----------
    volume
        CT in HU.
    reference
        Label map on the same grid; the tumour is not empty.
    """
    turned = reorient(reference, _CODES)
    labels, hu = turned.array, reorient(volume, _CODES).array
    tumour = labels == int(Structure.TUMOUR)
    z = int(tumour.sum(axis=(1, 2)).argmax())
    y = int(tumour.sum(axis=(0, 2)).argmax())
    dz, dy, dx = turned.spacing
    axial = _picture(hu[z], labels[z], (dy, dx))
    coronal = _picture(hu[::-1, y], labels[::-1, y], (dz, dx))
    stream = streams.BytesIO()
    Image.fromarray(np.hstack([axial, coronal])).save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _picture(hu: VoxelArray, labels: LabelArray, spacing: tuple[float, float]) -> Picture:
    """One slice with square pixels, `HEIGHT` high, outlines one pixel wide."""
    rows, columns = hu.shape
    width = max(1, round(HEIGHT * columns * spacing[1] / (rows * spacing[0])))
    grey = np.clip((hu.astype(np.float32) - (LEVEL - WIDTH / 2)) / WIDTH, 0.0, 1.0) * 255.0
    small = Image.fromarray(grey.astype(np.uint8)).resize((width, HEIGHT), Image.Resampling.BOX)
    picture = np.repeat(np.asarray(small)[..., None], 3, axis=2).copy()
    for structure, colour in COLOURS.items():
        mask = Image.fromarray(np.uint8(labels == int(structure)) * np.uint8(255))
        inside = np.asarray(mask.resize((width, HEIGHT), Image.Resampling.BOX)) > 127
        picture[_outline(inside)] = colour
    return picture


def _outline(inside: SliceMask) -> SliceMask:
    edge: SliceMask = inside & ~ndimage.binary_erosion(inside)
    return edge
