"""The configuration of a training: YAML, unknown keys refused, shipped ones known by name."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

import yaml
from pydantic import Field, model_validator

from napari_lungfm._core.config import parse_model, read_yaml
from napari_lungfm._core.exceptions import ConfigError, InputFileError
from napari_lungfm._core.types import PathInput
from napari_lungfm.datasets.file_cohort import FileCohort
from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.models.automatic.networks import NetworkSpec
from napari_lungfm.models.automatic.slice_network import InputSpec
from napari_lungfm.training.automatic.nnunet.config import NNUNetTraining
from napari_lungfm.training.automatic.settings import (
    Count,
    Fraction,
    Positive,
    StrictModel,
    TrainingSettings,
)
from napari_lungfm.training.fit.settings import FitSettings


class AllSlices(StrictModel):
    """Every slice of every training case once per epoch, in random order."""

    kind: Literal["all"] = "all"


class ForegroundSlices(StrictModel):
    """Slices drawn so that tumours are not rare, cases equally often whatever their size.

    Parameters
    ----------
    slices_per_epoch
        Slices in an epoch.
    tumour
        Part of the slices that is drawn from those with tumour, and cut out around it.
    lungs
        Part that is drawn from those with lung. The rest comes from anywhere.
    """

    kind: Literal["foreground"] = "foreground"
    slices_per_epoch: Count
    tumour: Fraction = 0.5
    lungs: Fraction = 0.3

    @model_validator(mode="after")
    def _parts_of_one(self) -> Self:
        if self.tumour + self.lungs > 1:
            msg = f"tumour {self.tumour:g} and lungs {self.lungs:g} are more than all slices"
            raise ValueError(msg)
        return self


class OptimiserSpec(StrictModel):
    """How weights are changed.

    Parameters
    ----------
    name
        ``"adam"`` or ``"adamw"``.
    learning_rate, weight_decay
        Of the optimiser.
    schedule
        ``"constant"``, or ``"cosine"``: down to zero at the end.
    warm_up
        Steps until the full learning rate.
    """

    name: Literal["adam", "adamw"] = "adam"
    learning_rate: Positive = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warm_up: Annotated[int, Field(ge=0)] = 0


class AutomaticTraining(TrainingSettings):
    """Everything that decides the training of a U-Net or DeepLabV3, beside `TrainingSettings`.

    Parameters
    ----------
    network, inputs
        The network and what it sees.
    validation
        Part of the training patients that is set aside to watch the training and, with
        ``keep: best``, to choose the weights.
    sampling, augmentation, loss, optimiser
        How it learns. ``augmentation: standard`` turns, scales, shifts, blurs and adds noise; it
        never mirrors, for left and right lung are different structures.
    batch_size
        Slices of a step, of all devices together.
    workers
        Processes that prepare slices; ``None``: as many as the machine has cores to spare.
    fit
        Epochs, seed, precision, ...
    keep
        Which weights become the model: of the last epoch, or the best on validation cases.
    """

    kind: Literal["automatic"] = "automatic"
    network: NetworkSpec
    inputs: InputSpec = InputSpec()
    sampling: Annotated[AllSlices | ForegroundSlices, Field(discriminator="kind")] = AllSlices()
    augmentation: Literal["none", "standard"] = "none"
    loss: Literal["cross-entropy", "dice-cross-entropy"] = "cross-entropy"
    optimiser: OptimiserSpec = OptimiserSpec()
    batch_size: Count = 8
    workers: Annotated[int, Field(ge=0)] | None = None
    fit: FitSettings
    keep: Literal["last", "best"] = "last"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.network.architecture == "deeplabv3":
            if self.inputs.channels not in (1, 3):
                msg = "inputs.neighbours: DeepLabV3 takes 0 or 1, its networks have 3 channels"
                raise ValueError(msg)
            if self.batch_size < 2 * self.fit.devices:
                msg = (
                    "batch_size: DeepLabV3 has batch normalisation and needs 2 or more on every "
                    "device"
                )
                raise ValueError(msg)
        if self.validation == 0 and (self.keep == "best" or self.fit.early_stopping):
            msg = "keep: best and early stopping need validation cases; set validation above 0"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _batches_come_out(self) -> Self:
        devices = self.fit.devices
        if self.batch_size % devices:
            msg = (
                f"batch_size: {self.batch_size} cannot be shared out among fit.devices: "
                f"{devices}; take a multiple of {devices}"
            )
            raise ValueError(msg)
        if isinstance(self.sampling, ForegroundSlices):
            refuse_few_slices(self.sampling.slices_per_epoch, self.batch_size)
        return self


def refuse_few_slices(slices: int, batch_size: int) -> None:
    """Refuse an epoch that is no batch.

    Raises
    ------
    ValueError
        If it has fewer slices.
    """
    if slices < batch_size:
        msg = (
            f"the training has {slices} slices an epoch, fewer than a batch of {batch_size}; take "
            "a smaller batch_size"
        )
        raise ValueError(msg)


#: A training of any kind of automatic model.
AnyTraining: TypeAlias = AutomaticTraining | NNUNetTraining
_KINDS: dict[str, type[AutomaticTraining] | type[NNUNetTraining]] = {
    "automatic": AutomaticTraining,
    "nnunet": NNUNetTraining,
}
_COHORTS: dict[str, type[FileCohort] | type[PhantomCohort]] = {
    "files": FileCohort,
    "phantom": PhantomCohort,
}


@cache
def shipped_configs() -> dict[str, str]:
    """Return the name and YAML text of every configuration that comes with the package."""
    folder = resources.files("napari_lungfm.training.automatic") / "configs"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def load_training(source: PathInput, cohort: PathInput | None = None) -> AnyTraining:
    """Read a configuration.

    Parameters
    ----------
    source
        A YAML file, or the name of a shipped configuration.
    cohort
        A YAML file with a cohort, in place of the configuration's own: a mapping with ``kind``,
        or a benchmark's configuration with one cohort.

    Raises
    ------
    InputFileError
        If a file cannot be read.
    ConfigError
        If it is not valid; the message names each wrong key.
    """
    name = source if Path(source).is_file() else shipped_name(source)
    values = read_source(name, shipped_configs(), cohort, what="configuration")
    return parse_training(values, where=f"'{name}'")


def shipped_name(name: PathInput) -> str:
    """Return the name of a shipped configuration as it is written, if it is another word for one.

    Models are called nnunet-3d-lowres, nnU-Net's configurations 3d_lowres: both are understood.
    """
    return str(name).replace("nnunet-3d-", "nnunet-3d_")


def read_source(
    source: PathInput, shipped: Mapping[str, str], cohort: PathInput | None, *, what: str
) -> dict[str, Any]:
    """Return the plain values of a configuration.

    Parameters
    ----------
    source
        A YAML file, or the name of a shipped configuration.
    shipped
        Name → text of those.
    cohort
        A YAML file with a cohort, in place of the configuration's own; see `read_cohort`.
    what
        What the message calls it.

    Raises
    ------
    InputFileError
        If there is neither, or a file cannot be read.
    ConfigError
        If a file is not valid YAML.
    """
    if Path(source).is_file():
        values = read_yaml(Path(source))
    elif str(source) in shipped:
        values = yaml.safe_load(shipped[str(source)])
    else:
        msg = f"there is no {what} '{source}': neither a file nor one of {', '.join(shipped)}"
        raise InputFileError(msg)
    if cohort is not None:
        values["cohort"] = read_cohort(Path(cohort))
    return values


def parse_training(values: dict[str, Any], *, where: str = "the configuration") -> AnyTraining:
    """Check plain values and return the configuration; its ``kind`` says of what.

    Raises
    ------
    ConfigError
        If they are not valid.
    """
    kind = values.get("kind", "automatic")
    if kind not in _KINDS:
        msg = f"{where}: kind: there is no training '{kind}'; choose from {', '.join(_KINDS)}"
        raise ConfigError(msg)
    return parse_model(_KINDS[kind], values, where)


def read_cohort(path: Path) -> Any:
    """Return the plain values of the cohort in a YAML file.

    Raises
    ------
    InputFileError
        If the file cannot be read.
    ConfigError
        If there is not just one cohort in it, or it is not valid.
    """
    values = read_yaml(path)
    if "kind" in values:
        return _checked_cohort(values, path)
    cohorts = values.get("cohorts")
    if isinstance(cohorts, list) and len(cohorts) == 1:
        return _checked_cohort(cohorts[0], path)
    count = len(cohorts) if isinstance(cohorts, list) else 0
    msg = f"'{path}' has {count} cohorts; a training needs one: a mapping with kind, name, cases"
    raise ConfigError(msg)


def _checked_cohort(values: Any, path: Path) -> Any:
    """Refuse what is wrong in a file of its own under the name of that file."""
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in _COHORTS:
        msg = f"'{path}': kind: there is no cohort '{kind}' to train on; choose from "
        raise ConfigError(msg + ", ".join(_COHORTS))
    parse_model(_COHORTS[kind], values, f"'{path}'")
    return values
