"""What is to be said of an automatic result that no chest can have."""

import numpy as np

from napari_lungfm.geometry import LabelMap

#: No lung holds more than this.
LARGEST_LUNG_ML = 10_000.0
#: Voxels of CT of the chest, in mm: finer than the finest scanner, thicker than any slice.
SMALLEST_VOXEL_MM, LARGEST_VOXEL_MM = 0.1, 20.0


def told_if_doubtful(found: LabelMap) -> tuple[str, ...]:
    """Say in lines what makes a result doubtful: no lungs, or lungs or voxels of no human chest.

    Parameters
    ----------
    found
        What an automatic model has found, all its labels named.

    Returns
    -------
    tuple of str
        Empty where there is nothing to say.
    """
    lungs = {v: name for v, name in found.labels.items() if name.endswith((" lung", " lobe"))}
    sizes = {
        name: float(np.count_nonzero(found.mask(value)) * found.geometry.voxel_volume_ml)
        for value, name in lungs.items()
    }
    notes = [told for told in (_told_of_none(sizes), _told_of_size(found, sizes)) if told]
    return tuple(notes)


def _told_of_none(sizes: dict[str, float]) -> str | None:
    missing = [name for name, size in sizes.items() if size == 0]
    if not missing:
        return None
    if len(missing) == len(sizes) > 1:
        return "no lungs were found"
    return f"no {' and no '.join(missing)} was found"


def _told_of_size(found: LabelMap, sizes: dict[str, float]) -> str | None:
    large = [name for name, size in sizes.items() if size > LARGEST_LUNG_ML]
    strange = [mm for mm in found.spacing if not SMALLEST_VOXEL_MM <= mm <= LARGEST_VOXEL_MM]
    if not large and not strange:
        return None
    reasons = [f"a {name} of {sizes[name] / 1000:.0f} L" for name in large]
    grid = " × ".join(f"{mm:g}" for mm in found.spacing)
    voxels = f"voxels of {grid} mm (z, y, x)"
    if strange:
        reasons.append(voxels)
    where = "" if strange else f", {voxels}"
    return f"{' and '.join(reasons)}: the spacing of the image may be wrong{where}"
