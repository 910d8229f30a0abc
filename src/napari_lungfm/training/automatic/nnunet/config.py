"""The configuration of a training of nnU-Net."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from napari_lungfm.models.automatic.nnunet_settings import Configuration, architecture_of
from napari_lungfm.training.automatic.settings import Count, Positive, TrainingSettings


class NNUNetTraining(TrainingSettings):
    """Everything that decides a training of nnU-Net v2 (Isensee et al. 2021).

    Parameters
    ----------
    configuration
        ``2d``, ``3d_lowres`` or ``3d_fullres``, as nnU-Net calls them.
    preset
        ``default``: nnU-Net's own planner and trainer. ``small``: fewer features, small patches,
        no mirroring; for demonstrations on two cores, and so always marked as ``small``.
    epochs, iterations, validation_iterations
        Length of the training; nnU-Net's own are 1000, 250 and 50.
    gpu_memory_gb
        What the default planner plans for; nnU-Net's own is 8.
    seed
        Which patients are set aside, and the random numbers of a training without workers.
    workers
        Processes that prepare batches. With 0 they are prepared in the training's own process,
        one after the other and seeded, so that a resumed training ends the same. ``None``: as
        many as the machine has cores to spare.
    """

    kind: Literal["nnunet"] = "nnunet"
    configuration: Configuration
    preset: Literal["default", "small"] = "default"
    epochs: Count = 1000
    iterations: Count = 250
    validation_iterations: Count = 50
    gpu_memory_gb: Positive = 8.0
    seed: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_small_preset_is_small(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("preset") == "small":
            return {"small": True, **values}
        return values

    @model_validator(mode="after")
    def _says_that_it_is_small(self) -> Self:
        if self.preset == "small" and not self.small:
            msg = "small: false does not go with preset: small; leave small out"
            raise ValueError(msg)
        return self

    @property
    def architecture(self) -> str:
        """The name that trained models go by: ``nnunet-2d`` and so on."""
        return architecture_of(self.configuration)
