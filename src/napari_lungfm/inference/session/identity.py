"""Which image and which model a log belongs to."""

import hashlib
import inspect
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np

from napari_lungfm._core.exceptions import LungFMWarning, UsageError
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference.session.errors import SessionFileError, SessionMismatchError
from napari_lungfm.models.protocols import PromptableModel
from napari_lungfm.preprocessing.windowing import Window

_TOLD_APART = {"name", "weights", "weight_hash", "window", "precision", "device", "batch_size"}
#: Options that say where something lies, not what it is.
_PLACES = {"weights"}
_MISSING = object()


def hash_voxels(volume: Volume) -> str:
    """Return a hash of the voxel values (32 hexadecimal digits), whatever their dtype.

    Values count as float32, which holds all HU exactly, so that the same image read as int16 and
    as float32 is one image.
    """
    mark = hashlib.blake2b(digest_size=16)
    for plane in volume.array:  # plane by plane: a turned volume is not contiguous
        values = np.ascontiguousarray(plane, dtype="<f4")
        mark.update((values + np.float32(0.0)).data)  # -0.0 becomes 0.0
    return mark.hexdigest()


def describe_image(volume: Volume) -> dict[str, Any]:
    """Return what identifies an image: shape and grid, hash of the voxels."""
    return {**volume.geometry.to_dict(), "hash": hash_voxels(volume)}


def describe_model(model: PromptableModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies a model.

    Parameters
    ----------
    model
        The model; its ``weight_hash``, its ``window`` and its precision count if it has them.
    options
        What it was made with, in values that JSON knows.

    Raises
    ------
    UsageError
        If JSON does not know an option.
    """
    window = getattr(model, "window", None)
    weights = getattr(model, "weight_hash", None)
    return {
        "name": model.name,
        "weights": None if weights is None else str(weights),
        "window": [window.level, window.width] if isinstance(window, Window) else None,
        "options": _plain_options(options),
        "settings": settings_of(model),
        "precision": precision_of(model),
    }


def settings_of(model: PromptableModel) -> dict[str, Any]:
    """Return what a model says of the options that it works with, defaults included.

    These are the parameters that it is made with and shows as attributes of the same name, with a
    plain value (text, number, truth value, ``None``) or a frozen dataclass of such values.
    Weights, window and precision are told apart; the device and how many slices go through it at
    once make no difference that anyone chooses.
    """
    settings: dict[str, Any] = {}
    for key in inspect.signature(type(model)).parameters.keys() - _TOLD_APART:
        value = getattr(model, key, _MISSING)
        if value is None or isinstance(value, bool | int | float | str):
            settings[key] = value
        elif is_dataclass(value) and not isinstance(value, type) and _is_frozen(value):
            settings[key] = asdict(value)
    # In order, as they come back from a log; JSON has no infinities.
    text = json.dumps(settings, default=str, sort_keys=True)
    return dict(json.loads(text, parse_constant=str))


def _is_frozen(value: Any) -> bool:
    return bool(value.__dataclass_params__.frozen)


def precision_of(model: PromptableModel) -> str | None:
    """Return the precision that a model computes with now, if it says so."""
    runtime = getattr(model, "runtime", None)
    precision = getattr(model, "precision", getattr(runtime, "precision", None))
    return precision if isinstance(precision, str) else None


def signature_of(model: PromptableModel) -> dict[str, Any]:
    """Return what every line of a log says of the model: name, hash of the weights, window.

    Also its precision if it has one: a model that leaves a GPU for want of memory changes it.
    """
    facts = describe_model(model, {})
    signature = {"model": facts["name"], "weights": facts["weights"], "window": facts["window"]}
    if facts["precision"] is not None:
        signature["precision"] = facts["precision"]
    return signature


def _plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(dict(options), allow_nan=False)))
    except (TypeError, ValueError) as error:
        msg = f"the options of the model cannot be written to the log ({error})"
        raise UsageError(msg) from error


def check_image(recorded: Mapping[str, Any], volume: Volume) -> None:
    """Refuse an image that is not the recorded one.

    Raises
    ------
    SessionMismatchError
        If grid or voxels differ.
    """
    try:
        geometry = VolumeGeometry.from_dict(recorded)
        voxels = str(recorded["hash"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        msg = f"line 1 of the log does not describe an image ({error})"
        raise SessionFileError(msg) from error
    difference = geometry.difference(volume.geometry)
    if difference is not None:
        msg = f"the log belongs to another image: {difference}"
        raise SessionMismatchError(msg)
    found = hash_voxels(volume)
    if found != voxels:
        msg = (
            f"the log belongs to another image: the grid is the same, but the voxels are not "
            f"(hash {voxels[:8]}… in the log, {found[:8]}… here)"
        )
        raise SessionMismatchError(msg)


def check_model(
    recorded: Mapping[str, Any],
    model: PromptableModel,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a model that is not the recorded one, or works otherwise.

    Parameters
    ----------
    recorded
        What the log says of its model.
    model
        The model that is there.
    options
        What it was made with, if known; what is missing on either side is not compared.

    Raises
    ------
    SessionMismatchError
        If name, weights, window or an option differ; the message names both.

    Warns
    -----
    LungFMWarning
        If only the precision of the computation differs: on a GPU or not.
    """
    found = describe_model(model, options or {})
    for key, title in (("name", "model"), ("weights", "weights"), ("window", "window")):
        if recorded.get(key) != found[key]:
            msg = (
                f"the log was made with the {title} {_shown(recorded.get(key))}, but this is "
                f"{_shown(found[key])} of model '{found['name']}'; use the same, or ask for a "
                "replay with another model"
            )
            raise SessionMismatchError(msg)
    for kind in ("settings", "options"):
        _check_options(recorded.get(kind), found[kind], str(found["name"]))
    before, now = recorded.get("precision"), found["precision"]
    if before is not None and now is not None and before != now:
        warnings.warn(
            f"the log was made in {before}, but model '{model.name}' computes in {now} here: what "
            "it is asked from here on may differ in single voxels",
            LungFMWarning,
            stacklevel=2,
        )


def same_options(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether options are the same; where weights lie is none, their hash says what they are.

    Parameters
    ----------
    one, other
        What models were made with.
    """
    keys = (one.keys() | other.keys()) - _PLACES
    return all(key in one and key in other and one[key] == other[key] for key in keys)


def _check_options(recorded: Any, found: Mapping[str, Any], name: str) -> None:
    if not isinstance(recorded, Mapping):
        return
    for key in sorted((recorded.keys() & found.keys()) - _PLACES):
        if recorded[key] != found[key]:
            msg = (
                f"the log was made with the option {key} = {_shown(recorded[key])}, but model "
                f"'{name}' has {_shown(found[key])} here; use the same options, or ask for a "
                "replay with another model"
            )
            raise SessionMismatchError(msg)


def _shown(value: Any) -> str:
    return "none" if value is None else f"'{value}'" if isinstance(value, str) else str(value)
