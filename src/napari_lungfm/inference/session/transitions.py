"""What each action does to the objects, given what the model said: pure functions.

Live work, undo, replay and opening a saved session all go through `after`, so that they cannot
differ. Whether an action is allowed is decided by `check` before any model runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from napari_lungfm._core.exceptions import PromptError, UsageError
from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.inference.session.errors import SessionError
from napari_lungfm.inference.session.events import (
    AddObject,
    AddPrompts,
    Change,
    ClearStale,
    ColourObject,
    DeleteObject,
    EditSlices,
    LockObject,
    Prompting,
    Propagate,
    RemovePrompt,
    RenameObject,
    ReplacePrompt,
)
from napari_lungfm.inference.session.history import (
    Prompts,
    Step,
    allowed_slices,
    has_place,
    walk_ranges,
    with_other_prompt,
    with_prompts,
    with_walk,
    without_prompt,
)
from napari_lungfm.inference.session.state import AnnotatedObject, SessionState
from napari_lungfm.models.crops import SliceCrop
from napari_lungfm.models.prompts import Box, Click, MaskPrompt, Prompt, check_prompts

#: Letters that the name of a segment or a region of interest may have in DICOM (LO).
LONGEST_NAME = 64
#: What the model said, slice after slice; ``None`` where nothing is.
Findings: TypeAlias = Sequence[tuple[int, SliceCrop | None]]


# ---------------------------------------------------------------------- what is allowed
def check(state: SessionState, event: Change, geometry: VolumeGeometry) -> None:
    """Refuse an action that makes no sense now.

    Raises
    ------
    UsageError
        If there is no such object or prompt, the object is locked, or a value makes no sense.
    PromptError
        If the prompts could not be used afterwards; see `check_prompts`.
    """
    if isinstance(event, AddObject):
        _check_new(state, event)
        return
    obj = object_of(state, event.label)
    if isinstance(event, LockObject):
        if event.locked == (obj.locked is not None):
            msg = f"object {obj.label} ('{obj.name}') is already {_status(obj)}"
            raise SessionError(msg)
        return
    if obj.locked is not None and not isinstance(event, ColourObject):  # how it looks is free
        msg = f"'{obj.name}' is locked; unlock it first"
        raise SessionError(msg)
    match event:
        case RenameObject():
            _check_name(event.name)
        case AddPrompts():
            _check_usable(prompts_after(obj, event), geometry)
            _check_added(state, obj, event)
        case EditSlices():
            _check_edited(state, obj, event)
            _check_usable(prompts_after(obj, event), geometry)
        case RemovePrompt() | ReplacePrompt():
            _check_prompt_id(obj, event.prompt_id)
            if isinstance(event, ReplacePrompt):
                _check_usable(prompts_after(obj, event), geometry)
        case Propagate():
            _check_usable(obj.prompts, geometry)
            _check_order(obj, event, geometry)


def check_heeded(
    obj: AnnotatedObject, prompts: Iterable[Prompt], instead_of: int | None = None
) -> None:
    """Refuse boxes and clicks on slices that were drawn by hand, where nobody would heed them.

    Parameters
    ----------
    obj
        The object.
    prompts
        What it is to be given.
    instead_of
        Number of the prompt that goes for it.

    Raises
    ------
    PromptError
        If one would change nothing.
    """
    kept = (p for number, p in obj.prompts.items() if number != instead_of)
    drawn = {prompt.z for prompt in kept if isinstance(prompt, MaskPrompt)}
    for prompt in prompts if obj.locked is None else ():  # locked ones are refused as such
        if isinstance(prompt, Box | Click) and prompt.z in drawn:
            msg = (
                f"slice {prompt.z} of object {obj.label} was drawn by hand and stays so: a box or "
                "click would change nothing there; draw it anew, or remove the drawing first"
            )
            raise PromptError(msg)


def check_new_name(state: SessionState, name: str, label: int | None = None) -> None:
    """Refuse a name that a new object, or one that is renamed, should not get.

    Not part of `check`: logs that older versions wrote may have such names.

    Parameters
    ----------
    state
        The objects that there are.
    name
        The name.
    label
        The object that gets it, if there is one already.

    Raises
    ------
    UsageError
        If it is blank, longer than `LONGEST_NAME`, has control characters in it, or is that of
        another object.
    """
    _check_name(name)
    if len(name) > LONGEST_NAME:
        msg = (
            f"the name '{name[:20]}…' has {len(name)} letters; a name has {LONGEST_NAME} at most, "
            "as in DICOM"
        )
        raise UsageError(msg)
    if not name.isprintable():
        msg = f"the name {name!r} has line breaks or other control characters; leave them out"
        raise UsageError(msg)
    for other in state.objects.values():
        if other.label != label and _same_name(other.name, name):
            msg = (
                f"object {other.label} is called '{other.name}' already; choose a name that no "
                "other object has"
            )
            raise UsageError(msg)


def free_name(state: SessionState, name: str) -> str:
    """Return a name that no object has: this one, or this one with a number."""
    taken = [each.name for each in state.objects.values()]
    names = (name, *(f"{name} {i}" for i in range(2, 258)))
    return next(n for n in names if not any(_same_name(n, other) for other in taken))


def _same_name(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


def object_of(state: SessionState, label: int) -> AnnotatedObject:
    """Return an object.

    Raises
    ------
    SessionError
        If there is none with this label.
    """
    if label not in state.objects:
        known = ", ".join(str(each) for each in state.objects) or "none"
        msg = f"there is no object with label {label}; there are: {known}"
        raise SessionError(msg)
    return state.objects[label]


def _check_new(state: SessionState, event: AddObject) -> None:
    if not 1 <= event.label <= 255:
        msg = f"a label must be between 1 and 255, not {event.label}"
        raise UsageError(msg)
    if event.label in state.objects:
        name = state.objects[event.label].name
        msg = f"label {event.label} is that of '{name}'; choose another one"
        raise SessionError(msg)
    _check_name(event.name)


def _check_name(name: str) -> None:
    if not name.strip():
        msg = "an object needs a name"
        raise UsageError(msg)


def _check_added(state: SessionState, obj: AnnotatedObject, event: AddPrompts) -> None:
    if not event.prompts:
        msg = f"no prompt was given for object {obj.label}"
        raise PromptError(msg)
    _check_numbers(state, [number for number, _ in event.prompts])


def _check_edited(state: SessionState, obj: AnnotatedObject, event: EditSlices) -> None:
    """Refuse anything but one mask a slice, each in the place of the slice's own, or new."""
    drawn = {p.z: number for number, p in obj.prompts.items() if isinstance(p, MaskPrompt)}
    slices = [prompt.z for _, prompt in event.prompts]
    masks = all(isinstance(prompt, MaskPrompt) for _, prompt in event.prompts)
    if not slices or not masks or len(set(slices)) < len(slices):
        msg = f"object {obj.label} is to be drawn anew: one mask is needed for each of its slices"
        raise PromptError(msg)
    known = [(number, p.z) for number, p in event.prompts if p.z in drawn]
    if any(drawn[z] != number for number, z in known):
        msg = f"slices {sorted(z for _, z in known)} of object {obj.label} have other numbers"
        raise SessionError(msg)
    _check_numbers(state, [number for number, p in event.prompts if p.z not in drawn])


