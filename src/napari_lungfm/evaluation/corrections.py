"""A simulated user who corrects, and what their effort buys."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy import ndimage

from napari_lungfm._core.types import Index3, MaskArray, SliceMask
from napari_lungfm.metrics import check_pair
from napari_lungfm.models.prompts import Click

#: Dice values for which the number of interactions to reach them is reported (protocol).
DICE_TARGETS = (0.80, 0.85, 0.90)

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)

#: A wrong region: whether the object is missing there, and its pixels ``(y, x)``.
_Component: TypeAlias = tuple[bool, SliceMask]


def correction_click(
    prediction: MaskArray,
    reference: MaskArray,
    pixel_mm: tuple[float, float],
    *,
    taken: Collection[Index3] = (),
) -> Click | None:
    """Return the click that corrects the worst slice, or ``None`` where nothing is wrong.

    The worst slice is the one with the most wrong voxels (of several the lowest): what a reader
    who leafs through the slices sees first. On it, missing and surplus regions are taken apart
    into 8-connected components; the click goes to the pixel of the largest one that is farthest
    from its border, as in the CVPR 2025 interactive segmentation challenge, and is positive
    where the object is missing.

    Parameters
    ----------
    prediction, reference
        Boolean masks ``(z, y, x)``.
    pixel_mm
        Distance of rows and of columns in mm.
    taken
        Voxels ``(z, y, x)`` that have a click already; they are not clicked again.

    Raises
    ------
    DataError, GeometryError
        If the masks are not boolean or differ in shape.
    """
    check_pair(prediction, reference)
    wrong = prediction != reference
    for z, y, x in taken:
        wrong[z, y, x] = False
    counts = wrong.sum(axis=(1, 2))
    if not counts.any():
        return None
    z = int(counts.argmax())
    missing, component = _largest_component(wrong[z], reference[z])
    # A border of background, so that the edge of the image counts as a border of the region.
    depth = ndimage.distance_transform_edt(np.pad(component, 1), sampling=pixel_mm)[1:-1, 1:-1]
    y, x = (int(i) for i in np.unravel_index(int(depth.argmax()), depth.shape))
    return Click(z, y, x, positive=missing)


def _largest_component(wrong: SliceMask, reference: SliceMask) -> _Component:
    found: list[tuple[int, _Component]] = []
    for missing in (True, False):
        labels, number = ndimage.label(wrong & (reference == missing), _EIGHT_NEIGHBOURS)
        if number:
            sizes = np.bincount(labels.ravel())[1:]
            largest = int(sizes.argmax())
            found.append((int(sizes[largest]), (missing, labels == largest + 1)))
    return max(found, key=lambda item: item[0])[1]


@dataclass(frozen=True)
class Effort:
    """What interactions buy.

    Parameters
    ----------
    dice
        Volume Dice after the first prompt and after each correction.
    to_reach
        Dice target → number of interactions (the first prompt counts as one), ``None`` where
        the target was not reached.
    area
        Mean height of the Dice curve over the interactions (trapezoids), 0 to 1.
    """

    dice: tuple[float, ...]
    to_reach: dict[float, int | None]
    area: float


def effort(dice: Sequence[float], n_corrections: int) -> Effort:
    """Summarise the Dice after each interaction.

    Parameters
    ----------
    dice
        After the first prompt and after each correction that was given.
    n_corrections
        Corrections that were allowed. Where the user stopped earlier because nothing was wrong
        any more, the last value stands for the rest, so that curves of different cases average.

    Returns
    -------
    Effort
        With ``n_corrections + 1`` values of Dice.
    """
    values = [float(d) for d in dice]
    values += [values[-1]] * (n_corrections + 1 - len(values))
    reached = {
        target: next((i + 1 for i, d in enumerate(values) if d >= target), None)
        for target in DICE_TARGETS
    }
    width = len(values) - 1
    area = float(np.trapezoid(values)) / width if width else values[0]
    return Effort(tuple(values), reached, area)
