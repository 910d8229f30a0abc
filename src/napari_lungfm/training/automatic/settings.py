"""What the configurations of all trainings of automatic models have in common."""

from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm.datasets.file_cohort import FileCohort
from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.geometry import Structure
from napari_lungfm.models.automatic.postprocessing import parse_steps
from napari_lungfm.training.values import Count, Fraction, Positive

__all__ = ["CohortSpec", "Count", "Fraction", "Positive", "StrictModel", "TrainingSettings"]

CohortSpec = Annotated[FileCohort | PhantomCohort, Field(discriminator="kind")]


class StrictModel(BaseModel):
    """A part of a configuration: unknown keys are refused, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingSettings(StrictModel):
    """What every training of an automatic model is told.

    Parameters
    ----------
    name
        What the trained model is called in tables.
    summary
        One line on what the configuration is for.
    small
        A preset for demonstrations: what it trains says nothing about the architecture.
    structures
        What it learns; every training case must have all of them.
    missing_lungs
        What to do with cases whose reference has no lungs: refuse them, or complete them by
        ``lungmask`` (as the paper did) or ``lungs-classical``.
    validation
        Part of the training patients that is set aside.
    postprocessing
        Names of `POSTPROCESSING` that the trained model applies.
    cohort
        The cases; may be given on the command line instead.
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1)]
    summary: str = ""
    small: bool = False
    structures: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(s.title for s in Structure)
    missing_lungs: Literal["refuse", "lungmask", "lungs-classical"] = "refuse"
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    postprocessing: tuple[str, ...] = ()
    cohort: CohortSpec | None = None

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        try:
            twice = len(self.targets) != len(set(self.targets))
            parse_steps(self.postprocessing)
        except LungFMError as error:
            raise ValueError(str(error)) from error
        if twice:
            msg = "structures: one is listed twice"
            raise ValueError(msg)
        no_lungs = not {Structure.LEFT_LUNG, Structure.RIGHT_LUNG} & set(self.targets)
        if no_lungs and "lung-constraint" in self.postprocessing:
            msg = "postprocessing: lung-constraint needs a lung among the structures"
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
