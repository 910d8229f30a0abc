"""The configuration of a training of LungFM-S."""

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_lungfm._core.config import parse_model, read_yaml
from napari_lungfm.models.lungfm.look import CHANNELS
from napari_lungfm.models.lungfm.network import NetworkConfig
from napari_lungfm.training.fit.settings import FitSettings
from napari_lungfm.training.synthetic.clips import MAX_SLICES
from napari_lungfm.training.values import Count, NotNegative, Positive, WholeNumber


def shipped_config() -> Path:
    """Return the configuration file of the weights that ship with the package."""
    return Path(__file__).with_name("configs") / "lungfm-s.yaml"


class NetworkSizes(BaseModel):
    """See `models.lungfm.network.NetworkConfig`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: tuple[int, ...] = (48, 96, 160, 224)
    blocks: tuple[int, ...] = (1, 1, 2, 2)
    detail: int = 16
    answers_see_mask: bool = False

    @model_validator(mode="after")
    def _are_those_of_a_network(self) -> Self:
        self.config()
        return self

    def config(self) -> NetworkConfig:
        """Return the sizes as the network takes them."""
        return NetworkConfig(CHANNELS, **self.model_dump())


class PromptTrainingConfig(BaseModel):
    """Everything that decides a training.

    Parameters
    ----------
    kind
        Always ``"lungfm-s"``: what tells such a file from those of other trainings.
    seed
        Of the weights, the episodes and the draws in them.
    clips, clip_seed
        Number of clips that the training goes over, and the seed they are made from.
    validation_clips, validation_seed
        The same for clips that are only measured; the episodes on them are drawn from this seed
        too, so that parts with the same measure the same.
    epochs, steps
        Epochs, and optimiser steps in each; after each the validation clips are measured.
    batch
        Episodes in every step.
    walk
        Slices of every walk.
    learning_rate, weight_decay, warm_up
        See `task.PromptTask`.
    devices
        Number of GPUs that share every batch; a CPU counts as one. All parts have the same.
    average
        Decay of the running mean of the weights, which is what is kept.
    clip_gradients
        Largest norm of the gradient.
    precision
        See `training.fit.FitSettings`; CPUs with AMX or AVX-512 BF16 are two to three times
        faster with ``"bfloat16"``.
    lone_clicks
        Show every anchor slice a second time with one click alone.
    schedule_epochs
        Epochs over which the learning rate falls to zero, if that is more than are trained.
    first
        A training that comes before and whose weights this one begins with.
    network
        Sizes of the network.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["lungfm-s"] = "lungfm-s"
    seed: WholeNumber = 1
    clips: Count = 10000
    clip_seed: WholeNumber = 1
    validation_clips: Count = 160
    validation_seed: WholeNumber = 2
    epochs: Count = 30
    steps: Count = 200
    batch: Count = 8
    devices: Count = 1
    walk: int = Field(default=3, ge=1, le=MAX_SLICES)
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.02
    warm_up: Count = 100
    average: float = Field(default=0.997, ge=0, lt=1)
    clip_gradients: Positive = 1.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    lone_clicks: bool = True
    schedule_epochs: Count | None = None
    first: "PromptTrainingConfig | None" = None
    network: NetworkSizes = NetworkSizes()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.schedule_epochs is not None and self.schedule_epochs < self.epochs:
            msg = (
                f"schedule_epochs: {self.schedule_epochs}, fewer than the {self.epochs} epochs: "
                "nothing is learnt after them; give as many or more, or leave it out"
            )
            raise ValueError(msg)
        if self.warm_up > self.schedule_steps:
            msg = (
                f"warm_up: {self.warm_up} steps, more than the {self.schedule_steps} of the "
                "training: the full learning rate is never reached; give fewer"
            )
            raise ValueError(msg)
        if self.batch % self.devices:
            msg = f"batch: {self.batch} episodes cannot be shared out among {self.devices} devices"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _parts_go_together(self) -> Self:
        parts = self.parts()
        measured = {part.validation_seed for part in parts}
        if any(part.clip_seed in measured for part in parts):
            msg = "clip_seed and validation_seed are the same: what is trained on is not measured"
            raise ValueError(msg)
        before = self.first
        if before is None:
            return self
        if before.devices != self.devices:
            msg = f"first.devices: {before.devices}, not {self.devices} as in the part after it"
            raise ValueError(msg)
        sees = self.network.answers_see_mask
        if before.network.model_copy(update={"answers_see_mask": sees}) != self.network:
            msg = "first.network: other sizes than in the part after it, which takes its weights"
            raise ValueError(msg)
        if before.network.answers_see_mask and not sees:
            msg = "network.answers_see_mask: false after a part where it is true; set it here too"
            raise ValueError(msg)
        return self

    def parts(self) -> list["PromptTrainingConfig"]:
        """Return the trainings that follow one another, this one last."""
        return [*([] if self.first is None else self.first.parts()), self]

    @property
    def schedule_steps(self) -> int:
        """Steps after which the learning rate is zero."""
        return self.steps * (self.schedule_epochs or self.epochs)

    def fit_settings(self) -> FitSettings:
        """Return how the fit is run."""
        return FitSettings(
            epochs=self.epochs,
            seed=self.seed,
            devices=self.devices,
            precision=self.precision,
            clip_gradients=self.clip_gradients,
        )

    def to_yaml(self) -> str:
        """Return the configuration as `from_yaml` reads it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @classmethod
    def from_yaml(cls, path: Path) -> "PromptTrainingConfig":
        """Read a configuration.

        Raises
        ------
        InputFileError
            If the file cannot be read.
        ConfigError
            If a value makes no sense.
        """
        return parse_model(cls, read_yaml(Path(path)), str(path))
