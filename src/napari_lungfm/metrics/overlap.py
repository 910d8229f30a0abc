"""Dice and IoU from voxel counts, with one rule for empty masks.

Both masks empty: the score is undefined (NaN), to be left out of means and counted. One of them
empty: the score is 0.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.types import MaskArray
from napari_lungfm.metrics._checks import check_pair

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Voxels that two masks share, and those of one only.

    Parameters
    ----------
    tp
        Voxels in both.
    fp
        Voxels of the prediction alone.
    fn
        Voxels of the reference alone.
    """

    tp: int
    fp: int
    fn: int

    @property
    def dice(self) -> float:
        """``2 TP / (2 TP + FP + FN)``; NaN when both masks are empty (Dice 1945)."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else float("nan")

    @property
    def iou(self) -> float:
        """``TP / (TP + FP + FN)``; NaN when both masks are empty (Jaccard 1901)."""
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else float("nan")


@dataclass(frozen=True, eq=False)
class SliceCounts:
    """`Counts` of every slice along the first axis; see `count_overlap_per_slice`.

    Parameters
    ----------
    tp, fp, fn
        Voxels per slice, int64 ``(z,)``.
    """

    tp: IntArray
    fp: IntArray
    fn: IntArray

    @property
    def dice(self) -> npt.NDArray[np.float64]:
        """Dice of every slice ``(z,)``; NaN where both masks are empty."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """IoU of every slice ``(z,)``; NaN where both masks are empty."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """Slices ``(z,)`` that count: at least one of the masks has voxels there."""
        inside: npt.NDArray[np.bool_] = (self.tp + self.fp + self.fn) > 0
        return inside

    @property
    def mean_dice(self) -> float:
        """Mean of `dice` over the `scored` slices; NaN when there are none.

        A slice that only the prediction or only the reference reaches counts as 0, so too many
        or too few slices cost something.
        """
        return _mean(self.dice[self.scored])

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the `scored` slices; NaN when there are none."""
        return _mean(self.iou[self.scored])


def count_overlap(prediction: MaskArray, reference: MaskArray) -> Counts:
    """Count the voxels of two masks.

    Parameters
    ----------
    prediction, reference
        Boolean masks of one shape.

    Raises
    ------
    DataError
        If a mask is not boolean.
    GeometryError
        If the shapes differ.
    """
    check_pair(prediction, reference)
    tp = int(np.count_nonzero(prediction & reference))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(reference)) - tp
    return Counts(tp, fp, fn)


def count_overlap_per_slice(prediction: MaskArray, reference: MaskArray) -> SliceCounts:
    """Count the voxels of two masks on every slice along the first axis.

    Parameters
    ----------
    prediction, reference
        Boolean masks ``(z, y, x)`` of one shape.

    Raises
    ------
    DataError
        If a mask is not boolean.
    GeometryError
        If the shapes differ or are not 3D.
    """
    check_pair(prediction, reference, ndim=3)
    tp = _per_slice(prediction & reference)
    return SliceCounts(tp, _per_slice(prediction) - tp, _per_slice(reference) - tp)


def _per_slice(mask: MaskArray) -> IntArray:
    counts: IntArray = np.count_nonzero(mask, axis=(1, 2)).astype(np.int64)
    return counts


def _ratio(above: IntArray, below: IntArray) -> npt.NDArray[np.float64]:
    result = np.full(below.shape, np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")