def _check_numbers(state: SessionState, numbers: list[int]) -> None:
    expected = list(range(state.next_prompt, state.next_prompt + len(numbers)))
    if numbers != expected:
        msg = f"the new prompts are numbered {numbers}, not {expected}"
        raise SessionError(msg)


def _check_prompt_id(obj: AnnotatedObject, number: int) -> None:
    if number not in obj.prompts:
        known = ", ".join(str(each) for each in obj.prompts) or "none"
        msg = f"object {obj.label} has no prompt {number}; it has: {known}"
        raise SessionError(msg)


def _check_usable(prompts: Prompts, geometry: VolumeGeometry) -> None:
    check_prompts(tuple(prompts.values()), geometry.shape)
    allowed_slices(prompts, geometry)


def _check_order(obj: AnnotatedObject, event: Propagate, geometry: VolumeGeometry) -> None:
    walk_ranges(obj.prompts, event, geometry)
    if event.steps is not None and event.steps < 1:
        msg = f"a propagation cannot be cancelled after {event.steps} slices"
        raise SessionError(msg)
    if event.until is None:
        return
    first, last = obj.prompted[0], obj.prompted[-1]
    end = geometry.shape[0] - 1
    where = f"a propagation {event.direction} cannot end on slice {event.until}"
    if event.direction == "both":
        msg = f"{where}: a last slice needs a direction, up or down"
    elif not 0 <= event.until <= end:
        msg = f"{where}: the volume has the slices 0 to {end}"
    elif event.direction == "up" and event.until < last:
        msg = f"{where}: it begins at slice {last}, where the last prompt is; go down, or higher"
    elif event.direction == "down" and event.until > first:
        msg = f"{where}: it begins at slice {first}, where the first prompt is; go up, or lower"
    else:
        return
    raise UsageError(msg)


def _status(obj: AnnotatedObject) -> str:
    return "open" if obj.locked is None else "locked"


# ---------------------------------------------------------------------- what happens
def added_by(obj: AnnotatedObject, event: Prompting) -> tuple[int, ...]:
    """Return the numbers of the prompts that an action gives, not in the place of others."""
    if isinstance(event, AddPrompts | EditSlices):
        return tuple(number for number, _ in event.prompts if number not in obj.prompts)
    return ()


def prompts_after(obj: AnnotatedObject, event: Prompting) -> dict[int, Prompt]:
    """Return the prompts of an object after an action."""
    match event:
        case AddPrompts() | EditSlices():
            return {**obj.prompts, **dict(event.prompts)}
        case RemovePrompt():
            return {i: prompt for i, prompt in obj.prompts.items() if i != event.prompt_id}
        case ReplacePrompt():
            return {**obj.prompts, event.prompt_id: event.prompt}


