"""The objects of a session as immutable values that share what did not change."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.types import Index3, MaskArray, Region
from napari_lungfm.inference.session.history import Prompts, Step
from napari_lungfm.models.crops import SliceCrop
from napari_lungfm.models.prompts import Stop, prompted_slices


@dataclass(frozen=True, eq=False)
class AnnotatedObject:
    """One object of a session.

    Parameters
    ----------
    label
        Its value in the label map, 1 to 255; what it is known by.
    name
        Its name.
    colour
        What it is shown in, ``#rrggbb``; ``None`` where nobody has chosen one.
    locked
        When it was finished, as a running number; ``None`` while it is open.
    prompts
        Number of each prompt → the prompt, in the order in which they were given.
    masks
        Slice → what is on it; empty slices are left out.
    stale
        Slices that were propagated before the prompts changed: visible, but out of date.
    under
        What was on prompted slices before they were prompted.
    history
        What led to the masks.
    """

    label: int
    name: str
    colour: str | None = None
    locked: int | None = None
    prompts: Prompts = field(default_factory=dict)
    masks: Mapping[int, SliceCrop] = field(default_factory=dict)
    stale: frozenset[int] = frozenset()
    under: Mapping[int, SliceCrop] = field(default_factory=dict)
    history: Step | None = None

    @property
    def prompted(self) -> tuple[int, ...]:
        """The slices that say where the object is, in ascending order: where to jump to."""
        return prompted_slices(self.prompts.values())

    @property
    def slices_with_prompts(self) -> frozenset[int]:
        """All slices with a prompt on them, negative clicks included, stops left out."""
        return frozenset(p.z for p in self.prompts.values() if not isinstance(p, Stop))

    @property
    def extent(self) -> tuple[int, int] | None:
        """First and last slice with something on it, or ``None``."""
        return (min(self.masks), max(self.masks)) if self.masks else None

    @property
    def voxels(self) -> int:
        """Number of voxels of its mask."""
        return sum(crop.area for crop in self.masks.values())

    def mask(self, shape: Index3) -> MaskArray:
        """Return its mask ``(z, y, x)``, whatever other objects claim."""
        mask = np.zeros(shape, dtype=bool)
        for z, crop in self.masks.items():
            mask[z][crop.box] = crop.part
        return mask


@dataclass(frozen=True, eq=False)
class SessionState:
    """All objects of a session at one moment.

    Parameters
    ----------
    objects
        Label → object, in the order in which they were made.
    next_prompt
        Number of the next prompt.
    next_lock
        Running number of the next object that is finished.
    """

    objects: Mapping[int, AnnotatedObject] = field(default_factory=dict)
    next_prompt: int = 1
    next_lock: int = 1

    def in_precedence(self) -> list[AnnotatedObject]:
        """Return the objects, those first that keep voxels which several claim.

        Finished ones come first, in the order in which they were finished; then open ones in
        the order in which they were made.
        """
        finished = [each for each in self.objects.values() if each.locked is not None]
        finished.sort(key=lambda each: each.locked or 0)
        return [*finished, *(each for each in self.objects.values() if each.locked is None)]

    def labels(self, region: Region) -> npt.NDArray[np.uint8]:
        """Return the label map ``array[region]``; the region has plain bounds and steps of 1."""
        planes, rows, columns = region
        labels = np.zeros(tuple(bounds.stop - bounds.start for bounds in region), dtype=np.uint8)
        for each in self.in_precedence():
            for z, crop in each.masks.items():
                if planes.start <= z < planes.stop:
                    _paint(labels[z - planes.start], crop, each.label, rows.start, columns.start)
        return labels


def changed_region(before: SessionState, after: SessionState) -> Region | None:
    """Return the smallest region in which two label maps may differ, or ``None``."""
    ranks = [[each.label for each in state.in_precedence()] for state in (before, after)]
    order_is_same = ranks[0] == ranks[1]
    crops: list[tuple[int, SliceCrop]] = []
    for label in {*before.objects, *after.objects}:
        old = before.objects[label].masks if label in before.objects else {}
        new = after.objects[label].masks if label in after.objects else {}
        for z in {*old, *new}:
            a, b = old.get(z), new.get(z)
            if a != b or not order_is_same:
                crops += [(z, crop) for crop in (a, b) if crop is not None]
    return _hull(crops)


def changed_in_slice(z: int, before: SliceCrop | None, after: SliceCrop | None) -> Region | None:
    """Return the smallest region that holds both crops of a slice, ``None`` if they are equal."""
    if before == after:
        return None
    return _hull((z, crop) for crop in (before, after) if crop is not None)


def _hull(crops: Iterable[tuple[int, SliceCrop]]) -> Region | None:
    places = [(z, *crop.box) for z, crop in crops]
    if not places:
        return None
    return (
        slice(min(z for z, _, _ in places), max(z for z, _, _ in places) + 1),
        slice(min(y.start for _, y, _ in places), max(y.stop for _, y, _ in places)),
        slice(min(x.start for _, _, x in places), max(x.stop for _, _, x in places)),
    )


def _paint(
    target: npt.NDArray[np.uint8], crop: SliceCrop, label: int, row: int, column: int
) -> None:
    """Paint a crop into a window of a slice whose first voxel is ``(row, column)``."""
    rows, columns = crop.box
    y0, y1 = max(rows.start - row, 0), min(rows.stop - row, target.shape[0])
    x0, x1 = max(columns.start - column, 0), min(columns.stop - column, target.shape[1])
    if y1 <= y0 or x1 <= x0:
        return
    window = target[y0:y1, x0:x1]
    top, left = y0 + row - rows.start, x0 + column - columns.start
    part = crop.part[top : top + y1 - y0, left : left + x1 - x0]
    window[part & (window == 0)] = label
