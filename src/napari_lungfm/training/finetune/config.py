"""The configuration of a fine-tuning: YAML, unknown keys refused, shipped ones known by name."""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from napari_lungfm._core.config import parse_model, read_yaml
from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm._core.types import PathInput
from napari_lungfm.models.foundation.factory import parse_window
from napari_lungfm.training.automatic.config import read_source
from napari_lungfm.training.automatic.settings import StrictModel, TrainingSettings
from napari_lungfm.training.finetune.recipe import LungFMRecipe, MedSAMRecipe, ValidationPrompts
from napari_lungfm.training.finetune.sam2.config import MaRecipe, OursRecipe, ZhuRecipe
from napari_lungfm.training.fit.settings import FitSettings
from napari_lungfm.training.values import Count, WholeNumber

#: What the simulated user of a training gives; ``mixed`` draws one or the other.
PromptKind: TypeAlias = Literal["box", "point", "mixed"]
#: Prompts that are of one kind each.
PROMPT_KINDS: dict[PromptKind, tuple[Literal["box", "point"], ...]] = {
    "box": ("box",),
    "point": ("point",),
    "mixed": ("box", "point"),
}
AnyRecipe: TypeAlias = Annotated[
    MedSAMRecipe | LungFMRecipe | ZhuRecipe | MaRecipe | OursRecipe, Field(discriminator="name")
]


class FitOptions(StrictModel):
    """How the fit is run, beside epochs, seed and clipping; see `training.fit.FitSettings`."""

    devices: Count = 1
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    deterministic: bool = False
    validate_every: Count = 1
    checkpoint_every: Count = 1
    early_stopping: Count | None = None


