"""The configuration of a training of LungFM-S."""

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_lungfm._core.config import parse_model, read_yaml
from napari_lungfm.models.lungfm.look import CHANNELS
from napari_lungfm.models.lungfm.network import NetworkConfig
from napari_lungfm.training.fit import FitSettings


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
        The same for clips that are only measured.
    epochs, steps
        Epochs, and optimiser steps in each; after each the validation clips are measured.
    batch
        Episodes in every step.
    walk
        Slices of every walk.
    learning_rate, weight_decay, warm_up
        See `task.PromptTask`.
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
    seed: int = Field(default=1, ge=0)
    clips: int = Field(default=10000, ge=1)
    clip_seed: int = 1
    validation_clips: int = Field(default=160, ge=1)
    validation_seed: int = 2
    epochs: int = Field(default=30, ge=1)
    steps: int = Field(default=200, ge=1)
    batch: int = Field(default=8, ge=1)
    walk: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    warm_up: int = Field(default=100, ge=1)
    average: float = Field(default=0.997, ge=0, lt=1)
    clip_gradients: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    lone_clicks: bool = True
    schedule_epochs: int | None = Field(default=None, ge=1)
    first: "PromptTrainingConfig | None" = None
    network: NetworkSizes = NetworkSizes()

    @model_validator(mode="after")
    def _measured_on_others(self) -> Self:
        if self.clip_seed == self.validation_seed:
            msg = "clip_seed and validation_seed are the same: what is trained on is not measured"
            raise ValueError(msg)
        return self

    @property
    def schedule_steps(self) -> int:
        """Steps after which the learning rate is zero."""
        return self.steps * (self.schedule_epochs or self.epochs)

    def fit_settings(self) -> FitSettings:
        """Return how the fit is run."""
        return FitSettings(
            epochs=self.epochs,
            seed=self.seed,
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
