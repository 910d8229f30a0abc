"""Carry an object from its prompted slices through the volume.

`propagate_object` is a stream: the caller may stop iterating after any slice, and what came
until then stands. A `VolumePredictor` does its own walking. A `SlicePredictor` is walked here:

- The prompted slices come first, each on its own prompts.
- Slices **between** two prompted slices are taken from both ends in turn, so that each is
  reached from the nearer end: half the way to drift, and one prediction per slice, which a
  blend of two full passes would double. What the model is told to expect there is the shape
  interpolated between the nearest finished slice on either side, so that both prompts count. A
  walk that finds the object ended leaves the rest of the gap to the other one.
- **Beyond** the first and the last the model is told the previous slice, and the walk ends at
  an empty prediction, a stop, the extent limit, or the end of the volume.

A hand-edited slice is what the hand made it, whatever a model says.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from napari_lungfm._core.exceptions import GeometryError, UsageError
from napari_lungfm.geometry import VolumeGeometry, axis_codes
from napari_lungfm.inference.interpolation import interpolated_mask
from napari_lungfm.models.prompts import (
    MaskPrompt,
    Prompt,
    by_slice,
    check_prompts,
    in_order,
    is_conditioning,
    prompted_slices,
    slice_range,
)
from napari_lungfm.models.protocols import Prior, SlicePrediction, SlicePredictor, VolumePredictor


def require_axial(geometry: VolumeGeometry) -> None:
    """Refuse a grid whose slices along the first array axis are not axial.

    Rows and columns may be swapped and any axis flipped. Volumes of another order are not
    turned silently, because a box on a sagittal slice is no box on an axial one.

    Raises
    ------
    GeometryError
        If the first array axis does not run between head and feet.
    """
    codes = axis_codes(geometry)
    axial = next(i for i, code in enumerate(codes) if code in "SI")
    if axial != 0:
        msg = (
            f"axial slices lie along array axis {axial} of this volume (axes {codes}), but models "
            "see slices along axis 0; write it with axial slices (napari-lungfm-bench convert, or "
            "geometry.to_axial) and prompt on that grid"
        )
        raise GeometryError(msg)


def propagate_object(
    predictor: SlicePredictor | VolumePredictor,
    prompts: Sequence[Prompt],
    geometry: VolumeGeometry,
    *,
    fill: bool = True,
    max_extent_mm: float | None = None,
) -> Iterator[tuple[int, SlicePrediction]]:
    """Segment one object, slice by slice.

    Parameters
    ----------
    predictor
        A model that has opened the volume.
    prompts
        All prompts of the object, in any order; the result does not depend on it.
    geometry
        The grid of the volume.
    fill
        Go on through unprompted slices; otherwise only the prompted slices are segmented.
    max_extent_mm
        How far from the first and last prompted slices, in mm between slice centres, the object
        may reach; ``None`` for no limit.

    Returns
    -------
    iterator of (int, SlicePrediction)
        Prompted slices first, each exactly once and even if empty; then the others on which
        something was found. Slices that do not come up are empty. Prompts are checked before
        the iterator is returned, models run as it is consumed.

    Raises
    ------
    PromptError
        If the prompts cannot be used on this grid.
    GeometryError
        If the slices along the first axis are not axial.
    UsageError
        If the limit is not a positive number.
    """
    require_axial(geometry)
    ordered = in_order(prompts)
    check_prompts(ordered, geometry.shape)
    slices = slice_range(ordered, geometry.shape[0])
    slices = within_extent(slices, ordered, geometry, max_extent_mm)
    if isinstance(predictor, VolumePredictor):
        return _with_hand_edits(predictor.propagate(ordered, slices, fill=fill), ordered)
    return _walked(predictor, ordered, slices, fill=fill)


def _walked(
    predictor: SlicePredictor, prompts: Sequence[Prompt], slices: range, *, fill: bool
) -> Iterator[tuple[int, SlicePrediction]]:
    groups = by_slice(prompts)
    known: dict[int, SlicePrediction] = {}
    announce(predictor, prompts)
    for z in prompted_slices(prompts):
        known[z] = edited(predictor.predict_slice(z, groups[z], None), groups[z])
        yield z, known[z]
    if fill:
        for z, prediction in SliceWalk(predictor, groups, known).carry(slices, slices):
            if prediction.mask.any():
                yield z, prediction


def announce(predictor: SlicePredictor, prompts: Sequence[Prompt]) -> None:
    """Tell a predictor that encodes slices in batches which prompts it will get."""
    told = getattr(predictor, "announce", None)
    if told is not None:
        told(prompts)


class SliceWalk:
    """One walk of a `SlicePredictor` through the slices of one object.

    Parameters
    ----------
    predictor
        The model.
    groups
        Prompts by slice.
    known
        What was found on the slices that the walk starts from; those without the object on them
        are passed over.
    """

    def __init__(
        self,
        predictor: SlicePredictor,
        groups: Mapping[int, Sequence[Prompt]],
        known: Mapping[int, SlicePrediction],
    ) -> None:
        self._predictor, self._groups = predictor, groups
        edits = {z for z, group in groups.items() if hand_edit(group) is not None}
        self._settled = edits | set(known)
        # Slices that have something on them.
        self._found = {z: found for z, found in known.items() if found.mask.any()}
        self._areas = {z: int(found.mask.sum()) for z, found in self._found.items()}

    def carry(self, slices: range, part: range) -> Iterator[tuple[int, SlicePrediction]]:
        """Yield every slice that was looked at, or given up, on the way.

        Parameters
        ----------
        slices
            The slices that the object may occupy.
        part
            Those to walk through; the known ones lie inside.

        Yields
        ------
        tuple of (int, SlicePrediction)
            Each slice once. An empty mask ends a walk: beyond the known slices nothing of the
            object is left behind it.
        """
        anchors = sorted(self._found)
        if not anchors:
            return
        for below, above in pairwise(anchors):
            yield from self._between(below, above)
        first, last = max(slices.start, part.start), min(slices.stop, part.stop)
        yield from self._beyond(range(anchors[0] - 1, first - 1, -1))
        yield from self._beyond(range(anchors[-1] + 1, last))

    def _between(self, below: int, above: int) -> Iterator[tuple[int, SlicePrediction]]:
        open_slices = deque(z for z in range(below + 1, above) if z not in self._settled)
        rising, falling = True, True
        take_lowest = True
        while open_slices and (rising or falling):
            take_lowest = rising and (take_lowest or not falling)
            z = open_slices.popleft() if take_lowest else open_slices.pop()
            prediction = self._predict(z, self._expected(z, below, above))
            yield z, prediction
            if prediction.mask.any():
                below, above = (z, above) if take_lowest else (below, z)
            elif take_lowest:
                rising = False
            else:
                falling = False
            take_lowest = not take_lowest
        for z in open_slices:
            yield z, SlicePrediction(np.zeros_like(self._found[below].mask))

    def _beyond(self, slices: range) -> Iterator[tuple[int, SlicePrediction]]:
        previous = slices.start - slices.step
        for z in slices:
            if z in self._settled:  # a prompted slice on which the model found nothing
                continue
            last = self._found[previous]
            prior = Prior(previous, last.mask, last.memory, prompted_areas=self._areas)
            prediction = self._predict(z, prior)
            yield z, prediction
            if not prediction.mask.any():
                return
            previous = z

    def _expected(self, z: int, below: int, above: int) -> Prior:
        lower, upper = self._found[below], self._found[above]
        mask = interpolated_mask(lower.mask, upper.mask, (z - below) / (above - below))
        # Where the object is larger there is more of it to remember.
        source = below if lower.mask.sum() >= upper.mask.sum() else above
        if not mask.any():
            mask = self._found[source].mask
        memory = self._found[source].memory
        return Prior(source, mask, memory, between=True, prompted_areas=self._areas)

    def _predict(self, z: int, prior: Prior) -> SlicePrediction:
        prediction = self._predictor.predict_slice(z, self._groups.get(z, ()), prior)
        if prediction.mask.any():
            self._found[z] = prediction
        return prediction


def within_extent(
    slices: range, prompts: Sequence[Prompt], geometry: VolumeGeometry, max_extent_mm: float | None
) -> range:
    """Return the slices within the extent limit; see `propagate_object`.

    Parameters
    ----------
    slices
        The slices that the object may occupy but for the limit.
    prompts
        All prompts of the object.
    geometry
        The grid of the volume.
    max_extent_mm
        The limit in mm, or ``None``.

    Raises
    ------
    UsageError
        If the limit is not a positive number.
    """
    if max_extent_mm is None:
        return slices
    if not max_extent_mm > 0:
        msg = f"the extent limit must be a positive number of mm, not {max_extent_mm}"
        raise UsageError(msg)
    prompted = prompted_slices(prompts)
    # A limit of 9 mm and slices 3 mm apart means three slices, whatever the last bit says.
    reach = max_extent_mm / geometry.spacing[0] * (1.0 + 1e-9)
    steps = geometry.shape[0] if math.isinf(reach) else math.floor(reach)
    return range(max(slices.start, prompted[0] - steps), min(slices.stop, prompted[-1] + steps + 1))


def hand_edit(prompts: Sequence[Prompt]) -> MaskPrompt | None:
    """Return the outline drawn by hand among the prompts of one slice, or ``None``."""
    return next((prompt for prompt in prompts if isinstance(prompt, MaskPrompt)), None)


def edited(prediction: SlicePrediction, prompts: Sequence[Prompt]) -> SlicePrediction:
    """Return a prediction with the outline, if one was drawn by hand, in place of the model's."""
    edit = hand_edit(prompts)
    if edit is None:
        return prediction
    return replace(prediction, mask=edit.mask.copy(), logits=None)


def _with_hand_edits(
    stream: Iterator[tuple[int, SlicePrediction]], prompts: Sequence[Prompt]
) -> Iterator[tuple[int, SlicePrediction]]:
    groups = by_slice(prompts)
    empty = {p.z for p in prompts if isinstance(p, MaskPrompt) and not is_conditioning(p)}
    for z, prediction in stream:
        if z not in empty:
            yield z, edited(prediction, groups.get(z, ()))
