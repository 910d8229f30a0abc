"""The classical promptable method: a random walker on a local intensity model.

Nothing is trained. On every slice a crop around the object is looked at, in four steps:

1. **Where the object is expected.** A box is taken as tight: the log odds fall off from the
   centre of its inscribed ellipse, are even at the outline, and drop at the box. A click grows
   a region first (`click_region`), whose box is then used alike. On a slice without prompts the
   outline of the neighbouring slice is expected, shrunk as the ellipsoid would that the
   prompted slice spans: this matters only where the image shows no border.
2. **How the object looks.** Histograms of object and background, each pixel weighted by the
   current probabilities, in turn with the probabilities that follow from them. Histograms need
   no window and no single mean, so soft tissue, ground glass, necrosis, cavities and
   calcification are all objects; propagation carries the histogram of the prompted slice along.
3. **A random walker with priors** (`random_walk`) turns both into one smooth region that ends
   at edges.
4. **Clean-up**: the part connected to the core, without holes. Too small a rest, or a part that
   has little to do with the slice before, means that the object has ended.

Where image and clicks disagree the clicks win: a positive click is on the object, a negative one
is not, and both sway their neighbourhood.

All constants were chosen on generated scenes and phantoms (seeds from 10000 on). The structure
was not blind to patients: that propagation looks at the areas of the prompted slices, and
mistrusts intensities that the surroundings share, followed scores on three public cases, on
which the method's results are therefore a little too good.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import FloatArray, SliceMask, VoxelArray
from napari_lungfm.geometry import Volume
from napari_lungfm.models.caps import EllipsoidCap
from napari_lungfm.models.click_region import region_of_clicks
from napari_lungfm.models.intensity_model import ContrastScale, evidence, histogram, overlap
from napari_lungfm.models.prompts import Box, Click, MaskPrompt, Prompt
from napari_lungfm.models.protocols import Prior, SlicePrediction
from napari_lungfm.models.random_walk import random_walk

#: Log odds at the centre of a box; they fall linearly to 0 on the inscribed ellipse.
BOX_CERTAINTY = 7.0
#: Log odds taken off outside a box.
BOX_EDGE = 3.0
#: Log odds per pixel of distance to the expected outline are 1 over this many pixels at least …
OUTLINE_SLACK_PX = 1.2
#: … and this fraction of the distance between the slices.
OUTLINE_SLACK_PER_MM = 0.4
#: Largest log odds from the expected outline.
OUTLINE_CERTAINTY = 5.0
#: An object is expected to reach this many times as far along z as it does in the plane.
ELONGATION = 1.25
#: The object has ended when its radius falls below this fraction of that on the prompted slice.
SMALLEST_REST = 0.2
#: Log odds at a click, and how far it reaches (standard deviation).
CLICK_CERTAINTY, CLICK_REACH_MM = 8.0, 2.5
#: Pull of the random walker; see `random_walk`.
SMOOTHNESS = 5.0
#: Rounds of fitting histograms and probabilities in turn.
ROUNDS = 3


@dataclass(frozen=True)
class ClassicalModel:
    """A `PromptableModel` that needs no weights.

    Parameters
    ----------
    max_click_radius_mm
        The largest object that a click alone is taken to mean.

    Raises
    ------
    UsageError
        If the radius is not positive.
    """

    max_click_radius_mm: float = 50.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_click_radius_mm) and self.max_click_radius_mm > 0):
            msg = f"max_click_radius_mm must be a positive number, not {self.max_click_radius_mm}"
            raise UsageError(msg)

    @property
    def name(self) -> str:
        """``"classical"``."""
        return "classical"

    def open(self, volume: Volume) -> "ClassicalPredictor":
        """Get ready for one volume; slices are read as they are needed."""
        return ClassicalPredictor(self, volume.array, volume.spacing)


@dataclass(frozen=True, eq=False)
class ClassicalPredictor:
    """A `SlicePredictor` on one volume; it keeps nothing between two calls.

    Parameters
    ----------
    model
        The settings.
    array
        HU ``(z, y, x)``.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.
    """

    model: ClassicalModel
    array: VoxelArray
    spacing: tuple[float, float, float]

    def predict_slice(
        self, z: int, prompts: Sequence[Prompt], prior: Prior | None = None
    ) -> SlicePrediction:
        """Segment slice ``z``; see `SlicePredictor.predict_slice`."""
        edits = [prompt for prompt in prompts if isinstance(prompt, MaskPrompt)]
        boxes = [prompt for prompt in prompts if isinstance(prompt, Box)]
        clicks = [prompt for prompt in prompts if isinstance(prompt, Click)]
        if edits:
            mask = edits[0].mask.copy()
            return SlicePrediction(mask, memory=self._memory(z, mask))
        if not boxes and prior is not None:
            return self._carry(z, clicks, prior)
        return self._start(z, boxes, clicks)

    # ------------------------------------------------------------------ prompted slices
    def _start(self, z: int, boxes: Sequence[Box], clicks: Sequence[Click]) -> SlicePrediction:
        if not boxes:
            grown = region_of_clicks(
                self.array[z], clicks, self.spacing[1:], self.model.max_click_radius_mm
            )
            boxes = [Box.around(grown, z)]
        crop = _Crop.around(self.array[z], _hull(boxes), self.spacing[1:], clicks)
        expected = np.max([_box_odds(crop, box) for box in boxes], axis=0)
        probability = _segment(crop, expected + _click_odds(crop, clicks), None)
        core = expected > 0.3 * BOX_CERTAINTY
        part = _finished(crop, probability, core, clicks)
        inscribed = expected > 0
        if part.sum() < 0.25 * inscribed.sum():
            # The user says that something is here; where the image shows nothing, believe them.
            part = _obeying(crop, inscribed, clicks)
        mask = crop.expand(part)
        return SlicePrediction(mask, _mean_inside(probability, part), memory=self._memory(z, mask))

    def _memory(self, z: int, mask: SliceMask) -> "_Memory | None":
        if not mask.any():
            return None
        crop = _Crop.around(self.array[z], Box.around(mask, z), self.spacing[1:], ())
        inside = mask[crop.window]
        inner = ndimage.binary_erosion(inside)
        weights = (inner if inner.sum() >= 9 else inside).astype(np.float64)
        looks = histogram(crop.image, weights, ContrastScale.of(crop.image))
        return _Memory(z, _radius_mm(int(mask.sum()), self.spacing), looks)

    # ------------------------------------------------------------------ other slices
    def _carry(self, z: int, clicks: Sequence[Click], prior: Prior) -> SlicePrediction:
        nothing = SlicePrediction(np.zeros(self.array.shape[1:], dtype=bool))
        if not prior.mask.any():
            return nothing
        memory = prior.memory if isinstance(prior.memory, _Memory) else None
        if memory is None:
            memory = self._memory(prior.z, prior.mask)
        if memory is None:
            return nothing
        crop = _Crop.around(self.array[z], Box.around(prior.mask, z), self.spacing[1:], clicks)
        before = prior.mask[crop.window]
        expected = self._outline_odds(z, before, prior, memory) + _click_odds(crop, clicks)
        probability = _segment(crop, expected, memory.looks)
        part = _finished(crop, probability, before & (expected > 0), clicks)
        if not any(click.positive for click in clicks) and self._has_ended(part, before, memory):
            return nothing
        mask = crop.expand(part)
        return SlicePrediction(mask, _mean_inside(probability, part), memory=memory)

    def _outline_odds(
        self, z: int, before: SliceMask, prior: Prior, memory: "_Memory"
    ) -> npt.NDArray[np.float64]:
        pixel_mm = (self.spacing[1] * self.spacing[2]) ** 0.5
        step_mm = abs(z - prior.z) * self.spacing[0]
        slack = max(OUTLINE_SLACK_PX, OUTLINE_SLACK_PER_MM * step_mm / pixel_mm)
        growth = 0.0
        if not prior.between:
            radii = [self._expected_radius_mm(i, prior, memory) for i in (prior.z, z)]
            growth = (radii[1] - radii[0]) / pixel_mm
        distance = _signed_distance(before) + growth
        odds: npt.NDArray[np.float64] = np.clip(
            distance / slack, -OUTLINE_CERTAINTY, OUTLINE_CERTAINTY
        )
        return odds

    def _expected_radius_mm(self, z: int, prior: Prior, memory: "_Memory") -> float:
        """Radius that the prompted slices let expect beyond them; negative past the end."""
        sizes = {i: _radius_mm(area, self.spacing) for i, area in prior.prompted_areas.items()}
        sizes[memory.z] = memory.radius_mm
        cap = EllipsoidCap.over(memory.z, sizes, self.spacing[0], ELONGATION)
        beyond = abs(z - memory.z) * self.spacing[0]
        return memory.radius_mm * cap.scale(beyond) - max(0.0, beyond - cap.height_mm)

    def _has_ended(self, part: SliceMask, before: SliceMask, memory: "_Memory") -> bool:
        radius_mm = _radius_mm(int(part.sum()), self.spacing)
        if radius_mm < SMALLEST_REST * memory.radius_mm:
            return True
        return bool((part & before).sum() < 0.3 * part.sum())


@dataclass(frozen=True, eq=False)
class _Memory:
    """A prompted slice as propagation remembers it: place, radius, intensities."""

    z: int
    radius_mm: float
    looks: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Crop:
    """The part of a slice that is looked at."""

    image: npt.NDArray[np.float64]
    window: tuple[slice, slice]
    slice_shape: tuple[int, int]
    spacing: tuple[float, float]

    @classmethod
    def around(
        cls,
        slice_image: VoxelArray,
        box: Box,
        spacing: tuple[float, float],
        clicks: Sequence[Click],
    ) -> "_Crop":
        """Crop a box with enough around it to learn the background, clicks included."""
        height, width = slice_image.shape
        margin = max(6, round(0.3 * max(box.y1 - box.y0, box.x1 - box.x0)))
        y0 = min([box.y0 - margin, *(click.y for click in clicks)])
        x0 = min([box.x0 - margin, *(click.x for click in clicks)])
        y1 = max([box.y1 + margin, *(click.y + 1 for click in clicks)])
        x1 = max([box.x1 + margin, *(click.x + 1 for click in clicks)])
        window = (slice(max(0, y0), min(height, y1)), slice(max(0, x0), min(width, x1)))
        return cls(slice_image[window].astype(np.float64), window, (height, width), spacing)

    def centres(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Rows ``(y, 1)`` and columns ``(1, x)`` of the voxel centres in the slice."""
        rows, columns = self.window
        y = np.arange(rows.start, rows.stop) + 0.5
        x = np.arange(columns.start, columns.stop) + 0.5
        return y[:, np.newaxis], x[np.newaxis, :]

    def place(self, click: Click) -> tuple[int, int]:
        return click.y - self.window[0].start, click.x - self.window[1].start

    def expand(self, part: SliceMask) -> SliceMask:
        mask = np.zeros(self.slice_shape, dtype=bool)
        mask[self.window] = part
        return mask


