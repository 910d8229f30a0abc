"""From the folder of a trained model to a model that runs."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_lungfm._core.types import PathInput
from napari_lungfm.models.automatic.networks import NetworkSpec, build_network
from napari_lungfm.models.automatic.slice_network import (
    BatchSize,
    InputSpec,
    Overlap,
    SliceNetworkModel,
)
from napari_lungfm.models.automatic.trained import (
    WEIGHTS,
    TrainedModel,
    check_files,
    read_description,
)
from napari_lungfm.models.foundation.runtime import Precision
from napari_lungfm.models.weights import WeightsError
from napari_lungfm.models.weights.files import read_file
from napari_lungfm.models.weights.reference import check_finite

#: `TrainedModel.family` of networks on slices.
SLICE_NETWORK = "slice-network"


class SliceNetworkSettings(BaseModel):
    """`TrainedModel.settings` of networks on slices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: NetworkSpec
    inputs: InputSpec
    postprocessing: tuple[str, ...] = ()


def load_slice_network(
    folder: PathInput,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    postprocessing: str | Sequence[str] | None = None,
    batch_size: BatchSize = 4,
    overlap: Overlap = 0.25,
) -> SliceNetworkModel:
    """Load a trained U-Net or DeepLabV3.

    Parameters
    ----------
    folder
        What a training left.
    device, precision, batch_size, overlap
        See `SliceNetworkModel`.
    postprocessing
        Names of `POSTPROCESSING`, with commas between them, or ``"none"``; what the model was
        configured with if ``None``.

    Raises
    ------
    UsageError
        If the folder is no trained model.
    WeightsError
        If its files were changed or do not fit together.
    """
    place = Path(folder)
    description = read_description(place)
    check_files(place, description)
    settings = _settings(place, description)
    network = build_network(
        settings.network,
        in_channels=settings.inputs.channels,
        classes=1 + len(description.structures),
    )
    tensors = read_file(place / WEIGHTS, known_whole=True).content
    check_finite(tensors, where=f"'{place / WEIGHTS}'")
    try:
        network.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        msg = f"'{place / WEIGHTS}' does not fit the network of its description; train it again"
        raise WeightsError(msg) from error
    return SliceNetworkModel(
        description.title,
        network,
        settings.inputs,
        description.structures,
        device=device,
        precision=precision,
        postprocessing=settings.postprocessing if postprocessing is None else postprocessing,
        overlap=overlap,
        batch_size=batch_size,
    )


def _settings(folder: Path, description: TrainedModel) -> SliceNetworkSettings:
    try:
        return SliceNetworkSettings.model_validate(description.settings)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        msg = f"the settings of '{folder}' cannot be used ({place}: {first['msg']}); train it again"
        raise WeightsError(msg) from error
