"""Clips as a SAM 2 network sees them, with what they are prompted with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from napari_lungfm._core.types import MaskArray
from napari_lungfm.models.foundation.sam2_engine import IMAGE_MEAN, IMAGE_STD
from napari_lungfm.models.foundation.sam2_prompts import PointInputs, mask_input, point_inputs
from napari_lungfm.models.foundation.zoom import Crop
from napari_lungfm.models.prompts import Prompt
from napari_lungfm.preprocessing.windowing import Window, to_uint8
from napari_lungfm.training.finetune.config import PromptKind
from napari_lungfm.training.finetune.prompts import middle_click, random_click, tight_box
from napari_lungfm.training.finetune.samples import FineTuneClip


@dataclass(frozen=True, eq=False)
class PreparedClip:
    """A clip at the size of the network's input.

    Parameters
    ----------
    grey
        The slices through the window, uint8 ``(t, S, S)``.
    truth
        The structure, boolean ``(t, S, S)``; on at least one slice.
    boxed
        Prompted with a box, not with a click.
    seed
        Of all further draws.
    case, slices
        Which slices of which case they are.
    """

    grey: Tensor
    truth: Tensor
    boxed: bool
    seed: int
    case: str
    slices: tuple[int, ...]

    def to(self, device: torch.device) -> "PreparedClip":
        """Return the clip with its tensors on a device."""
        return replace(self, grey=self.grey.to(device), truth=self.truth.to(device))

    def pick(self, places: Sequence[int]) -> "PreparedClip":
        """Return the clip of some of its slices, in this order."""
        chosen = list(places)
        slices = tuple(self.slices[place] for place in chosen)
        return replace(self, grey=self.grey[chosen], truth=self.truth[chosen], slices=slices)

    def marked(self) -> list[int]:
        """Return the places of the slices that have the structure."""
        found: list[int] = self.truth.flatten(1).any(dim=1).nonzero()[:, 0].tolist()
        return found


@dataclass(frozen=True)
class ClipPreparation:
    """Makes prepared clips.

    Parameters
    ----------
    size
        Side S of the network's input in pixels.
    window
        What the network sees of HU.
    prompts
        Kind of prompt; ``"mixed"`` draws one or the other.
    begin_marked
        Let clips begin with a slice that has the structure; see `from_marked`.
    """

    size: int
    window: Window
    prompts: PromptKind
    begin_marked: bool

    def __call__(self, clip: FineTuneClip, rng: np.random.Generator) -> PreparedClip:
        """Return a clip, prepared."""
        # Everything is drawn in any case: what is drawn later does not depend on the options.
        seed, boxed = int(rng.integers(2**62)), bool(rng.random() < 0.5)
        upwards = bool(rng.random() < 0.5)
        prepared = PreparedClip(
            grey=grey_slices(clip.image, self.window, self.size),
            truth=truth_slices(clip.mask, self.size),
            boxed=self.prompts == "box" or (self.prompts == "mixed" and boxed),
            seed=seed,
            case=clip.case,
            slices=tuple(clip.slices),
        )
        return from_marked(prepared, upwards=upwards) if self.begin_marked else prepared


def grey_slices(image: npt.NDArray[np.int16], window: Window, size: int) -> Tensor:
    """Return slices in HU as uint8 ``(t, S, S)``, bicubic as `prepare_images` has them."""
    resized = [
        Image.fromarray(to_uint8(plane, window)).resize((size, size), Image.Resampling.BICUBIC)
        for plane in image
    ]
    return torch.from_numpy(np.stack([np.asarray(each) for each in resized]))


def truth_slices(mask: MaskArray, size: int) -> Tensor:
    """Return a mask as boolean ``(t, S, S)``; no slice loses a structure for being small."""
    planes = []
    for plane in mask:
        seen = mask_input(plane, Crop.whole(plane.shape), size)[0, 0] > 0.5
        if plane.any() and not bool(seen.any()):
            y, x = (int(np.median(places)) for places in np.nonzero(plane))
            seen[y * size // plane.shape[0], x * size // plane.shape[1]] = True
        planes.append(seen)
    return torch.stack(planes)


def from_marked(clip: PreparedClip, *, upwards: bool) -> PreparedClip:
    """Return a clip that begins with a slice that has the structure, as long as before.

    It goes the way that leaves more of it, to higher slices where both are alike and `upwards`
    is true. Where slices before its begin are lost, the last one is repeated at its end.
    """
    marked, count = clip.marked(), len(clip.slices)
    up, down = list(range(marked[0], count)), list(range(marked[-1], -1, -1))
    chosen = up if (len(up), upwards) > (len(down), not upwards) else down
    return clip.pick(chosen + chosen[-1:] * (count - len(chosen)))


def network_input(grey: Tensor) -> Tensor:
    """Return grey slices ``(n, S, S)``, 0 to 255, as the network's input ``(n, 3, S, S)``."""
    planes = (grey.float() / 255.0)[:, None].expand(-1, 3, -1, -1)
    mean, deviation = (planes.new_tensor(c)[:, None, None] for c in (IMAGE_MEAN, IMAGE_STD))
    return (planes - mean) / deviation


def prompt_of(truth: Tensor, *, boxed: bool, rng: np.random.Generator | None = None) -> PointInputs:
    """Return what a simulated user gives on a slice at the network's size.

    Parameters
    ----------
    truth
        The structure, boolean ``(S, S)``, on at least one pixel.
    boxed
        A tight box; otherwise a click.
    rng
        Draws the place of the click; without it, it is where the structure is thickest.
    """
    mask = truth.cpu().numpy()
    prompt: Prompt
    if boxed:
        prompt = tight_box(mask, 0)
    else:
        prompt = middle_click(mask, 0) if rng is None else random_click(mask, 0, rng)
    points = point_inputs([prompt], Crop.whole(mask.shape), mask.shape[0])
    if points is None:
        msg = "a prompt came back as none"
        raise RuntimeError(msg)
    return {name: tensor.to(truth.device) for name, tensor in points.items()}
