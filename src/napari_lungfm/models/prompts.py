"""Prompts: what a person (or a simulated one) tells a promptable model about one object.

All coordinates are zero-based voxel indices in the image's own grid. A prompt is an immutable
value, so that an event log, a record and a test can hold it as it is.
"""

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from napari_lungfm._core.exceptions import PromptError, UsageError
from napari_lungfm._core.types import Index3, SliceMask


@dataclass(frozen=True)
class Box:
    """A box on one slice, rows ``[y0, y1)`` and columns ``[x0, x1)``.

    Parameters
    ----------
    z
        The slice.
    y0, x0
        First row and column inside.
    y1, x1
        First row and column outside.
    """

    z: int
    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def center(self) -> tuple[float, float]:
        """Centre ``(y, x)`` in continuous indices, voxel *i* covering ``[i, i + 1)``."""
        return ((self.y0 + self.y1) / 2, (self.x0 + self.x1) / 2)

    @classmethod
    def around(cls, mask: SliceMask, z: int) -> "Box":
        """Return the tight box of a non-empty slice mask ``(y, x)``.

        Raises
        ------
        PromptError
            If the mask is empty.
        """
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if rows.size == 0:
            msg = f"no box can be drawn around the empty mask of slice {z}"
            raise PromptError(msg)
        return cls(z, int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


@dataclass(frozen=True)
class Click:
    """A click on the voxel ``(z, y, x)``: on the object, or beside it (``positive=False``)."""

    z: int
    y: int
    x: int
    positive: bool = True


@dataclass(frozen=True)
class Stop:
    """The object has ended before slice ``z``: nothing of it is on ``z`` or beyond.

    "Beyond" is the side away from the prompted slices.
    """

    z: int


@dataclass(frozen=True, eq=False)
class MaskPrompt:
    """The object's exact outline on one slice, as edited by hand: boolean ``(y, x)``.

    An empty mask says that the object is not on this slice: between prompted slices a hole, at
    the far side of them the same as a `Stop`.
    """

    z: int
    mask: SliceMask

    def __eq__(self, other: object) -> bool:
        """Compare slice and mask."""
        if not isinstance(other, MaskPrompt):
            return NotImplemented
        return self.z == other.z and np.array_equal(self.mask, other.mask)

    def __hash__(self) -> int:
        """Hash slice and mask."""
        return hash((self.z, self.mask.shape, np.packbits(self.mask).tobytes()))


Prompt: TypeAlias = Box | Click | Stop | MaskPrompt


def check_prompts(prompts: Sequence[Prompt], shape: Index3) -> None:
    """Refuse prompts that no model can use.

    Parameters
    ----------
    prompts
        All prompts of one object.
    shape
        Shape ``(z, y, x)`` of the volume.

    Raises
    ------
    PromptError
        If one is not made of whole numbers, lies outside the volume, is of zero area, or
        contradicts another (two outlines of one slice among them); if none says where the object
        is.
    """
    prompts = [plain_prompt(prompt) for prompt in prompts]
    for prompt in prompts:
        _check_prompt(prompt, shape)
    if not any(is_conditioning(prompt) for prompt in prompts):
        msg = "there is no box, positive click or mask: say where the object is first"
        raise PromptError(msg)
    _check_clicks(prompts)
    _check_masks(prompts)
    conditioned = {p.z: p for p in prompts if is_conditioning(p)}
    for prompt in prompts:
        if says_absent(prompt) and prompt.z in conditioned:
            what = "a stop" if isinstance(prompt, Stop) else "an empty mask"
            other = type(conditioned[prompt.z]).__name__.removesuffix("Prompt").lower()
            msg = (
                f"slice {prompt.z} has {what} and a prompt ({other}) that says the object is "
                "there; remove one of them first"
            )
            raise PromptError(msg)


def is_conditioning(prompt: Prompt) -> bool:
    """Tell whether a prompt says where the object is.

    Boxes, positive clicks and masks do; negative clicks, stops and empty masks do not.
    """
    match prompt:
        case Click():
            return prompt.positive
        case MaskPrompt():
            return bool(prompt.mask.any())
        case Box():
            return True
        case Stop():
            return False


def says_absent(prompt: Prompt) -> bool:
    """Tell whether a prompt says that the object is not on its slice (stop, empty mask)."""
    if isinstance(prompt, MaskPrompt):
        return not prompt.mask.any()
    return isinstance(prompt, Stop)


def in_order(prompts: Iterable[Prompt]) -> tuple[Prompt, ...]:
    """Return prompts by slice, kind and place, so that results do not depend on their order."""
    return tuple(sorted(prompts, key=_sort_key))


def prompted_slices(prompts: Iterable[Prompt]) -> tuple[int, ...]:
    """Return the slices that say where the object is, in ascending order."""
    return tuple(sorted({prompt.z for prompt in prompts if is_conditioning(prompt)}))


def by_slice(prompts: Iterable[Prompt]) -> dict[int, tuple[Prompt, ...]]:
    """Group prompts by slice, stops left out; order within a slice is kept."""
    groups: dict[int, list[Prompt]] = {}
    for prompt in prompts:
        if not isinstance(prompt, Stop):
            groups.setdefault(prompt.z, []).append(prompt)
    return {z: tuple(group) for z, group in sorted(groups.items())}


def slice_range(prompts: Sequence[Prompt], depth: int) -> range:
    """Return the slices that the object may occupy, as stops and empty masks limit them.

    Parameters
    ----------
    prompts
        All prompts of one object, at least one of them conditioning.
    depth
        Number of slices of the volume.

    Raises
    ------
    PromptError
        If a stop lies between two prompted slices.
    """
    slices = prompted_slices(prompts)
    first, last = 0, depth - 1
    for prompt in prompts:
        if not says_absent(prompt):
            continue
        if prompt.z < slices[0]:
            first = max(first, prompt.z + 1)
        elif prompt.z > slices[-1]:
            last = min(last, prompt.z - 1)
        elif isinstance(prompt, Stop):
            msg = (
                f"the stop on slice {prompt.z} lies between the prompted slices "
                f"{slices[0]} and {slices[-1]}; an object cannot end there"
            )
            raise PromptError(msg)
    return range(first, last + 1)


def whole_number(value: Any, what: str, error: type[UsageError] = PromptError) -> int:
    """Return a whole number as a plain ``int``; numpy's count, truth values and 5.0 do not.

    Parameters
    ----------
    value
        The number.
    what
        What it is, for the message.
    error
        What to raise.

    Raises
    ------
    UsageError
        Of the kind ``error``, if it is none.
    """
    try:
        if not isinstance(value, bool | np.bool_):
            return operator.index(value)
    except TypeError:
        pass
    msg = f"{what} is {_short(value)}, which is not a whole number"
    raise error(msg)


def plain_prompt(prompt: Prompt) -> Prompt:
    """Return a prompt of plain numbers; one that is made of them already comes back itself.

    Raises
    ------
    PromptError
        If it is no prompt, a coordinate is not a whole number, or a mask has no two axes or has
        NaN in it.
    """
    match prompt:
        case Box(z, y0, x0, y1, x1):
            sides = {"slice": z, "y0": y0, "x0": x0, "y1": y1, "x1": x1}
            plain: Prompt = Box(*(whole_number(v, f"{k} of a box") for k, v in sides.items()))
        case Click(z, y, x, positive):
            if not isinstance(positive, bool | np.bool_):
                msg = f"a click is positive or not (true or false), not {_short(positive)}"
                raise PromptError(msg)
            plain = Click(
                whole_number(z, "the slice of a click"),
                whole_number(y, "the row of a click"),
                whole_number(x, "the column of a click"),
                bool(positive),
            )
        case Stop(z):
            plain = Stop(whole_number(z, "the slice of a stop"))
        case MaskPrompt():
            z = whole_number(prompt.z, "the slice of a mask")
            mask = _plain_mask(prompt.mask, z)
            plain = prompt if mask is prompt.mask and type(prompt.z) is int else MaskPrompt(z, mask)
        case _:
            msg = f"{_short(prompt)} is not a prompt: give a Box, Click, Stop or MaskPrompt"
            raise PromptError(msg)
    return plain


def _plain_mask(mask: Any, z: int) -> SliceMask:
    try:
        array = np.asarray(mask)
    except ValueError as error:
        msg = f"the mask on slice {z} is no array of rows and columns ({error})"
        raise PromptError(msg) from error
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "biuf":
        msg = (
            f"the mask on slice {z} has shape {array.shape} and type {array.dtype}; it must be "
            "truth values (or numbers) in rows and columns"
        )
        raise PromptError(msg)
    if array.dtype.kind == "f" and np.isnan(array).any():
        msg = f"the mask on slice {z} has NaN in it, which is neither inside nor outside"
        raise PromptError(msg)
    return array if array.dtype.kind == "b" else array != 0


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def to_dict(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as plain values for JSON; `from_dict` reads it back exactly."""
    match prompt:
        case Box():
            return {
                "kind": "box",
                "z": prompt.z,
                "box": [prompt.y0, prompt.x0, prompt.y1, prompt.x1],
            }
        case Click():
            return {
                "kind": "click",
                "z": prompt.z,
                "point": [prompt.y, prompt.x],
                "positive": prompt.positive,
            }
        case Stop():
            return {"kind": "stop", "z": prompt.z}
        case MaskPrompt():
            return {
                "kind": "mask",
                "z": prompt.z,
                "shape": list(prompt.mask.shape),
                "runs": _run_lengths(prompt.mask),
            }


def from_dict(values: Mapping[str, Any]) -> Prompt:
    """Inverse of `to_dict`.

    Raises
    ------
    PromptError
        If the values are not those of a prompt.
    """
    try:
        match values["kind"]:
            case "box":
                return plain_prompt(Box(values["z"], *values["box"]))
            case "click":
                y, x = values["point"]
                return plain_prompt(Click(values["z"], y, x, values["positive"]))
            case "stop":
                return plain_prompt(Stop(values["z"]))
            case "mask":
                mask = _from_runs(values["runs"], values["shape"])
                return plain_prompt(MaskPrompt(values["z"], mask))
    except (KeyError, TypeError, ValueError, MemoryError) as error:
        msg = f"not a prompt: {_short(values)} ({error})"
        raise PromptError(msg) from error
    msg = f"there is no prompt of kind {_short(values['kind'])}; known: box, click, stop, mask"
    raise PromptError(msg)


def _check_prompt(prompt: Prompt, shape: Index3) -> None:
    depth, height, width = shape
    if not 0 <= prompt.z < depth:
        msg = f"{_name(prompt)} is outside the volume, which has slices 0 to {depth - 1}"
        raise PromptError(msg)
    match prompt:
        case Box():
            if prompt.y1 <= prompt.y0 or prompt.x1 <= prompt.x0:
                msg = (
                    f"{_name(prompt)} is empty: rows {prompt.y0} to {prompt.y1}, columns "
                    f"{prompt.x0} to {prompt.x1}; the second of each must be larger (exclusive)"
                )
                raise PromptError(msg)
            if prompt.y0 < 0 or prompt.x0 < 0 or prompt.y1 > height or prompt.x1 > width:
                msg = (
                    f"{_name(prompt)} (rows {prompt.y0}:{prompt.y1}, columns "
                    f"{prompt.x0}:{prompt.x1}) reaches outside the slice of {height} x {width}"
                )
                raise PromptError(msg)
        case Click():
            if not (0 <= prompt.y < height and 0 <= prompt.x < width):
                msg = (
                    f"{_name(prompt)} at row {prompt.y}, column {prompt.x} is outside the slice "
                    f"of {height} x {width}"
                )
                raise PromptError(msg)
        case MaskPrompt():
            if prompt.mask.shape != (height, width):
                msg = f"{_name(prompt)} has shape {prompt.mask.shape}, not ({height}, {width})"
                raise PromptError(msg)
        case Stop():
            pass


def _check_clicks(prompts: Sequence[Prompt]) -> None:
    clicks: dict[Index3, bool] = {}
    for prompt in prompts:
        if isinstance(prompt, Click):
            place = (prompt.z, prompt.y, prompt.x)
            if clicks.setdefault(place, prompt.positive) != prompt.positive:
                msg = f"voxel {place} (z, y, x) has a positive and a negative click; remove one"
                raise PromptError(msg)


def _check_masks(prompts: Sequence[Prompt]) -> None:
    masks: dict[int, MaskPrompt] = {}
    for prompt in prompts:
        if isinstance(prompt, MaskPrompt) and masks.setdefault(prompt.z, prompt) != prompt:
            msg = f"slice {prompt.z} has two different masks; keep one of them"
            raise PromptError(msg)


def _sort_key(prompt: Prompt) -> tuple[int, int, tuple[int, ...], bytes]:
    match prompt:
        case MaskPrompt():
            return (prompt.z, 0, prompt.mask.shape, np.packbits(prompt.mask).tobytes())
        case Box():
            return (prompt.z, 1, (prompt.y0, prompt.x0, prompt.y1, prompt.x1), b"")
        case Click():
            return (prompt.z, 2, (prompt.y, prompt.x, int(prompt.positive)), b"")
        case Stop():
            return (prompt.z, 3, (), b"")


def _name(prompt: Prompt) -> str:
    match prompt:
        case Box():
            return f"the box on slice {prompt.z}"
        case Click():
            return f"the {'positive' if prompt.positive else 'negative'} click on slice {prompt.z}"
        case Stop():
            return f"the stop on slice {prompt.z}"
        case MaskPrompt():
            return f"the mask on slice {prompt.z}"


def _run_lengths(mask: SliceMask) -> list[int]:
    """Lengths of alternating runs in C order, the first of them outside (may be 0)."""
    flat = np.concatenate([[False], mask.ravel(), [not mask.ravel()[-1]]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(n) for n in np.diff(np.concatenate([[0], edges]))]


def _from_runs(runs: Sequence[int], shape: Sequence[int]) -> SliceMask:
    lengths = [whole_number(n, "a run of a mask") for n in runs]
    height, width = (whole_number(n, "a side of a mask") for n in shape)
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        msg = f"the runs of a mask cover {sum(lengths)} voxels, not {height} x {width}"
        raise PromptError(msg)
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(height, width)
