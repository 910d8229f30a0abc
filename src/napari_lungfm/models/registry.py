"""The models by name. Looking up names and cards imports no model and no heavy library."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias, get_type_hints

from pydantic import TypeAdapter, ValidationError

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.imports import require
from napari_lungfm.models.cards import full_name
from napari_lungfm.models.catalogue import (
    checkpoint_card,
    checkpoint_names,
    is_ambiguous,
    resolve,
)
from napari_lungfm.models.devices import check_device_name
from napari_lungfm.models.protocols import PromptableModel
from napari_lungfm.models.weights import WeightStore

ModelKind: TypeAlias = Literal["prompt-only", "classical", "foundation"]


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


#: Family of the catalogue → what makes its models.
_FACTORIES: dict[str, str] = {
    "sam": "napari_lungfm.models.foundation.factory:sam_model",
    "sam2": "napari_lungfm.models.foundation.factory:sam2_model",
}

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
    """Return the names that `create_model` knows; foundation models need their weights too."""
    return (*_ENTRIES, *_foundation_names())


def model_card(name: str) -> ModelCard:
    """Return what is known of a model without loading it.

    Raises
    ------
    UsageError
        If there is no model of this name.
    """
    return _entry(name).card


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a name or an option that does not exist, without loading any weights.

    Raises
    ------
    UsageError
        If there is no model of this name, or it has no such option; for models without weights
        also if an option makes no sense.
    """
    entry = _entry(name)
    factory, checked = _factory(entry, options)
    if entry.card.kind != "foundation":
        factory(**dict(entry.fixed), **checked)


def check_weights(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a foundation model whose weights are not stored here, without loading them.

    Raises
    ------
    UsageError
        If there is no model of this name.
    WeightsNotFoundError
        If its weights are not here; the message says how to get them.
    """
    if _entry(name).card.kind == "foundation" and options.get("weights") is None:
        WeightStore().find(name)


def create_model(name: str, *, device: str = "auto", **options: Any) -> PromptableModel:
    """Make a promptable model, with its weights.

    Parameters
    ----------
    name
        One of `model_names`; weights of a foundation model may be named after a colon.
    device
        Where it runs; see `check_device`.
    **options
        Keyword arguments of the model, such as ``point_radius_mm`` of the prompt-only baselines.

    Raises
    ------
    UsageError
        If there is no model of this name, or it has no such option.
    LungFMError
        If the weights of a foundation model are missing or unusable.
    """
    check_device(name, device)
    entry = _entry(name)
    where = {"device": device} if entry.card.kind == "foundation" else {}
    factory, checked = _factory(entry, options)
    return factory(**dict(entry.fixed), **where, **checked)


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
    check_device_name(device)
    card = model_card(name)
    if device not in ("auto", "cpu") and card.kind in ("prompt-only", "classical"):
        msg = f"model '{name}' runs on the CPU only; leave --device out or give cpu"
        raise UsageError(msg)


def _factory(
    entry: _Entry, options: Mapping[str, Any]
) -> tuple[Callable[..., PromptableModel], dict[str, Any]]:
    """Import what makes a model, and check the names and types of the options."""
    module, _, attribute = entry.factory.partition(":")
    if entry.card.kind == "foundation":
        require("torch", purpose=f"model '{entry.card.name}'")
    factory: Callable[..., PromptableModel] = getattr(importlib.import_module(module), attribute)
    not_options = {*dict(entry.fixed), "device"}
    known = [name for name in inspect.signature(factory).parameters if name not in not_options]
    unknown = [option for option in options if option not in known]
    if unknown:
        listed = ", ".join(f"'{option}'" for option in known) or "none"
        msg = f"model '{entry.card.name}' has no option '{unknown[0]}'; its options: {listed}"
        raise UsageError(msg)
    hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    checked = {
        option: _checked(entry.card.name, option, value, hints[option])
        for option, value in options.items()
    }
    return factory, checked


def _checked(model: str, option: str, value: Any, hint: Any) -> Any:
    """Return the value of an option as its type; text from a command line may be a number."""
    try:
        if isinstance(value, bool) and hint in (int, float):  # pydantic would take it for 1
            raise TypeError
        return TypeAdapter(hint).validate_python(value)
    except (TypeError, ValidationError) as error:
        wanted = getattr(hint, "__name__", None) or str(hint)
        msg = f"option '{option}' of model '{model}' must be of type {wanted}, not {value!r}"
        raise UsageError(msg) from error


def _foundation_names() -> tuple[str, ...]:
    cards = (checkpoint_card(name) for name in checkpoint_names())
    return tuple(card.name for card in cards if card.runnable and card.family in _FACTORIES)


def _entry(name: str) -> _Entry:
    if name in _ENTRIES:
        return _ENTRIES[name]
    model = name.partition(":")[0]
    if model not in _foundation_names():
        _explain_unknown(name)
    card, variant = resolve(name)
    own = full_name(card.name, variant, card)
    return _Entry(
        ModelCard(own, "foundation", card.parameters, card.licence, card.summary),
        _FACTORIES[card.family],
        (("name", own),),
    )


def _explain_unknown(name: str) -> NoReturn:
    close = difflib.get_close_matches(name.lower(), model_names(), n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    msg = f"there is no model '{name}'; {hint}known: {', '.join(model_names())}"
    if name in checkpoint_names():
        msg = f"'{name}' is no promptable model that can be run here; see: models show {name}"
    elif is_ambiguous(name):
        resolve(name)  # raises, with both meanings explained
    raise UsageError(msg)
