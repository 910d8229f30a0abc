"""SAM 2 on volumes: MedSAM 2 (both), SAM 2.1, and models of our own of the same build.

`Sam2Model.open` gives a `Sam2Predictor`, which is two things:

- a `VolumePredictor`: all prompts of an object in, a stream of slices out;
- an `ObjectTracker` for a session: prompt, correct, propagate, step by step, on immutable states.

What differs from the publishers' predictor, on purpose:

- **Corrections count.** A prompt on a slice that was reached by propagation makes it a
  conditioning slice; by default theirs forgets it at the next propagation
  (facebookresearch/sam2, issue 731). The previous logits go in with the clicks, as in theirs.
- **From every prompted slice both ways.** Theirs starts at the earliest one, so that slices
  just before the second are tracked from far away. Here each slice is tracked from the nearer
  prompt, and all prompted slices are seen in memory attention by all.
- **Walks do not see each other.** A walk remembers the prompted slices and its own way. In
  theirs, what an earlier pass left behind is seen by the next, so that the same prompts give
  other masks the second time. Here the result depends on the prompts alone, one end of an object
  does not change the other, and MedSAM 2's "forward, reset, reverse" comes out the same.
- **Objects end.** Where the model's object score or mask says for `patience` slices in a row
  that nothing is there, the walk is over. Slices beyond are not even encoded; in batches, on a
  GPU, some may be, but no more than half of what the walk had found (see `_ahead`).
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from napari_lungfm._core.exceptions import PromptError, UsageError
from napari_lungfm.geometry import Volume
from napari_lungfm.models.foundation.features import FeatureCache, RecentFeatures, SliceFeatures
from napari_lungfm.models.foundation.options import Attention, BankName, Precision
from napari_lungfm.models.foundation.runtime import Runtime
from napari_lungfm.models.foundation.sam2_attention import set_attention
from napari_lungfm.models.foundation.sam2_engine import Sam2Engine, encode_images, prepare_images
from napari_lungfm.models.foundation.sam2_memory import check_bank, make_bank
from napari_lungfm.models.foundation.sam2_prompts import mask_input, mask_of, point_inputs
from napari_lungfm.models.foundation.sam2_state import SliceEntry, TrackState, Walk
from napari_lungfm.models.foundation.sam2_walks import PlannedWalk, plan_walks
from napari_lungfm.models.foundation.sam_carry import EndRule
from napari_lungfm.models.foundation.slices import SliceSource
from napari_lungfm.models.foundation.zoom import CropChooser, Zoom, check_inside
from napari_lungfm.models.prompts import (
    Prompt,
    by_slice,
    is_conditioning,
    prompted_slices,
    says_absent,
)
from napari_lungfm.models.protocols import SlicePrediction
from napari_lungfm.preprocessing.windowing import Window

#: The stock predictor knows no end: a slice is without the object where no voxel is positive.
NO_MINIMUM = EndRule(min_iou=0.0, min_area_fraction=0.0, min_area_mm2=0.0)


class Sam2Model:
    """A `PromptableModel` of the SAM 2 family.

    Parameters
    ----------
    name
        The name in records and cache keys.
    network
        A ``SAM2Base`` with its weights (see `sam2_build`).
    weight_hash
        Hash of the weights, for cache keys.
    window
        The window through which all slices are seen.
    device, precision
        See `runtime.Runtime`.
    memory_bank
        ``"recent"`` (stock) or ``"self-sorting"`` (Medical SAM 2; see `sam2_memory`).
    attention
        ``"stock"``, or ``"fast"`` on CPUs (see `sam2_attention`); a network serves one of them
        at a time.
    zoom
        How to choose a crop around the prompts; ``None`` shows whole slices.
    patience
        Slices in a row without the object that end a walk, at least 1. A single one is often a
        blink: it costs one tracked slice at either end to be sure.
    end
        On which slices beyond the prompted ones the object counts as absent, such as those with
        a stray voxel. By default on those without any (`NO_MINIMUM`), so that masks are those
        of the stock predictor. What the model remembers of a slice stays as it is.
    batch_size
        See `features.SliceFeatures`.
    cache
        Where encoder features are kept, across volumes and models; by default 256 MiB of the
        slices used last, for each volume.

    Raises
    ------
    UsageError
        If an option makes no sense.
    """

    def __init__(
        self,
        name: str,
        network: torch.nn.Module,
        *,
        weight_hash: str,
        window: Window,
        device: str = "auto",
        precision: Precision = "auto",
        memory_bank: BankName = "recent",
        attention: Attention = "stock",
        zoom: Zoom | None = None,
        patience: int = 2,
        end: EndRule = NO_MINIMUM,
        batch_size: int | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        check_bank(memory_bank)
        for value, title in ((patience, "patience"), (batch_size, "batch size")):
            if value is not None and value < 1:
                msg = f"the {title} must be at least 1, not {value}"
                raise UsageError(msg)
        self._name, self.weight_hash, self.window = name, weight_hash, window
        self.memory_bank, self.attention = memory_bank, attention
        self.patience, self.end = patience, end
        self.crops, self._warm = CropChooser(zoom), False
        self.runtime = Runtime(network, device, precision)
        set_attention(network, attention)
        self._network: Any = network
        self._batch_size, self._cache = batch_size, cache

    @property
    def name(self) -> str:
        """The name in records."""
        return self._name

    @property
    def zoom(self) -> Zoom | None:
        """How to choose a crop; ``None`` shows whole slices."""
        return self.crops.zoom

    def warm_up(self) -> None:
        """Encode an empty image, so that the first click does not wait for kernels and buffers.

        `open` does so once where there is a GPU. On a CPU it costs more than the first click
        gains: 0.7 to 1.0 s for 0.2 to 0.3 s (Hiera-t at 512 px, one core).
        """
        self._warm = True
        size = int(self._network.image_size)
        image = torch.zeros(1, 3, size, size)
        self.runtime.run(lambda: encode_images(self._network, image.to(self.runtime.device)))

    def open(self, volume: Volume, *, cache: FeatureCache | None = None) -> "Sam2Predictor":
        """Get ready for one volume; no slice is looked at yet.

        Parameters
        ----------
        volume
            HU, axial slices along the first axis.
        cache
            Where encoder features are kept, if elsewhere than the model's own cache.
        """
        if not (self.runtime.on_cpu or self._warm):
            self.warm_up()
        source = SliceSource(volume.array, self.window)
        size = int(self._network.image_size)
        chosen = cache if cache is not None else self._cache
        features = SliceFeatures(
            source,
            self.runtime,
            lambda images: prepare_images(images, size),
            lambda images: encode_images(self._network, images),
            cache=chosen if chosen is not None else RecentFeatures(),
            name=self._name,
            weights=self.weight_hash,
            batch_size=self._batch_size,
        )
        engine = Sam2Engine(self._network, self.runtime, features, source.depth)
        return Sam2Predictor(self, engine, source.shape, (volume.spacing[1], volume.spacing[2]))


class Sam2Predictor:
    """A SAM 2 model on one volume: a `VolumePredictor` and an `ObjectTracker`.

    It holds no object; all that is known of one is in its `TrackState`.

    Parameters
    ----------
    model
        The settings.
    engine
        The network on the volume.
    shape
        Rows and columns of a slice.
    spacing
        Distance of rows and of columns in mm.
    """

    def __init__(
        self,
        model: Sam2Model,
        engine: Sam2Engine,
        shape: tuple[int, int],
        spacing: tuple[float, float],
    ) -> None:
        self._model, self._engine = model, engine
        self._shape, self._spacing = shape, spacing

    @property
    def encoded(self) -> int:
        """Number of slices that went through the encoder so far."""
        return self._engine.features.encoded

    # ------------------------------------------------------------------ step by step
    def start(self, prompts: Sequence[Prompt] = ()) -> TrackState:
        """Return the state of a new object.

        Parameters
        ----------
        prompts
            What is known of its place, for zoom, and of the slices that will be looked at first,
            for batches. Nothing is computed; prompts are given to `prompt`.
        """
        crop = self._model.crops.crop(prompts, self._shape, self._spacing)
        self._engine.features.announce((z, crop) for z in prompted_slices(prompts))
        return TrackState(crop)

    def prompt(
        self, state: TrackState, z: int, prompts: Sequence[Prompt]
    ) -> tuple[TrackState, SlicePrediction]:
        """Segment a slice from all prompts on it, earlier ones included.

        On a slice that already has a mask the clicks correct it. Other slices follow with the
        next `walk`.

        Parameters
        ----------
        state
            What is known of the object.
        z
            The slice.
        prompts
            Its prompts; an outline drawn by hand overrides the others.

        Raises
        ------
        PromptError
            If there is no box, click or mask among them, or one lies outside the zoomed crop.
        """
        check_inside(state.crop, prompts)
        mask, size = mask_of(prompts), self._engine.image_size
        points = None if mask is not None else point_inputs(prompts, state.crop, size)
        if mask is None and points is None:
            msg = f"slice {z} has no box, click or mask to segment it from"
            raise PromptError(msg)
        before = state.latest(z)
        walk = None if before is None else before.walk
        entry = self._engine.look(
            z,
            state.crop,
            state.conditioning,
            {} if walk is None else self._recall(state, z, walk),
            first=walk is None,
            reverse=walk is not None and walk.reverse,
            points=points,
            mask=None if mask is None else mask_input(mask, state.crop, size),
            previous=None if before is None or mask is not None else before.logits,
            remember=False,
        )
        state = state.with_pending(z, replace(entry, walk=walk))
        return state, self._prediction(state, entry)

    def forget(self, state: TrackState, z: int) -> TrackState:
        """Take back all prompts of a slice; the masks follow with the next `walk`."""
        return state.without_prompts(z)

    def walk(
        self, state: TrackState, slices: range, part: range | None = None
    ) -> Iterator[tuple[TrackState, int, SlicePrediction]]:
        """Carry the object from its prompted slices through the others.

        Parameters
        ----------
        state
            What is known of the object.
        slices
            The slices that it may occupy; all prompted ones lie inside.
        part
            Those to walk through now, all prompted ones inside; what earlier walks found on the
            rest stays. ``None`` means all.

        Yields
        ------
        tuple of (TrackState, int, SlicePrediction)
            State after the slice, slice, and what is on it, possibly nothing. To cancel, stop
            iterating and keep the last state: slices that were not reached keep what an earlier
            propagation found.
        """
        state = self._settled(state).begun(slices)
        prompted = {z: entry.found for z, entry in state.conditioning.items()}
        plan = plan_walks(prompted, slices if part is None else part)
        for walk in plan:
            state = yield from self._follow(state, walk)

    # ------------------------------------------------------------------ all at once
    def propagate(
        self, prompts: Sequence[Prompt], slices: range, *, fill: bool
    ) -> Iterator[tuple[int, SlicePrediction]]:
        """Yield the slices of an object; see `VolumePredictor.propagate`.

        Slices with nothing but negative clicks are corrections: they are reached first, then
        corrected, then everything is carried on from there.
        """
        groups = {z: group for z, group in by_slice(prompts).items() if z in slices}
        state = self.start(prompts)
        for z, group in groups.items():
            if any(is_conditioning(p) or says_absent(p) for p in group):
                state, prediction = self.prompt(state, z, group)
                yield z, prediction
        if not fill:
            return
        doubts = {z: group for z, group in groups.items() if z not in state.prompted}
        if doubts:
            state, corrected = self._corrected(state, slices, doubts)
            yield from corrected.items()
        for _, z, prediction in self.walk(state, slices):
            if prediction.mask.any():
                yield z, prediction

    def _corrected(
        self, state: TrackState, slices: range, doubts: dict[int, tuple[Prompt, ...]]
    ) -> tuple[TrackState, dict[int, SlicePrediction]]:
        for latest, _, _ in self.walk(state, slices):
            state = latest
        corrected = {}
        for z, group in doubts.items():
            # Where nothing was found there is nothing to take away.
            if z in state.tracked:
                state, corrected[z] = self.prompt(state, z, group)
        return state, corrected

    # ------------------------------------------------------------------ one walk
    def _follow(
        self, state: TrackState, plan: PlannedWalk
    ) -> Generator[tuple[TrackState, int, SlicePrediction], None, TrackState]:
        walk = Walk(plan.anchor, plan.reverse, state.run)
        bank = make_bank(self._model.memory_bank, walk, self._engine.positions)
        missed, found = 0, 0
        before = int(self._prediction(state, state.conditioning[plan.anchor]).mask.sum())
        for i, z in enumerate(plan.targets):
            embedding = self._engine.embedding(z, state.crop)
            entry = self._engine.look(
                z,
                state.crop,
                state.conditioning,
                bank.recall(z, embedding),
                reverse=plan.reverse,
                upcoming=plan.targets[i + 1 :][: self._ahead(plan, missed, found)],
            )
            entry = replace(entry, walk=walk)
            bank.add(z, entry, embedding)
            state = state.with_tracked(z, entry)
            prediction = self._prediction(state, entry)
            if plan.open and self._is_absent(prediction, before):
                prediction = replace(prediction, mask=np.zeros_like(prediction.mask))
                missed += 1
            else:
                before, missed, found = int(prediction.mask.sum()), 0, found + 1
            over = plan.open and missed >= self._model.patience
            if over:
                state = state.without_tracked(plan.targets[i + 1 - missed :])
            yield state, z, prediction
            if over:
                break
        return state

    def _ahead(self, plan: PlannedWalk, missed: int, found: int) -> int:
        """How many slices after the next one may be encoded along with it.

        All of a gap will be looked at. At an open end as many as patience is left for will be;
        beyond them, it is likely that an object goes on for half as long as it did so far.
        """
        if not plan.open:
            return len(plan.targets)
        return max(self._model.patience - 1 - missed, found // 2 if missed == 0 else 0)

    def _is_absent(self, prediction: SlicePrediction, before: int) -> bool:
        """Tell whether the object, of ``before`` voxels where it was last, is not on a slice."""
        area, pixel = int(prediction.mask.sum()), self._spacing[0] * self._spacing[1]
        return self._model.end.has_ended(prediction.score or 0.0, area, before, pixel)

    def _recall(self, state: TrackState, z: int, walk: Walk) -> dict[int, SliceEntry]:
        """Memories for a correction: those that the walk had when it came to slice ``z``."""
        bank = make_bank(self._model.memory_bank, walk, self._engine.positions)
        fellows = state.fellows(walk)
        for other in sorted(fellows, reverse=walk.reverse):
            if (other > z) if walk.reverse else (other < z):
                bank.add(other, fellows[other], self._engine.embedding(other, state.crop))
        return dict(bank.recall(z, self._engine.embedding(z, state.crop)))

    def _settled(self, state: TrackState) -> TrackState:
        return state.settled(
            {
                z: self._engine.remember(z, state.crop, entry)
                for z, entry in sorted(state.pending.items())
            }
        )

    def _prediction(self, state: TrackState, entry: SliceEntry) -> SlicePrediction:
        return self._engine.prediction(entry, state.crop, self._shape)
