"""The actions of a session, as values and as lines of the event log."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.models.prompts import (
    MaskPrompt,
    Prompt,
    from_dict,
    plain_prompt,
    to_dict,
    whole_number,
)

#: ``"up"`` goes to higher slice numbers, ``"down"`` to lower ones.
Direction: TypeAlias = Literal["both", "up", "down"]
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class AddObject:
    """A new object with a label value and a name."""

    label: int
    name: str


@dataclass(frozen=True)
class RenameObject:
    """An object gets another name."""

    label: int
    name: str


@dataclass(frozen=True)
class ColourObject:
    """An object gets a colour to be shown in, ``#rrggbb``."""

    label: int
    colour: str


@dataclass(frozen=True)
class LockObject:
    """An object is finished (``locked``), or open again."""

    label: int
    locked: bool


@dataclass(frozen=True)
class DeleteObject:
    """An object goes, with its prompts and masks."""

    label: int


@dataclass(frozen=True)
class AddPrompts:
    """An object gets prompts, each with the number that it is known by."""

    label: int
    prompts: tuple[tuple[int, Prompt], ...]


@dataclass(frozen=True)
class RemovePrompt:
    """An object loses a prompt."""

    label: int
    prompt_id: int


@dataclass(frozen=True)
class ReplacePrompt:
    """A prompt becomes another one, under the same number."""

    label: int
    prompt_id: int
    prompt: Prompt


@dataclass(frozen=True)
class EditSlices:
    """Several slices of an object are drawn by hand in one action.

    Each mask has the number that it is known by: that of the mask on its slice before, in whose
    place it comes, or a new one.
    """

    label: int
    prompts: tuple[tuple[int, Prompt], ...]


@dataclass(frozen=True)
class Propagate:
    """An object is carried through the slices.

    Parameters
    ----------
    label
        The object.
    direction
        Where to.
    until
        Last slice to visit, with one direction; ``None`` for the end of the object.
    max_extent_mm
        See `propagate_object`.
    steps
        Slices that were done before it was cancelled; ``None`` if it came to its end.
    """

    label: int
    direction: Direction = "both"
    until: int | None = None
    max_extent_mm: float | None = None
    steps: int | None = None


@dataclass(frozen=True)
class ClearStale:
    """The stale slices of an object go."""

    label: int


@dataclass(frozen=True)
class Undo:
    """The last action that still counts no longer does."""


@dataclass(frozen=True)
class Redo:
    """The action that was undone last counts again."""


#: What changes the objects of a session.
Change: TypeAlias = (
    AddObject
    | RenameObject
    | ColourObject
    | LockObject
    | DeleteObject
    | AddPrompts
    | RemovePrompt
    | ReplacePrompt
    | EditSlices
    | Propagate
    | ClearStale
)
#: What changes the prompts of an object, so that a model is asked.
Prompting: TypeAlias = AddPrompts | RemovePrompt | ReplacePrompt | EditSlices
ChangeT = TypeVar("ChangeT", bound=Change)
#: What a line of the log can be, but for the first.
Event: TypeAlias = Change | Undo | Redo

_ACTIONS: Mapping[type[Event], str] = {
    AddObject: "add-object",
    RenameObject: "rename",
    ColourObject: "colour",
    DeleteObject: "delete-object",
    ClearStale: "clear-stale",
    AddPrompts: "prompt",
    RemovePrompt: "remove-prompt",
    ReplacePrompt: "replace-prompt",
    EditSlices: "edit",
    Propagate: "propagate",
    Undo: "undo",
    Redo: "redo",
}


def event_to_dict(event: Event) -> dict[str, Any]:
    """Return an event as plain values for JSON; `event_from_dict` reads it back exactly."""
    facts: dict[str, Any] = {"action": _action_of(event)}
    if not isinstance(event, Undo | Redo):
        facts["object"] = event.label
    match event:
        case AddObject() | RenameObject():
            facts["name"] = event.name
        case ColourObject():
            facts["colour"] = event.colour
        case AddPrompts() | EditSlices():
            facts["prompts"] = [{"id": number, **to_dict(p)} for number, p in event.prompts]
        case RemovePrompt():
            facts["prompt"] = event.prompt_id
        case ReplacePrompt():
            facts |= {"prompt": event.prompt_id, "by": to_dict(event.prompt)}
        case Propagate():
            facts |= {
                "direction": event.direction,
                "until": event.until,
                "max_extent_mm": event.max_extent_mm,
                "cancelled_after": event.steps,
            }
    return facts


def event_from_dict(values: Mapping[str, Any]) -> Event:
    """Inverse of `event_to_dict`; other keys are passed over.

    Raises
    ------
    UsageError
        If the values are not those of an event.
    """
    action = values.get("action")
    if action in ("undo", "redo"):
        return Undo() if action == "undo" else Redo()
    try:
        event = _read(action, values["object"], values)
        if event is not None:
            return plain(event)
    except (KeyError, TypeError, ValueError) as error:
        msg = f"not a valid '{action}' event ({type(error).__name__}: {error})"
        raise UsageError(msg) from error
    msg = f"there is no action '{action}'"
    raise UsageError(msg)


