"""Clips cut from the chest phantoms."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_lungfm._core.types import MaskArray
from napari_lungfm.datasets.phantoms import (
    Imaging,
    PhantomSpec,
    Tissue,
    TumourKind,
    TumourSpec,
    generate_phantom,
)
from napari_lungfm.training.synthetic.clips import Clip, Sampling

#: Seeds of patients and tumours lie from here on; the phantoms of demo and tests lie below.
FIRST_SEED = 10_000_000
_SEEDS = 2**40
#: Largest diameter in mm of the kinds that do not grow to any size.
_LARGEST_MM = {
    TumourKind.SOLID_ROUND: 60.0,
    TumourKind.GROUND_GLASS: 45.0,
    TumourKind.PART_SOLID: 50.0,
}
#: Smallest diameter in mm of the kinds that have an inside.
_SMALLEST_MM = {
    TumourKind.NECROTIC: 18.0,
    TumourKind.CAVITATING: 10.0,
    TumourKind.PART_SOLID: 7.0,
    TumourKind.ATELECTASIS: 12.0,
}
_ORGANS = (
    Tissue.MARROW,
    Tissue.MYOCARDIUM,
    Tissue.ARTERIAL_BLOOD,
    Tissue.VENOUS_BLOOD,
    Tissue.PULMONARY_BLOOD,
    Tissue.LIVER,
    Tissue.SPLEEN,
    Tissue.STOMACH,
    Tissue.KIDNEY,
    Tissue.SPINAL_CANAL,
    Tissue.LUNG,
)


def tumour_clip(rng: np.random.Generator) -> Clip | None:
    """Return a tumour of a phantom, centred, in part with other tumours beside it."""
    kind = list(TumourKind)[int(rng.integers(len(TumourKind)))]
    low, high = _SMALLEST_MM.get(kind, 4.0), _LARGEST_MM.get(kind, 120.0)
    sampling = Sampling.draw(rng, low, high)
    others = int(rng.integers(0, 3))
    spec = PhantomSpec(
        seed=_seed(rng),
        tumour_seed=_seed(rng),
        shape=sampling.shape,
        spacing=sampling.spacing,
        focus=0,
        tumours=(TumourSpec(kind=kind, diameter_mm=sampling.diameter_mm),),
        n_tumours=1 + others,
        imaging=_imaging(rng, sampling),
    )
    phantom = generate_phantom(spec)
    tumours = np.asarray(phantom.labels.array == 3)
    mask = _nearest_part(tumours)
    if mask is None:
        return None
    return Clip(phantom.volume.array.astype(np.int16), mask, sampling.spacing, "phantom")


def organ_clip(rng: np.random.Generator) -> Clip | None:
    """Return an organ, a bone or a vessel of a phantom: whatever is near a random place."""
    sampling = Sampling.draw(rng, 25.0, 120.0)
    spec = PhantomSpec(
        seed=_seed(rng),
        shape=sampling.shape,
        spacing=sampling.spacing,
        centre=(
            float(rng.uniform(-90, 90)),
            float(rng.uniform(-60, 60)),
            float(rng.uniform(-180, 60)),
        ),
        imaging=_imaging(rng, sampling),
        n_tumours=0,
        tissues=True,
    )
    phantom = generate_phantom(spec)
    if phantom.tissues is None:
        return None
    tissues = phantom.tissues.array
    tissue = rng.permutation(np.array([int(t) for t in _ORGANS]))
    for value in tissue:
        mask = _nearest_part(ndimage.binary_opening(tissues == value))
        if mask is not None and 40 < mask.sum() < 0.4 * mask.size and _inside(mask):
            return Clip(phantom.volume.array.astype(np.int16), mask, sampling.spacing, "organ")
    return None


def _imaging(rng: np.random.Generator, sampling: Sampling) -> Imaging:
    return Imaging(
        slice_thickness=sampling.spacing[0] * float(rng.choice([1.0, 1.0, 1.0, 1.5])),
        kernel="lung" if rng.random() < 0.4 else "soft",
        contrast=("none", "arterial", "venous")[int(rng.integers(3))],
        noise_hu=float(np.exp(rng.uniform(np.log(4.0), np.log(45.0)))),
        streaks_hu=float(rng.uniform(0.0, 8.0)),
        seed=_seed(rng),
    )


def _seed(rng: np.random.Generator) -> int:
    return FIRST_SEED + int(rng.integers(_SEEDS))


def _nearest_part(mask: npt.NDArray[np.bool_]) -> MaskArray | None:
    """Return the connected part that is nearest to the middle of the clip."""
    parts, count = ndimage.label(mask)
    if count == 0:
        return None
    middle = tuple(n // 2 for n in mask.shape)
    if parts[middle]:
        return np.asarray(parts == parts[middle])
    voxels = np.argwhere(parts)
    nearest = voxels[np.argmin(((voxels - middle) ** 2).sum(axis=1))]
    return np.asarray(parts == parts[tuple(nearest)])


def _inside(mask: MaskArray) -> bool:
    """Tell whether the object lies within the slices (it may leave the clip along z)."""
    across: MaskArray = np.asarray(mask.any(axis=0))
    border = (across[0], across[-1], across[:, 0], across[:, -1])
    return not any(side.any() for side in border)
