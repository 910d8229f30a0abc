"""The methods of a benchmark: promptable models with protocols, automatic ones, and trainings."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm.benchmark.records import shown_title
from napari_lungfm.evaluation.prompt_protocols import (
    NO_PROMPTS,
    automatic_prompts,
    parse_protocol,
)
from napari_lungfm.geometry import Structure
from napari_lungfm.models.automatic.trained import TrainedModel, is_trained_model
from napari_lungfm.models.registry import (
    automatic_names,
    check_options,
    is_automatic,
    model_names,
    trained_model,
)

if TYPE_CHECKING:  # torch comes with the networks that it describes
    from napari_lungfm.training.automatic.config import AnyTraining

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
    protocols: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)
    label: str | None = None
    cohorts: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.model is None) == (self.train is None):
            msg = "a method needs either a model or a configuration to train"
            raise ValueError(msg)
        if self.trained_on is not None and self.train is None:
            msg = f"trained_on: '{self.model}' is not trained here; it goes with train"
            raise ValueError(msg)
        return self


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
    """

    spec: MethodSpec
    model: str
    runs: str | None
    automatic: bool
    structures: tuple[Structure, ...] = ()
    small: bool = False
    description: TrainedModel | None = None
    training: "AnyTraining | None" = field(default=None, compare=False)
    problem: str | None = None

    @property
    def state(self) -> str:
        """`UnitKey.state`."""
        if self.small:
            return "small"
        return "trained" if self.description is not None or self.training else "zero-shot"

    @property
    def name(self) -> str:
        """The name by which the configuration knows it."""
        return self.spec.label or self.model

    @property
    def title(self) -> str:
        """Name in tables."""
        return shown_title(self.name, self.state)

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
    methods = tuple(_look_up(spec, base) for spec in specs)
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


def _look_up(spec: MethodSpec, base: Path) -> Method:
    if spec.train is not None:
        return _to_train(spec, spec.train, base)
    name = str(spec.model)
    known = name in model_names() or is_automatic(name)
    if not known and is_trained_model(base / name):
        name = str((base / name).resolve())
    check_options(name, spec.options)
    description = trained_model(name)
    if not is_automatic(name):
        return Method(
            spec,
            description.title if description else name,
            name,
            automatic=False,
            small=bool(description and description.small),
            description=description,
        )
    if description is None:
        lobes = spec.options.get("lobes") is True  # they are no structures of ours
        return Method(spec, name, name, automatic=True, structures=() if lobes else _LUNGS)
    return Method(
        spec,
        # A folder's place says nothing of the model, and differs between machines.
        name if name.partition(":")[0] in automatic_names() else description.title,
        name,
        automatic=True,
        structures=tuple(Structure(value) for value in description.structures),
        small=description.small,
        description=description,
    )


def _to_train(spec: MethodSpec, source: str, base: Path) -> Method:
    from napari_lungfm.training.automatic.config import load_training  # noqa: PLC0415

    training = load_training(base / source if (base / source).is_file() else source)
    if training.cohort is not None:
        msg = f"the training '{source}' names a cohort; a benchmark trains on its own: leave it out"
        raise ConfigError(msg)
    return Method(
        spec,
        training.name,
        None,
        automatic=True,
        structures=training.targets,
        small=training.small,
        training=training,
    )


def _refuse_one_name(methods: Sequence[Method]) -> None:
    rows = [f"{m.name} under {p}" for m in methods for p in m.protocols]
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
