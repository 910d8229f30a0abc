"""The benchmark's configuration: which cohorts, methods and seeds.

A YAML file; unknown keys are refused, so that a misspelt option never passes in silence.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from napari_lungfm._core.config import parse_model, read_yaml
from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm._core.types import PathInput
from napari_lungfm.benchmark.cohorts.cohort_file import COHORT_FILE, read_cohort
from napari_lungfm.benchmark.methods import Method, MethodSpec, look_up_methods
from napari_lungfm.datasets.file_cohort import FileCohort
from napari_lungfm.datasets.names import Seed
from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.geometry import Structure


def _read_prepared(values: Any, info: ValidationInfo) -> Any:
    """Put a prepared cohort's list of cases in place of ``kind: prepared``."""
    if not isinstance(values, dict) or values.get("kind") != "prepared":
        return values
    unknown = sorted(set(values) - {"kind", "name", "title", "root"})
    if unknown:
        msg = f"a prepared cohort has name, title and root, but no '{unknown[0]}'"
        raise ValueError(msg)
    root = (
        Path((info.context or {}).get("base", Path()))
        / Path(str(values.get("root", values.get("name", "")))).expanduser()
    )
    if not (root / COHORT_FILE).is_file():
        msg = (
            f"there is no prepared cohort in '{root}' (no {COHORT_FILE}); make it with datasets "
            "prepare, or say where it is: its root, or --data for the folder of all"
        )
        raise ValueError(msg)
    try:
        cohort = read_cohort(root)
    except LungFMError as error:
        raise ValueError(str(error)) from error
    given = {key: values[key] for key in ("name", "title") if key in values}
    return cohort.model_dump(exclude_unset=True) | {"kind": "files"} | given


#: ``kind: prepared`` is read from the folder that `datasets prepare` leaves, as ``kind: files``.
CohortSpec = Annotated[
    Annotated[FileCohort | PhantomCohort, Field(discriminator="kind")],
    BeforeValidator(_read_prepared),
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BenchmarkConfig(_Model):
    """Everything that decides what a run computes.

    With ``count_macs`` the first case of a cohort is done twice under every method and protocol,
    the second time to count multiply-accumulates, which slows networks down and is not timed.
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    structures: Annotated[tuple[str, ...], Field(min_length=1)] = ("tumour",)
    cohorts: Annotated[tuple[CohortSpec, ...], Field(min_length=1)]
    methods: Annotated[tuple[MethodSpec, ...], Field(min_length=1)]
    count_macs: bool = True

    @model_validator(mode="after")
    def _names_exist(self, info: ValidationInfo) -> Self:
        try:
            for title in self.structures:
                Structure.from_title(title)
            self.look_up((info.context or {}).get("base", Path()))
        except LungFMError as error:
            raise ValueError(str(error)) from error
        _refuse_twice("seed", [str(seed) for seed in self.seeds])
        _refuse_twice("structure", [structure.title for structure in self.targets])
        _refuse_twice("cohort", [cohort.name for cohort in self.cohorts])
        return self

    @property
    def targets(self) -> tuple[Structure, ...]:
        """The structures to segment and score."""
        return tuple(Structure.from_title(title) for title in self.structures)

    def look_up(self, base: Path) -> tuple[Method, ...]:
        """Look up the methods; see `look_up_methods`.

        Parameters
        ----------
        base
            Folder that relative paths in the configuration count from.

        Raises
        ------
        LungFMError
            If one cannot be used.
        """
        names = [cohort.name for cohort in self.cohorts]
        return look_up_methods(self.methods, base, cohorts=names, targets=self.targets)

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
    return parse_config(read_yaml(file), source=str(file), base=file.resolve().parent)


def parse_config(
    values: dict[str, Any], *, source: str = "the configuration", base: Path | None = None
) -> BenchmarkConfig:
    """Check plain values and return the configuration.

    Parameters
    ----------
    values
        As YAML gives them.
    source
        What messages call them.
    base
        Folder that relative paths of models and trainings count from; this one by default.

    Raises
    ------
    ConfigError
        If they are not valid.
    """
    return parse_model(BenchmarkConfig, values, source, context={"base": base or Path()})


def _refuse_twice(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"these are listed more than once as {what}: {', '.join(twice)}"
        raise ValueError(msg)
