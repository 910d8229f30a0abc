"""Scores of one case: every measure of the protocol for every structure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import numpy as np

from napari_lungfm._core.exceptions import GeometryError, UsageError
from napari_lungfm._core.types import MaskArray, Region
from napari_lungfm.geometry import (
    LabelMap,
    Structure,
    VolumeGeometry,
    bounding_region,
    match_geometry,
    to_axial,
)
from napari_lungfm.metrics import (
    SliceCounts,
    check_pair,
    count_overlap,
    count_overlap_per_slice,
    slices_beyond_ends,
    surface_scores,
    volume_difference_ml,
    volume_ml,
)

KeyT = TypeVar("KeyT")

#: Fields of `StructureScores` that can be averaged over structures.
AVERAGED_FIELDS = (
    "dice",
    "iou",
    "hd95_mm",
    "nsd_1mm",
    "nsd_2mm",
    "slice_dice_mean",
    "slice_iou_mean",
)


@dataclass(frozen=True)
class StructureScores:
    """All scores of one structure in one case; NaN says that a score is undefined.

    Parameters
    ----------
    dice, iou
        From the voxels of the whole volume; NaN when both masks are empty, 0 when one is.
    hd95_mm
        95th percentile Hausdorff distance in mm; NaN when a mask is empty.
    nsd_1mm, nsd_2mm
        Normalised surface Dice at 1 and 2 mm; NaN when both masks are empty, 0 when one is.
    volume_ml, reference_volume_ml
        Volumes in mL.
    volume_difference_ml
        Prediction minus reference in mL.
    slice_dice_mean, slice_iou_mean
        Means over the slices where at least one mask has voxels.
    n_reference_slices
        Slices that hold the reference.
    slices_beyond_low, slices_beyond_high
        Predicted slices before the first and after the last slice of the reference; NaN when the
        reference is empty.
    volume_beyond_ml
        Predicted volume on those slices in mL.
    slice_dice
        Slice → Dice, for the slices where at least one mask has voxels.
    """

    dice: float
    iou: float
    hd95_mm: float
    nsd_1mm: float
    nsd_2mm: float
    volume_ml: float
    reference_volume_ml: float
    volume_difference_ml: float
    slice_dice_mean: float
    slice_iou_mean: float
    n_reference_slices: int
    slices_beyond_low: float
    slices_beyond_high: float
    volume_beyond_ml: float
    slice_dice: dict[int, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, ``None`` for NaN; `from_dict` reads them back."""
        values: dict[str, Any] = {
            field.name: _or_none(getattr(self, field.name))
            for field in fields(self)
            if field.name != "slice_dice"
        }
        return values | {"slice_dice": {str(z): dice for z, dice in self.slice_dice.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        read: dict[str, Any] = {
            name: math.nan if value is None else value for name, value in values.items()
        }
        read["slice_dice"] = {int(z): float(dice) for z, dice in values["slice_dice"].items()}
        return cls(**read)


def score_structure(
    prediction: MaskArray, reference: MaskArray, geometry: VolumeGeometry
) -> StructureScores:
    """Score one mask against its reference.

    A method that failed is scored with an empty prediction.

    Parameters
    ----------
    prediction, reference
        Boolean masks ``(z, y, x)`` on one grid, axial slices along the first axis.
    geometry
        That grid.

    Raises
    ------
    DataError
        If a mask is not boolean.
    GeometryError
        If a mask does not have the shape of the grid.
    """
    for mask, what in ((prediction, "prediction"), (reference, "reference")):
        if mask.shape != geometry.shape:
            msg = f"the {what} has shape {mask.shape}, its grid {geometry.shape} (z, y, x)"
            raise GeometryError(msg)
    # A volume has a hundred times more voxels than a tumour: count where there is something.
    region = _joint_region(prediction, reference)
    found, true = prediction[region], reference[region]
    counts = count_overlap(found, true)
    per_slice = count_overlap_per_slice(found, true)
    surface = surface_scores(found, true, geometry.spacing, (1.0, 2.0))
    beyond = slices_beyond_ends(found, true, geometry.spacing)
    return StructureScores(
        dice=counts.dice,
        iou=counts.iou,
        hd95_mm=surface.hd95_mm,
        nsd_1mm=surface.nsd[1.0],
        nsd_2mm=surface.nsd[2.0],
        volume_ml=volume_ml(found, geometry.spacing),
        reference_volume_ml=volume_ml(true, geometry.spacing),
        volume_difference_ml=volume_difference_ml(found, true, geometry.spacing),
        slice_dice_mean=per_slice.mean_dice,
        slice_iou_mean=per_slice.mean_iou,
        n_reference_slices=int(true.any(axis=(1, 2)).sum()),
        slices_beyond_low=beyond.low,
        slices_beyond_high=beyond.high,
        volume_beyond_ml=beyond.volume_ml,
        slice_dice=_dice_of_slices(per_slice, region[0].start),
    )


def score_label_maps(
    prediction: LabelMap | None,
    reference: LabelMap,
    structures: Iterable[Structure] = tuple(Structure),
) -> dict[Structure, StructureScores]:
    """Score all structures of a case on the grid of its reference.

    A structure is found by its name where the label map names any structure, and by its value in
    `geometry.Structure` otherwise.

    Parameters
    ----------
    prediction, reference
        See `score_values`.
    structures
        What to score.

    Raises
    ------
    GeometryError
        If the two label maps do not share their voxels.
    """
    pairs = {
        structure: (
            None if prediction is None else _value_of(prediction, structure),
            _value_of(reference, structure),
        )
        for structure in structures
    }
    return score_values(prediction, reference, pairs)


def score_values(
    prediction: LabelMap | None,
    reference: LabelMap,
    pairs: Mapping[KeyT, tuple[int | None, int | None]],
) -> dict[KeyT, StructureScores]:
    """Score pairs of label values on the grid of the reference.

    Both label maps are turned to axial slices first, from feet to head, so that scores per slice
    and ends mean the same for every file.

    Parameters
    ----------
    prediction
        Labels on the reference's voxels, which may be flipped, permuted or cover only a part
        (see `geometry.match_geometry`); ``None`` for a method that failed, which scores as an
        empty prediction.
    reference
        The truth.
    pairs
        Name of each pair → its value in the prediction and in the reference; ``None`` where a
        label map does not have it.

    Raises
    ------
    GeometryError
        If the two label maps do not share their voxels.
    """
    true = to_axial(reference)
    found = None if prediction is None else match_geometry(prediction, true.geometry)
    nothing = np.zeros(true.shape, dtype=np.bool_)
    return {
        name: score_structure(
            nothing if found is None or here is None else found.mask(here),
            nothing if there is None else true.mask(there),
            true.geometry,
        )
        for name, (here, there) in pairs.items()
    }


def aggregate_scores(
    scores: Mapping[Structure, StructureScores],
) -> dict[str, dict[str, float]]:
    """Average the structures of a case as the paper's tables do.

    Parameters
    ----------
    scores
        From `score_label_maps`.

    Returns
    -------
    dict
        ``"lungs"``: mean of left and right lung. ``"avg"``: ``(2 · lungs + tumour) / 3``. Each
        maps `AVERAGED_FIELDS` to a value, NaN where a structure's score is undefined. Only what
        the given structures allow.
    """
    left, right = scores.get(Structure.LEFT_LUNG), scores.get(Structure.RIGHT_LUNG)
    tumour = scores.get(Structure.TUMOUR)
    if left is None or right is None:
        return {}
    lungs = {name: (getattr(left, name) + getattr(right, name)) / 2 for name in AVERAGED_FIELDS}
    if tumour is None:
        return {"lungs": lungs}
    avg = {name: (2 * lungs[name] + getattr(tumour, name)) / 3 for name in AVERAGED_FIELDS}
    return {"lungs": lungs, "avg": avg}


def _joint_region(prediction: MaskArray, reference: MaskArray) -> Region:
    check_pair(prediction, reference, ndim=3)
    region = bounding_region(prediction | reference)
    return region if region is not None else (slice(0, 1), slice(0, 1), slice(0, 1))


def _dice_of_slices(per_slice: SliceCounts, first: int) -> dict[int, float]:
    dice = per_slice.dice
    return {first + int(z): float(dice[z]) for z in np.flatnonzero(per_slice.scored)}


def _value_of(label_map: LabelMap, structure: Structure) -> int | None:
    """Value of a structure; ``None`` where the label map names others only."""
    named = {_structure_of(name): value for value, name in label_map.labels.items()}
    named.pop(None, None)
    return named.get(structure) if named else int(structure)


def _structure_of(name: str) -> Structure | None:
    try:
        return Structure.from_title(name)
    except UsageError:
        return None


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
