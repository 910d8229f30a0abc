"""LungFM-S on a volume: prompts and priors become looks, looks become masks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from napari_lungfm._core.types import FloatArray, SliceMask, VoxelArray
from napari_lungfm.models.crops import SliceCrop
from napari_lungfm.models.foundation.runtime import Runtime
from napari_lungfm.models.lungfm.look import AIR_HU, Look, PriorKind, neighbour_steps
from napari_lungfm.models.lungfm.network import PromptNetwork
from napari_lungfm.models.lungfm.window import Window, filled_box, spots
from napari_lungfm.models.prompts import Box, Click, MaskPrompt, Prompt
from napari_lungfm.models.protocols import Prior, SlicePrediction

#: Side of a window as a multiple of the object's larger side; the training draws 1.7 to 3.2.
MARGIN = 2.2
#: On a walk the object is taken to be at least this fraction as large as on its prompted slice.
LEAST_FRACTION = 0.5
#: Sides in mm of the windows that a click alone is tried in, a factor of 1.4 apart, and how many
#: of them are looked at more closely.
CLICK_WINDOWS_MM = (16.0, 24.0, 34.0, 48.0, 68.0, 96.0, 136.0, 192.0, 270.0)
CLICK_CANDIDATES = 3
#: The largest of them spans at most so many voxels, or twice the slice if that is more; at 0.27 mm
#: a voxel and above it always does, and images of small things have finer voxels.
MOST_CLICK_SIDE = 1024
#: Logit outside the window.
_NOTHING = -20.0


@dataclass(frozen=True, eq=False)
class Anchor:
    """What is remembered of a prompted slice: where the object was."""

    z: int
    crop: SliceCrop

    @classmethod
    def of(cls, z: int, mask: SliceMask) -> "Anchor | None":
        """Remember a mask ``(y, x)``; ``None`` if it is empty."""
        crop = SliceCrop.of(mask)
        return None if crop is None else cls(z, crop)


class LungFMPredictor:
    """A `SlicePredictor` on one volume; it keeps nothing of an object between two calls.

    Parameters
    ----------
    network
        The trained network.
    runtime
        What runs it, on its device.
    array
        HU ``(z, y, x)``.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.
    """

    def __init__(
        self,
        network: PromptNetwork,
        runtime: Runtime,
        array: VoxelArray,
        spacing: tuple[float, float, float],
    ) -> None:
        self._network, self._runtime = network, runtime
        self._array = array
        self._step_mm = float(spacing[0])
        self._pixel_mm = float(spacing[1] + spacing[2]) / 2
        self._shape: tuple[int, int] = (int(array.shape[1]), int(array.shape[2]))

    def predict_slice(
        self, z: int, prompts: Sequence[Prompt], prior: Prior | None = None
    ) -> SlicePrediction:
        """Segment slice ``z``; see `SlicePredictor.predict_slice`."""
        edits = [prompt for prompt in prompts if isinstance(prompt, MaskPrompt)]
        if edits:
            mask = edits[0].mask.copy()
            return SlicePrediction(mask, memory=Anchor.of(z, mask))
        boxes = [prompt for prompt in prompts if isinstance(prompt, Box)]
        clicks = [prompt for prompt in prompts if isinstance(prompt, Click)]
        if prior is not None and (prior.z != z or prior.between):
            return self._carry(z, boxes, clicks, prior)
        if prior is None and not boxes:
            return self._from_clicks(z, clicks)
        return self._prompted(z, boxes, clicks, prior)

    # ------------------------------------------------------------------ kinds of looks
    def _prompted(
        self, z: int, boxes: Sequence[Box], clicks: Sequence[Click], prior: Prior | None
    ) -> SlicePrediction:
        """Segment a slice that prompts are on, or correct what was found there."""
        hulls = [*boxes]
        if prior is not None and prior.mask.any():
            hulls.append(Box.around(prior.mask, z))
        window = self._window(_hull(hulls, clicks, z))
        look = self._look(z, window, boxes, clicks)
        anchor = None
        if prior is not None:
            anchor = prior.memory if isinstance(prior.memory, Anchor) else None
            look = self._with_prior(look, window, prior.mask, "same", anchor, z)
        logits, presence, quality = self._ask([look])
        there = float(presence[0].sigmoid())
        whole = self._whole(logits, window)
        mask = np.zeros(self._shape, dtype=bool)
        if there > 0.5 or _say_present(boxes, clicks):
            mask = _near(_forced(whole, boxes, clicks), self._hint(boxes, clicks, prior))
        return SlicePrediction(mask, float(quality[0]), whole, Anchor.of(z, mask))

    def _from_clicks(self, z: int, clicks: Sequence[Click]) -> SlicePrediction:
        """Try windows of many sizes, look closer at what the best ones show, take the best."""
        hull = _hull([], clicks, z)
        windows = [self._window(hull, side / MARGIN) for side in self._click_sides()]
        masks, _, trust = self._try(z, list(dict.fromkeys(windows)), clicks)
        best = np.argsort(-trust, kind="stable")[:CLICK_CANDIDATES]
        closer = [self._window(_hull([Box.around(masks[i], z)], clicks, z)) for i in best]
        masks, logits, closer_trust = self._try(z, closer, clicks)
        chosen = int(np.argmax(trust[best] + closer_trust))
        mask = masks[chosen]
        return SlicePrediction(
            mask, float(closer_trust[chosen]), logits[chosen], Anchor.of(z, mask)
        )

    def _click_sides(self) -> list[float]:
        """Return the sides in voxels of the windows that a click alone is tried in.

        Where the slice is tiny, as in micro-CT, they shrink together: windows of centimetres
        would have billions of voxels, and show the image as a dot.
        """
        most = max(MOST_CLICK_SIDE, 2 * max(self._shape))
        shrink = min(1.0, most * self._pixel_mm / CLICK_WINDOWS_MM[-1])
        return [side / self._pixel_mm * shrink for side in CLICK_WINDOWS_MM]

    def _try(
        self, z: int, windows: Sequence[Window], clicks: Sequence[Click]
    ) -> tuple[list[SliceMask], list[FloatArray], FloatArray]:
        """Return the mask, the logits and the estimated quality that each window gives."""
        found, _, quality = self._ask([self._look(z, window, [], clicks) for window in windows])
        pairs = zip(found, windows, strict=True)
        logits = [self._whole(each[None], window) for each, window in pairs]
        hint = self._hint([], clicks, None)
        masks = [_near(_forced(each, [], clicks), hint) for each in logits]
        return masks, logits, quality.numpy()

    def _carry(
        self, z: int, boxes: Sequence[Box], clicks: Sequence[Click], prior: Prior
    ) -> SlicePrediction:
        """Carry the object here from the slices beside."""
        empty = np.zeros(self._shape, dtype=bool)
        if not prior.mask.any():
            return SlicePrediction(empty, 0.0)
        anchor = prior.memory if isinstance(prior.memory, Anchor) else None
        seen = Box.around(prior.mask, z)
        least = 0.0
        if anchor is not None:
            least = LEAST_FRACTION * max(anchor.crop.shape)
        window = self._window(_hull([seen, *boxes], clicks, z), least)
        toward = 1 if z >= prior.z else -1
        kind: PriorKind = "between" if prior.between else "beside"
        look = self._look(z, window, boxes, [], toward)
        look = self._with_prior(look, window, prior.mask, kind, anchor, z)
        logits, presence, quality = self._ask([look])
        if clicks:  # they correct what is found without them, as in the training
            found = (logits[0] > 0).float()
            look = replace(
                look, clicks=_marks(clicks, window, look.planes), prior=found, prior_kind="same"
            )
            logits, presence, quality = self._ask([look])
        there = float(presence[0].sigmoid())
        whole = self._whole(logits, window)
        mask = empty
        if there > 0.5 or _say_present(boxes, clicks):
            mask = _near(_forced(whole, boxes, clicks), prior.mask | self._hint([], clicks, None))
        return SlicePrediction(mask, there * float(quality[0]), whole, anchor)

    # ------------------------------------------------------------------ looks
    def _window(self, hull: Box, least: float = 0.0) -> Window:
        extent = max(hull.y1 - hull.y0, hull.x1 - hull.x0, least)
        y, x = hull.center
        return Window.around(y, x, MARGIN * extent)

    def _look(
        self,
        z: int,
        window: Window,
        boxes: Sequence[Box],
        clicks: Sequence[Click],
        toward: int = 1,
    ) -> Look:
        beside = toward * neighbour_steps(self._step_mm)
        planes = self._planes([z - beside, z, z + beside], window)
        side_mm = window.side * self._pixel_mm
        box = None
        for one in boxes:
            top, left = window.place(one.y0, one.x0)
            bottom, right = window.place(one.y1, one.x1)
            cover = filled_box((top, left, bottom, right), planes)
            box = cover if box is None else torch.maximum(box, cover)
        return Look(
            planes=planes,
            step=self._step_mm / side_mm,
            side_mm=side_mm,
            box=box,
            clicks=_marks(clicks, window, planes),
        )

    def _with_prior(
        self,
        look: Look,
        window: Window,
        mask: SliceMask,
        kind: PriorKind,
        anchor: Anchor | None,
        z: int,
    ) -> Look:
        prior = self._seen([mask], window, 0.0)[0]
        look = replace(look, prior=prior, prior_kind=kind)
        if anchor is None or anchor.z == z:
            return look
        plane = self._planes([anchor.z], window)
        known = self._seen([anchor.crop.mask(self._shape)], window, 0.0)
        distance = abs(z - anchor.z) * self._step_mm / look.side_mm
        return replace(look, anchor=torch.cat([plane, known]), anchor_distance=distance)

    def _planes(self, slices: Sequence[int], window: Window) -> Tensor:
        """Return slices of the volume as the network sees them; its ends repeat."""
        last = self._array.shape[0] - 1
        return self._seen([self._array[min(max(z, 0), last)] for z in slices], window, AIR_HU)

    def _seen(self, planes: Sequence[VoxelArray], window: Window, outside: float) -> Tensor:
        """Return slices ``(y, x)`` as the network sees them; only the window is converted."""
        rows, columns = window.within(self._shape)
        part = np.stack([plane[rows, columns] for plane in planes]).astype(np.float32)
        seen = window.seen_from(rows.start, columns.start)
        return seen.look(torch.from_numpy(part), outside)

    def _ask(self, looks: Sequence[Look]) -> tuple[Tensor, Tensor, Tensor]:
        channels = torch.stack([look.channels() for look in looks])
        channels = channels.contiguous(memory_format=torch.channels_last)
        logits, presence, quality = self._runtime.run(
            lambda: self._network(channels.to(self._runtime.device))
        )
        return logits.float().cpu(), presence.float().cpu(), quality.float().cpu()

    def _whole(self, logits: Tensor, window: Window) -> FloatArray:
        whole = window.back(logits, self._shape, _NOTHING)[0].numpy()
        return np.asarray(whole, dtype=np.float32)

    def _hint(
        self, boxes: Sequence[Box], clicks: Sequence[Click], prior: Prior | None
    ) -> SliceMask:
        """Return where the object is known to be: what its parts must touch."""
        hint = np.zeros(self._shape, dtype=bool)
        for box in boxes:
            hint[box.y0 : box.y1, box.x0 : box.x1] = True
        for click in clicks:
            if click.positive:
                hint[click.y, click.x] = True
        if prior is not None and not boxes:
            hint |= prior.mask
        return hint


def _hull(boxes: Sequence[Box], clicks: Sequence[Click], z: int) -> Box:
    """Return the smallest box around boxes and clicks."""
    ends = [(b.y0, b.x0, b.y1, b.x1) for b in boxes]
    ends += [(c.y, c.x, c.y + 1, c.x + 1) for c in clicks]
    y0, x0, _, _ = (min(values) for values in zip(*ends, strict=True))
    _, _, y1, x1 = (max(values) for values in zip(*ends, strict=True))
    return Box(z, y0, x0, y1, x1)


def _marks(clicks: Sequence[Click], window: Window, planes: Tensor) -> Tensor:
    """Return the spots of positive and of negative clicks in a window, as a `Look` has them."""
    positive, negative = (
        [window.place(c.y + 0.5, c.x + 0.5) for c in clicks if c.positive == kind]
        for kind in (True, False)
    )
    return torch.stack([spots(positive, planes), spots(negative, planes)])


def _say_present(boxes: Sequence[Box], clicks: Sequence[Click]) -> bool:
    """Tell whether prompts say that the object is there; negative clicks alone do not."""
    return bool(boxes) or any(click.positive for click in clicks)


def _forced(logits: FloatArray, boxes: Sequence[Box], clicks: Sequence[Click]) -> SliceMask:
    """Return the mask; where a prompt says that the object is there, something is."""
    mask = logits > 0
    for box in boxes:
        inside = logits[box.y0 : box.y1, box.x0 : box.x1]
        if not mask[box.y0 : box.y1, box.x0 : box.x1].any():
            mask[box.y0 : box.y1, box.x0 : box.x1] = inside >= np.median(inside)
    for click in clicks:
        if click.positive:
            mask[click.y, click.x] = True
    for click in clicks:
        if not click.positive:
            mask[click.y, click.x] = False
    return np.asarray(mask)


def _near(mask: SliceMask, hint: SliceMask) -> SliceMask:
    """Keep the connected parts that touch what is known; all if none does."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    touched = np.unique(parts[hint & mask])
    touched = touched[touched > 0]
    return np.asarray(np.isin(parts, touched)) if touched.size else mask
