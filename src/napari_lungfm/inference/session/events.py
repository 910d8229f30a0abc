"""The actions of a session, as values and as lines of the event log."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.models.prompts import MaskPrompt, Prompt, from_dict, to_dict

#: ``"up"`` goes to higher slice numbers, ``"down"`` to lower ones.
Direction: TypeAlias = Literal["both", "up", "down"]


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
    | LockObject
    | DeleteObject
    | AddPrompts
    | RemovePrompt
    | ReplacePrompt
    | Propagate
    | ClearStale
)
#: What a line of the log can be, but for the first.
Event: TypeAlias = Change | Undo | Redo

_ACTIONS: Mapping[type[Event], str] = {
    AddObject: "add-object",
    RenameObject: "rename",
    DeleteObject: "delete-object",
    ClearStale: "clear-stale",
    AddPrompts: "prompt",
    RemovePrompt: "remove-prompt",
    ReplacePrompt: "replace-prompt",
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
        case AddPrompts():
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
        event = _read(str(action), _whole(values["object"]), values)
    except (KeyError, TypeError, ValueError) as error:
        msg = f"not a valid '{action}' event ({type(error).__name__}: {error})"
        raise UsageError(msg) from error
    if event is None:
        msg = f"there is no action '{action}'"
        raise UsageError(msg)
    return event


def _action_of(event: Event) -> str:
    if isinstance(event, LockObject):
        return "lock" if event.locked else "unlock"
    return _ACTIONS[type(event)]


def _read(action: str, label: int, values: Mapping[str, Any]) -> Event | None:  # noqa: PLR0911
    match action:
        case "add-object":
            return AddObject(label, str(values["name"]))
        case "rename":
            return RenameObject(label, str(values["name"]))
        case "lock" | "unlock":
            return LockObject(label, action == "lock")
        case "delete-object":
            return DeleteObject(label)
        case "clear-stale":
            return ClearStale(label)
        case "prompt":
            prompts = tuple((_whole(item["id"]), from_dict(item)) for item in values["prompts"])
            return AddPrompts(label, prompts)
        case "remove-prompt":
            return RemovePrompt(label, _whole(values["prompt"]))
        case "replace-prompt":
            return ReplacePrompt(label, _whole(values["prompt"]), from_dict(values["by"]))
        case "propagate":
            direction = values["direction"]
            if direction not in get_args(Direction):
                msg = f"there is no direction '{direction}'"
                raise ValueError(msg)
            limit = values["max_extent_mm"]
            return Propagate(
                label,
                direction,
                None if values["until"] is None else _whole(values["until"]),
                None if limit is None else float(limit),
                None if values["cancelled_after"] is None else _whole(values["cancelled_after"]),
            )
    return None


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{value!r} is not a whole number"
        raise TypeError(msg)
    return value


def own_prompt(prompt: Prompt) -> Prompt:
    """Return a prompt of plain numbers that nobody else can change."""
    if not isinstance(prompt, MaskPrompt):
        return from_dict(to_dict(prompt))
    mask = np.array(prompt.mask, dtype=bool)
    mask.setflags(write=False)
    return MaskPrompt(int(prompt.z), mask)
