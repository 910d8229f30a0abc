"""Prompt protocols: simulated users who see the reference and draw prompts from it.

- ``box-every-slice``: the tight box on every slice that has the structure; no propagation.
- ``point-every-slice``: one click on each of them, uniform over the voxels of the structure on
  that slice; no propagation.
- ``box-one``: the tight box on the slice with the largest area (of several the lowest), then
  propagation both ways.
- ``point-one``: one click there, uniform over the voxels of the structure, then propagation.
- ``box-every-k``: tight boxes on every k-th slice that has the structure, from the first on,
  then propagation between and beyond them.

``box-every-k`` gives no extra box on the last slice: who prompts every k-th slice does not know
yet which one is the last, and a model has to find that end.

``+corrections-n`` after a protocol with propagation lets the user correct: up to n times, a click
in the middle of the largest error of the worst slice (`corrections.correction_click`), after which
the object is carried on anew. ``corrections-n`` by itself is ``box-one+corrections-n``.

``+jitter-p`` after any name makes the hand inexact: every side of a box moves by its own whole
number of pixels, uniform in [−p, p], and a click by a Gaussian with a standard deviation of p/2
pixels in either direction, rounded. Both stay within the slice; a box whose sides pass each
other is the box between them, at least one pixel wide.

``zhu-validation`` (boxes) and ``zhu-validation-points`` (clicks) are no protocols of ours but the
validation of Medical SAM 2's published code, with prompts and scores of its own that compare with
nothing else; see `zhu_validation`. They take no modifiers.

``auto-<name>:METHOD``, such as ``auto-box-one:unet``, draws the prompts of a protocol from the mask
of the automatic method METHOD instead of from the reference: no hand at all, so nothing to jitter.
``+corrections-n`` lets a user correct what came of it. ``auto:METHOD`` is
``auto-box-every-slice:METHOD``. Where the automatic mask is empty there is nothing to prompt, and
the prediction is empty.

``none`` is what automatic methods are under: no prompts. It is the name of no user.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, overload

import numpy as np

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm._core.types import MaskArray
from napari_lungfm.evaluation.corrections import correction_click
from napari_lungfm.models.prompts import Box, Click, Prompt

_WHOLE = r"([1-9]\d{0,3})"

#: What stands in the place of a protocol for automatic methods, which take no prompts.
NO_PROMPTS = "none"

#: Draws prompts from a reference ``(z, y, x)`` and its slices that have the structure.
Drawing: TypeAlias = Callable[[MaskArray, list[int], np.random.Generator], tuple[Prompt, ...]]


@dataclass(frozen=True)
class PromptProtocol:
    """How a simulated user prompts; made by `parse_protocol`.

    Parameters
    ----------
    name
        The name in configs and results.
    fill
        Whether propagation follows.
    draw
        Makes the exact prompts.
    jitter_px
        How far the hand is off, in pixels; 0 for an exact hand.
    corrections
        How often the user corrects at the most.
    validation
        It is the validation of Medical SAM 2's code, which `zhu_validation` does.
    prompted_by
        The automatic method whose masks the first prompts are drawn from, in place of the
        reference; ``None`` for the hand of a user.
    """

    name: str
    fill: bool
    draw: Drawing
    jitter_px: int = 0
    corrections: int = 0
    validation: bool = False
    prompted_by: str | None = None

    def prompts(self, reference: MaskArray, rng: np.random.Generator) -> tuple[Prompt, ...]:
        """Return the prompts that this user gives before seeing any prediction.

        Parameters
        ----------
        reference
            The structure: boolean ``(z, y, x)``; with `prompted_by`, what that method made of it.
        rng
            Source of chance; ``_core.seeding.generator(seed, case, protocol, structure)`` makes
            one that depends on nothing else.

        Raises
        ------
        DataError
            If the reference is not a volume or has no voxel.
        UsageError
            If it is a validation: `zhu_validation.zhu_prompts` has its prompts.
        """
        if self.validation:
            msg = f"'{self.name}' is a validation of its own, no user who delineates a structure"
            raise UsageError(msg)
        if reference.ndim != 3:
            msg = f"a reference is a volume (z, y, x), not an array of shape {reference.shape}"
            raise DataError(msg)
        mask = np.asarray(reference, dtype=bool)
        slices = [int(z) for z in np.flatnonzero(mask.any(axis=(1, 2)))]
        if not slices:
            msg = f"'{self.name}' finds nothing to prompt: the reference is empty"
            raise DataError(msg)
        exact = self.draw(mask, slices, rng)
        if self.jitter_px == 0:
            return exact
        return tuple(self._moved(prompt, mask.shape[1:], rng) for prompt in exact)

    def correction(
        self,
        prediction: MaskArray,
        reference: MaskArray,
        pixel_mm: tuple[float, float],
        given: Sequence[Prompt],
        rng: np.random.Generator,
    ) -> Click | None:
        """Return this user's next correction, or ``None`` if they are content.

        Parameters
        ----------
        prediction, reference
            What the user sees, and what they want: boolean ``(z, y, x)``.
        pixel_mm
            Distance of rows and of columns in mm.
        given
            The prompts so far; a voxel that was clicked is not clicked again.
        rng
            The source of chance that `prompts` was called with.
        """
        taken = [(p.z, p.y, p.x) for p in given if isinstance(p, Click)]
        click = correction_click(prediction, reference, pixel_mm, taken=taken)
        if click is None or self.jitter_px == 0:
            return click
        moved = self._moved(click, reference.shape[1:], rng)
        # A hand that slips onto a voxel clicked before would take that click back or repeat it.
        return click if (moved.z, moved.y, moved.x) in taken else moved

    @overload
    def _moved(
        self, prompt: Click, slice_shape: tuple[int, ...], rng: np.random.Generator
    ) -> Click: ...
    @overload
    def _moved(
        self, prompt: Prompt, slice_shape: tuple[int, ...], rng: np.random.Generator
    ) -> Prompt: ...
    def _moved(
        self, prompt: Prompt, slice_shape: tuple[int, ...], rng: np.random.Generator
    ) -> Prompt:
        height, width = slice_shape
        if isinstance(prompt, Box):
            d = rng.integers(-self.jitter_px, self.jitter_px, size=4, endpoint=True)
            y0, y1 = _sides(prompt.y0 + int(d[0]), prompt.y1 + int(d[1]), height)
            x0, x1 = _sides(prompt.x0 + int(d[2]), prompt.x1 + int(d[3]), width)
            return Box(prompt.z, y0, x0, y1, x1)
        if isinstance(prompt, Click):
            dy, dx = np.rint(rng.normal(scale=self.jitter_px / 2, size=2)).astype(int)
            y = min(max(prompt.y + int(dy), 0), height - 1)
            x = min(max(prompt.x + int(dx), 0), width - 1)
            return Click(prompt.z, y, x, prompt.positive)
        return prompt


def parse_protocol(name: str) -> PromptProtocol:
    """Return the protocol of a name such as ``"box-every-3"`` or ``"box-one+jitter-5"``.

    Raises
    ------
    UsageError
        If there is no such protocol.
    """
    if name == NO_PROMPTS:
        msg = (
            f"'{NO_PROMPTS}' is for automatic models; a promptable one needs a protocol of prompts"
        )
        raise UsageError(msg)
    if ":" in name:
        return _prompted_by_a_method(name)
    base, *modifiers = name.split("+")
    if re.fullmatch(rf"corrections-{_WHOLE}", base):
        base, modifiers = "box-one", [base, *modifiers]
    protocol = replace(_base_protocol(base, name), name=name)
    for modifier in modifiers:
        match = re.fullmatch(rf"(jitter|corrections)-{_WHOLE}", modifier)
        if match is None:
            raise _unknown(name)
        if protocol.validation:
            msg = f"'{name}': '{base}' is a published validation and takes no modifiers"
            raise UsageError(msg)
        number = int(match[2])
        if match[1] == "jitter" and protocol.jitter_px == 0:
            protocol = replace(protocol, jitter_px=number)
        elif match[1] == "corrections" and protocol.corrections == 0:
            protocol = replace(protocol, corrections=number)
        else:
            raise _unknown(name)
    if protocol.corrections and not protocol.fill:
        msg = f"'{name}': corrections are carried on by propagation, which '{base}' has none of"
        raise UsageError(msg)
    return protocol


def protocol_names() -> tuple[str, ...]:
    """Return the names of the protocols, with k, n and p for positive whole numbers."""
    modified = ("<with propagation>+corrections-n", "<any of the above>+jitter-p")
    own = (*_PROTOCOLS, "box-every-k", "corrections-n", *modified)
    return (*own, "auto-<any but jitter>:METHOD", *_VALIDATIONS)


def is_zhu_validation(name: str) -> bool:
    """Tell whether a protocol's name, of any kind, is that of Medical SAM 2's validation."""
    return name in _VALIDATIONS


def automatic_prompts(name: str) -> tuple[str, str] | None:
    """Split a protocol whose prompts an automatic method gives.

    Returns
    -------
    tuple of (str, str) or None
        What stands before the colon, and the method; ``None`` for the hands of users.
    """
    head, colon, method = name.partition(":")
    return (head, method) if colon else None


def _prompted_by_a_method(name: str) -> PromptProtocol:
    head, _, method = name.partition(":")
    kind, _, drawn = head.partition("-")
    if kind != "auto" or not method or (head.endswith("-") and not drawn):
        raise _unknown(name)
    protocol = parse_protocol(drawn or "box-every-slice")
    if protocol.validation or protocol.jitter_px:
        what = "be a published validation" if protocol.validation else "jitter, which hands do"
        msg = f"'{name}': prompts from an automatic mask cannot {what}"
        raise UsageError(msg)
    return replace(protocol, name=name, prompted_by=method)


def _base_protocol(base: str, name: str) -> PromptProtocol:
    if base in _PROTOCOLS:
        fill, draw = _PROTOCOLS[base]
        return PromptProtocol(base, fill, draw)
    if base in _VALIDATIONS:
        return PromptProtocol(base, fill=True, draw=_VALIDATIONS[base], validation=True)
    match = re.fullmatch(rf"box-every-{_WHOLE}", base)
    if match is None:
        raise _unknown(name)
    return PromptProtocol(base, True, _every_kth(int(match[1])))


def _unknown(name: str) -> UsageError:
    listed = ", ".join(protocol_names())
    return UsageError(
        f"there is no prompt protocol '{name}'; known: {listed} (k, n, p = 1, 2, ...)"
    )


# ---------------------------------------------------------------------- drawings
def _boxes(mask: MaskArray, slices: list[int], rng: np.random.Generator) -> tuple[Prompt, ...]:
    return tuple(Box.around(mask[z], z) for z in slices)


def _points(mask: MaskArray, slices: list[int], rng: np.random.Generator) -> tuple[Prompt, ...]:
    clicks = []
    for z in slices:
        inside = np.argwhere(mask[z])
        y, x = inside[rng.integers(len(inside))]
        clicks.append(Click(z, int(y), int(x)))
    return tuple(clicks)


def _on_largest(draw: Drawing) -> Drawing:
    def one(mask: MaskArray, slices: list[int], rng: np.random.Generator) -> tuple[Prompt, ...]:
        areas = mask.sum(axis=(1, 2))
        return draw(mask, [int(np.argmax(areas))], rng)  # argmax: the lowest of several

    return one


def _every_kth(k: int) -> Drawing:
    def some(mask: MaskArray, slices: list[int], rng: np.random.Generator) -> tuple[Prompt, ...]:
        return _boxes(mask, slices[::k], rng)

    return some


def _sides(a: int, b: int, size: int) -> tuple[int, int]:
    """Two moved sides as ``[low, high)`` within the slice, at least one pixel apart."""
    low = min(max(min(a, b), 0), size - 1)
    return low, max(low + 1, min(max(a, b), size))


_PROTOCOLS: dict[str, tuple[bool, Drawing]] = {
    "box-every-slice": (False, _boxes),
    "point-every-slice": (False, _points),
    "box-one": (True, _on_largest(_boxes)),
    "point-one": (True, _on_largest(_points)),
}

_VALIDATIONS: dict[str, Drawing] = {
    "zhu-validation": _boxes,
    "zhu-validation-points": _points,
}