def _segment(
    crop: _Crop, expected: npt.NDArray[np.float64], looks: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64]:
    """Probability of the object from place and intensities; ``looks`` is its known histogram."""
    scale = ContrastScale.of(crop.image)
    probability: npt.NDArray[np.float64] = _sigmoid(expected)
    for _ in range(ROUNDS):
        inside = looks if looks is not None else histogram(crop.image, probability, scale)
        outside = histogram(crop.image, 1.0 - probability, scale)
        # A carried histogram that fits the surroundings too would let the object run into them.
        trust = 1.0 if looks is None else 1.0 - overlap(inside, outside)
        probability = _sigmoid(expected + trust * evidence(crop.image, inside, outside))
    return random_walk(crop.image, probability, edge_scale=scale.edge_hu, smoothness=SMOOTHNESS)


def _box_odds(crop: _Crop, box: Box) -> npt.NDArray[np.float64]:
    y, x = crop.centres()
    cy, cx = box.center
    v, u = (y - cy) / ((box.y1 - box.y0) / 2), (x - cx) / ((box.x1 - box.x0) / 2)
    odds = BOX_CERTAINTY * (1.0 - np.hypot(v, u))
    outside = (np.abs(v) > 1.0) | (np.abs(u) > 1.0)
    return np.where(outside, odds - BOX_EDGE, odds)


