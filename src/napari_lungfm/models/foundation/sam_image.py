"""SAM without memory: MedSAM, LiteMedSAM, SAM ViT-B and MedicoSAM on the slices of a volume.

The image encoder takes all the time (13 s a slice for ViT-B on two cores) and does not depend on
prompts; its output is kept in a cache, so that further prompts on a slice cost a decoder pass.

Clicks are outside the training of MedSAM and LiteMedSAM, which knew boxes only. They are passed
on as the prompt encoder takes them, which was left frozen in training, and a warning says so.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from napari_lungfm._core.exceptions import LungFMWarning, PromptError
from napari_lungfm.geometry import Volume
from napari_lungfm.models.foundation.features import FeatureCache, RecentFeatures, SliceFeatures
from napari_lungfm.models.foundation.options import Carry, Precision
from napari_lungfm.models.foundation.runtime import Runtime
from napari_lungfm.models.foundation.sam_carry import (
    EndRule,
    SamMemory,
    box_around,
    check_carry,
    mask_logits,
)
from napari_lungfm.models.foundation.sam_decoder import SamDecoder
from napari_lungfm.models.foundation.sam_preprocess import Preprocessing, view_of
from napari_lungfm.models.foundation.slices import SliceSource
from napari_lungfm.models.foundation.zoom import Crop, CropChooser, Zoom, check_inside, hull_of
from napari_lungfm.models.prompts import (
    Box,
    Click,
    MaskPrompt,
    Prompt,
    by_slice,
    is_conditioning,
)
from napari_lungfm.models.protocols import Prior, SlicePrediction
from napari_lungfm.preprocessing.windowing import Window

#: Logit outside a zoomed crop, where the model has seen nothing; probability 5e-5.
OUTSIDE_LOGIT = -10.0


class SamImageModel:
    """A `PromptableModel` of the SAM family.

    Parameters
    ----------
    name
        The name in records and cache keys.
    network
        A ``Sam`` with its weights (see `sam_build`, `litemedsam_build`).
    weight_hash
        Hash of the weights, for cache keys.
    window
        The window through which all slices are seen.
    preprocessing
        ``"sam"`` (SAM, MedicoSAM), ``"medsam"`` or ``"litemedsam"``; see `sam_preprocess`.
    device, precision
        See `runtime.Runtime`.
    carry
        What goes from slice to slice: ``"box"``, ``"mask"`` or ``"box+mask"``; see `sam_carry`.
    end
        When an object that is carried on has ended.
    zoom
        How to choose a crop around prompts or the mask before; ``None`` shows whole slices.
    boxes_only
        It was trained with boxes only; the first click gets a warning.
    batch_size
        See `features.SliceFeatures`.
    cache
        Where encoder features are kept; by default 256 MiB for each volume.

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
        preprocessing: Preprocessing,
        device: str = "auto",
        precision: Precision = "auto",
        carry: Carry = "box",
        end: EndRule | None = None,
        zoom: Zoom | None = None,
        boxes_only: bool = False,
        batch_size: int | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        check_carry(carry)
        self._name, self.weight_hash, self.window = name, weight_hash, window
        self.preprocessing, self.carry = preprocessing, carry
        self.crops = CropChooser(zoom)
        self.end = end if end is not None else EndRule()
        self.runtime = Runtime(network, device, precision)
        self._network: Any = network
        self._batch_size, self._cache = batch_size, cache
        self._warns_of_clicks, self._warm = boxes_only, False

    @property
    def name(self) -> str:
        """The name in records."""
        return self._name

    @property
    def zoom(self) -> Zoom | None:
        """How to choose a crop; ``None`` shows whole slices."""
        return self.crops.zoom

    def note_clicks(self) -> None:
        """Warn, once, that clicks are outside the training of a model that knows boxes only."""
        if not self._warns_of_clicks:
            return
        self._warns_of_clicks = False
        warnings.warn(
            f"'{self._name}' was trained with boxes only: what it makes of clicks is not what it "
            "was trained for; draw boxes, or take a model that knows clicks",
            LungFMWarning,
            stacklevel=3,
        )

    def warm_up(self) -> None:
        """Encode an empty image, so that the first click does not wait for kernels and buffers.

        `open` does so once where there is a GPU.
        """
        self._warm = True
        size = int(self._network.image_encoder.img_size)
        image = torch.zeros(1, 3, size, size)
        self.runtime.run(lambda: self._network.image_encoder(image.to(self.runtime.device)))

    def open(self, volume: Volume, *, cache: FeatureCache | None = None) -> "SamSlicePredictor":
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
        view = view_of(self.preprocessing, int(self._network.image_encoder.img_size))
        chosen = cache if cache is not None else self._cache
        features = SliceFeatures(
            source,
            self.runtime,
            lambda images: torch.stack([view.prepare(image) for image in images]),
            lambda images: (self._network.image_encoder(images),),
            cache=chosen if chosen is not None else RecentFeatures(),
            name=self._name,
            weights=self.weight_hash,
            batch_size=self._batch_size,
        )
        decoder = SamDecoder(self._network, self.runtime, view)
        spacing = (volume.spacing[1], volume.spacing[2])
        return SamSlicePredictor(self, features, decoder, source.shape, spacing)