class FineTuning(TrainingSettings):
    """Everything that decides a fine-tuning, beside `TrainingSettings`.

    Parameters
    ----------
    base
        What is fine-tuned: a name of the catalogue (``medsam``, ``medsam2-ma``, ...),
        ``lungfm-s``, or the folder of a model.
    recipe
        How: ``name`` is one of ``medsam``, ``zhu``, ``ma``, ``ours``, ``lungfm``, and the rest
        its options, by default its publisher's.
    prompts
        What the simulated user gives.
    window
        What the model sees, such as ``lung`` or ``-600/1500``; by default as the base does.
    fraction
        Percent of the training patients, above 1. The patients of a smaller part are among those
        of every larger one of the same seed. Zero percent is zero-shot: the base itself.
    seed
        Decides the part of the patients, the validation patients, and all draws.
    epochs
        In place of the recipe's.
    samples_per_epoch
        Samples in an epoch, in place of one for every case or slice; the same number for all
        fractions makes their costs equal.
    accumulate
        Batches whose gradients are summed up before the weights are changed.
    checkpoint_encoder
        Compute the activations of the image encoder twice rather than keep them: takes more
        time and far less memory.
    validation_clips
        Samples per validation patient and structure that are measured after every epoch; with
        mixed prompts each of them with a box and with a click.
    validation_prompts
        How validation patients are prompted once the training has ended; by default in the ways
        that the recipe trains.
    workers
        Processes that prepare samples; ``None``: as many as the machine has cores to spare.
    fit
        Devices, precision, ...
    keep
        Which weights become the model: of the last epoch, or the best on validation samples.
    """

    kind: Literal["finetune"] = "finetune"
    structures: Annotated[tuple[str, ...], Field(min_length=1)] = ("tumour",)
    base: Annotated[str, Field(min_length=1)]
    recipe: AnyRecipe
    prompts: PromptKind = "box"
    window: str | None = None
    fraction: Annotated[float, Field(ge=0, le=100)] = 100
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    seed: WholeNumber = 0
    epochs: Count | None = None
    samples_per_epoch: Count | None = None
    accumulate: Count = 1
    checkpoint_encoder: bool = False
    validation_clips: Count = 4
    validation_prompts: tuple[ValidationPrompts, ...] | None = None
    workers: WholeNumber | None = None
    fit: FitOptions = FitOptions()
    keep: Literal["last", "best"] = "last"

    @field_validator("recipe", mode="before")
    @classmethod
    def _recipe_has_options(cls, value: Any) -> Any:
        if isinstance(value, str):
            msg = f"write {{name: {value}}}"
            raise ValueError(msg)
        return value

    @field_validator("fraction")
    @classmethod
    def _something_is_trained(cls, value: float) -> float:
        if value == 0:
            msg = "0 % of the patients is zero-shot: nothing is trained, run the base itself"
            raise ValueError(msg)
        if value <= 1:
            msg = f"{value:g} is read as percent here; write {100 * value:g} for {100 * value:g} %"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.validation == 0 and (self.keep == "best" or self.fit.early_stopping):
            msg = "keep: best and early stopping need validation patients; set validation above 0"
            raise ValueError(msg)
        if self.postprocessing:
            msg = "postprocessing: promptable models have none; leave it out"
            raise ValueError(msg)
        try:
            _ = None if self.window is None else parse_window(self.window)
        except LungFMError as error:
            msg = f"window: {error}"
            raise ValueError(msg) from error
        return self

    @field_validator("validation_prompts")
    @classmethod
    def _each_way_once(
        cls, value: tuple[ValidationPrompts, ...] | None
    ) -> tuple[ValidationPrompts, ...] | None:
        if value is not None and len(set(value)) < len(value):
            msg = "write every-slice, one-slice or both, each once; [] measures nothing"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _everything_does_something(self) -> Self:
        recipe = self.recipe
        if (
            isinstance(recipe, MedSAMRecipe)
            and self.prompts == "point"
            and recipe.changed("jitter")
        ):
            msg = "recipe.jitter: moves the sides of boxes, and prompts are points; leave it out"
            raise ValueError(msg)
        if self.checkpoint_encoder and not recipe.trains_encoder:
            msg = (
                f"checkpoint_encoder: the recipe '{recipe.name}' has no trained encoder whose "
                "activations could be computed twice; leave it out"
            )
            raise ValueError(msg)
        if self.window is not None and recipe.networks == "lungfm":
            msg = "window: LungFM-S sees HU as they are and takes no window; leave it out"
            raise ValueError(msg)
        self.shares(self.fit.devices)
        return self

    def shares(self, devices: int) -> tuple[int, int]:
        """Return the samples of a batch on every device, and the batches of a step.

        A step has ``batch_size * accumulate`` samples, on however many devices.

        Raises
        ------
        ValueError
            If they cannot be shared out evenly.
        """
        batch, step = self.recipe.batch_size, self.recipe.batch_size * self.accumulate
        if step % devices:
            msg = (
                f"recipe.batch_size: {batch} samples"
                + (f" in each of {self.accumulate} batches" if self.accumulate > 1 else "")
                + f" cannot be shared out evenly among {devices} devices; change batch_size, "
                "accumulate or fit.devices"
            )
            raise ValueError(msg)
        own = step // devices
        most = -(-batch // devices)
        size = max(n for n in range(1, most + 1) if own % n == 0)
        return size, own // size

    @property
    def ways_to_validate(self) -> tuple[ValidationPrompts, ...]:
        """How validation patients are prompted once the training has ended."""
        chosen = self.validation_prompts
        return self.recipe.validated if chosen is None else chosen

    def fit_settings(self) -> FitSettings:
        """Return how the fit is run."""
        return FitSettings(
            epochs=self.epochs or self.recipe.epochs,
            seed=self.seed,
            clip_gradients=self.recipe.clip_gradients,
            **self.fit.model_dump(),
        )

    def decided_by(self) -> dict[str, Any]:
        """Return what decides the result, in plain values; titles, workers and room do not."""
        names = ("summary", "workers", "fit", "cohort", "validation_prompts")
        room = {"feature_mb", "feature_disk_gb"}
        left_out: Any = {**dict.fromkeys(names, True), "recipe": room}
        return {"configuration": self.model_dump(mode="json", exclude=left_out)}


@cache
def shipped_fine_tunings() -> dict[str, str]:
    """Return the name and YAML text of every configuration that comes with the package."""
    folder = resources.files("napari_lungfm.training.finetune") / "configs"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def is_fine_tuning(source: PathInput) -> bool:
    """Tell whether a configuration is a fine-tuning's: by its name, or by what its file says."""
    if not Path(source).is_file():
        return str(source) in shipped_fine_tunings()
    try:
        return read_yaml(Path(source)).get("kind") == "finetune"
    except LungFMError:
        return False  # whoever reads it says what is wrong


def load_fine_tuning(source: PathInput, cohort: PathInput | None = None) -> FineTuning:
    """Read a configuration.

    Parameters
    ----------
    source
        A YAML file, or the name of a shipped configuration.
    cohort
        A YAML file with a cohort, in place of the configuration's own; see `read_cohort`.

    Raises
    ------
    InputFileError
        If a file cannot be read.
    ConfigError
        If it is not valid; the message names each wrong key.
    """
    values = read_source(source, shipped_fine_tunings(), cohort, what="fine-tuning")
    return parse_fine_tuning(values, where=f"'{source}'")


def parse_fine_tuning(values: dict[str, Any], *, where: str = "the configuration") -> FineTuning:
    """Check plain values and return the configuration.

    Raises
    ------
    ConfigError
        If they are not valid.
    """
    return parse_model(FineTuning, values, where)
