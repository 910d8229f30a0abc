"""The rows of the table of masks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from napari_lungfm._core.types import MaskArray
from napari_lungfm.evaluation.consensus import pairwise_agreement
from napari_lungfm.geometry import Volume
from napari_lungfm.gui.annotation.errors import LayerError


@dataclass(frozen=True)
class Row:
    """One line of the table; NaN says that a value is undefined.

    Parameters
    ----------
    name
        Of the mask, or of two.
    dice, iou, hd95_mm, nsd_2mm
        See `metrics`.
    volume_ml
        Of the mask; of a pair, the difference.
    """

    name: str
    dice: float
    iou: float
    hd95_mm: float
    nsd_2mm: float
    volume_ml: float


def several(masks: dict[str, MaskArray]) -> dict[str, MaskArray]:
    """Return masks that are two at least.

    Raises
    ------
    LayerError
        If they are fewer.
    """
    if len(masks) < 2:
        msg = "this needs two masks of the structure at least: draw or compute another one"
        raise LayerError(msg)
    return masks


def pair_rows(masks: dict[str, MaskArray], volume: Volume) -> list[Row]:
    """Score every two masks, boolean ``(z, y, x)``, against each other.

    Raises
    ------
    LayerError
        If there are fewer than two.
    """
    if len(masks) < 2:
        msg = "compare needs a reference (chosen in Annotate), or two masks of the structure"
        raise LayerError(msg)
    return [
        Row(
            f"{p.first} / {p.second}",
            p.dice,
            p.iou,
            p.hd95_mm,
            p.nsd_2mm,
            p.volume_difference_ml,
        )
        for p in pairwise_agreement(masks, volume.spacing)
    ]


def rows_against(reference: MaskArray, masks: Mapping[str, MaskArray], volume: Volume) -> list[Row]:
    """Score masks, boolean ``(z, y, x)``, against a reference, the best first.

    Raises
    ------
    LayerError
        If there is none.
    """
    per_voxel = volume.geometry.voxel_volume_ml
    if not masks:
        msg = "there is no mask of this structure to compare yet: draw or compute one"
        raise LayerError(msg)
    rows = []
    for name, mask in masks.items():
        (pair,) = pairwise_agreement({name: mask, "\0reference": reference}, volume.spacing)
        size = int(np.count_nonzero(mask)) * per_voxel
        rows.append(Row(name, pair.dice, pair.iou, pair.hd95_mm, pair.nsd_2mm, size))
    return sorted(rows, key=lambda row: (np.isnan(row.dice), -row.dice))