class SamSlicePredictor:
    """A `SlicePredictor` on one volume; it keeps nothing of an object between two calls.

    Parameters
    ----------
    model
        The settings.
    features
        Encoder features of the volume.
    decoder
        What turns them into masks.
    shape
        Rows and columns of a slice.
    spacing
        Distance of rows and of columns in mm.
    """

    def __init__(
        self,
        model: SamImageModel,
        features: SliceFeatures,
        decoder: SamDecoder,
        shape: tuple[int, int],
        spacing: tuple[float, float],
    ) -> None:
        self._model, self._features, self._decoder = model, features, decoder
        self._shape, self._spacing = shape, spacing

    @property
    def encoded(self) -> int:
        """Number of slices that went through the encoder so far."""
        return self._features.encoded

    def announce(self, prompts: Sequence[Prompt]) -> None:
        """Say which prompts will be given, so that their slices can be encoded in batches.

        Nothing is computed; on a CPU, where batches gain nothing, it makes no difference.

        Parameters
        ----------
        prompts
            Prompts on any slices. Outlines need no model.
        """
        looked_at = {
            z: [prompt for prompt in group if isinstance(prompt, Box | Click)]
            for z, group in by_slice(prompts).items()
            if any(map(is_conditioning, group))
            and not any(isinstance(prompt, MaskPrompt) for prompt in group)
        }
        self._features.announce((z, self._crop(each, None)) for z, each in looked_at.items())

    def predict_slice(
        self, z: int, prompts: Sequence[Prompt], prior: Prior | None = None
    ) -> SlicePrediction:
        """Segment slice ``z``; see `SlicePredictor.predict_slice`.

        A prior from this very slice is what clicks correct: its logits go in as a mask prompt.
        One from another slice is carried over as the model's options say.

        Raises
        ------
        PromptError
            If there is neither a prompt nor a prior that says where the object is.
        """
        for prompt in prompts:
            if isinstance(prompt, MaskPrompt):
                return SlicePrediction(prompt.mask.copy(), score=1.0)
        if prior is not None and not prior.mask.any():
            prior = None
        box = hull_of(prompt for prompt in prompts if isinstance(prompt, Box))
        clicks = [prompt for prompt in prompts if isinstance(prompt, Click)]
        if clicks:
            self._model.note_clicks()
        if prior is None and box is None and not clicks:
            msg = f"slice {z} has no box or click, and nothing is known of its neighbours"
            raise PromptError(msg)
        if prior is None or box is not None or prior.z == z:
            return self._segment(z, box, clicks, prior if prior and prior.z == z else None)
        return self._carry(z, clicks, prior)

    def _carry(self, z: int, clicks: Sequence[Click], prior: Prior) -> SlicePrediction:
        """Go on from another slice."""
        box = None
        if "box" in self._model.carry:
            box = box_around(prior.mask, z, max(self._crop((), prior).shape))
        prediction = self._segment(
            z,
            box,
            clicks,
            prior,
            with_mask="mask" in self._model.carry,
            carried=self._carried(prior),
        )
        if prior.between or clicks:
            return prediction
        area, before = int(prediction.mask.sum()), int(prior.mask.sum())
        pixel = self._spacing[0] * self._spacing[1]
        if not self._model.end.has_ended(prediction.score or 0.0, area, before, pixel):
            return prediction
        return replace(prediction, mask=np.zeros_like(prediction.mask), memory=None)

    def _segment(
        self,
        z: int,
        box: Box | None,
        clicks: Sequence[Click],
        prior: Prior | None,
        *,
        with_mask: bool = True,
        carried: int = 0,
    ) -> SlicePrediction:
        crop = self._crop([*clicks, *([] if box is None else [box])], prior)
        mask = None
        if prior is not None and with_mask:
            view = self._decoder.view
            covered = view.low_shape(crop.shape)
            mask = mask_logits(prior, crop, covered, view.low_size, expected=prior.between)
        single_click = box is None and mask is None and len(clicks) == 1
        low, iou = self._decoder.decode(
            self._features.get(z, crop, self._upcoming(z, prior, carried))[0],
            points=self._points(clicks, crop),
            box=self._box(box, crop),
            mask=mask,
            best_of_three=single_click and self._model.preprocessing == "sam",
        )
        return self._restored(low, iou, SamMemory(low, crop, carried))

    def _carried(self, prior: Prior) -> int:
        """Slices of the way so far, the coming one included; 0 in gaps, taken from both ends."""
        if prior.between or not isinstance(prior.memory, SamMemory):
            return 0
        return prior.memory.carried + 1

    def _upcoming(self, z: int, prior: Prior | None, carried: int) -> range:
        """Slices that may be next: half as many as the object has been carried over already."""
        if prior is None or carried < 2:
            return range(0)
        step = 1 if z > prior.z else -1
        end = z + step * (1 + carried // 2)
        return range(z + step, min(max(end, -1), self._features.depth), step)

    def _restored(self, low: torch.Tensor, iou: float, memory: SamMemory) -> SlicePrediction:
        crop = memory.crop
        part = self._decoder.view.restore(low, crop.shape)
        logits = np.full(self._shape, min(float(part.min()), OUTSIDE_LOGIT), dtype=np.float32)
        logits[crop.slices] = part
        score = min(max(iou, 0.0), 1.0)
        return SlicePrediction(logits > 0, score, logits, memory)

    # ------------------------------------------------------------------ what the model sees
    def _crop(self, prompts: Iterable[Prompt], prior: Prior | None) -> Crop:
        placed = list(prompts)
        if self._model.zoom is None:
            return Crop.whole(self._shape)
        if prior is not None and isinstance(prior.memory, SamMemory):
            # Stay where the object was seen as long as that will do: features and logits fit.
            crop = prior.memory.crop
            if crop.holds([*placed, Box.around(prior.mask, prior.z)]):
                return crop
        if prior is not None:
            placed.append(Box.around(prior.mask, prior.z))
        return self._model.crops.crop(placed, self._shape, self._spacing)

    def _points(
        self, clicks: Sequence[Click], crop: Crop
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        if not clicks:
            return None
        check_inside(crop, clicks)
        size = self._decoder.view.input_shape(crop.shape)
        places = [crop.pixel(click.y, click.x, size)[::-1] for click in clicks]
        labels = [int(click.positive) for click in clicks]
        return torch.tensor([places]), torch.tensor([labels], dtype=torch.int32)

    def _box(self, box: Box | None, crop: Crop) -> torch.Tensor | None:
        if box is None:
            return None
        return torch.tensor([self._decoder.view.corners(box, crop)])
