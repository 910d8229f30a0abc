"""Episodes: what a user and a walk through the slices would ask of a model, drawn from a clip.

An episode is one prompted slice (the *anchor*) and a few slices of a walk away from it. Some
walks begin at the anchor; others begin anywhere in the object, with the true mask, made
inexact, as what is known there, because walks are long and a training must see all of them, the
ends of the object above all; and some begin beyond an end, where a walk has come that went on
too far.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from napari_lungfm._core.seeding import generator
from napari_lungfm._core.types import SliceMask
from napari_lungfm.models.lungfm.look import AIR_HU, PriorKind, neighbour_steps
from napari_lungfm.models.lungfm.window import (
    LOOK_SIDE,
    Window,
    filled_box,
    resized,
    spots,
)
from napari_lungfm.training.synthetic import Clip, ClipBank
from napari_lungfm.training.synthetic.clips import SIDE

#: Side of a window as a multiple of the object's larger side: least and most.
MARGIN = (1.7, 3.2)
#: The same where only a click is known: the object may fill the window or be lost in it.
CLICK_MARGIN = (1.2, 9.0)
#: The same for the further look of every episode that has a click alone: it may even be larger
#: than the window, which is how windows of the wrong size are learnt to be told.
LONE_CLICK_MARGIN = (0.5, 8.0)


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode; images are looks ``(s, s)``, see `models.lungfm.look`.

    Parameters
    ----------
    planes
        The anchor slice between its neighbours, HU ``(3, s, s)``.
    truth
        How much of each pixel the object covers there.
    window, walk_window
        What is looked at there, and on the walk.
    box, clicks
        The prompts there: coverage of the box, or ``None``; spots ``(2, s, s)``.
    walk_planes, walk_truth
        The slices of the walk ``(k, 3, s, s)`` and the object there ``(k, s, s)``.
    walk_valid
        Which of them lie in the clip.
    walk_distance
        Distance of each from the anchor, as a fraction of the window's side.
    anchor_plane
        The anchor slice in the walk's window, HU.
    anchor_truth
        The object there.
    start
        What is known on the slice before the walk; ``None`` if the walk begins at the anchor.
    kind
        What the priors of the walk are.
    lone_planes, lone_truth, lone_clicks
        A second way to prompt the anchor slice, by one click alone, in a window of its own.
    lone_step, lone_side_mm
        Distance between slices as a fraction of that window's side, and the side in mm.
    start_plane
        The slice of ``start``, HU; ``None`` where that is.
    step, walk_step
        Distance between slices as a fraction of the window's side.
    side_mm, walk_side_mm
        Sides of the windows in mm.
    """

    planes: Tensor
    truth: Tensor
    window: Window
    box: Tensor | None
    clicks: Tensor
    step: float
    side_mm: float
    walk_planes: Tensor
    walk_truth: Tensor
    walk_valid: list[bool]
    walk_distance: list[float]
    walk_window: Window
    walk_step: float
    walk_side_mm: float
    anchor_plane: Tensor
    anchor_truth: Tensor
    start: Tensor | None
    kind: PriorKind
    lone_planes: Tensor
    lone_truth: Tensor
    lone_clicks: Tensor
    lone_step: float
    lone_side_mm: float
    start_plane: Tensor | None = None

    def to(self, device: torch.device) -> "Episode":
        """Return the episode with its images on a device."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = value.to(device)
        return Episode(**values)


class EpisodeSource(torch.utils.data.Dataset[Episode]):
    """Numbered episodes; the same seed and number give the same episode on every run.

    Parameters
    ----------
    bank
        Where clips are read from.
    indices
        Numbers of the clips to use.
    seed
        Seed of the draws.
    walk
        Slices of every walk.
    per_epoch
        Episodes in an epoch.
    one_window
        See `draw_episode`.
    """

    def __init__(
        self,
        bank: ClipBank,
        indices: Sequence[int],
        seed: int,
        walk: int,
        per_epoch: int,
        *,
        one_window: bool = False,
    ) -> None:
        self._bank, self._indices = bank, list(indices)
        self._seed, self._walk, self._per_epoch = seed, walk, per_epoch
        self._one_window = one_window

    def __len__(self) -> int:
        return self._per_epoch

    def __getitem__(self, item: tuple[int, int]) -> Episode:
        """Return the episode of an epoch and a number in it."""
        epoch, place = item
        number = epoch * self._per_epoch + place
        rng = generator("episode", self._seed, number)
        # Every clip comes up once before any comes up twice.
        turn, place = divmod(number, len(self._indices))
        order = generator("order of clips", self._seed, turn).permutation(len(self._indices))
        clip = self._bank.read(self._indices[int(order[place])])
        return draw_episode(augmented(clip, rng), rng, self._walk, one_window=self._one_window)


def augmented(clip: Clip, rng: np.random.Generator) -> Clip:
    """Mirror, turn and re-scale a clip; HU are shifted a little, and in part cut off."""
    image, mask = clip.image.astype(np.float32), clip.mask
    for axis in range(3):
        if rng.random() < 0.5:
            image, mask = np.flip(image, axis), np.flip(mask, axis)
    turns = int(rng.integers(4))
    image, mask = np.rot90(image, turns, (1, 2)), np.rot90(mask, turns, (1, 2))
    image = image * np.float32(rng.uniform(0.9, 1.1)) + np.float32(rng.normal(0.0, 20.0))
    if rng.random() < 0.12:  # data sets that were stored through a window have lost the rest
        low, high = (-160.0, 240.0) if rng.random() < 0.5 else (-1000.0, 150.0)
        image = np.clip(image, low, high)
    return replace(clip, image=np.ascontiguousarray(image), mask=np.ascontiguousarray(mask))


def draw_episode(
    clip: Clip, rng: np.random.Generator, walk: int, *, one_window: bool = False
) -> Episode:
    """Draw prompts and a walk on a clip whose voxels may be of any numeric type.

    With ``one_window`` the walk is seen in the window of the prompt, as a model sees it that
    never looks anew; nothing else is drawn differently.
    """
    areas = clip.mask.sum(axis=(1, 2))
    anchor, direction, known = _route(areas, rng)
    jump = known != anchor
    within = areas[known] > 0 if 0 <= known < len(areas) else False
    kind: PriorKind = "between" if jump and within and rng.random() < 0.25 else "beside"
    slices = [known + direction * (i + 1) for i in range(walk)]
    view = _View(clip, direction)
    window, box, clicks = _prompt(clip.mask[anchor], rng)
    labelled = np.flatnonzero(areas)
    last = int(np.clip(known, labelled[0], labelled[-1]))
    walk_window = _walk_window(clip.mask[last], clip.mask[anchor], rng)
    if one_window:
        walk_window = window
    pixel, thickness = clip.spacing[1], clip.spacing[0]
    start = start_plane = None
    if jump:
        start = inexact(view.truth([last], walk_window)[0], rng)
        start_plane = view.planes(known, walk_window)[1]
    # A stream of its own, so that this look changes nothing of the rest.
    lone_window, lone_clicks = _lone_click(clip.mask[anchor], rng.spawn(1)[0], LONE_CLICK_MARGIN)
    return Episode(
        planes=view.planes(anchor, window),
        truth=view.truth([anchor], window)[0],
        window=window,
        box=box,
        clicks=clicks,
        step=thickness / (window.side * pixel),
        side_mm=window.side * pixel,
        walk_planes=torch.stack([view.planes(z, walk_window) for z in slices]),
        walk_truth=view.truth(slices, walk_window),
        walk_valid=[0 <= z < len(areas) for z in slices],
        walk_distance=[abs(z - anchor) * thickness / (walk_window.side * pixel) for z in slices],
        walk_window=walk_window,
        walk_step=thickness / (walk_window.side * pixel),
        walk_side_mm=walk_window.side * pixel,
        anchor_plane=view.planes(anchor, walk_window)[1],
        anchor_truth=view.truth([anchor], walk_window)[0],
        start=start,
        kind=kind,
        lone_planes=view.planes(anchor, lone_window),
        lone_truth=view.truth([anchor], lone_window)[0],
        lone_clicks=lone_clicks,
        lone_step=thickness / (lone_window.side * pixel),
        lone_side_mm=lone_window.side * pixel,
        start_plane=start_plane,
    )


class _View:
    """A clip as tensors, seen through windows; slices beyond its ends repeat the last one."""

    def __init__(self, clip: Clip, direction: int) -> None:
        self._image = torch.from_numpy(clip.image)
        self._mask = torch.from_numpy(clip.mask)
        self._beside = direction * neighbour_steps(clip.spacing[0])

    def planes(self, z: int, window: Window) -> Tensor:
        slices = self._inside([z - self._beside, z, z + self._beside])
        return window.look(self._image[slices], AIR_HU)

    def truth(self, slices: list[int], window: Window) -> Tensor:
        return window.look(self._mask[self._inside(slices)].float(), 0.0)

    def _inside(self, slices: list[int]) -> list[int]:
        last = self._image.shape[0] - 1
        return [min(max(int(z), 0), last) for z in slices]


def _route(areas: np.ndarray, rng: np.random.Generator) -> tuple[int, int, int]:
    """Return the prompted slice, the direction of the walk, and the slice that it begins at.

    Some prompt the largest slice, some any that can be seen, some one near an end, with the walk
    on its way out.
    """
    seen = np.flatnonzero(areas >= min(8, areas.max()))
    direction = int(rng.choice([-1, 1]))
    way = rng.random()
    if way < 0.2:
        inwards = int(rng.integers(0, 4))
        anchor = int(
            seen[max(-1 - inwards, -len(seen))]
            if direction > 0
            else seen[min(inwards, len(seen) - 1)]
        )
        return anchor, direction, anchor
    anchor = int(np.argmax(areas)) if way < 0.6 else int(rng.choice(seen))
    if rng.random() < 0.45:
        return anchor, direction, anchor
    labelled = np.flatnonzero(areas)
    reach = int(labelled[-1] - anchor if direction > 0 else anchor - labelled[0])
    return anchor, direction, anchor + direction * _jump(reach, rng)


def _jump(reach: int, rng: np.random.Generator) -> int:
    """How far from the anchor the walk begins: anywhere, close to the end, or beyond it.

    Beyond it something is expected that is not there any more: a walk that has gone on too far.
    """
    if rng.random() < 0.5:
        return int(rng.integers(0, reach + 1))
    return max(0, reach + int(rng.integers(-2, 4)))


def _prompt(mask: SliceMask, rng: np.random.Generator) -> tuple[Window, Tensor | None, Tensor]:
    """Draw a box, a click, or both, and the window that follows from them."""
    with_box, with_click = ((True, False), (False, True), (True, True))[
        int(rng.choice(3, p=[0.6, 0.3, 0.1]))
    ]
    if not with_box:
        window, clicks = _lone_click(mask, rng, CLICK_MARGIN)
        return window, None, clicks
    sides = _inexact_box(_sides(mask), rng)
    window = _around_box(sides, rng)
    top, left = window.place(sides[0], sides[1])
    bottom, right = window.place(sides[2], sides[3])
    like = torch.zeros(())
    places = [window.place(*_click(mask, rng))] if with_click else []
    clicks = torch.stack([spots(places, like), spots([], like)])
    return window, filled_box((top, left, bottom, right), like), clicks


def _lone_click(
    mask: SliceMask, rng: np.random.Generator, margin: tuple[float, float]
) -> tuple[Window, Tensor]:
    """Draw a click, and a window whose size says little of the object's."""
    y0, x0, y1, x1 = _sides(mask)
    y, x = _click(mask, rng)
    factor = float(np.exp(rng.uniform(np.log(margin[0]), np.log(margin[1]))))
    side = min(max(y1 - y0, x1 - x0) * factor, SIDE)
    offset = rng.normal(0.0, 0.02, 2) * side
    window = Window.around(y + offset[0], x + offset[1], side)
    like = torch.zeros(())
    return window, torch.stack([spots([window.place(y, x)], like), spots([], like)])


