"""The methods of a benchmark: promptable models with protocols, automatic ones, and trainings."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm.benchmark.options import check_model_options, check_training_options
from napari_lungfm.benchmark.records import shown_title
from napari_lungfm.benchmark.states import fine_tuned_state
from napari_lungfm.benchmark.weights import weight_hashes
from napari_lungfm.datasets.names import Seed
from napari_lungfm.evaluation.prompt_protocols import (
    NO_PROMPTS,
    automatic_prompts,
    parse_protocol,
)
from napari_lungfm.geometry import Structure
from napari_lungfm.models.automatic.trained import TrainedModel, is_trained_model
from napari_lungfm.models.foundation.finetuned import fine_tuned_settings, is_fine_tuned
from napari_lungfm.models.registry import (
    automatic_names,
    is_automatic,
    model_card,
    model_names,
    trained_model,
)

if TYPE_CHECKING:  # torch comes with the networks that they describe
    from napari_lungfm.training.automatic.config import AnyTraining
    from napari_lungfm.training.finetune.config import FineTuning

#: A part of the training patients, above 0 to 1.
Fraction: TypeAlias = Annotated[float, Field(gt=0, le=1)]

_LUNGS = (Structure.LEFT_LUNG, Structure.RIGHT_LUNG)


class MethodSpec(BaseModel):
    """A method as the configuration writes it.

    Parameters
    ----------
    model
        A model of the registry, or the folder of a trained one.
    train
        In its place: a training's configuration, shipped or a file. The model is trained before
        any unit is run, on the training part of every cohort that it is scored on.
    trained_on
        With `train`: the one cohort to train on, whatever it is scored on.
    settings
        With `train`: keys of the training's configuration, in place of what stands there.
    prompts, fraction, seeds
        With a fine-tuning: what it is prompted with while it is trained; the part or parts of the
        training patients, each of which makes a method; the seeds of its fits. By default as its
        configuration says. The seed of a fit is also that of the prompts that it is scored with.
    protocols
        Prompt protocols of a promptable model; automatic ones have none.
    options
        Keyword arguments of the model.
    label
        Name in tables, where a model appears with several option sets.
    cohorts
        The cohorts that it is scored on; all of them if ``None``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    train: str | None = None
    trained_on: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    prompts: Literal["box", "point", "mixed"] | None = None
    fraction: Fraction | Annotated[tuple[Fraction, ...], Field(min_length=1)] | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None
    protocols: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)
    label: str | None = None
    cohorts: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.model is None) == (self.train is None):
            msg = "a method needs either a model or a configuration to train"
            raise ValueError(msg)
        of_trainings = ("trained_on", "settings", "prompts", "fraction", "seeds")
        given = [key for key in of_trainings if getattr(self, key)]
        if given and self.train is None:
            msg = f"{given[0]}: '{self.model}' is not trained here; it goes with train"
            raise ValueError(msg)
        for key, values in (("fraction", self.fractions), ("seeds", self.seeds or ())):
            if len(set(values)) < len(values):
                msg = f"{key}: {', '.join(f'{value:g}' for value in values)} has one of them twice"
                raise ValueError(msg)
        return self

    @property
    def fractions(self) -> tuple[float, ...]:
        """The parts of the training patients; none where the training's configuration says it."""
        given = self.fraction
        return given if isinstance(given, tuple) else () if given is None else (given,)


