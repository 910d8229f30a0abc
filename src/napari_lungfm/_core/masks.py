"""Small operations on binary masks."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage


def largest_part(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the largest connected part of a mask of any dimension; an empty mask stays empty.

    Parts are connected through faces (edges in two dimensions); of parts of equal size the one
    that comes first in C order is returned.
    """
    parts, count = ndimage.label(mask)
    if count == 0:
        return np.zeros_like(mask, dtype=bool)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == int(np.argmax(sizes)))
