"""The models by name. Looking up names and cards imports no model and no heavy library."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NoReturn,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import TypeAdapter, ValidationError

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.imports import require
from napari_lungfm.models.automatic.protocol import AutomaticModel
from napari_lungfm.models.automatic.published import FUSED, is_published, needed_weights
from napari_lungfm.models.automatic.store import TrainedStore
from napari_lungfm.models.automatic.trained import (
    TrainedModel,
    is_trained_model,
    read_description,
)
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

ModelKind: TypeAlias = Literal["prompt-only", "classical", "foundation", "automatic"]


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
    on_device: bool = False  # runs on torch and takes a device


#: Family of the catalogue → what makes its models.
_FACTORIES: dict[str, str] = {
    "sam": "napari_lungfm.models.foundation.factory:sam_model",
    "sam2": "napari_lungfm.models.foundation.factory:sam2_model",
}
#: The same for models that need no prompts.
_AUTOMATIC_FACTORIES: dict[str, str] = {
    "lungmask": "napari_lungfm.models.automatic.lungmask_model:lungmask_model",
}
#: `TrainedModel.family` of fine-tuned promptable models → what loads its folder.
_FINE_TUNED_FACTORIES: dict[str, str] = {
    f"finetuned-{network}": f"napari_lungfm.models.foundation.finetuned:finetuned_{network}"
    for network in ("sam", "sam2", "lungfm")
}
#: The name that fine-tuned promptable models go by once they are imported.
_FINE_TUNED = ModelCard(
    "finetuned", "foundation", 0, "as its base", "a promptable model, fine-tuned by you"
)
#: `TrainedModel.family` → what loads its folder.
_TRAINED_FACTORIES: dict[str, str] = {
    "slice-network": "napari_lungfm.models.automatic.loading:load_slice_network",
    "nnunet": "napari_lungfm.models.automatic.nnunet_model:load_nnunet",
}
#: What can be trained: card by the name that its trained models go by. Parameters are those of
#: the paper's configuration, of nnU-Net those of its usual plans; a trained model has its own.
_TRAINABLE = {
    card.name: card
    for card in (
        ModelCard("unet", "automatic", 31_030_788, "unstated", "U-Net on slices, trained by you"),
        ModelCard(
            "deeplabv3", "automatic", 58_626_628, "unstated", "DeepLabV3 on slices, trained by you"
        ),
        ModelCard("nnunet-2d", "automatic", 46_328_604, "unstated", "nnU-Net v2, trained by you"),
        ModelCard(
            "nnunet-3d-lowres",
            "automatic",
            31_197_204,
            "unstated",
            "nnU-Net v2 on a coarser grid, trained by you",
        ),
        ModelCard(
            "nnunet-3d-fullres", "automatic", 31_197_204, "unstated", "nnU-Net v2, trained by you"
        ),
    )
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
        _Entry(
            ModelCard(
                "lungfm-s",
                "foundation",
                4_417_187,
                "BSD-3-Clause",
                "our own small promptable network; its weights come with the package",
            ),
            "napari_lungfm.models.lungfm.model:LungFMModel",
            on_device=True,
        ),
    )
}
_LUNGS = _Entry(
    ModelCard(
        "lungs-classical",
        "automatic",
        0,
        "BSD-3-Clause",
        "left and right lung by thresholds and components; the fallback of lungmask",
    ),
    "napari_lungfm.models.automatic.classical_lungs:ClassicalLungs",
)


def model_names() -> tuple[str, ...]:
    """Return the names that `create_model` knows; foundation models need their weights too."""
    return (*_ENTRIES, *_foundation_names())


def brings_weights(name: str) -> bool:
    """Tell whether a promptable model runs as it is installed, with no weights to get first."""
    return name in _ENTRIES


def automatic_names() -> tuple[str, ...]:
    """Return the names that `create_automatic_model` knows, beside folders of trained models."""
    return (*_published_automatic(), _LUNGS.card.name, *_TRAINABLE)


def fine_tuned_names() -> tuple[str, ...]:
    """Return the names of the fine-tuned promptable models that were imported here."""
    return TrainedStore().names(_FINE_TUNED.name)


def trainable_cards() -> tuple[ModelCard, ...]:
    """Return the cards of what can be trained; each trained model has a card of its own."""
    return (*_TRAINABLE.values(), _FINE_TUNED)


def is_automatic(name: str) -> bool:
    """Tell whether a name is an automatic model's, or the folder of one that was trained."""
    if name.partition(":")[0] in automatic_names():
        return True
    return is_trained_model(name) and read_description(name).architecture != _FINE_TUNED.name


def model_card(name: str) -> ModelCard:
    """Return what is known of a model without loading it.

    Raises
    ------
    UsageError
        If there is no model of this name.
    """
    return _entry(name).card


