"""Prompt-only baselines: what the prompts alone say, without a look at the image.

They stand beside every model in every table, because a box drawn tightly around a round tumour
on every slice has told most of the answer already.

On every slice the shape is a box or an ellipse with a centre and two half-axes:

- **A box** gives the box itself or the ellipse inscribed in it. A voxel belongs to the shape
  when its centre, at index + ½, lies in it.
- **Positive clicks** give the disc, of the radius of a tumour of mean size, around their mean;
  also where boxes are drawn as boxes.
- **A mask** is taken as it is, and stands for its tight box towards other slices.
- Of several on one slice a mask counts before boxes, boxes before clicks. Several boxes are all
  filled, and stand for the box around them all towards other slices.

Propagation fills the slices between prompted slices with centre and half-axes interpolated
linearly. Beyond the first and the last prompted slice stands the cap of an ellipsoid
(`EllipsoidCap`), or, where boxes are drawn as boxes, the same box as far as that cap would
reach. Distances along z are counted between slice indices, the size of a slice is the mean of its
two in-plane half-axes in mm. A single box thus spans an ellipsoid with its size as z half-axis,
or a cuboid of that height; a single click spans a sphere; clicks on two slices make a capsule;
and several boxes tell by how they shrink where the object ends.

Negative clicks change nothing, for no shape follows from them. Stops and empty masks limit the
slices.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import SliceMask, Vector3
from napari_lungfm.geometry import Volume
from napari_lungfm.models.caps import EllipsoidCap
from napari_lungfm.models.prompts import (
    Box,
    Click,
    MaskPrompt,
    Prompt,
    by_slice,
    prompted_slices,
    says_absent,
)
from napari_lungfm.models.protocols import SlicePrediction

Shape: TypeAlias = Literal["box", "ellipse"]

#: Radius of the sphere around a click when the training cohort is not known: 15 mm, the size
#: that parts a nodule from a mass (Bankier et al., Fleischner Society: Glossary of Terms for
#: Thoracic Imaging, Radiology 2024, doi 10.1148/radiol.232558).
DEFAULT_POINT_RADIUS_MM = 15.0


def sphere_radius_mm(volume_ml: float) -> float:
    """Radius in mm of the sphere of a volume in mL, r = ∛(3 V / 4 π)."""
    return float((3.0 * volume_ml * 1000.0 / (4.0 * math.pi)) ** (1.0 / 3.0))


@dataclass(frozen=True)
class PromptOnlyModel:
    """A `PromptableModel` that draws the shape of its prompts.

    Parameters
    ----------
    shape
        Draw boxes as ``"box"`` or as the inscribed ``"ellipse"``.
    point_radius_mm
        Radius of the sphere around a click in mm; for a fair baseline `sphere_radius_mm` of the
        mean tumour volume of the training cohort.

    Raises
    ------
    UsageError
        If the shape is not known or the radius not positive.
    """

    shape: Shape
    point_radius_mm: float = DEFAULT_POINT_RADIUS_MM

    def __post_init__(self) -> None:
        if self.shape not in {"box", "ellipse"}:
            msg = f"prompts can be drawn as 'box' or 'ellipse', not as '{self.shape}'"
            raise UsageError(msg)
        if not (math.isfinite(self.point_radius_mm) and self.point_radius_mm > 0):
            msg = f"point_radius_mm must be a positive number of mm, not {self.point_radius_mm}"
            raise UsageError(msg)

    @property
    def name(self) -> str:
        """``"prompt-box"`` or ``"prompt-ellipse"``."""
        return f"prompt-{self.shape}"

    def open(self, volume: Volume) -> "PromptOnlyPredictor":
        """Note the grid of a volume; its voxels are never read."""
        return PromptOnlyPredictor(self, volume.shape[1:], volume.spacing)


@dataclass(frozen=True)
class PromptOnlyPredictor:
    """A `VolumePredictor` that knows a grid and no image.

    Parameters
    ----------
    model
        What to draw.
    slice_shape
        Rows and columns of a slice.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.
    """

    model: PromptOnlyModel
    slice_shape: tuple[int, int]
    spacing: Vector3

    def propagate(
        self, prompts: Sequence[Prompt], slices: range, *, fill: bool
    ) -> Iterator[tuple[int, SlicePrediction]]:
        """Yield the prompted slices and, with ``fill``, those between and beyond them."""
        groups = by_slice(prompts)
        prompted = prompted_slices(prompts)
        for z in prompted:
            yield z, SlicePrediction(self._prompted_mask(groups[z]))
        if not fill:
            return
        absent = {prompt.z for prompt in prompts if says_absent(prompt)}
        for z, profile in self._between_and_beyond({z: self._profile(groups[z]) for z in prompted}):
            if z in slices and z not in absent:
                mask = self._draw(profile)
                if mask.any():
                    yield z, SlicePrediction(mask)

    # ------------------------------------------------------------------ one slice
    def _prompted_mask(self, prompts: Sequence[Prompt]) -> SliceMask:
        for prompt in prompts:
            if isinstance(prompt, MaskPrompt):
                return prompt.mask.copy()
        boxes = [prompt for prompt in prompts if isinstance(prompt, Box)]
        profiles = [self._box_profile(box) for box in boxes] or [self._profile(prompts)]
        mask = self._draw(profiles[0])
        for profile in profiles[1:]:
            mask |= self._draw(profile)
        return mask

    def _profile(self, prompts: Sequence[Prompt]) -> "_Profile":
        boxes = [Box.around(p.mask, p.z) for p in prompts if isinstance(p, MaskPrompt)]
        boxes = boxes or [p for p in prompts if isinstance(p, Box)]
        if boxes:
            return self._box_profile(_hull(boxes))
        clicks = [p for p in prompts if isinstance(p, Click) and p.positive]
        radius = self.model.point_radius_mm
        return _Profile(
            cy=sum(click.y for click in clicks) / len(clicks) + 0.5,
            cx=sum(click.x for click in clicks) / len(clicks) + 0.5,
            half_y=radius / self.spacing[1],
            half_x=radius / self.spacing[2],
            round=True,
        )

    def _box_profile(self, box: Box) -> "_Profile":
        cy, cx = box.center
        half_y, half_x = (box.y1 - box.y0) / 2, (box.x1 - box.x0) / 2
        return _Profile(cy, cx, half_y, half_x, round=self.model.shape == "ellipse")

    def _draw(self, profile: "_Profile") -> SliceMask:
        mask = np.zeros(self.slice_shape, dtype=bool)
        height, width = self.slice_shape
        y = np.arange(
            max(0, math.floor(profile.cy - profile.half_y)),
            min(height, math.ceil(profile.cy + profile.half_y)),
        )
        x = np.arange(
            max(0, math.floor(profile.cx - profile.half_x)),
            min(width, math.ceil(profile.cx + profile.half_x)),
        )
        if y.size == 0 or x.size == 0:
            return mask
        v = (y[:, np.newaxis] + 0.5 - profile.cy) / profile.half_y
        u = (x[np.newaxis, :] + 0.5 - profile.cx) / profile.half_x
        inside = v**2 + u**2 <= 1.0 if profile.round else (np.abs(v) <= 1.0) & (np.abs(u) <= 1.0)
        mask[y[0] : y[-1] + 1, x[0] : x[-1] + 1] = inside
        return mask

    # ------------------------------------------------------------------ other slices
    def _between_and_beyond(
        self, profiles: dict[int, "_Profile"]
    ) -> Iterator[tuple[int, "_Profile"]]:
        for below, above in pairwise(profiles):
            for z in range(below + 1, above):
                t = (z - below) / (above - below)
                yield z, _interpolated(profiles[below], profiles[above], t)
        yield from self._cap(min(profiles), -1, profiles)
        yield from self._cap(max(profiles), 1, profiles)

    def _cap(
        self, end: int, step: int, profiles: dict[int, "_Profile"]
    ) -> Iterator[tuple[int, "_Profile"]]:
        slice_mm, profile = self.spacing[0], profiles[end]
        sizes = {z: self._size_mm(each) for z, each in profiles.items()}
        cap = EllipsoidCap.over(end, sizes, slice_mm)
        for n in range(1, math.floor(cap.height_mm / slice_mm) + 1):
            scale = cap.scale(n * slice_mm)
            if scale > 0.0:
                yield end + n * step, profile.scaled(scale) if profile.round else profile

    def _size_mm(self, profile: "_Profile") -> float:
        return (profile.half_y * self.spacing[1] + profile.half_x * self.spacing[2]) / 2


@dataclass(frozen=True)
class _Profile:
    """A box or an ellipse on a slice: centre and half-axes in continuous indices."""

    cy: float
    cx: float
    half_y: float
    half_x: float
    round: bool

    def scaled(self, factor: float) -> "_Profile":
        half_y, half_x = self.half_y * factor, self.half_x * factor
        return _Profile(self.cy, self.cx, half_y, half_x, self.round)


def _interpolated(a: _Profile, b: _Profile, t: float) -> _Profile:
    return _Profile(
        cy=a.cy + t * (b.cy - a.cy),
        cx=a.cx + t * (b.cx - a.cx),
        half_y=a.half_y + t * (b.half_y - a.half_y),
        half_x=a.half_x + t * (b.half_x - a.half_x),
        # Between a box and a disc the nearer of the two gives the shape.
        round=a.round if t < 0.5 else b.round,
    )


def _hull(boxes: Sequence[Box]) -> Box:
    return Box(
        boxes[0].z,
        min(box.y0 for box in boxes),
        min(box.x0 for box in boxes),
        max(box.y1 for box in boxes),
        max(box.x1 for box in boxes),
    )
