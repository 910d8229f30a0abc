"""A training example before augmentation: a small CT and one object in it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.exceptions import DataError
from napari_lungfm._core.seeding import generator
from napari_lungfm._core.types import MaskArray, Vector3

#: Where a clip comes from: tumours of chest phantoms, their organs, or random scenes.
Source: TypeAlias = Literal["phantom", "organ", "scene"]

#: How often each source is drawn.
SHARES: dict[Source, float] = {"phantom": 0.45, "organ": 0.1, "scene": 0.45}
#: Side of a slice in voxels. An object of the largest size that is drawn spans less than half.
SIDE = 128
#: Most slices of a clip.
MAX_SLICES = 32
#: Draws of one source until an object is whole and large enough to be seen.
_TRIES = 8


@dataclass(frozen=True, eq=False)
class Clip:
    """One object and what surrounds it.

    Parameters
    ----------
    image
        HU, int16 ``(z, y, x)``.
    mask
        The object: boolean ``(z, y, x)``, on at least one slice.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.
    source
        What made it.
    """

    image: npt.NDArray[np.int16]
    mask: MaskArray
    spacing: Vector3
    source: Source


@dataclass(frozen=True)
class Sampling:
    """The grid of a clip: how large its object is, and how finely it is seen.

    Parameters
    ----------
    diameter_mm
        Diameter of the object, about.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.
    slices
        Number of slices.
    """

    diameter_mm: float
    spacing: Vector3
    slices: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(z, y, x)`` of the clip."""
        return (self.slices, SIDE, SIDE)

    @classmethod
    def draw(
        cls, rng: np.random.Generator, low_mm: float = 4.0, high_mm: float = 120.0
    ) -> "Sampling":
        """Draw a size, uniform in its logarithm, and a grid that shows it with its ends.

        Pixels of 0.6 to 1.0 mm and slices of 1 to 5 mm are what chest CTs have. Large objects
        are seen more coarsely, as a model sees them after zooming.
        """
        diameter = float(np.exp(rng.uniform(np.log(low_mm), np.log(high_mm))))
        pixel = max(float(rng.uniform(0.6, 1.0)), diameter * float(rng.uniform(2.0, 2.8)) / SIDE)
        thickness = float(rng.choice([1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.0, 4.0, 5.0]))
        needed = 1.5 * diameter
        thickness = max(thickness, needed / (MAX_SLICES - 6))
        slices = min(MAX_SLICES, int(np.ceil(needed / thickness)) + 6)
        return cls(diameter, (thickness, pixel, pixel), slices)


def make_clip(seed: int, index: int, source: Source | None = None) -> Clip:
    """Make the clip of a number; the same numbers give the same clip on every run.

    Parameters
    ----------
    seed
        Seed of the whole training set.
    index
        Number of the clip.
    source
        What is to make it; drawn by `SHARES` if ``None``.

    Raises
    ------
    DataError
        If no usable object was found in several draws, which a change of the makers would cause.
    """
    from napari_lungfm.training.synthetic import phantom_clips, scenes  # noqa: PLC0415

    makers = {
        "phantom": phantom_clips.tumour_clip,
        "organ": phantom_clips.organ_clip,
        "scene": scenes.scene_clip,
    }
    rng = generator("training clip", seed, index)
    drawn = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    make = makers[source or drawn]
    for _ in range(_TRIES):
        clip = make(rng)
        if clip is not None and _usable(clip):
            return clip
    msg = f"clip {index} of seed {seed}: no usable object in {_TRIES} draws"
    raise DataError(msg)


def _usable(clip: Clip) -> bool:
    """Tell whether the largest slice of the object can be seen and boxed."""
    areas = clip.mask.sum(axis=(1, 2))
    largest = clip.mask[int(np.argmax(areas))]
    rows, columns = largest.any(axis=1), largest.any(axis=0)
    whole = not (rows[0] or rows[-1] or columns[0] or columns[-1])
    return whole and int(areas.max()) >= 12
