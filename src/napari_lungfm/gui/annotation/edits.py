"""What a brush stroke changed: napari's paint events as whole regions before and after."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.types import Region

Block = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Stroke:
    """One change that was made by hand.

    Parameters
    ----------
    region
        Smallest region of the label map that holds it.
    before, after
        Labels there ``(z, y, x)``, copies.
    """

    region: Region
    before: Block
    after: Block


def stroke_of(atoms: Sequence[Any], data: Block) -> Stroke | None:
    """Return what the value of a paint event says, ``None`` if nothing.

    Parameters
    ----------
    atoms
        The event's value. Each is either a box, a mask in it, the old values under the mask and
        the new value; or indices, old values and new values.
    data
        The labels. Strokes of the mouse are in them when the event comes, those of a program are
        not yet, so that both sides are made from the atoms.
    """
    places = [_place(atom) for atom in atoms]
    if not places:
        return None
    starts = np.min([[s.start for s in place] for place in places], axis=0)
    stops = np.max([[s.stop for s in place] for place in places], axis=0)
    region: Region = tuple(slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True))
    before = np.array(data[region])
    pairs = list(zip(atoms, places, strict=True))
    for atom, place in reversed(pairs):
        _put(atom, place, before, starts, atom[-2])
    after = before.copy()
    for atom, place in pairs:
        _put(atom, place, after, starts, atom[-1])
    return Stroke(region, before, after)


def _place(atom: Any) -> tuple[slice, ...]:
    if len(atom) == 4:
        return tuple(atom[0])
    return tuple(slice(int(np.min(i)), int(np.max(i)) + 1) for i in atom[0])


def _put(atom: Any, place: tuple[slice, ...], block: Block, starts: Any, values: Any) -> None:
    """Write the old or the new values of an atom."""
    if len(atom) == 3:
        block[tuple(np.asarray(i) - s for i, s in zip(atom[0], starts, strict=True))] = values
        return
    part = block[tuple(slice(p.start - s, p.stop - s) for p, s in zip(place, starts, strict=True))]
    if atom[1] is None:
        part[...] = values
    else:
        part[atom[1]] = values


def keep_others(stroke: Stroke, label: int) -> Block:
    """Return the labels after a stroke without what it took from other objects.

    Parameters
    ----------
    stroke
        The change.
    label
        The object that was painted or erased.
    """
    final = stroke.after.copy()
    foreign = (stroke.before != stroke.after) & ~np.isin(stroke.before, (0, label))
    stray = (stroke.before != stroke.after) & ~np.isin(stroke.after, (0, label))
    wrong = foreign | stray
    final[wrong] = stroke.before[wrong]
    return final
