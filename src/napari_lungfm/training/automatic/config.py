"""The configuration of a training: YAML, unknown keys refused, shipped ones known by name."""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_lungfm._core.exceptions import ConfigError, InputFileError, LungFMError
from napari_lungfm._core.types import PathInput
from napari_lungfm.datasets.file_cohort import FileCohort
from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.geometry import Structure
from napari_lungfm.models.automatic.networks import NetworkSpec
from napari_lungfm.models.automatic.postprocessing import parse_steps
from napari_lungfm.models.automatic.slice_network import InputSpec
from napari_lungfm.training.fit import FitSettings

CohortSpec = Annotated[FileCohort | PhantomCohort, Field(discriminator="kind")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AllSlices(_Model):
    """Every slice of every training case once per epoch, in random order."""

    kind: Literal["all"] = "all"


class ForegroundSlices(_Model):
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


class OptimiserSpec(_Model):
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


class AutomaticTraining(_Model):
    """Everything that decides the training of a U-Net or DeepLabV3.

    Parameters
    ----------
    name
        What the trained model is called in tables.
    summary
        One line on what the configuration is for.
    small
        A preset for demonstrations: what it trains says nothing about the architecture.
    network, inputs
        The network and what it sees.
    structures
        What it learns; every training case must have all of them.
    missing_lungs
        What to do with cases whose reference has no lungs: refuse them, or complete them by
        ``lungmask`` (as the paper did) or ``lungs-classical``.
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
    postprocessing
        Names of `POSTPROCESSING` that the trained model applies.
    cohort
        The cases; may be given on the command line instead.
    """

    schema_version: Literal[1] = 1
    kind: Literal["automatic"] = "automatic"
    name: Annotated[str, Field(min_length=1)]
    summary: str = ""
    small: bool = False
    network: NetworkSpec
    inputs: InputSpec = InputSpec()
    structures: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(s.title for s in Structure)
    missing_lungs: Literal["refuse", "lungmask", "lungs-classical"] = "refuse"
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    sampling: Annotated[AllSlices | ForegroundSlices, Field(discriminator="kind")] = AllSlices()
    augmentation: Literal["none", "standard"] = "none"
    loss: Literal["cross-entropy", "dice-cross-entropy"] = "cross-entropy"
    optimiser: OptimiserSpec = OptimiserSpec()
    batch_size: Count = 8
    workers: Annotated[int, Field(ge=0)] | None = None
    fit: FitSettings
    keep: Literal["last", "best"] = "last"
    postprocessing: tuple[str, ...] = ()
    cohort: CohortSpec | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        try:
            twice = len(self.targets) != len(set(self.targets))
            parse_steps(self.postprocessing)
        except LungFMError as error:
            raise ValueError(str(error)) from error
        if twice:
            msg = "structures: one is listed twice"
            raise ValueError(msg)
        if self.network.architecture == "deeplabv3":
            if self.inputs.channels not in (1, 3):
                msg = "inputs.neighbours: DeepLabV3 takes 0 or 1, its networks have 3 channels"
                raise ValueError(msg)
            if self.batch_size < 2:
                msg = "batch_size: DeepLabV3 has batch normalisation and needs 2 or more"
                raise ValueError(msg)
        if self.validation == 0 and (self.keep == "best" or self.fit.early_stopping):
            msg = "keep: best and early stopping need validation cases; set validation above 0"
            raise ValueError(msg)
        return self

    @property
    def targets(self) -> tuple[Structure, ...]:
        """The structures in the order of the classes."""
        return tuple(Structure.from_title(title) for title in self.structures)

    def decided_by(self) -> dict[str, Any]:
        """Return what decides the result, in plain values; titles and workers do not."""
        values = self.model_dump(mode="json", exclude={"summary", "workers", "fit", "cohort"})
        return {"configuration": values}

    def to_yaml(self) -> str:
        """Return the configuration as YAML, defaults spelled out."""
        values = self.model_dump(mode="json", exclude_none=True)
        text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        return text


@cache
def shipped_configs() -> dict[str, str]:
    """Return the name and YAML text of every configuration that comes with the package."""
    folder = resources.files("napari_lungfm.training.automatic") / "configs"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def load_training(source: PathInput, cohort: PathInput | None = None) -> AutomaticTraining:
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
    name = str(source)
    shipped = shipped_configs()
    if Path(source).is_file():
        values = read_yaml(Path(source))
    elif name in shipped:
        values = yaml.safe_load(shipped[name])
    else:
        msg = f"there is no configuration '{name}': neither a file nor one of {', '.join(shipped)}"
        raise InputFileError(msg)
    if cohort is not None:
        values["cohort"] = read_cohort(Path(cohort))
    return parse_training(values, where=f"'{name}'")


def parse_training(
    values: dict[str, Any], *, where: str = "the configuration"
) -> AutomaticTraining:
    """Check plain values and return the configuration.

    Raises
    ------
    ConfigError
        If they are not valid.
    """
    try:
        return AutomaticTraining.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors())
        msg = f"{where}: {problems}"
        raise ConfigError(msg) from error


def read_cohort(path: Path) -> Any:
    """Return the plain values of the cohort in a YAML file.

    Raises
    ------
    InputFileError
        If the file cannot be read.
    ConfigError
        If there is not just one cohort in it.
    """
    values = read_yaml(path)
    if "kind" in values:
        return values
    cohorts = values.get("cohorts")
    if isinstance(cohorts, list) and len(cohorts) == 1:
        return cohorts[0]
    count = len(cohorts) if isinstance(cohorts, list) else 0
    msg = f"'{path}' has {count} cohorts; a training needs one: a mapping with kind, name, cases"
    raise ConfigError(msg)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises
    ------
    InputFileError
        If it cannot be read.
    ConfigError
        If it holds something else.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        msg = f"'{path}' cannot be read: {reason}"
        raise InputFileError(msg) from error
    except yaml.YAMLError as error:
        msg = f"'{path}' is not valid YAML: {' '.join(str(error).split())}"
        raise ConfigError(msg) from error
    if not isinstance(values, dict):
        msg = f"'{path}' holds no mapping; see docs/automatic.md"
        raise ConfigError(msg)
    return values


def _explain(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    text = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {text}" if place else text
