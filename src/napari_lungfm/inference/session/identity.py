"""Which image and which model a log belongs to."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference.session.errors import SessionFileError, SessionMismatchError
from napari_lungfm.models.protocols import PromptableModel
from napari_lungfm.preprocessing.windowing import Window


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
        The model; its ``weight_hash`` and its ``window`` count if it has them.
    options
        What it was made with, in values that JSON knows.
    """
    window = getattr(model, "window", None)
    weights = getattr(model, "weight_hash", None)
    return {
        "name": model.name,
        "weights": None if weights is None else str(weights),
        "window": [window.level, window.width] if isinstance(window, Window) else None,
        "options": dict(options),
    }


def signature_of(model: PromptableModel) -> dict[str, Any]:
    """Return what every line of a log says of the model: name, hash of the weights, window."""
    facts = describe_model(model, {})
    return {"model": facts["name"], "weights": facts["weights"], "window": facts["window"]}


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


def check_model(recorded: Mapping[str, Any], model: PromptableModel) -> None:
    """Refuse a model that is not the recorded one.

    Raises
    ------
    SessionMismatchError
        If name, weights or window differ; the message names both.
    """
    found = describe_model(model, {})
    for key, title in (("name", "model"), ("weights", "weights"), ("window", "window")):
        if recorded.get(key) != found[key]:
            msg = (
                f"the log was made with the {title} {_shown(recorded.get(key))}, but this is "
                f"{_shown(found[key])} of model '{found['name']}'; use the same, or ask for a "
                "replay with another model"
            )
            raise SessionMismatchError(msg)


def _shown(value: Any) -> str:
    return "none" if value is None else f"'{value}'" if isinstance(value, str) else str(value)
