"""Configurations that users write: plain values in, a checked model or one precise line out."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from napari_lungfm._core.exceptions import ConfigError, InputFileError

ModelT = TypeVar("ModelT", bound=BaseModel)


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
        msg = f"'{path}' holds no configuration: a mapping of keys to values is expected"
        raise ConfigError(msg)
    return values


def parse_model(model: type[ModelT], values: Any, source: str, *, context: Any = None) -> ModelT:
    """Check plain values and return them as a model.

    Parameters
    ----------
    model
        What the values have to be.
    values
        Values as YAML or JSON has them.
    source
        Where they come from, for the message.
    context
        What validators of the model are told, see `pydantic.ValidationInfo`.

    Raises
    ------
    ConfigError
        If they are not valid; the message names each wrong key.
    """
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        problems = "; ".join(_explained(problem) for problem in error.errors())
        msg = f"{source}: {problems}"
        raise ConfigError(msg) from error


def _explained(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    text = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {text}" if place else text
