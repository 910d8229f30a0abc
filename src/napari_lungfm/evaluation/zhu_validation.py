"""The validation of Medical SAM 2's published code, to set its numbers beside its own kind.

What ``func_3d`` of Medical SAM 2 (Zhu et al., github.com/MedicineToken/Medical-SAM2) computes in
training is another quantity than an overlap of volumes, and mostly a larger one:

- Of the slices from the first to the last that carry **any** structure of the reference, only the
  first quarter (rounded down) is looked at. Slices go in the order of the case's array.
- Every second of them, from the first on, is prompted from the reference: a tight box, or a click
  drawn uniformly inside the structure. Where the structure is not on a prompted slice, an
  all-zero mask says so. (For clicks their code has no answer to that; the mask is taken there
  too.)
- The slices between are tracked forward, from the prompted slice before them.
- On every slice IoU and Dice are computed at five thresholds and averaged; a slice that is empty
  in both is a 1. The score of a case is the mean over the slices.
- A structure that none of these slices has is left out: it is undefined here.

A structure on a fraction f of the slices that scores s there gives ``(1 − f) + f·s``, as long as
nothing is found on the slices without it: an empty prediction already has ``1 − f``. `ZhuScores`
keeps the parts.

Assumptions and differences:

- The thresholds 0.1, 0.3, 0.5, 0.7 and 0.9 are applied to **logits**: the sigmoid is commented
  out in their code. They are probabilities of 0.52 to 0.71. A model without logits has one mask,
  which stands for all thresholds.
- Scores are those on the grid of the case, not on slices resized to 1024 × 1024, and without the
  smoothing constants (1e-6 in IoU, 1e-4 in Dice) of their code.
- Where nothing is found on the prompted slice before, nothing is carried forward and the slice
  between stays empty. Their network looks at it even so, with the memories of all prompts.
- A slice between sees the memories of all prompted slices, and not those of the other slices
  between, which theirs also sees (see `models.foundation.sam2_video` on walks).
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import MaskArray, SliceMask
from napari_lungfm.evaluation.prompt_protocols import PromptProtocol
from napari_lungfm.geometry import LabelMap, Volume
from napari_lungfm.inference.propagation import require_axial
from napari_lungfm.inference.trackers import as_tracker
from napari_lungfm.metrics import count_overlap
from napari_lungfm.models.prompts import MaskPrompt, Prompt, by_slice, is_conditioning
from napari_lungfm.models.protocols import PromptableModel, SlicePrediction

#: Thresholds of the logits over which scores are averaged (``threshold`` in their validation).
LOGIT_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
#: Every how many slices there is a prompt (their default of ``prompt_freq``).
PROMPT_EVERY = 2


@dataclass(frozen=True)
class ZhuScores:
    """Scores of one structure on the evaluated slices; see the module.

    Parameters
    ----------
    z
        The evaluated slices.
    present
        Whether the reference has the structure on each of them.
    slice_iou, slice_dice
        Mean over the thresholds on each of them.
    """

    z: tuple[int, ...]
    present: tuple[bool, ...]
    slice_iou: tuple[float, ...]
    slice_dice: tuple[float, ...]

    @property
    def n_present(self) -> int:
        """Slices that have the structure."""
        return sum(self.present)

    @property
    def share_present(self) -> float:
        """Fraction f of the slices that have the structure; NaN where no slice is evaluated."""
        return self.n_present / len(self.z) if self.z else math.nan

    @property
    def iou(self) -> float:
        """Mean IoU over the slices; NaN where none of them has the structure."""
        return _mean(self.slice_iou) if self.n_present else math.nan

    @property
    def dice(self) -> float:
        """Mean Dice over the slices; NaN where none of them has the structure."""
        return _mean(self.slice_dice) if self.n_present else math.nan

    @property
    def iou_present(self) -> float:
        """Mean IoU over the slices that have the structure (s); NaN where there are none."""
        return self._mean_where(self.slice_iou, present=True)

    @property
    def dice_present(self) -> float:
        """Mean Dice over the slices that have the structure; NaN where there are none."""
        return self._mean_where(self.slice_dice, present=True)

    @property
    def iou_absent(self) -> float:
        """Mean IoU over the slices without it: the share left empty; NaN where there are none."""
        return self._mean_where(self.slice_iou, present=False)

    def _mean_where(self, values: tuple[float, ...], *, present: bool) -> float:
        return _mean(
            tuple(
                v for v, is_there in zip(values, self.present, strict=True) if is_there == present
            )
        )


@dataclass(frozen=True, eq=False)
class ZhuValidation:
    """What came of the validation of one structure.

    Parameters
    ----------
    mask
        The model's own mask on the evaluated slices: boolean ``(z, y, x)``.
    prompts
        All prompts, those that say "not here" included.
    scores
        The scores.
    with_logits
        The model gave logits; otherwise its mask stood for every threshold. ``None`` where
        nothing was asked of it, for no prompted slice has the structure.
    seconds
        Time that the model took.
    """

    mask: MaskArray
    prompts: tuple[Prompt, ...]
    scores: ZhuScores
    with_logits: bool | None
    seconds: float


def evaluated_slices(reference: LabelMap) -> range:
    """Return the first quarter of the slices between the first and last labelled ones.

    All labels of the reference count, whatever structure is scored. Empty where there are fewer
    than four slices.
    """
    labelled = np.flatnonzero((reference.array != 0).any(axis=(1, 2)))
    if labelled.size == 0:
        return range(0)
    first, last = int(labelled[0]), int(labelled[-1])
    return range(first, first + (last - first + 1) // 4)


def zhu_prompts(
    protocol: PromptProtocol, reference: MaskArray, slices: range, rng: np.random.Generator
) -> tuple[Prompt, ...]:
    """Return the prompts of the validation, by slice.

    Parameters
    ----------
    protocol
        ``zhu-validation`` or ``zhu-validation-points``.
    reference
        The structure: boolean ``(z, y, x)``.
    slices
        The evaluated slices.
    rng
        Source of chance for clicks.

    Raises
    ------
    UsageError
        If it is another protocol.
    """
    if not protocol.validation:
        msg = f"'{protocol.name}' is no validation of Medical SAM 2"
        raise UsageError(msg)
    prompted = slices[::PROMPT_EVERY]
    present = [z for z in prompted if reference[z].any()]
    absent = np.zeros(reference.shape[1:], dtype=bool)
    missing = [MaskPrompt(z, absent) for z in prompted if z not in present]
    return tuple(sorted([*protocol.draw(reference, present, rng), *missing], key=lambda p: p.z))


def validate(
    model: PromptableModel,
    volume: Volume,
    reference: MaskArray,
    slices: range,
    protocol: PromptProtocol,
    rng: np.random.Generator,
) -> ZhuValidation:
    """Prompt, track and score one structure as Medical SAM 2's validation does.

    Parameters
    ----------
    model
        Any promptable model.
    volume
        The image in HU, axial slices along the first axis.
    reference
        The structure: boolean ``(z, y, x)``.
    slices
        What `evaluated_slices` returned for the whole reference.
    protocol
        ``zhu-validation`` or ``zhu-validation-points``.
    rng
        Source of chance for clicks; see `PromptProtocol.prompts`.

    Raises
    ------
    UsageError
        If it is another protocol.
    GeometryError
        If the slices along the first axis are not axial.
    LungFMError
        Whatever the model raises.
    """
    require_axial(volume.geometry)
    prompts = zhu_prompts(protocol, reference, slices, rng)
    started = time.perf_counter()
    found = _found(model, volume, prompts, slices)
    seconds = time.perf_counter() - started
    mask = np.zeros(reference.shape, dtype=bool)
    for z, prediction in found.items():
        mask[z] = prediction.mask
    return ZhuValidation(
        mask,
        prompts,
        score_slices(found, reference, slices),
        any(each.logits is not None for each in found.values()) if found else None,
        seconds,
    )


def _found(
    model: PromptableModel, volume: Volume, prompts: tuple[Prompt, ...], slices: range
) -> dict[int, SlicePrediction]:
    """Segment the prompted slices, and track each one between from the one before it."""
    groups = by_slice(prompts)
    placed = [prompt for prompt in prompts if is_conditioning(prompt)]
    found: dict[int, SlicePrediction] = {}
    if not placed:  # nothing says that there is anything at all
        return found
    tracker = as_tracker(model.open(volume), volume.geometry)
    state = tracker.start(placed)
    for z, group in groups.items():
        state, found[z] = tracker.prompt(state, z, group)
    for _, z, prediction in tracker.walk(state, slices):
        # Between a slice without the structure and one with it trackers go backward: left out.
        if z in slices and z not in groups and found[z - 1].mask.any():
            found[z] = prediction
    return found


def score_slices(
    predictions: Mapping[int, SlicePrediction], reference: MaskArray, slices: range
) -> ZhuScores:
    """Score predictions on the evaluated slices; slices without a prediction count as empty.

    Parameters
    ----------
    predictions
        What the model said, by slice.
    reference
        The structure: boolean ``(z, y, x)``.
    slices
        The evaluated slices.
    """
    nothing = SlicePrediction(np.zeros(reference.shape[1:], dtype=bool))
    pairs = [_agreement(predictions.get(z, nothing), reference[z]) for z in slices]
    return ZhuScores(
        tuple(slices),
        tuple(bool(reference[z].any()) for z in slices),
        tuple(iou for iou, _ in pairs),
        tuple(dice for _, dice in pairs),
    )


def _agreement(prediction: SlicePrediction, reference: SliceMask) -> tuple[float, float]:
    """Return IoU and Dice of one slice, averaged over the thresholds; both empty is a 1."""
    logits = prediction.logits
    masks = [prediction.mask] if logits is None else [logits > t for t in LOGIT_THRESHOLDS]
    counts = [count_overlap(mask, reference) for mask in masks]
    iou, dice = ([getattr(c, name) for c in counts] for name in ("iou", "dice"))
    return _mean(_one_if_undefined(iou)), _mean(_one_if_undefined(dice))


def _one_if_undefined(values: list[float]) -> tuple[float, ...]:
    return tuple(1.0 if math.isnan(value) else value for value in values)


def _mean(values: tuple[float, ...]) -> float:
    return float(np.mean(values)) if values else math.nan
