"""Prompts and options as they are written on the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from napari_lungfm._core.exceptions import PromptError, UsageError
from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.models.prompts import Box, Click, Prompt, Stop
from napari_lungfm.models.world import box_from_world, click_from_world, stop_from_world


def parse_prompts(
    boxes: Sequence[str],
    clicks: Sequence[str],
    stops: Sequence[str],
    geometry: VolumeGeometry,
    *,
    millimetres: bool,
) -> tuple[Prompt, ...]:
    """Turn the values of ``--box``, ``--click`` and ``--stop`` into prompts.

    Parameters
    ----------
    boxes
        ``Z,Y0,X0,Y1,X1`` each.
    clicks
        ``Z,Y,X,+`` or ``Z,Y,X,-`` each.
    stops
        ``Z`` each.
    geometry
        Grid of the image.
    millimetres
        Read the numbers as LPS millimetres instead of voxel indices.

    Raises
    ------
    PromptError
        If one cannot be understood.
    """
    prompts: list[Prompt] = []
    prompts += [_box(text, geometry, millimetres) for text in boxes]
    prompts += [_click(text, geometry, millimetres) for text in clicks]
    prompts += [_stop(text, geometry, millimetres) for text in stops]
    return tuple(prompts)


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn ``key=value`` pairs into options; values are read as YAML scalars.

    Raises
    ------
    UsageError
        If one has no equals sign, its value cannot be read, or it is the device.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            msg = f"the option '{pair}' is not of the form key=value"
            raise UsageError(msg)
        if key.strip() == "device":
            msg = f"the device is no option of a model; give --device {value} instead"
            raise UsageError(msg)
        try:
            options[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            msg = f"the value of the option '{pair}' cannot be read"
            raise UsageError(msg) from error
    return options


def folder_of_first(*sources: str | Path | None) -> Path:
    """Return the folder of the first source that is a file, which relative paths count from.

    Where none is (names of what ships with the package), that is the working folder.
    """
    file = next((Path(s) for s in sources if s and Path(s).is_file()), None)
    return file.resolve().parent if file is not None else Path.cwd()


def _box(text: str, geometry: VolumeGeometry, millimetres: bool) -> Box:
    values = _numbers(text, 5, "--box", "Z,Y0,X0,Y1,X1")
    if millimetres:
        z, y0, x0, y1, x1 = values
        return box_from_world(geometry, (x0, y0, z), (x1, y1, z))
    return Box(*_whole(values, "--box", text))


def _click(text: str, geometry: VolumeGeometry, millimetres: bool) -> Click:
    place, _, sign = text.strip().rpartition(",")
    if sign.strip() not in ("+", "-"):
        msg = f"--click '{text}' must end in ,+ (on the object) or ,- (beside it)"
        raise PromptError(msg)
    values = _numbers(place, 3, "--click", "Z,Y,X,+ or Z,Y,X,-")
    positive = sign.strip() == "+"
    if millimetres:
        z, y, x = values
        return click_from_world(geometry, (x, y, z), positive=positive)
    zi, yi, xi = _whole(values, "--click", text)
    return Click(zi, yi, xi, positive)


def _stop(text: str, geometry: VolumeGeometry, millimetres: bool) -> Stop:
    values = _numbers(text, 1, "--stop", "Z")
    if millimetres:
        return stop_from_world(geometry, values[0])
    return Stop(_whole(values, "--stop", text)[0])


def _numbers(text: str, count: int, option: str, form: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(abs(v) < 1e9 for v in values):
        msg = f"{option} '{text}' is not of the form {form}"
        raise PromptError(msg)
    return values


def _whole(values: Sequence[float], option: str, text: str) -> list[int]:
    if any(v != int(v) for v in values):
        msg = f"{option} '{text}' must be whole voxel indices; for millimetres add --mm"
        raise PromptError(msg)
    return [int(v) for v in values]
