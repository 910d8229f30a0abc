"""How a fit is run, and what it tells. Nothing heavy is imported."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm.training.values import Count, Positive, WholeNumber


class FitError(LungFMError):
    """A fit went wrong: the loss is not finite, or a checkpoint cannot be used."""


class FitSettings(BaseModel):
    """How a fit is run.

    Parameters
    ----------
    epochs
        How often the training data are gone through.
    seed
        Decides weights, order and augmentation.
    devices
        Number of devices; more than one trains data-parallel.
    precision
        ``"auto"``: bfloat16 mixed precision on CUDA devices that have it, float32 elsewhere.
    deterministic
        Take deterministic kernels only: on a GPU slower, but the same at every run.
    validate_every, checkpoint_every
        Epochs. A fit of fewer epochs is validated after its last one, where the last checkpoint
        is written too.
    early_stopping
        Validations without improvement after which to stop; ``None``: never.
    clip_gradients
        Largest norm of the gradients; ``None``: not clipped.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Count
    seed: WholeNumber = 0
    devices: Count = 1
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    deterministic: bool = False
    validate_every: Count = 1
    checkpoint_every: Count = 1
    early_stopping: Count | None = None
    clip_gradients: Positive | None = None


@dataclass(frozen=True)
class FitProgress:
    """What a fit tells while it runs.

    ``step`` of ``steps`` is done, in epoch ``epoch`` (from 1) of ``epochs``. ``metrics`` are those
    of the last finished epoch; ``epoch_ended`` marks the first event after one.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    seconds_left: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    epoch_ended: bool = False


FitListener = Callable[[FitProgress], None]
