"""Changes to a configuration on the command line, such as ``--set cohorts.0.n_test=4``."""

import copy
from collections.abc import Iterable
from typing import Any

import yaml

from napari_lungfm._core.exceptions import ConfigError


def apply_overrides(values: dict[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """Return plain values with changes made to them; what they mean is checked afterwards.

    Parameters
    ----------
    values
        As YAML gives them; they stay as they are.
    changes
        ``KEY=VALUE``, in order. The key is a path of names and places in lists (``0`` is the
        first, ``-1`` the last) with dots between; the value is YAML. The last name may be new, a
        place in a list must be there.

    Raises
    ------
    ConfigError
        If a change is not of this form, or leads nowhere; the message says at which step.
    """
    changed = copy.deepcopy(values)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not all(key.split(".")):
            msg = f"--set {change}: write KEY=VALUE, as in seeds=[0,1] or cohorts.0.n_test=4"
            raise ConfigError(msg)
        _put(changed, key, _value(text, change))
    return changed


def _value(text: str, change: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        msg = f"--set {change}: the value is not valid YAML ({' '.join(str(error).split())[:120]})"
        raise ConfigError(msg) from error


def _put(values: Any, key: str, value: Any) -> None:
    *way, last = key.split(".")
    place = values
    for number, step in enumerate(way):
        where = ".".join(way[:number]) or "the configuration"
        if isinstance(place, dict) and step not in place:
            place[step] = {}  # options of a method that has none yet
        place = place[_index(place, step, where, key)]
    where = ".".join(way) or "the configuration"
    place[_index(place, last, where, key)] = value


def _index(place: Any, step: str, where: str, key: str) -> Any:
    """Return a step as the key of a mapping or the place in a list."""
    if isinstance(place, dict):
        return step
    if not isinstance(place, list):
        msg = f"--set {key}: {where} is {place!r}, which has no '{step}' in it"
        raise ConfigError(msg)
    if not step.removeprefix("-").isdigit():
        msg = (
            f"--set {key}: {where} is a list; write a number (0 to {len(place) - 1}), not '{step}'"
        )
        raise ConfigError(msg)
    if not -len(place) <= int(step) < len(place):
        msg = f"--set {key}: {where} has {len(place)} entries (0 to {len(place) - 1}), no {step}"
        raise ConfigError(msg)
    return int(step)
