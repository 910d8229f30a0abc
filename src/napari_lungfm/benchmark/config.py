"""The benchmark's configuration: which cohorts, methods and seeds.

A YAML file; unknown keys are refused, so that a misspelt option never passes in silence.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_lungfm._core.exceptions import ConfigError, InputFileError, LungFMError
from napari_lungfm._core.types import PathInput
from napari_lungfm.datasets.file_cohort import FileCohort
from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.evaluation.prompt_protocols import parse_protocol
from napari_lungfm.geometry import Structure
from napari_lungfm.models.registry import check_options

CohortSpec = Annotated[FileCohort | PhantomCohort, Field(discriminator="kind")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MethodSpec(_Model):
    """A model with the prompt protocols to run it under.

    ``label`` names the method in tables, where a model appears with several option sets.
    """

    model: str
    protocols: Annotated[tuple[str, ...], Field(min_length=1)]
    options: dict[str, Any] = Field(default_factory=dict)
    label: str | None = None

    @property
    def title(self) -> str:
        """Name in tables."""
        return self.label or self.model


class BenchmarkConfig(_Model):
    """Everything that decides what a run computes."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1)]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    structures: Annotated[tuple[str, ...], Field(min_length=1)] = ("tumour",)
    cohorts: Annotated[tuple[CohortSpec, ...], Field(min_length=1)]
    methods: Annotated[tuple[MethodSpec, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        try:
            for title in self.structures:
                Structure.from_title(title)
            for method in self.methods:
                for protocol in method.protocols:
                    parse_protocol(protocol)
                check_options(method.model, method.options)
        except LungFMError as error:
            raise ValueError(str(error)) from error
        _refuse_twice("seed", [str(seed) for seed in self.seeds])
        _refuse_twice("structure", [structure.title for structure in self.targets])
        _refuse_twice("cohort", [cohort.name for cohort in self.cohorts])
        rows = [f"{m.title} under {p}" for m in self.methods for p in m.protocols]
        _refuse_twice("method", rows)
        return self

    @property
    def targets(self) -> tuple[Structure, ...]:
        """The structures to segment and score."""
        return tuple(Structure.from_title(title) for title in self.structures)

    def to_yaml(self) -> str:
        """Return the configuration as YAML, defaults spelled out."""
        values = self.model_dump(mode="json", exclude_none=True)
        text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        return text


def load_config(path: PathInput) -> BenchmarkConfig:
    """Read a configuration file.

    Raises
    ------
    InputFileError
        If the file cannot be read.
    ConfigError
        If it is not valid; the message names each wrong key.
    """
    file = Path(path)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        msg = f"the configuration '{file}' cannot be read: {reason}"
        raise InputFileError(msg) from error
    except yaml.YAMLError as error:
        msg = f"'{file}' is not valid YAML: {' '.join(str(error).split())}"
        raise ConfigError(msg) from error
    if not isinstance(values, dict):
        msg = f"'{file}' holds no configuration: a mapping with name, cohorts, methods is expected"
        raise ConfigError(msg)
    return parse_config(values, source=str(file))


def parse_config(values: dict[str, Any], *, source: str = "the configuration") -> BenchmarkConfig:
    """Check plain values and return the configuration.

    Raises
    ------
    ConfigError
        If they are not valid.
    """
    try:
        return BenchmarkConfig.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors())
        msg = f"{source}: {problems}"
        raise ConfigError(msg) from error


def _explain(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    text = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {text}" if place else text


def _refuse_twice(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"these are listed more than once as {what}: {', '.join(twice)}"
        raise ValueError(msg)