@dataclass(frozen=True)
class Method:
    """A method that was looked up.

    Parameters
    ----------
    spec
        What the configuration says.
    model
        The name of the model in records.
    runs
        What the registry makes it from: a name or a folder; ``None`` until it is trained.
    automatic
        It needs no prompts.
    structures
        What an automatic method finds.
    small
        It is trained with a preset for demonstrations.
    description
        Of a trained model.
    training
        Of a model that is still to be trained.
    problem
        Why its training failed.
    percent
        Of a fine-tuned model: how many of the training patients it saw.
    seeds
        The seed of its fit, where the configuration lists such seeds: units are done with it, in
        place of the seeds of the run.
    base
        What a fine-tuning that is still to be done begins with: a model's name or a folder.
    earlier
        What is known of that, where it was trained here.
    """

    spec: MethodSpec
    model: str
    runs: str | None
    automatic: bool
    structures: tuple[Structure, ...] = ()
    small: bool = False
    description: TrainedModel | None = None
    training: "AnyTraining | FineTuning | None" = field(default=None, compare=False)
    problem: str | None = None
    percent: float | None = None
    seeds: tuple[int, ...] = ()
    base: str | None = None
    earlier: TrainedModel | None = None

    @property
    def state(self) -> str:
        """`UnitKey.state`."""
        if self.percent is not None:
            return fine_tuned_state(self.percent) if self.percent > 0 else "zero-shot"
        if self.small:
            return "small"
        return "trained" if self.description is not None or self.training else "zero-shot"

    @property
    def name(self) -> str:
        """The name by which the configuration knows it; every fit has its own."""
        name = self.spec.label or self.model
        if self.spec.train is None or self.percent is None:
            return name
        fit = "".join(f", seed {seed}" for seed in self.seeds)
        return f"{name} ({self.state}{fit})"

    @property
    def title(self) -> str:
        """Name in tables; the fits of one method share it."""
        return shown_title(self.spec.label or self.model, self.state)

    @property
    def prompt_only(self) -> bool:
        """It answers with the shape of the prompt and never looks at the image."""
        known = self.runs in model_names()
        return known and model_card(str(self.runs)).kind == "prompt-only"

    @cached_property
    def weights(self) -> dict[str, str]:
        """File or model → sha256, `weight_hashes`: what decides its masks beside its options."""
        return {} if self.runs is None else weight_hashes(self.runs, self.spec.options)

    @property
    def protocols(self) -> tuple[str, ...]:
        """Its prompt protocols; ``none`` for automatic methods."""
        return (NO_PROMPTS,) if self.automatic else self.spec.protocols

    def takes(self, cohort: str) -> bool:
        """Tell whether it is scored on a cohort."""
        return self.spec.cohorts is None or cohort in self.spec.cohorts

    def after_training(self, folder: Path, description: TrainedModel) -> "Method":
        """Return the method with its model."""
        return replace(self, runs=str(folder), description=description, training=None)


def look_up_methods(
    specs: Sequence[MethodSpec],
    base: Path,
    *,
    cohorts: Sequence[str],
    targets: Sequence[Structure],
) -> tuple[Method, ...]:
    """Look up the models of a configuration, without loading any of them.

    Parameters
    ----------
    specs
        The methods.
    base
        Folder that relative paths count from.
    cohorts
        Names of all cohorts.
    targets
        The structures that the run is about.

    Raises
    ------
    LungFMError
        If a model, an option, a protocol, a cohort or a training does not exist, two methods
        have one name, or a method cannot be scored on any structure.
    """
    methods = tuple(method for spec in specs for method in _look_up(spec, base))
    _refuse_one_name(methods)
    automatic = {method.name for method in methods if method.automatic}
    for method in methods:
        _check_cohorts(method, cohorts)
        _check_protocols(method, automatic)
        if method.automatic and not set(method.structures) & set(targets):
            finds = ", ".join(s.title for s in method.structures) or "nothing that can be scored"
            wanted = ", ".join(s.title for s in targets)
            msg = f"method '{method.name}' finds {finds}; the run is about: {wanted} (structures)"
            raise ConfigError(msg)
    return methods


def _look_up(spec: MethodSpec, base: Path) -> tuple[Method, ...]:
    if spec.train is not None:
        return _to_train(spec, spec.train, base)
    name = str(spec.model)
    known = name in model_names() or is_automatic(name)
    if not known and is_trained_model(base / name):
        name = str((base / name).resolve())
    check_model_options(name, spec.options)
    description = trained_model(name)
    if description is None:
        automatic = is_automatic(name)
        lobes = spec.options.get("lobes") is True  # they are no structures of ours
        finds = _LUNGS if automatic and not lobes else ()
        return (Method(spec, name, name, automatic=automatic, structures=finds),)
    if is_fine_tuned(description):
        return (_fine_tuned(spec, name, description),)
    return (
        Method(
            spec,
            # A folder's place says nothing of the model, and differs between machines.
            name if name.partition(":")[0] in automatic_names() else description.title,
            name,
            automatic=True,
            structures=tuple(Structure(value) for value in description.structures),
            small=description.small,
            description=description,
        ),
    )


