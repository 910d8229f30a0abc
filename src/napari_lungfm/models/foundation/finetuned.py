"""Fine-tuned promptable models: folders like those of trained automatic models.

The description (``model.json``) is a `TrainedModel`; what a promptable network needs beside it
stands in its ``settings``. Folders, hashes, seen patients and imported names are those of
`models.automatic.trained` and `models.automatic.store`. Importing this needs no torch.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_lungfm._core.types import PathInput
from napari_lungfm.models.automatic.trained import (
    WEIGHTS,
    TrainedModel,
    check_files,
    read_description,
)
from napari_lungfm.models.cards import Commercial
from napari_lungfm.models.foundation.factory import parse_window, parse_zoom
from napari_lungfm.models.foundation.options import Attention, BankName, Carry, Precision
from napari_lungfm.models.protocols import PromptableModel
from napari_lungfm.models.weights import WeightsError
from napari_lungfm.models.weights.files import read_file
from napari_lungfm.models.weights.reference import check_finite
from napari_lungfm.preprocessing.windowing import Window

if TYPE_CHECKING:
    import torch

#: `TrainedModel.architecture` of them all, and so the name that imported ones go by.
FINE_TUNED = "finetuned"
#: What the network is built like.
NetworkKind: TypeAlias = Literal["sam", "sam2", "lungfm"]


class BaseFacts(BaseModel):
    """What a fine-tuned model inherits from the model that it began as.

    Parameters
    ----------
    name
        Its name in the catalogue, or the title of its folder.
    sha256
        Of the file of its weights.
    licence, commercial, licence_note
        Of its weights, and so of what was made of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str
    licence: str
    commercial: Commercial = "unstated"
    licence_note: str = ""


