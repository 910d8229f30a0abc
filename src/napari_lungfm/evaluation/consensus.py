"""What several masks of one object agree on.

Masks are compared on one grid, inside the box that holds all of them with a small margin: where
none of them is, there is nothing to agree on, and the wide background of a CT would drown what
STAPLE learns of each mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from napari_lungfm._core.exceptions import GeometryError, UsageError
from napari_lungfm._core.types import MaskArray, Region, Vector3
from napari_lungfm.geometry import bounding_region
from napari_lungfm.metrics import check_mask, count_overlap, surface_scores, volume_difference_ml

#: How a consensus is found.
Method = Literal["staple", "majority"]

#: Voxels around all masks that STAPLE takes as background.
MARGIN = 2
#: A voxel belongs to STAPLE's consensus from this probability on (Warfield et al. 2004).
PROBABILITY = 0.5
#: STAPLE ends after so many rounds if it has not converged.
MAX_ITERATIONS = 200


@dataclass(frozen=True, eq=False)
class Consensus:
    """A mask made of several.

    Parameters
    ----------
    mask
        Boolean ``(z, y, x)``.
    sensitivity, specificity
        Of STAPLE: how reliable each mask is, by its name; empty for a majority.
    """

    mask: MaskArray
    sensitivity: Mapping[str, float]
    specificity: Mapping[str, float]


@dataclass(frozen=True)
class PairAgreement:
    """How far two masks agree; NaN says that a value is undefined or was not computed.

    Parameters
    ----------
    first, second
        Names of the masks.
    dice, iou
        Overlap; NaN when both are empty.
    hd95_mm, nsd_2mm
        95th percentile Hausdorff distance in mm, normalised surface Dice at 2 mm.
    volume_difference_ml
        First minus second, in mL.
    """

    first: str
    second: str
    dice: float
    iou: float
    hd95_mm: float
    nsd_2mm: float
    volume_difference_ml: float


def consensus(masks: Mapping[str, MaskArray], method: Method = "staple") -> Consensus:
    """Make one mask of several.

    Parameters
    ----------
    masks
        Name → boolean mask ``(z, y, x)``, at least two of one shape.
    method
        ``"staple"`` estimates the mask and the reliability of each of the given ones together
        (Warfield, Zou and Wells, IEEE Trans Med Imaging 2004, doi:10.1109/TMI.2004.828354;
        SimpleITK's filter). ``"majority"`` takes the voxels that more than half of the masks
        have; a tie is outside.

    Returns
    -------
    Consensus
        Empty if all masks are.

    Raises
    ------
    DataError
        If a mask is not boolean.
    GeometryError
        If the shapes differ.
    UsageError
        If there are fewer than two masks, or no such method.
    """
    names = _check(masks)
    if method not in ("staple", "majority"):
        msg = f"there is no consensus '{method}'; choose 'staple' or 'majority'"
        raise UsageError(msg)
    mask: MaskArray = np.zeros(masks[names[0]].shape, dtype=np.bool_)
    region = _joint_region(list(masks.values()))
    if region is None:
        return Consensus(mask, {}, {})
    parts = [masks[name][region] for name in names]
    if method == "majority":
        images = [_to_image(part) for part in parts]
        mask[region] = sitk.GetArrayFromImage(sitk.LabelVoting(images, 0)) == 1
        return Consensus(mask, {}, {})
    if all(np.array_equal(parts[0], part) for part in parts[1:]):
        # Nothing is left to estimate; the filter would divide by nothing.
        mask[region] = parts[0]
        sure = dict.fromkeys(names, 1.0)
        return Consensus(mask, sure, sure)
    probability, sensitivity, specificity = _staple(parts)
    mask[region] = probability >= PROBABILITY
    return Consensus(
        mask,
        dict(zip(names, sensitivity, strict=True)),
        dict(zip(names, specificity, strict=True)),
    )


def disagreement(masks: Mapping[str, MaskArray]) -> npt.NDArray[np.uint8]:
    """Return how many masks are overruled by the others at each voxel.

    Parameters and errors are those of `consensus`.

    Returns
    -------
    ndarray
        uint8 ``(z, y, x)``: 0 where all agree, up to half the number of masks.
    """
    names = _check(masks)
    votes = np.zeros(masks[names[0]].shape, dtype=np.uint8)
    region = _joint_region(list(masks.values()))
    if region is not None:
        inside = votes[region]
        for name in names:
            inside += masks[name][region]
        np.minimum(inside, len(names) - inside, out=inside)
    return votes


def pairwise_agreement(
    masks: Mapping[str, MaskArray], spacing: Vector3, *, surfaces: bool = True
) -> list[PairAgreement]:
    """Compare every two masks.

    Parameters
    ----------
    masks
        See `consensus`.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.
    surfaces
        Compute the distances of the surfaces too, which takes most of the time.

    Returns
    -------
    list of PairAgreement
        In the order of the names.

    Raises
    ------
    DataError, GeometryError, UsageError
        See `consensus`.
    """
    names = _check(masks)
    region = _joint_region(list(masks.values()))
    parts = {n: masks[n][region if region is not None else _nowhere()] for n in names}
    return [
        _agreement(one, two, parts[one], parts[two], spacing, surfaces=surfaces)
        for one, two in combinations(names, 2)
    ]


def _agreement(
    one: str, two: str, first: MaskArray, second: MaskArray, spacing: Vector3, *, surfaces: bool
) -> PairAgreement:
    counts = count_overlap(first, second)
    hd95 = nsd = float("nan")
    if surfaces:
        scores = surface_scores(first, second, spacing, (2.0,))
        hd95, nsd = scores.hd95_mm, scores.nsd[2.0]
    difference = volume_difference_ml(first, second, spacing)
    return PairAgreement(one, two, counts.dice, counts.iou, hd95, nsd, difference)


def _staple(parts: Sequence[MaskArray]) -> tuple[npt.NDArray[np.float64], list[float], list[float]]:
    stapler = sitk.STAPLEImageFilter()
    stapler.SetForegroundValue(1.0)
    stapler.SetMaximumIterations(MAX_ITERATIONS)
    probability = sitk.GetArrayFromImage(stapler.Execute([_to_image(part) for part in parts]))
    return probability, list(stapler.GetSensitivity()), list(stapler.GetSpecificity())


def _check(masks: Mapping[str, MaskArray]) -> list[str]:
    names = list(masks)
    if not 2 <= len(names) < 256:
        msg = f"a consensus needs 2 to 255 masks, not {len(names)}"
        raise UsageError(msg)
    for name in names:
        check_mask(masks[name], f"mask '{name}'", ndim=3)
        if masks[name].shape != masks[names[0]].shape:
            msg = (
                f"mask '{name}' has the shape {masks[name].shape}, '{names[0]}' "
                f"{masks[names[0]].shape} (z, y, x); bring all onto one grid first"
            )
            raise GeometryError(msg)
    return names


def _joint_region(masks: Sequence[MaskArray]) -> Region | None:
    """Box of all masks with `MARGIN`, found without a copy of a whole volume."""
    boxes = [box for mask in masks if (box := bounding_region(mask)) is not None]
    if not boxes:
        return None
    sides = []
    for axis, size in enumerate(masks[0].shape):
        start = min(box[axis].start for box in boxes) - MARGIN
        stop = max(box[axis].stop for box in boxes) + MARGIN
        sides.append(slice(max(0, start), min(size, stop)))
    return (sides[0], sides[1], sides[2])


def _nowhere() -> Region:
    return (slice(0, 1), slice(0, 1), slice(0, 1))


def _to_image(mask: MaskArray) -> sitk.Image:
    return sitk.GetImageFromArray(np.ascontiguousarray(mask).view(np.uint8))