def _sides(mask: SliceMask) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (float(rows[0]), float(columns[0]), float(rows[-1] + 1), float(columns[-1] + 1))


def _inexact_box(
    sides: tuple[float, float, float, float], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Move the sides as hands do: not at all, by a few per cent, or by up to six pixels."""
    y0, x0, y1, x1 = sides
    height, width = y1 - y0, x1 - x0
    way = rng.random()
    if way < 0.45:
        return sides
    if way < 0.75:
        slip = rng.normal(0.0, 0.05, 4) * np.array([height, width, height, width])
    else:
        most = np.minimum(rng.uniform(1.0, 6.0), 0.3 * np.array([height, width, height, width]))
        slip = rng.uniform(-1.0, 1.0, 4) * most
    dy0, dx0, dy1, dx1 = (float(round(s)) for s in slip)
    return (y0 + dy0, x0 + dx0, max(y1 + dy1, y0 + dy0 + 1), max(x1 + dx1, x0 + dx0 + 1))


def _around_box(sides: tuple[float, float, float, float], rng: np.random.Generator) -> Window:
    y0, x0, y1, x1 = sides
    extent = max(y1 - y0, x1 - x0)
    side = extent * float(rng.uniform(*MARGIN))
    offset = rng.normal(0.0, 0.03, 2) * side
    return Window.around((y0 + y1) / 2 + offset[0], (x0 + x1) / 2 + offset[1], side)


def _walk_window(known: SliceMask, anchor: SliceMask, rng: np.random.Generator) -> Window:
    """Return a window around what is known on the slice before, not much smaller than before."""
    y0, x0, y1, x1 = _sides(known if known.any() else anchor)
    a0, b0, a1, b1 = _sides(anchor)
    least = float(rng.uniform(0.4, 1.0)) * max(a1 - a0, b1 - b0)
    half = max(y1 - y0, x1 - x0, least) / 2
    y, x = (y0 + y1) / 2, (x0 + x1) / 2
    return _around_box((y - half, x - half, y + half, x + half), rng)


def _click(mask: SliceMask, rng: np.random.Generator) -> tuple[float, float]:
    """Return a click inside: anywhere, or near the middle; continuous indices."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    inside = np.argwhere(mask if rng.random() < 0.6 else depth >= 0.6 * depth.max())
    y, x = inside[int(rng.integers(len(inside)))]
    return (float(y) + 0.5, float(x) + 0.5)


def inexact(truth: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a mask as a walk might have left it: shifted, swollen or shrunk, ragged; 0 or 1."""
    if rng.random() < 0.25:
        return (truth > 0.5).float()
    image = ndimage.gaussian_filter(truth.numpy(), float(rng.uniform(0.5, 4.0)))
    image = ndimage.shift(image, rng.normal(0.0, 1.5, 2), order=1)
    ragged = resized(torch.from_numpy(rng.normal(size=(1, 9, 9))), LOOK_SIDE)[0].numpy()
    image = image + float(rng.uniform(0.0, 0.15)) * ragged * (image > 0.05)
    found = image > float(rng.uniform(0.25, 0.75))
    if not found.any():
        return (truth > 0.5).float()
    return torch.from_numpy(found.astype(np.float32))