def _fine_tuned(spec: MethodSpec, name: str, description: TrainedModel) -> Method:
    """Look up a model that was fine-tuned before; in tables it stands beside its base."""
    settings = fine_tuned_settings(description, where=f"'{name}'")
    return Method(
        spec,
        settings.base.name if settings.recipe else description.title,
        name,
        automatic=False,
        description=description,
        percent=settings.fraction if settings.recipe else 0.0,
    )


def _to_train(spec: MethodSpec, source: str, base: Path) -> tuple[Method, ...]:
    from napari_lungfm.benchmark.to_train import fits_of, is_fine_tuning, read_training  # noqa: PLC0415

    file = str(base / source) if (base / source).is_file() else source
    if is_fine_tuning(file):
        fits = fits_of(spec, file, base)
        check_training_options(fits[0].training, spec.options)
        return tuple(
            Method(
                spec,
                fit.model,
                None,
                automatic=False,
                training=fit.training,
                percent=fit.training.fraction,
                seeds=(fit.training.seed,) if spec.seeds else (),
                base=fit.base,
                earlier=fit.earlier,
            )
            for fit in fits
        )
    training = read_training(spec, file)
    check_training_options(training, spec.options)
    method = Method(
        spec,
        training.name,
        None,
        automatic=True,
        structures=training.targets,
        small=training.small,
        training=training,
    )
    return (method,)


def _refuse_one_name(methods: Sequence[Method]) -> None:
    # Fits of one method (parts of the patients, seeds) are listed once.
    listed = dict.fromkeys(
        (id(m.spec), f"{m.title} under {p}") for m in methods for p in m.protocols
    )
    rows = [row for _, row in listed]
    twice = sorted({row for row in rows if rows.count(row) > 1})
    if twice:
        msg = (
            f"these are listed more than once as method: {', '.join(twice)}; give them a label each"
        )
        raise ConfigError(msg)
    # Prompts are drawn from an automatic method by its name.
    both = {m.name for m in methods if m.automatic} & {m.name for m in methods if not m.automatic}
    if both:
        msg = f"'{min(both)}' is the name of an automatic and of a promptable method; label one"
        raise ConfigError(msg)


def _check_cohorts(method: Method, cohorts: Sequence[str]) -> None:
    named = [*(method.spec.cohorts or ()), *filter(None, [method.spec.trained_on])]
    for cohort in named:
        if cohort not in cohorts:
            msg = (
                f"method '{method.name}': there is no cohort '{cohort}', only {', '.join(cohorts)}"
            )
            raise ConfigError(msg)
    if method.spec.cohorts == ():
        msg = f"method '{method.name}' is scored on no cohort; leave cohorts out for all of them"
        raise ConfigError(msg)


def _check_protocols(method: Method, automatic: set[str]) -> None:
    given = method.spec.protocols
    if method.automatic:
        if given not in ((), (NO_PROMPTS,)):
            msg = (
                f"'{method.name}' is an automatic model and takes no prompts: leave its protocols "
                f"out, or write {NO_PROMPTS}"
            )
            raise ConfigError(msg)
        return
    if not given:
        msg = f"'{method.name}' is a promptable model: list the prompt protocols (protocols)"
        raise ConfigError(msg)
    for name in given:
        by = parse_protocol(name).prompted_by
        if by is not None and by not in automatic:
            listed = ", ".join(sorted(automatic)) or "none"
            msg = f"'{name}': '{by}' is no automatic method of this configuration; there: {listed}"
            raise ConfigError(msg)


def recorded_protocol(name: str, methods: Sequence[Method]) -> str:
    """Return a protocol as records name it: an automatic method in it with its title in tables."""
    parts = automatic_prompts(name)
    if parts is None:
        return name
    title = next(m.title for m in methods if m.automatic and m.name == parts[1])
    return f"{parts[0]}:{title}"
