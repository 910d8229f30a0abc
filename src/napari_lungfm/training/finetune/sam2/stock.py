"""The training code of the ``sam2`` package: its network with prompts and corrections, its loss.

The package carries Meta's ``training`` modules. They import ``tensordict`` for the class of a
batch alone, which their installation does not bring; where it is missing, a stand-in that does
the same for plain tensors is there while they are imported.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm._core.imports import require
from napari_lungfm.models.foundation.sam2_build import POSTPROCESSING, build_sam2
from napari_lungfm.training.finetune.sam2.config import StockRecipe

_PURPOSE = "the training code of SAM 2"
#: Parts that ``SAM2Base`` gets ready-made.
_PARTS = ("image_encoder", "memory_attention", "memory_encoder")
#: Weights of the losses, as in the package's configuration and in MedSAM2's.
LOSS_WEIGHTS: Mapping[str, float] = {
    "loss_mask": 20.0,
    "loss_dice": 1.0,
    "loss_iou": 1.0,
    "loss_class": 1.0,
}


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """What the package's network reads of a batch: one object per clip.

    Parameters
    ----------
    flat_img_batch
        Network input ``(b * t, 3, S, S)``, the slices of a clip one after another.
    masks
        The objects, boolean ``(t, b, S, S)``.
    """

    flat_img_batch: Tensor
    masks: Tensor

    @property
    def num_frames(self) -> int:
        """Slices of a clip."""
        return int(self.masks.shape[0])

    @property
    def flat_obj_to_img_idx(self) -> Tensor:
        """Which image each object is on ``(t, b)``."""
        slices, clips = self.masks.shape[:2]
        index = torch.arange(slices * clips, device=self.masks.device)
        return index.view(clips, slices).T


@cache
def training_module(name: str) -> ModuleType:
    """Import a module of the package's training code.

    Parameters
    ----------
    name
        Such as ``"loss_fns"`` or ``"model.sam2"``.

    Raises
    ------
    MissingDependencyError
        If it cannot be imported.
    """
    require("torchvision", purpose=_PURPOSE)
    with _tensordict():
        return require(f"training.{name}", purpose=_PURPOSE)


def stock_network(
    build: Mapping[str, Any], state: Mapping[str, Tensor], recipe: StockRecipe, boxes: float
) -> Any:
    """Make the package's training network.

    Parameters
    ----------
    build
        See `build_sam2`.
    state
        The weights, as ``SAM2Base`` names them.
    recipe
        Which slices are prompted, and how often they are corrected.
    boxes
        Part of the prompts other than masks that are boxes.

    Returns
    -------
    torch.nn.Module
        A ``SAM2Train``, whose weights have the same names.

    Raises
    ------
    ConfigError
        If the package's class does not take the configuration.
    MissingDependencyError
        If its training code cannot be imported.
    """
    network_class = training_module("model.sam2").SAM2Train
    parts: Any = build_sam2(build)
    names = {*_PARTS, "_target_"}
    plain = {name: value for name, value in build.items() if name not in names}
    try:
        network = network_class(
            **{name: getattr(parts, name) for name in _PARTS},
            **{**POSTPROCESSING, **plain},
            **_prompting(recipe, boxes),
        )
    except (TypeError, AssertionError) as error:
        msg = f"the network cannot be trained as the sam2 package does it: {error}"
        raise ConfigError(msg) from error
    network.load_state_dict(dict(state), strict=True)
    return network


def _prompting(recipe: StockRecipe, boxes: float) -> dict[str, Any]:
    return {
        "prob_to_use_pt_input_for_train": 1.0 - recipe.mask_prompts,
        "prob_to_use_box_input_for_train": boxes,
        "prob_to_sample_from_gt_for_train": 0.1,  # clicks into the object, not into an error
        "num_frames_to_correct_for_train": recipe.corrected_slices,
        "rand_frames_to_correct_for_train": True,
        "add_all_frames_to_correct_as_cond": True,
        "num_init_cond_frames_for_train": recipe.prompted_slices,
        "rand_init_cond_frames_for_train": True,
        "num_correction_pt_per_frame": recipe.corrections,
    }


def stock_loss(network: Any) -> Any:
    """Return the package's loss with the values that SAM 2.1 and MedSAM2 are trained with.

    Called with the network's outputs and the masks of a batch it returns the losses by name;
    ``core_loss`` is their weighted sum over all slices and looks.
    """
    return training_module("loss_fns").MultiStepMultiMasksAndIous(
        weight_dict=dict(LOSS_WEIGHTS),
        supervise_all_iou=True,
        iou_use_l1_loss=True,
        pred_obj_scores=network.pred_obj_scores,
        focal_gamma_obj_score=0.0,
        focal_alpha_obj_score=-1.0,
    )


@contextmanager
def _tensordict() -> Iterator[None]:
    """Have a module ``tensordict``, for as long as it is imported from."""
    if "tensordict" in sys.modules or find_spec("tensordict") is not None:
        yield
        return
    stand_in = ModuleType("tensordict")
    stand_in.tensorclass = _tensorclass  # type: ignore[attr-defined]
    sys.modules["tensordict"] = stand_in
    try:
        yield
    finally:
        del sys.modules["tensordict"]


def _tensorclass(plain: type) -> Any:
    """Make a dataclass that is also told its batch size, as those of ``tensordict`` are."""
    made: Any = dataclass(plain)
    set_fields = made.__init__

    def initialise(self: Any, *values: Any, batch_size: Any = (), **named: Any) -> None:
        self.batch_size = batch_size
        set_fields(self, *values, **named)

    made.__init__ = initialise
    return made