def history_after(obj: AnnotatedObject, event: Prompting) -> Step | None:
    """Return the history of an object after an action."""
    match event:
        case AddPrompts() | EditSlices():
            history, added = obj.history, added_by(obj, event)
            for number, prompt in event.prompts:
                if number not in added:
                    history = with_other_prompt(history, number, prompt)
            return with_prompts(history, prompts_after(obj, event), added) if added else history
        case RemovePrompt():
            return without_prompt(obj.history, event.prompt_id)
        case ReplacePrompt():
            return with_other_prompt(obj.history, event.prompt_id, event.prompt)


def after(
    state: SessionState, event: Change, findings: Findings, geometry: VolumeGeometry
) -> SessionState:
    """Return the state after an action.

    Parameters
    ----------
    state
        The state before; `check` has allowed the action.
    event
        The action.
    findings
        What the model said: of prompted slices that changed, or of the slices of a walk.
    geometry
        The grid of the volume.
    """
    if isinstance(event, AddObject):
        return _with(state, AnnotatedObject(event.label, event.name))
    if isinstance(event, DeleteObject):
        rest = {i: each for i, each in state.objects.items() if i != event.label}
        return replace(state, objects=rest)
    obj, new_prompts, new_locks = state.objects[event.label], 0, 0
    match event:
        case LockObject():
            obj = replace(obj, locked=state.next_lock if event.locked else None)
            new_locks = int(event.locked)
        case RenameObject():
            obj = replace(obj, name=event.name)
        case ColourObject():
            obj = replace(obj, colour=event.colour)
        case ClearStale():
            obj = without_stale(obj)
        case Propagate():
            obj = propagated(obj, event, findings, geometry)
        case AddPrompts() | EditSlices() | RemovePrompt() | ReplacePrompt():
            new_prompts = len(added_by(obj, event))
            obj = prompted(obj, event, findings, geometry)
    state = _with(state, obj)
    next_prompt, next_lock = state.next_prompt + new_prompts, state.next_lock + new_locks
    return replace(state, next_prompt=next_prompt, next_lock=next_lock)


def with_slice(obj: AnnotatedObject, z: int, crop: SliceCrop | None) -> AnnotatedObject:
    """Return an object with a slice found anew."""
    return replace(obj, masks=_set(obj.masks, z, crop), stale=obj.stale - {z})


def without_stale(obj: AnnotatedObject) -> AnnotatedObject:
    """Return an object without its stale slices."""
    masks = {z: crop for z, crop in obj.masks.items() if z not in obj.stale}
    return replace(obj, masks=masks, stale=frozenset())


def prompted(
    obj: AnnotatedObject,
    event: Prompting,
    findings: Findings,
    geometry: VolumeGeometry,
) -> AnnotatedObject:
    """Return an object after an action on its prompts."""
    prompts, history = prompts_after(obj, event), history_after(obj, event)
    if not has_place(prompts):
        return AnnotatedObject(
            obj.label, obj.name, colour=obj.colour, prompts=prompts, history=history
        )
    before = obj.slices_with_prompts
    obj = replace(obj, prompts=prompts, history=history)
    now = obj.slices_with_prompts
    masks, under = dict(obj.masks), dict(obj.under)
    for z in now - before:
        if z in masks:
            under[z] = masks[z]
    for z in before - now:  # what was there before the prompt shows again
        masks = _set(masks, z, under.pop(z, None))
    for z, crop in findings:
        masks = _set(masks, z, crop)
    allowed = allowed_slices(prompts, geometry)
    masks = {z: crop for z, crop in masks.items() if z in allowed}
    fresh = {*obj.prompted, *(z for z, _ in findings)}
    return replace(obj, masks=masks, under=under, stale=frozenset(masks) - fresh)


def propagated(
    obj: AnnotatedObject, event: Propagate, findings: Findings, geometry: VolumeGeometry
) -> AnnotatedObject:
    """Return an object after a propagation, whether it came to its end or not."""
    slices, part = walk_ranges(obj.prompts, event, geometry)
    masks, fresh = dict(obj.masks), set()
    for z, crop in findings:
        masks = _set(masks, z, crop)
        fresh.add(z)
    if event.steps is None:  # the rest of the way there is nothing
        settled = {*obj.prompted, *fresh}
        masks = {z: c for z, c in masks.items() if z in slices and (z in settled or z not in part)}
        fresh.update(part)
    history = obj.history
    if history is not None:
        history = with_walk(history, event)
    stale = (obj.stale - fresh) & frozenset(masks)
    return replace(obj, masks=masks, stale=stale, history=history)


def _with(state: SessionState, obj: AnnotatedObject) -> SessionState:
    return replace(state, objects={**state.objects, obj.label: obj})


def _set(masks: Mapping[int, SliceCrop], z: int, crop: SliceCrop | None) -> dict[int, SliceCrop]:
    rest = {i: each for i, each in masks.items() if i != z}
    return rest if crop is None else {**rest, z: crop}
