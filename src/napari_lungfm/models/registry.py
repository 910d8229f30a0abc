"""The models by name. Looking up names and cards imports no model and no heavy library."""

import difflib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.models.protocols import PromptableModel

ModelKind: TypeAlias = Literal["prompt-only", "classical"]


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model before it is loaded.

    Parameters
    ----------
    name
        The name on the command line and in records.
    kind
        What sort of model it is.
    parameters
        Number of trained parameters.
    licence
        SPDX identifier of the licence of its weights, or of its code where it has no weights.
    summary
        One line on what it does.
    """

    name: str
    kind: ModelKind
    parameters: int
    licence: str
    summary: str


@dataclass(frozen=True)
class _Entry:
    card: ModelCard
    factory: str  # "module:callable", imported when a model is created
    fixed: tuple[tuple[str, str], ...] = ()  # options that make the name, not open to callers


#: Kinds of device that a model can be asked to run on.
DEVICES = ("auto", "cpu", "cuda", "mps")

_ENTRIES = {
    entry.card.name: entry
    for entry in (
        _Entry(
            ModelCard(
                "prompt-box", "prompt-only", 0, "BSD-3-Clause", "the filled box; never the image"
            ),
            "napari_lungfm.models.prompt_only:PromptOnlyModel",
            (("shape", "box"),),
        ),
        _Entry(
            ModelCard(
                "prompt-ellipse",
                "prompt-only",
                0,
                "BSD-3-Clause",
                "the ellipse inscribed in the box, the ellipsoid it spans; never the image",
            ),
            "napari_lungfm.models.prompt_only:PromptOnlyModel",
            (("shape", "ellipse"),),
        ),
        _Entry(
            ModelCard(
                "classical",
                "classical",
                0,
                "BSD-3-Clause",
                "random walker on a local intensity model; nothing trained",
            ),
            "napari_lungfm.models.classical:ClassicalModel",
        ),
    )
}


def model_names() -> tuple[str, ...]:
    """Return the names that `create_model` knows."""
    return tuple(_ENTRIES)


def model_card(name: str) -> ModelCard:
    """Return what is known of a model without loading it.

    Raises
    ------
    UsageError
        If there is no model of this name.
    """
    return _entry(name).card


def create_model(name: str, **options: Any) -> PromptableModel:
    """Make a promptable model.

    Parameters
    ----------
    name
        One of `model_names`.
    **options
        Keyword arguments of the model, such as ``point_radius_mm`` of the prompt-only baselines.

    Raises
    ------
    UsageError
        If there is no model of this name, or it has no such option.
    """
    entry = _entry(name)
    module, _, attribute = entry.factory.partition(":")
    factory: Callable[..., PromptableModel] = getattr(importlib.import_module(module), attribute)
    fixed = dict(entry.fixed)
    known = [option for option in inspect.signature(factory).parameters if option not in fixed]
    unknown = [option for option in options if option not in known]
    if unknown:
        listed = ", ".join(f"'{option}'" for option in known) or "none"
        msg = f"model '{name}' has no option '{unknown[0]}'; its options: {listed}"
        raise UsageError(msg)
    return factory(**fixed, **options)


def check_device(name: str, device: str) -> None:
    """Refuse a device that does not exist, or that a model cannot use.

    Parameters
    ----------
    name
        One of `model_names`.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:0"`` and so on, or ``"mps"``.

    Raises
    ------
    UsageError
        If there is no such kind of device, or the model runs on the CPU only.
    """
    kind = device.partition(":")[0]
    if kind not in DEVICES:
        msg = f"there is no device '{device}'; choose from {', '.join(DEVICES)}"
        raise UsageError(msg)
    card = model_card(name)
    if kind not in ("auto", "cpu") and card.kind in ("prompt-only", "classical"):
        msg = f"model '{name}' runs on the CPU only; leave --device out or give cpu"
        raise UsageError(msg)


def _entry(name: str) -> _Entry:
    if name in _ENTRIES:
        return _ENTRIES[name]
    close = difflib.get_close_matches(name.lower(), _ENTRIES, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    msg = f"there is no model '{name}'; {hint}known: {', '.join(_ENTRIES)}"
    raise UsageError(msg)
