"""What led to an object's masks: the prompts and walks that its tracker went through.

A **history** is a chain of steps, each an immutable value that knows the one before. The state
of a tracker is a function of the history alone, so that it can be dropped and made again, and so
that taking a prompt back is leaving it out of the history: what remains is exactly what would
have been, had it never been given.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.inference.propagation import within_extent
from napari_lungfm.inference.session.events import Propagate
from napari_lungfm.models.prompts import (
    Prompt,
    Stop,
    in_order,
    is_conditioning,
    prompted_slices,
    says_absent,
    slice_range,
    to_dict,
)

#: Prompts by the number that they are known by.
Prompts: TypeAlias = Mapping[int, Prompt]


@dataclass(frozen=True, eq=False)
class PromptStep:
    """Prompts are given.

    Parameters
    ----------
    parent
        The step before.
    prompts
        All prompts of the object after the step.
    added
        Numbers of those that the step added.
    key
        Stands for the whole history; equal ones have equal keys.
    """

    parent: "Step | None"
    prompts: Prompts
    added: tuple[int, ...]
    key: bytes

    @property
    def slices(self) -> tuple[int, ...]:
        """The slices that have to be segmented (again)."""
        added = (self.prompts[number] for number in self.added)
        return tuple(sorted({prompt.z for prompt in added if not isinstance(prompt, Stop)}))


@dataclass(frozen=True, eq=False)
class WalkStep:
    """The object is carried through slices.

    Parameters
    ----------
    parent
        The step before.
    prompts
        All prompts of the object.
    order
        How far, and with how many slices it ended.
    key
        Stands for the whole history.
    virtual
        It was never done like this: prompts were taken back or replaced since.
    """

    parent: "Step"
    prompts: Prompts
    order: Propagate
    key: bytes
    virtual: bool = False


Step: TypeAlias = PromptStep | WalkStep


def has_place(prompts: Prompts) -> bool:
    """Tell whether any of the prompts says where the object is."""
    return any(is_conditioning(prompt) for prompt in prompts.values())


def settled_slices(prompts: Prompts) -> set[int]:
    """Return the slices whose prompts say that the object is there, or is not; stops left out."""
    return {
        prompt.z
        for prompt in prompts.values()
        if not isinstance(prompt, Stop) and (is_conditioning(prompt) or says_absent(prompt))
    }


def with_prompts(history: Step | None, prompts: Prompts, added: tuple[int, ...]) -> PromptStep:
    """Return the history with prompts given; ``prompts`` are all that there are then."""
    # Not the numbers but what they stand for: the same prompts given again are the same history.
    everything = [to_dict(prompt) for prompt in in_order(prompts.values())]
    new = [to_dict(prompt) for prompt in in_order(prompts[number] for number in added)]
    return PromptStep(history, dict(prompts), added, _key(history, [everything, new]))


def with_walk(history: Step, order: Propagate, *, virtual: bool = False) -> WalkStep:
    """Return the history with a walk."""
    if not virtual:
        history = start_of_walk(history, order)
    facts = [order.direction, order.until, order.max_extent_mm, order.steps]
    return WalkStep(history, history.prompts, order, _key(history, facts), virtual)


def start_of_walk(history: Step, order: Propagate) -> Step:
    """Return the history that a walk goes on from.

    A walk through everything makes the virtual ones just before it needless: they are left out,
    so that nobody waits for them.
    """
    if order.direction == "both":
        while isinstance(history, WalkStep) and history.virtual:
            history = history.parent
    return history


def last_prompting(history: Step | None) -> PromptStep | None:
    """Return the history up to its last prompts."""
    while isinstance(history, WalkStep):
        history = history.parent
    return history


def without_prompt(history: Step | None, number: int) -> Step | None:
    """Return the history as it would be, had a prompt never been given."""
    return _rewritten(history, number, None)


def with_other_prompt(history: Step | None, number: int, prompt: Prompt) -> Step | None:
    """Return the history as it would be, had another prompt been given in the place of one."""
    return _rewritten(history, number, prompt)


def _rewritten(history: Step | None, number: int, by: Prompt | None) -> Step | None:
    kept: Step | None = None
    for step in steps_of(history):
        if number not in step.prompts:
            kept = step
            continue
        prompts = dict(step.prompts)
        if by is None:
            del prompts[number]
        else:
            prompts[number] = by
        if isinstance(step, WalkStep):
            if kept is not None and has_place(prompts):
                kept = with_walk(kept, step.order, virtual=True)
            continue
        added = tuple(i for i in step.added if i in prompts)
        if added:
            kept = with_prompts(kept, prompts, added)
    return kept


def steps_of(history: Step | None) -> list[Step]:
    """Return the steps of a history, the first one first."""
    steps: list[Step] = []
    while history is not None:
        steps.append(history)
        history = history.parent
    return steps[::-1]


def allowed_slices(
    prompts: Prompts, geometry: VolumeGeometry, max_extent_mm: float | None = None
) -> range:
    """Return the slices that the object may occupy.

    Raises
    ------
    PromptError
        If a stop lies between prompted slices.
    UsageError
        If the limit is not a positive number.
    """
    ordered = in_order(prompts.values())
    slices = slice_range(ordered, geometry.shape[0])
    return within_extent(slices, ordered, geometry, max_extent_mm)


def walk_ranges(
    prompts: Prompts, order: Propagate, geometry: VolumeGeometry
) -> tuple[range, range]:
    """Return the slices that the object may occupy, and those that a walk goes through.

    Raises
    ------
    PromptError, UsageError
        See `allowed_slices`.
    """
    slices = allowed_slices(prompts, geometry, order.max_extent_mm)
    prompted = prompted_slices(prompts.values())
    first, stop = slices.start, slices.stop
    if order.direction == "up":
        first = prompted[0]
        if order.until is not None:
            stop = min(stop, max(order.until, prompted[-1]) + 1)
    elif order.direction == "down":
        stop = prompted[-1] + 1
        if order.until is not None:
            first = max(first, min(order.until, prompted[0]))
    return slices, range(first, stop)


def _key(history: Step | None, facts: list[Any]) -> bytes:
    mark = hashlib.blake2b(history.key if history is not None else b"", digest_size=16)
    mark.update(json.dumps(facts).encode())
    return mark.digest()