def _click_odds(crop: _Crop, clicks: Sequence[Click]) -> npt.NDArray[np.float64]:
    odds = np.zeros(crop.image.shape)
    y, x = crop.centres()
    for click in clicks:
        squared_mm = ((y - click.y - 0.5) * crop.spacing[0]) ** 2
        squared_mm = squared_mm + ((x - click.x - 0.5) * crop.spacing[1]) ** 2
        bump = CLICK_CERTAINTY * np.exp(-squared_mm / (2.0 * CLICK_REACH_MM**2))
        odds += bump if click.positive else -bump
    return odds


def _finished(
    crop: _Crop, probability: FloatArray, core: SliceMask, clicks: Sequence[Click]
) -> SliceMask:
    """Keep what belongs to the core or to a positive click, close holes, obey the clicks."""
    inside = _obeying(crop, probability > 0.5, clicks)
    parts, count = ndimage.label(inside)
    kept = {int(parts[crop.place(click)]) for click in clicks if click.positive}
    if count:
        sizes = np.bincount(parts[core], minlength=count + 1)
        sizes[0] = 0
        if sizes.any():
            kept.add(int(np.argmax(sizes)))
    filled: SliceMask = ndimage.binary_fill_holes(np.isin(parts, sorted(kept - {0})))
    return _obeying(crop, filled, clicks)


def _obeying(crop: _Crop, mask: SliceMask, clicks: Sequence[Click]) -> SliceMask:
    obeyed = mask.copy()
    for click in clicks:
        obeyed[crop.place(click)] = click.positive
    return obeyed


def _radius_mm(area: int, spacing: tuple[float, float, float]) -> float:
    """Radius of the disc of an area in pixels."""
    return math.sqrt(area * spacing[1] * spacing[2] / math.pi)


def _mean_inside(probability: FloatArray, part: SliceMask) -> float | None:
    return float(probability[part].mean()) if part.any() else None


def _signed_distance(mask: SliceMask) -> npt.NDArray[np.float64]:
    """Distance in pixels to the outline, positive inside; outlines run between pixels."""
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    signed: npt.NDArray[np.float64] = np.where(mask, inside - 0.5, 0.5 - outside)
    return signed


def _sigmoid(odds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    bounded = np.clip(odds, -30.0, 30.0)  # beyond, exp only loses digits
    probability: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-bounded))
    return probability


def _hull(boxes: Sequence[Box]) -> Box:
    return Box(
        boxes[0].z,
        min(box.y0 for box in boxes),
        min(box.x0 for box in boxes),
        max(box.y1 for box in boxes),
        max(box.x1 for box in boxes),
    )
