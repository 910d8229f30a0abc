"""Single slices under SAM 2: the stock modules, with the state passed in and out.

Nothing here walks. `Sam2Engine.look` is what the publishers' predictor does for one frame, with
its choices and roundings (memories in bfloat16, previous logits clamped to ±32, memories of
prompted slices made from the upsampled low-resolution mask), so that the same inputs give the
same logits.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from napari_lungfm._core.types import FloatArray
from napari_lungfm.models.foundation.features import Features, SliceFeatures
from napari_lungfm.models.foundation.runtime import Runtime
from napari_lungfm.models.foundation.sam2_prompts import PointInputs
from napari_lungfm.models.foundation.sam2_state import SliceEntry
from napari_lungfm.models.foundation.zoom import Crop
from napari_lungfm.models.protocols import SlicePrediction

#: Mean and standard deviation of ImageNet's colours, 0 to 1, as every SAM 2 was trained with.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
#: Logit where there is no object, as in ``sam2``.
NO_OBJECT = -1024.0
#: Previous logits are fed back within these bounds, as in ``sam2``.
LOGIT_BOUND = 32.0


def prepare_images(images: Sequence[npt.NDArray[np.uint8]], size: int) -> torch.Tensor:
    """Return grey slices as the network input ``(n, 3, S, S)``, float32.

    Resized to S × S without keeping the aspect, bicubic with Pillow, as the predictors of SAM 2
    and of both MedSAM 2 do; three equal channels, divided by 255, ImageNet mean and deviation.
    """
    resized = [
        np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
        for image in images
    ]
    grey = torch.from_numpy(np.stack(resized)).float().div_(255.0)
    mean = torch.tensor(IMAGE_MEAN)[:, None, None]
    std = torch.tensor(IMAGE_STD)[:, None, None]
    return (grey[:, None].expand(-1, 3, -1, -1) - mean) / std


def encode_images(network: Any, images: torch.Tensor) -> Features:
    """Return the feature maps that the decoder and the memory need, finest first."""
    maps = network.forward_image(images)["backbone_fpn"]
    return tuple(maps[-network.num_feature_levels :])


class Sam2Engine:
    """A SAM 2 network that looks at single slices of one volume.

    Parameters
    ----------
    network
        A ``SAM2Base``.
    runtime
        Where it runs.
    features
        Encoder features of the volume.
    depth
        Number of slices.
    """

    def __init__(self, network: Any, runtime: Runtime, features: SliceFeatures, depth: int) -> None:
        self._net, self._runtime, self.features = network, runtime, features
        # A volume of one slice would make the stock code divide by zero in the position of
        # object pointers; two change nothing else.
        self._depth = max(depth, 2)

    @property
    def image_size(self) -> int:
        """Side of the input in pixels."""
        return int(self._net.image_size)

    @property
    def positions(self) -> int:
        """How many tracked slices the memory attention sees at once."""
        return max(int(self._net.num_maskmem) - 1, 0)

    def look(
        self,
        z: int,
        crop: Crop,
        conditioning: Mapping[int, SliceEntry],
        tracked: Mapping[int, SliceEntry],
        *,
        first: bool = False,
        reverse: bool = False,
        points: PointInputs | None = None,
        mask: torch.Tensor | None = None,
        previous: torch.Tensor | None = None,
        remember: bool = True,
        upcoming: Iterable[int] = (),
    ) -> SliceEntry:
        """Segment slice ``z``.

        Parameters
        ----------
        z
            The slice.
        crop
            What is seen of it.
        conditioning, tracked
            The memories, by slice.
        first
            The first look at a prompted slice, without memories.
        reverse
            Walking to lower slice numbers.
        points, mask
            The prompts, at most one of them.
        previous
            Logits of this slice that clicks are to correct, ``(1, 1, S/4, S/4)``.
        remember
            Make the memory of the slice too.
        upcoming
            Slices that will be looked at next.
        """
        features = self.features.get(z, crop, upcoming)
        return self._runtime.run(
            lambda: self._look(
                z,
                features,
                {
                    "cond_frame_outputs": self._outputs(conditioning),
                    "non_cond_frame_outputs": self._outputs(tracked),
                },
                first=first,
                reverse=reverse,
                points=points,
                mask=mask,
                previous=previous,
                remember=remember,
            )
        )

    def remember(self, z: int, crop: Crop, entry: SliceEntry) -> SliceEntry:
        """Return a prompted slice with its memory, made from its mask as it is."""
        features = self.features.get(z, crop)

        def encode() -> torch.Tensor | None:
            logits = entry.logits.to(self._runtime.device)
            high = F.interpolate(
                logits, size=(self.image_size,) * 2, mode="bilinear", align_corners=False
            )
            flat, sizes = self._flat(features)
            score = entry.object_score.to(self._runtime.device)
            return self._memory(flat, sizes, high, score, prompted=True)

        return replace(entry, memory=self._runtime.run(encode))

    def embedding(self, z: int, crop: Crop) -> Callable[[], torch.Tensor]:
        """Return what gives the image embedding of a slice when called."""
        return lambda: self.features.get(z, crop)[-1]

    def prediction(self, entry: SliceEntry, crop: Crop, shape: tuple[int, int]) -> SlicePrediction:
        """Return an entry on the grid of the volume; nothing is found outside the crop."""
        part = F.interpolate(
            entry.logits.float(), size=crop.shape, mode="bilinear", align_corners=False
        )
        logits: FloatArray = np.full(shape, NO_OBJECT, dtype=np.float32)
        logits[crop.slices] = part[0, 0].cpu().numpy()
        presence = float(torch.sigmoid(entry.object_score.float()))
        score = presence * min(max(entry.iou, 0.0), 1.0)
        return SlicePrediction(logits > 0, score=score, logits=logits)

    # ------------------------------------------------------------------ on the stock modules
    def _look(
        self,
        z: int,
        features: Features,
        outputs: dict[str, dict[int, dict[str, Any]]],
        *,
        first: bool,
        reverse: bool,
        points: PointInputs | None,
        mask: torch.Tensor | None,
        previous: torch.Tensor | None,
        remember: bool,
    ) -> SliceEntry:
        device = self._runtime.device
        flat, sizes = self._flat(features)
        _, heads, _, _ = self._net._track_step(
            frame_idx=z,
            is_init_cond_frame=first,
            current_vision_feats=flat,
            current_vision_pos_embeds=[self._image_positions(features)],
            feat_sizes=sizes,
            point_inputs=None if points is None else {k: v.to(device) for k, v in points.items()},
            mask_inputs=None if mask is None else mask.to(device),
            output_dict=outputs,
            num_frames=self._depth,
            track_in_reverse=reverse,
            prev_sam_mask_logits=(
                None if previous is None else previous.to(device).clamp(-LOGIT_BOUND, LOGIT_BOUND)
            ),
        )
        _, _, ious, low, high, pointer, score = heads
        memory = None
        if remember:
            memory = self._memory(flat, sizes, high, score, prompted=points is not None)
        return SliceEntry(low, pointer, score, float(ious.max()), memory)

    def _flat(self, features: Features) -> tuple[list[torch.Tensor], list[tuple[int, int]]]:
        """Feature maps as the stock code passes them on: ``(pixels, 1, channels)`` and sizes."""
        maps = [f.to(self._runtime.device, dtype=torch.float32) for f in features]
        sizes = [(f.shape[-2], f.shape[-1]) for f in maps]
        return [f.flatten(2).permute(2, 0, 1) for f in maps], sizes

    def _image_positions(self, features: Features) -> torch.Tensor:
        encoding = self._net.image_encoder.neck.position_encoding
        coarse = features[-1].to(self._runtime.device, dtype=torch.float32)
        positions: torch.Tensor = encoding(coarse)
        return positions.flatten(2).permute(2, 0, 1)

    def _memory(
        self,
        flat: list[torch.Tensor],
        sizes: list[tuple[int, int]],
        high: torch.Tensor,
        score: torch.Tensor,
        *,
        prompted: bool,
    ) -> torch.Tensor | None:
        if self._net.num_maskmem == 0:
            return None
        memory, _ = self._net._encode_new_memory(
            current_vision_feats=flat,
            feat_sizes=sizes,
            pred_masks_high_res=high,
            object_score_logits=score,
            is_mask_from_pts=prompted,
        )
        rounded: torch.Tensor = memory.to(torch.bfloat16)
        return rounded

    def _outputs(self, entries: Mapping[int, SliceEntry]) -> dict[int, dict[str, Any]]:
        """Entries as the stock code reads them."""
        device = self._runtime.device
        outputs: dict[int, dict[str, Any]] = {}
        positions: list[torch.Tensor] = []  # the same for all
        for z, entry in entries.items():
            if entry.memory is None:
                continue
            memory = entry.memory.to(device)
            positions = positions or [self._net.memory_encoder.position_encoding(memory)]
            outputs[z] = {
                "maskmem_features": memory,
                "maskmem_pos_enc": positions,
                "obj_ptr": entry.pointer.to(device),
            }
        return outputs
