"""Measurements of a prepared case, and what in them is worth a look.

Nothing here excludes a patient; flags are for people who look at the quality report.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from napari_lungfm._core.types import LabelArray, MaskArray
from napari_lungfm.benchmark.cohorts.raw import LUNGS, Reading, dice
from napari_lungfm.geometry import Structure, VolumeGeometry
from napari_lungfm.metrics import volume_ml

#: Volume (mL) of both lungs in CT of adults that needs no explanation. Whole-lung volumes of 564
#: adults in CT were 4468 ± 1271 mL (Cheng et al. 2019, doi:10.2147/COPD.S187596). The range goes
#: from below the functional residual capacity of a small woman, about 2 L, to above the total lung
#: capacity of a tall man, about 9 L (Hall et al. 2021, doi:10.1183/13993003.00289-2020), since
#: scans are also made while breathing, and tumours and collapse take volume.
LUNGS_ML = (1500.0, 10_000.0)
#: A lung with a smaller part of both is collapsed, removed or not found.
SMALLEST_LUNG = 0.25
#: Rasterised and enclosed volume may differ by this part, or by this number of voxels.
CONTOUR_TOLERANCE, CONTOUR_VOXELS = 0.05, 20.0
#: Two references of one tumour, or two of the lungs, agree less well than they should.
LOW_SEG_DICE, LOW_LUNG_DICE = 0.95, 0.90
#: Everything that is measured, in the order of tables.
FACTS = (
    "slices", "rows", "columns", "spacing_z_mm", "spacing_y_mm", "spacing_x_mm", "voxel_ml",
    "tumour_ml", "contour_ml", "contour_difference", "seg_dice", "tumour_components",
    "tumour_largest_share", "tumour_slices", "tumour_gaps", "left_lung_ml", "right_lung_ml",
    "lungs_ml", "lungs_swapped", "lungs_cut", "tumour_in_lungs", "own_lungs_dice",
    "own_left_lung_dice", "own_right_lung_dice", "missing_files",
    "image_hash",
)  # fmt: skip
_TOUCHING = np.ones((3, 3, 3), dtype=np.bool_)


def measure(reading: Reading, lungs: LabelArray | None) -> dict[str, Any]:
    """Return plain values of a case, some of `FACTS`; contours and SEG are in `Reading.facts`.

    Parameters
    ----------
    reading
        The case as read.
    lungs
        The lungs of its reference, values 1 and 2, or ``None``.
    """
    geometry = reading.volume.geometry
    facts = {**_grid(geometry), **_tumour(reading.tumour, geometry), **reading.facts}
    enclosed = facts.get("contour_ml")
    if enclosed:
        facts["contour_difference"] = (facts["tumour_ml"] - enclosed) / enclosed
    if lungs is not None:
        facts |= _lungs(lungs, reading)
    return facts


def flags(facts: Mapping[str, Any]) -> list[str]:
    """Say in one line each what of `measure` is worth a look."""
    found = []
    difference = facts.get("contour_difference")
    if difference is not None:
        off_ml = abs(difference) * facts["contour_ml"]
        if abs(difference) > CONTOUR_TOLERANCE and off_ml > CONTOUR_VOXELS * facts["voxel_ml"]:
            found.append(f"mask and contours enclose different volumes ({difference:+.1%})")
    missing = facts.get("missing_files")
    if missing:
        found.append(f"the download lacks files ({missing}): fetch again, then prepare again")
    seg = facts.get("seg_dice")
    if seg is not None and seg < LOW_SEG_DICE:
        found.append(f"RTSTRUCT and SEG of the tumour disagree (Dice {seg:.3f})")
    return found + _lung_flags(facts)


def _lung_flags(facts: Mapping[str, Any]) -> list[str]:
    both = facts.get("lungs_ml")
    if both is None:
        return []
    found = []
    if not LUNGS_ML[0] <= both <= LUNGS_ML[1]:
        found.append(f"the lungs have {both / 1000.0:.2f} L")
    smaller = min(facts["left_lung_ml"], facts["right_lung_ml"])
    if both and smaller < SMALLEST_LUNG * both:
        found.append(f"one lung is {smaller / both:.0%} of both")
    if facts["lungs_swapped"]:
        found.append("the left lung lies on the patient's right")
    if facts["lungs_cut"]:
        found.append("the lungs reach the first or last slice")
    own = facts.get("own_lungs_dice")
    if own is not None and own < LOW_LUNG_DICE:
        found.append(f"the data's own lungs disagree (Dice {own:.3f})")
    return found


def _grid(geometry: VolumeGeometry) -> dict[str, Any]:
    z, y, x = geometry.spacing
    return {
        "slices": geometry.shape[0],
        "rows": geometry.shape[1],
        "columns": geometry.shape[2],
        "spacing_z_mm": z,
        "spacing_y_mm": y,
        "spacing_x_mm": x,
        "voxel_ml": geometry.voxel_volume_ml,
    }


def _tumour(tumour: MaskArray, geometry: VolumeGeometry) -> dict[str, Any]:
    parts, count = ndimage.label(tumour, structure=_TOUCHING)
    sizes = np.bincount(parts.ravel())[1:]
    used = np.flatnonzero(tumour.any(axis=(1, 2)))
    return {
        "tumour_ml": volume_ml(tumour, geometry.spacing),
        "tumour_components": int(count),
        "tumour_largest_share": float(sizes.max() / sizes.sum()),
        "tumour_slices": int(used.size),
        "tumour_gaps": int(used[-1] - used[0] + 1 - used.size),
    }


def _lungs(lungs: LabelArray, reading: Reading) -> dict[str, Any]:
    geometry = reading.volume.geometry
    left, right = (lungs == int(s) for s in (Structure.LEFT_LUNG, Structure.RIGHT_LUNG))
    volumes = [volume_ml(side, geometry.spacing) for side in (left, right)]
    facts: dict[str, Any] = {
        "left_lung_ml": volumes[0],
        "right_lung_ml": volumes[1],
        "lungs_ml": sum(volumes),
        "lungs_swapped": _towards_left(left, geometry) < _towards_left(right, geometry),
        "lungs_cut": bool(lungs[0].any() or lungs[-1].any()),
        "tumour_in_lungs": float((lungs[reading.tumour] != 0).mean()),
    }
    return facts | _agreement(lungs, reading)


def _agreement(lungs: LabelArray, reading: Reading) -> dict[str, float]:
    """Dice with the lungs that came with the data.

    Whether the tumour counts as lung is a matter of taste, and not compared.
    """
    beside = ~reading.tumour
    if reading.lungs is lungs:
        return {}
    if reading.lungs is None:
        both = reading.both_lungs
        return (
            {} if both is None else {"own_lungs_dice": dice((lungs != 0) & beside, both & beside)}
        )
    facts = {"own_lungs_dice": dice((lungs != 0) & beside, (reading.lungs != 0) & beside)}
    for structure in LUNGS:
        one, own = (array == int(structure) for array in (lungs, reading.lungs))
        side = structure.title.partition(" ")[0]
        facts[f"own_{side}_lung_dice"] = dice(one & beside, own & beside)
    return facts


def _towards_left(mask: MaskArray, geometry: VolumeGeometry) -> float:
    """LPS x (mm) of the middle of a mask; NaN for an empty one, which compares as False."""
    if not mask.any():
        return math.nan
    # Sums over two axes instead of all coordinates: lungs have tens of millions of voxels.
    totals = [mask.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    centre = [float(np.average(np.arange(n.size), weights=n)) for n in totals]
    return float(geometry.index_to_world(centre)[0])
