"""How much disk a training takes, estimated before anything is trained.

Measured on trainings of this package with 14 chest phantoms, per voxel of a training image: cases
made ready for slice networks and fine-tunings take three bytes (image and labels, uncompressed);
nnU-Net takes one and a half for its copies and three for what it resamples (compressed), on its
coarser grid two. A checkpoint has the weights and two numbers per weight of the optimiser. Images
are taken to stay about as large when they are resampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm.benchmark.trainings import Training
from napari_lungfm.datasets.cases import CaseSource
from napari_lungfm.models.registry import model_card, trainable_cards

if TYPE_CHECKING:
    from napari_lungfm.training.automatic.config import AnyTraining
    from napari_lungfm.training.finetune.config import FineTuning

_PREPARED, _NNUNET, _NNUNET_LOWRES = 3.0, 4.5, 3.5
_FLOAT = 4
#: Weights and two moments.
_CHECKPOINT = 3
#: Bytes of a file per voxel: 16 bits, about half of them once compressed.
_PER_VOXEL, _PER_VOXEL_COMPRESSED = 2.0, 1.0
#: Parameters of the presets for demonstrations of nnU-Net.
_SMALL_NNUNET = 600_000


@dataclass(frozen=True)
class TrainingSize:
    """What a training takes on the disk, in bytes.

    Parameters
    ----------
    cases
        Cases made ready: prepared, or nnU-Net's copies and what it preprocesses.
    checkpoints
        To go on from, and of the best epoch where it is kept.
    weights
        The trained model.
    features
        What a frozen encoder makes of slices, at the most; removed when the training ends.
    """

    cases: int
    checkpoints: int
    weights: int
    features: int = 0

    @property
    def kept(self) -> int:
        """What stays when the training has ended."""
        return self.cases + self.checkpoints + self.weights


def training_size(training: Training, shape: Sequence[int] | None) -> TrainingSize:
    """Estimate what a training takes on the disk.

    Parameters
    ----------
    training
        The training.
    shape
        Of the cases of its cohort ``(z, y, x)``, where it says so; else the sizes of their files
        tell.
    """
    method = training.method
    config = method.training
    if config is None:
        return TrainingSize(0, 0, 0)
    voxels = sum(_voxels(source, shape) for source in training.cohort.train)
    weights = _FLOAT * _parameters(config, method.base, method.small)
    best = config.kind == "nnunet" or getattr(config, "keep", "last") == "best"
    recipe = getattr(config, "recipe", None)
    gigabytes = getattr(recipe, "feature_disk_gb", 0.0) if _frozen(recipe) else 0.0
    return TrainingSize(
        round(_per_voxel(config) * voxels),
        _CHECKPOINT * weights * (2 if best else 1),
        weights,
        round(gigabytes * 2**30),
    )


def _frozen(recipe: Any) -> bool:
    """Tell whether a recipe leaves the encoder as it is."""
    return recipe is not None and not getattr(recipe, "train_encoder", False)


def _per_voxel(config: "AnyTraining | FineTuning") -> float:
    if config.kind != "nnunet":
        return _PREPARED
    return _NNUNET_LOWRES if "lowres" in config.configuration else _NNUNET


def _voxels(source: CaseSource, shape: Sequence[int] | None) -> float:
    if shape is not None:
        z, y, x = shape
        return float(z * y * x)
    paths = source.inputs()
    if not paths:
        return 0.0
    image = paths[0]  # the reference comes after it
    files = [image] if image.is_file() else [each for each in image.rglob("*") if each.is_file()]
    return sum(_file_voxels(file) for file in files)


def _file_voxels(file: Path) -> float:
    compressed = file.suffix in (".gz", ".nrrd", ".mha")
    return file.stat().st_size / (_PER_VOXEL_COMPRESSED if compressed else _PER_VOXEL)


def _parameters(config: "AnyTraining | FineTuning", base: str | None, small: bool) -> int:
    if config.kind == "finetune":
        name = base or ""
    elif config.kind == "nnunet":
        if small:
            return _SMALL_NNUNET
        name = config.architecture
    else:
        name = config.network.architecture
    trainable = {card.name: card.parameters for card in trainable_cards()}
    try:
        known = trainable.get(name) or model_card(name).parameters
    except LungFMError:  # a folder that is gone, say
        return 0
    channels = getattr(getattr(config, "network", None), "channels", None)
    # Nearly all weights of a U-Net are between its deepest levels; its card is of 1024 channels.
    return round(known * (max(channels) / 1024) ** 2) if channels else known