def trained_model(name: str) -> TrainedModel | None:
    """Return the description of a trained model; ``None`` for models of other kinds.

    What it says of the patients that the model has seen is for the benchmark to heed:
    `TrainedModel.refuse_seen`.

    Parameters
    ----------
    name
        A folder, or a name such as ``unet:task06``.

    Raises
    ------
    WeightsNotFoundError
        If no model of this name was trained or imported here.
    WeightsError
        If its description is damaged.
    """
    folder = _trained_folder(name)
    return None if folder is None else read_description(folder)


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
    if not entry.on_device:
        factory(**dict(entry.fixed), **checked)


def check_trained_options(family: str, title: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a trained model has not, of one that need not be there yet.

    Parameters
    ----------
    family
        Of its description; see `TrainedModel`.
    title
        What messages call it.
    options
        Its options.

    Raises
    ------
    UsageError
        If it has no such option, or a value is out of bounds.
    """
    card = ModelCard(title, "automatic", 0, "", "")
    factory = {**_TRAINED_FACTORIES, **_FINE_TUNED_FACTORIES}[family]
    fixed = (
        (("folder", ""), ("name", title)) if family in _FINE_TUNED_FACTORIES else (("folder", ""),)
    )
    _factory(_Entry(card, factory, fixed, on_device=True), options)


def check_weights(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a model whose weights are not stored here, without loading them.

    lungmask is refused too, unless its fallback is asked for by ``fallback=True`` and it is a
    published one: a table must not show one method under the name of another.

    Raises
    ------
    UsageError
        If there is no model of this name.
    WeightsNotFoundError
        If its weights are not here; the message says how to get them.
    """
    if trained_model(name) is not None:
        return
    entry = _entry(name)
    if not entry.on_device or brings_weights(name) or options.get("weights") is not None:
        return
    if options.get("fallback") is not True or not is_published(name):
        for each in needed_weights(name):
            WeightStore().find(each)


def create_model(name: str, /, *, device: str = "auto", **options: Any) -> PromptableModel:
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
        If there is no model of this name, it needs no prompts, or it has no such option.
    LungFMError
        If the weights of a foundation model are missing or unusable.
    """
    if is_automatic(name):
        msg = f"'{name}' is an automatic model: it takes no prompts and cannot be prompted"
        raise UsageError(msg)
    model: PromptableModel = _create(name, device, options)
    return model


def create_automatic_model(name: str, /, *, device: str = "auto", **options: Any) -> AutomaticModel:
    """Make an automatic model, with its weights.

    Parameters
    ----------
    name
        One of `automatic_names`, with a variant or label after a colon, or the folder of a
        trained model.
    device
        Where it runs; see `check_device`.
    **options
        Keyword arguments of the model, such as ``postprocessing`` of trained ones.

    Raises
    ------
    UsageError
        If there is no model of this name, it needs prompts, or it has no such option.
    LungFMError
        If its weights are missing or unusable.
    """
    promptable = name in (*model_names(), *checkpoint_names()) or trained_model(name) is not None
    if not is_automatic(name) and promptable:
        msg = f"'{name}' is a promptable model: it needs boxes or clicks"
        raise UsageError(msg)
    model: AutomaticModel = _create(name, device, options)
    return model


def check_device(name: str, device: str) -> None:
    """Refuse a device that does not exist, or that a model cannot use.

    Parameters
    ----------
    name
        One of `model_names` or `automatic_names`.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:0"`` and so on, or ``"mps"``.

    Raises
    ------
    UsageError
        If there is no such kind of device, or the model runs on the CPU only.
    """
    check_device_name(device)
    if device not in ("auto", "cpu") and not _entry(name).on_device:
        msg = f"model '{name}' runs on the CPU only; leave --device out or give cpu"
        raise UsageError(msg)


def _create(name: str, device: str, options: Mapping[str, Any]) -> Any:
    check_device(name, device)
    entry = _entry(name)
    where = {"device": device} if entry.on_device else {}
    factory, checked = _factory(entry, options)
    return factory(**dict(entry.fixed), **where, **checked)


def _factory(
    entry: _Entry, options: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Import what makes a model, and check the names and types of the options."""
    module, _, attribute = entry.factory.partition(":")
    if entry.on_device:
        require("torch", purpose=f"model '{entry.card.name}'")
    factory: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    not_options = {*dict(entry.fixed), "device"}
    known = [name for name in inspect.signature(factory).parameters if name not in not_options]
    unknown = [option for option in options if option not in known]
    if unknown:
        listed = ", ".join(f"'{option}'" for option in known) or "none"
        msg = f"model '{entry.card.name}' has no option '{unknown[0]}'; its options: {listed}"
        raise UsageError(msg)
    maker = factory.__init__ if inspect.isclass(factory) else factory
    hints = get_type_hints(maker, include_extras=True)  # bounds are among them
    checked = {
        option: _checked(entry.card.name, option, value, hints[option])
        for option, value in options.items()
    }
    return factory, checked


def _checked(model: str, option: str, value: Any, hint: Any) -> Any:
    """Return the value of an option as its type; text from a command line may be a number."""
    try:
        kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if isinstance(value, bool) and kind in (int, float):  # pydantic would take it for 1
            raise TypeError
        return TypeAdapter(hint).validate_python(value)
    except (TypeError, ValidationError) as error:
        msg = f"option '{option}' of model '{model}' must be {_in_words(hint)}, not {value!r}"
        raise UsageError(msg) from error


def _in_words(hint: Any) -> str:
    """Return what a type allows, as a user would say it."""
    if get_origin(hint) is Annotated:
        kind, *bounds = get_args(hint)
        return " ".join([_in_words(kind), *_bounds_in_words(bounds)])
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(str(value) for value in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        kinds = (kind for kind in get_args(hint) if kind is not type(None))
        return " or ".join(_in_words(kind) for kind in kinds)
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return words.get(hint) or f"of type {getattr(hint, '__name__', hint)}"


def _bounds_in_words(bounds: Sequence[Any]) -> list[str]:
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    limits = [limit for bound in bounds for limit in getattr(bound, "metadata", ())]
    found = [f"{w} {getattr(m, k):g}" for m in limits for k, w in words.items() if hasattr(m, k)]
    return [" and ".join(found)] if found else []


def _foundation_names() -> tuple[str, ...]:
    cards = (checkpoint_card(name) for name in checkpoint_names())
    return tuple(card.name for card in cards if card.runnable and card.family in _FACTORIES)


def _published_automatic() -> tuple[str, ...]:
    cards = (checkpoint_card(name) for name in checkpoint_names())
    return tuple(card.name for card in cards if card.family in _AUTOMATIC_FACTORIES)


def _variants() -> tuple[str, ...]:
    """Names of all variants of the models that can be run, with the model before the colon."""
    cards = (checkpoint_card(name) for name in (*_foundation_names(), *_published_automatic()))
    own = [f"{card.name}:{variant}" for card in cards for variant in card.variants]
    return (*own, *(f"{name}:{FUSED}" for name in _published_automatic()))


def _trained_folder(name: str) -> Path | None:
    """Folder of a trained model that a name or path stands for."""
    if name.partition(":")[0] in (*_TRAINABLE, _FINE_TUNED.name):
        return TrainedStore().find(name)
    return Path(name) if is_trained_model(name) else None


def _entry(name: str) -> _Entry:
    if name in _ENTRIES:
        return _ENTRIES[name]
    if name == _LUNGS.card.name:
        return _LUNGS
    folder = _trained_folder(name)
    if folder is not None:
        description = read_description(folder)
        if description.family in _FINE_TUNED_FACTORIES:
            return _fine_tuned_entry(name, folder, description)
        return _trained_entry(folder, description)
    model = name.partition(":")[0]
    if model not in (*_foundation_names(), *_published_automatic()):
        _explain_unknown(name)
    card, variant = resolve(name)
    own = full_name(card.name, variant, card)
    automatic = card.family in _AUTOMATIC_FACTORIES
    kind: ModelKind = "automatic" if automatic else "foundation"
    factories = _AUTOMATIC_FACTORIES if automatic else _FACTORIES
    return _Entry(
        ModelCard(own, kind, card.parameters, card.licence, card.summary),
        factories[card.family],
        (("name", own),),
        on_device=True,
    )


def _trained_entry(folder: Path, description: TrainedModel) -> _Entry:
    if description.family not in _TRAINED_FACTORIES:
        msg = f"'{folder}' is of the family '{description.family}', which cannot be run here"
        raise UsageError(msg)
    card = ModelCard(
        description.title,
        "automatic",
        description.parameters,
        "unstated",
        f"{description.architecture} trained on {description.cohort}",
    )
    factory = _TRAINED_FACTORIES[description.family]
    return _Entry(card, factory, (("folder", str(folder)),), on_device=True)


def _fine_tuned_entry(name: str, folder: Path, description: TrainedModel) -> _Entry:
    base = description.settings.get("base", {})
    card = ModelCard(
        description.title,
        "foundation",
        description.parameters,
        str(base.get("licence", "unstated")),
        f"{base.get('name', 'a network')} fine-tuned on {description.cohort or 'nothing'}",
    )
    factory = _FINE_TUNED_FACTORIES[description.family]
    # Logs of sessions are replayed by the model's name: it has to lead here again.
    own = name if name.partition(":")[0] == _FINE_TUNED.name else str(folder.resolve())
    return _Entry(card, factory, (("folder", str(folder)), ("name", own)), on_device=True)


def _explain_unknown(name: str) -> NoReturn:
    known = (*model_names(), *automatic_names())
    close = difflib.get_close_matches(name.lower(), known, n=1)
    # What a file is called by its publisher, without the model that it is of.
    own = [full for full in _variants() if full.partition(":")[2].lower() == name.lower()]
    meant = next(iter((*own, *close)), None)
    hint = f"did you mean '{meant}'? " if meant is not None else ""
    msg = (
        f"there is no model '{name}'; {hint}known: {', '.join(known)}, or a trained model's folder"
    )
    if name in checkpoint_names():
        msg = f"'{name}' is no model that can be run here; see: models show {name}"
    elif is_ambiguous(name):
        resolve(name)  # raises, with both meanings explained
    elif Path(name).is_dir():
        read_description(name)  # raises: the folder is no trained model
    raise UsageError(msg)
