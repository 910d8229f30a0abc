"""What `TrainedModel.settings` says of a trained nnU-Net. Nothing heavy is imported."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

#: `TrainedModel.family` of nnU-Net.
NNUNET = "nnunet"
#: nnU-Net's own files in the folder of a trained model, stripped of names of cases.
PLANS, DATASET = "plans.json", "dataset.json"
#: Names of the plans and of the trainer of the preset for demonstrations.
SMALL_PLANS, SMALL_TRAINER = "nnUNetPlansSmall", "LungFMSmallTrainer"

Configuration: TypeAlias = Literal["2d", "3d_lowres", "3d_fullres"]
#: nnU-Net's configuration → the name that trained models go by.
ARCHITECTURES: dict[Configuration, str] = {
    "2d": "nnunet-2d",
    "3d_lowres": "nnunet-3d-lowres",
    "3d_fullres": "nnunet-3d-fullres",
}


def architecture_of(configuration: Configuration) -> str:
    """Return the name that trained models of a configuration go by."""
    return ARCHITECTURES[configuration]


class NNUNetSettings(BaseModel):
    """`TrainedModel.settings` of nnU-Net.

    Parameters
    ----------
    configuration
        The configuration in ``plans.json``.
    trainer
        Name of nnU-Net's trainer class.
    mirroring
        Axes along which predictions may be mirrored and averaged, of the network's patch;
        ``None`` where the training did not mirror.
    weights
        Files of weights; of several the mean of their logits is taken, as nnU-Net does of folds.
    postprocessing
        Names of `POSTPROCESSING`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    configuration: Configuration
    trainer: str = "nnUNetTrainer"
    mirroring: tuple[Annotated[int, Field(ge=0, le=2)], ...] | None = None
    weights: Annotated[tuple[str, ...], Field(min_length=1)]
    postprocessing: tuple[str, ...] = ()
