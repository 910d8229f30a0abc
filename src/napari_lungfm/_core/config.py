"""Configurations that users write: plain values in, a checked model or one precise line out.

What is wrong is said in the words of YAML, with the nearest key there is.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from napari_lungfm._core.exceptions import ConfigError, InputFileError

ModelT = TypeVar("ModelT", bound=BaseModel)

#: Kind of a pydantic error → what to write instead.
_EXPECTED = {
    **dict.fromkeys(("tuple_type", "list_type"), "a list, such as [{value}]"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type"),
        "a mapping, such as {{key: value}}",
    ),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
}
#: Longest value that a message repeats.
_LONGEST = 60


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
        If they are not valid; the message names each wrong key, and the nearest one there is.
    """
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        problems = error.errors()
        found = dict.fromkeys(_explained(p, model) for p in problems if not _follows(p, problems))
        msg = f"{source}: {'; '.join(found)}"
        raise ConfigError(msg) from error


def _follows(problem: Any, problems: Iterable[Any]) -> bool:
    """Tell whether a list only seems too short because something in it is wrong."""
    way = problem["loc"]
    inside = (p for p in problems if p["loc"][: len(way)] == way and len(p["loc"]) > len(way))
    return problem["type"] == "too_short" and any(inside)


def _explained(problem: Any, model: type[BaseModel]) -> str:
    way, kind = tuple(problem["loc"]), str(problem["type"])
    place = _place(way, model)
    if kind == "extra_forbidden":
        return _unknown_key(way, model)
    if kind == "missing":
        return f"{place} is missing"
    return f"{place}: {_said(problem, kind)}" if place else _said(problem, kind)


def _said(problem: Any, kind: str) -> str:
    value = problem.get("input")
    details = problem.get("ctx") or {}
    if kind in _EXPECTED:
        plain = value if isinstance(value, int | float | str) else "..."
        return f"write {_EXPECTED[kind].format(value=plain)}, not {_shown(value)}"
    if kind == "too_short":
        return f"write {details.get('min_length', 1)} or more in the list"
    if kind == "literal_error":
        return f"write {details.get('expected')}, not {_shown(value)}"
    if kind == "union_tag_not_found":
        return f"say its {str(details.get('discriminator', 'kind')).strip(chr(39))}"
    if kind == "union_tag_invalid":
        which = str(details.get("discriminator", "kind")).strip("'")
        return f"there is no {which} '{details.get('tag')}', only {details.get('expected_tags')}"
    text = str(problem["msg"]).removeprefix("Value error, ")
    return text.replace("Input should be", "it must be")


def _shown(value: Any) -> str:
    """Write a value as YAML would: a mapping or list by its kind, the rest as it is."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"'{text[:_LONGEST]}'"


def _unknown_key(way: tuple[Any, ...], model: type[BaseModel]) -> str:
    *above, name = way
    where = _place(tuple(above), model)
    keys = sorted({key for each in _models_at(tuple(above), model) for key in each.model_fields})
    near = difflib.get_close_matches(str(name), keys, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"its keys: {', '.join(keys)}"
    return f"{where + ' has' if where else 'there is'} no key '{name}'; {hint}"


def _place(way: tuple[Any, ...], model: type[BaseModel]) -> str:
    """Write a place as it would be given to --set: without what only pydantic knows."""
    parts = []
    for number, part in enumerate(way):
        above = _models_at(way[:number], model)
        if (
            isinstance(part, int)
            or any(part in each.model_fields for each in above)
            or (number == len(way) - 1 and not any(part in _tags(each) for each in above))
        ):
            parts.append(str(part))
    kinds = ("[", "constrained-", "tuple", "function-")
    return ".".join(part for part in parts if not any(kind in part for kind in kinds))


def _models_at(way: Iterable[Any], model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return what can stand at a place."""
    found: list[type[BaseModel]] = [model]
    for part in way:
        if isinstance(part, int):
            continue
        fields = [each.model_fields[part] for each in found if part in each.model_fields]
        tagged = [each for each in found if part in _tags(each)]
        if fields:
            found = [each for field in fields for each in _models_in(field.annotation)]
        elif tagged:
            found = tagged
    return found


def _tags(model: type[BaseModel]) -> list[Any]:
    """Return what may tell a model from others in its place: fields of one possible value."""
    values = [
        get_args(field.annotation)
        for field in model.model_fields.values()
        if get_origin(field.annotation) is Literal
    ]
    return [value[0] for value in values if len(value) == 1]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [each for part in get_args(annotation) for each in _models_in(part)]