class FineTunedSettings(BaseModel):
    """`TrainedModel.settings` of a promptable model.

    Parameters
    ----------
    network
        What it is built like.
    build
        What the builder of the network takes: values of `build_sam`, or the whole configuration
        of `build_sam2`; empty for LungFM-S, whose file says its sizes.
    window
        Level and width in HU through which it was trained; ``None`` where it sees HU itself.
    preprocessing
        How a network of SAM's build wants slices; see `sam_preprocess`.
    base
        What it began as.
    recipe
        How it was trained; empty where it was not, such as a base of random weights.
    prompts
        What it was trained with: ``"box"``, ``"point"``, ``"mixed"``, or empty.
    fraction
        Percent of the training patients that it was trained on.
    seed
        Of the training.
    moved
        Module → how much of it moved in the training; see `training.finetune.moved`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: NetworkKind
    build: dict[str, Any] = {}
    window: tuple[float, float] | None = None
    preprocessing: Literal["sam", "medsam", "litemedsam"] | None = None
    base: BaseFacts
    recipe: str = ""
    prompts: Literal["box", "point", "mixed", ""] = ""
    fraction: float = 0.0
    seed: int = 0
    moved: dict[str, dict[str, float]] = {}


def family_of(kind: NetworkKind) -> str:
    """Return `TrainedModel.family` of a kind of network."""
    return f"finetuned-{kind}"


def is_fine_tuned(description: TrainedModel) -> bool:
    """Tell whether a description is that of a promptable model."""
    return description.architecture == FINE_TUNED


def fine_tuned_settings(
    description: TrainedModel, *, where: str = "the description"
) -> FineTunedSettings:
    """Return the settings of a fine-tuned model.

    Raises
    ------
    WeightsError
        If they cannot be used.
    """
    try:
        return FineTunedSettings.model_validate(description.settings)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        msg = f"the settings of {where} cannot be used ({place}: {first['msg']}); train it again"
        raise WeightsError(msg) from error


def build_network(settings: FineTunedSettings) -> "torch.nn.Module":
    """Build a network of SAM's or SAM 2's build with random weights.

    Raises
    ------
    ConfigError
        If the values are none of a network's.
    """
    from napari_lungfm.models.foundation.sam2_build import build_sam2  # noqa: PLC0415
    from napari_lungfm.models.foundation.sam_build import build_sam  # noqa: PLC0415

    return build_sam(settings.build) if settings.network == "sam" else build_sam2(settings.build)


def read_weights(path: Path, settings: FineTunedSettings) -> "torch.nn.Module":
    """Return the network of a file of weights, in inference mode, on the CPU.

    Parameters
    ----------
    path
        ``weights.safetensors`` of a fine-tuned model.
    settings
        How the network is built.

    Raises
    ------
    WeightsError
        If they do not fit together, or the weights are not finite.
    """
    if settings.network == "lungfm":
        from napari_lungfm.models.lungfm.model import read_network  # noqa: PLC0415

        return read_network(path)
    network = build_network(settings)
    tensors = read_file(path, known_whole=True).content
    check_finite(tensors, where=f"'{path}'")
    try:
        network.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        msg = f"'{path}' does not fit the network of its description; train it again"
        raise WeightsError(msg) from error
    return network


def open_fine_tuned(folder: PathInput) -> tuple[TrainedModel, FineTunedSettings]:
    """Return the description and settings of a fine-tuned model whose files are as they were.

    Raises
    ------
    UsageError
        If the folder is no trained model.
    WeightsError
        If its files were changed, or its settings cannot be used.
    """
    description = read_description(folder)
    check_files(folder, description)
    return description, fine_tuned_settings(description, where=f"'{folder}'")


def model_of(
    weights: Path, settings: FineTunedSettings, name: str, weight_hash: str, device: str
) -> PromptableModel:
    """Make the model of a file of weights, with the default options of its build."""
    if settings.network == "lungfm":
        return _lungfm(weights, name, device=device)
    network = read_weights(weights, settings)
    make = _sam if settings.network == "sam" else _sam2
    return make(network, settings, name, weight_hash, None, device=device)


def finetuned_sam(
    folder: PathInput,
    *,
    name: str | None = None,
    window: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    carry: Carry = "box",
    zoom: float | bool | None = None,
    zoom_mm: float | None = None,
    min_area_mm2: float = 4.0,
) -> PromptableModel:
    """Load a fine-tuned model of SAM's build.

    Parameters
    ----------
    folder
        What a fine-tuning left.
    name
        The name in records and logs; by default its title.
    window
        What the model sees; by default what it was trained with.
    device, precision, carry, zoom, zoom_mm, min_area_mm2
        See `factory.sam_model`.

    Raises
    ------
    UsageError
        If the folder is no trained model, or an option makes no sense.
    WeightsError
        If its files were changed or do not fit together.
    """
    from napari_lungfm.models.foundation.sam_carry import EndRule  # noqa: PLC0415

    place = Path(folder)
    crop, end = parse_zoom(zoom, zoom_mm), EndRule(min_area_mm2=min_area_mm2)
    description, settings = open_fine_tuned(place)
    return _sam(
        read_weights(place / WEIGHTS, settings),
        settings,
        name or description.title,
        description.files[WEIGHTS],
        window,
        device=device,
        precision=precision,
        carry=carry,
        end=end,
        zoom=crop,
    )


def finetuned_sam2(
    folder: PathInput,
    *,
    name: str | None = None,
    window: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    memory_bank: BankName = "recent",
    attention: Attention = "stock",
    zoom: float | bool | None = None,
    zoom_mm: float | None = None,
    patience: int = 2,
    min_area_mm2: float = 0.0,
) -> PromptableModel:
    """Load a fine-tuned model of SAM 2's build.

    Parameters
    ----------
    folder
        What a fine-tuning left.
    name
        The name in records and logs; by default its title.
    window
        What the model sees; by default what it was trained with.
    device, precision, memory_bank, attention, zoom, zoom_mm, patience, min_area_mm2
        See `factory.sam2_model`.

    Raises
    ------
    UsageError
        If the folder is no trained model, or an option makes no sense.
    WeightsError
        If its files were changed or do not fit together.
    """
    from napari_lungfm.models.foundation.sam2_video import NO_MINIMUM  # noqa: PLC0415

    place = Path(folder)
    crop, end = parse_zoom(zoom, zoom_mm), replace(NO_MINIMUM, min_area_mm2=min_area_mm2)
    description, settings = open_fine_tuned(place)
    return _sam2(
        read_weights(place / WEIGHTS, settings),
        settings,
        name or description.title,
        description.files[WEIGHTS],
        window,
        device=device,
        precision=precision,
        memory_bank=memory_bank,
        attention=attention,
        zoom=crop,
        patience=patience,
        end=end,
    )


def finetuned_lungfm(
    folder: PathInput,
    *,
    name: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> PromptableModel:
    """Load a fine-tuned LungFM-S.

    Parameters
    ----------
    folder
        What a fine-tuning left.
    name
        The name in records and logs; by default its title.
    device, precision
        See `models.lungfm.model.LungFMModel`.

    Raises
    ------
    UsageError
        If the folder is no trained model.
    WeightsError
        If its files were changed.
    InputFileError
        If its weights are not those of LungFM-S.
    """
    description, _ = open_fine_tuned(folder)
    weights = Path(folder) / WEIGHTS
    return _lungfm(weights, name or description.title, device=device, precision=precision)


def _sam(
    network: "torch.nn.Module",
    settings: FineTunedSettings,
    name: str,
    weight_hash: str,
    window: str | None,
    **options: Any,
) -> PromptableModel:
    from napari_lungfm.models.foundation.sam_image import SamImageModel  # noqa: PLC0415

    return SamImageModel(
        name,
        network,
        weight_hash=weight_hash,
        window=_window(settings, window),
        preprocessing=settings.preprocessing or "medsam",
        boxes_only=settings.prompts == "box",
        **options,
    )


def _sam2(
    network: "torch.nn.Module",
    settings: FineTunedSettings,
    name: str,
    weight_hash: str,
    window: str | None,
    **options: Any,
) -> PromptableModel:
    from napari_lungfm.models.foundation.sam2_video import Sam2Model  # noqa: PLC0415

    return Sam2Model(
        name, network, weight_hash=weight_hash, window=_window(settings, window), **options
    )


def _lungfm(
    weights: Path, name: str, *, device: str, precision: Precision = "auto"
) -> PromptableModel:
    from napari_lungfm.models.lungfm.model import LungFMModel  # noqa: PLC0415

    class FineTunedLungFM(LungFMModel):
        """LungFM-S under another name, for records and logs."""

        @property
        def name(self) -> str:
            """Title of the fine-tuning."""
            return name

    return FineTunedLungFM(weights=weights, device=device, precision=precision)


def _window(settings: FineTunedSettings, wanted: str | None) -> Window:
    if wanted is not None:
        return parse_window(wanted)
    return parse_window("lung") if settings.window is None else Window(*settings.window)