def plain(event: ChangeT) -> ChangeT:
    """Return an event of plain checked values, which the log can hold and nobody else changes.

    Every action passes here before a model works on it, whether it comes from a caller or from a
    log. Whether it makes sense now is decided by `transitions.check`.

    Raises
    ------
    UsageError
        If a number is not whole or not finite, a name cannot be written, or there is no such
        direction or colour.
    PromptError
        If a prompt is none; see `plain_prompt`.
    """
    return cast("ChangeT", _plain(event))


def _plain(event: Change) -> Change:  # noqa: PLR0911
    label = whole_number(event.label, "the label of an object", UsageError)
    match event:
        case AddObject() | RenameObject():
            return replace(event, label=label, name=_plain_name(event.name))
        case ColourObject():
            return ColourObject(label, _plain_colour(event.colour))
        case LockObject():
            return LockObject(label, bool(event.locked))
        case AddPrompts() | EditSlices():
            prompts = tuple((_prompt_id(number), own_prompt(p)) for number, p in event.prompts)
            return replace(event, label=label, prompts=prompts)
        case RemovePrompt():
            return RemovePrompt(label, _prompt_id(event.prompt_id))
        case ReplacePrompt():
            return ReplacePrompt(label, _prompt_id(event.prompt_id), own_prompt(event.prompt))
        case Propagate():
            return _plain_walk(label, event)
        case _:
            return replace(event, label=label)


def _plain_walk(label: int, order: Propagate) -> Propagate:
    until, steps, limit = order.until, order.steps, order.max_extent_mm
    if order.direction not in get_args(Direction):
        known = ", ".join(get_args(Direction))
        msg = f"there is no direction {order.direction!r}; choose from {known}"
        raise UsageError(msg)
    if limit is not None:
        usable = isinstance(limit, Real) and not isinstance(limit, bool)
        if not usable or not math.isfinite(limit) or limit <= 0:
            msg = (
                f"the extent limit must be a positive number of mm, not {limit!r}; leave it out "
                "for no limit"
            )
            raise UsageError(msg)
    return Propagate(
        label,
        order.direction,
        None if until is None else whole_number(until, "the last slice", UsageError),
        None if limit is None else float(limit),
        None if steps is None else whole_number(steps, "the number of slices", UsageError),
    )


def _plain_name(name: str) -> str:
    try:
        if isinstance(name, str) and name.encode():
            return str(name)
    except UnicodeEncodeError as error:
        msg = f"the name {name!r} has characters that cannot be written ({error.reason})"
        raise UsageError(msg) from error
    msg = f"an object needs a name, not {name!r}"
    raise UsageError(msg)


def _plain_colour(colour: str) -> str:
    if isinstance(colour, str) and _COLOUR.fullmatch(colour):
        return colour.lower()
    msg = f"a colour is written as #rrggbb, such as #e69f00, not {colour!r}"
    raise UsageError(msg)


def _prompt_id(number: int) -> int:
    return whole_number(number, "the number of a prompt", UsageError)


def _action_of(event: Event) -> str:
    if isinstance(event, LockObject):
        return "lock" if event.locked else "unlock"
    return _ACTIONS[type(event)]


def _read(action: Any, label: Any, values: Mapping[str, Any]) -> Change | None:  # noqa: PLR0911
    match action:
        case "add-object":
            return AddObject(label, values["name"])
        case "rename":
            return RenameObject(label, values["name"])
        case "colour":
            return ColourObject(label, values["colour"])
        case "lock" | "unlock":
            return LockObject(label, action == "lock")
        case "delete-object":
            return DeleteObject(label)
        case "clear-stale":
            return ClearStale(label)
        case "prompt" | "edit":
            kind = AddPrompts if action == "prompt" else EditSlices
            return kind(label, tuple((p["id"], _numbered(p)) for p in values["prompts"]))
        case "remove-prompt":
            return RemovePrompt(label, values["prompt"])
        case "replace-prompt":
            return ReplacePrompt(label, values["prompt"], from_dict(values["by"]))
        case "propagate":
            return Propagate(
                label,
                values["direction"],
                values["until"],
                values["max_extent_mm"],
                values["cancelled_after"],
            )
    return None


def _numbered(values: Mapping[str, Any]) -> Prompt:
    _prompt_id(values["id"])  # before what else may be wrong with it
    return from_dict(values)


def own_prompt(prompt: Prompt) -> Prompt:
    """Return a prompt of plain numbers that nobody else can change; see `plain_prompt`."""
    own = plain_prompt(prompt)
    if isinstance(own, MaskPrompt):
        mask = own.mask.copy()
        mask.setflags(write=False)
        own = MaskPrompt(own.z, mask)
    return own
