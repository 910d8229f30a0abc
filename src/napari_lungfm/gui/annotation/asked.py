"""The masks of the structure that is asked for, out of labels of several structures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from napari_lungfm._core.types import MaskArray
from napari_lungfm.geometry import LabelMap
from napari_lungfm.gui.annotation.choices import title_of, what_to_do
from napari_lungfm.gui.annotation.errors import LayerError
from napari_lungfm.gui.annotation.matching import Claims


@dataclass(frozen=True, eq=False)
class LabelsOf:
    """Labels of a layer of which one is a mask, and those that were chosen by hand.

    Parameters
    ----------
    map
        The labels.
    chosen
        See `Choices.of`.
    """

    map: LabelMap
    chosen: Mapping[int, int]


@dataclass(frozen=True, eq=False)
class Asked:
    """The structure that is asked for.

    Parameters
    ----------
    label, name
        Of it.
    claims
        Which objects there are.
    """

    label: int
    name: str
    claims: Claims


#: Where a mask comes from: labels of which it is one, or what makes it.
Source: TypeAlias = LabelsOf | Callable[[], MaskArray]


def needed_mask(labels: LabelsOf, asked: Asked, name: str) -> MaskArray:
    """Return the mask of a structure, boolean ``(z, y, x)``.

    Raises
    ------
    LayerError
        If the labels, which are called ``name``, do not have it.
    """
    mask = _mask(labels, asked)
    if mask is None:
        found = labels.map
        msg = f"'{name}' does not have this structure ('{asked.name}')"
        if asked.label in asked.claims.names:
            msg += f": {what_to_do(found, found.present())}"
        else:
            msg += f", it has {listed(found)}: choose another structure or mask"
        raise LayerError(msg)
    return mask


def masks_of(sources: Mapping[str, Source], asked: Asked) -> dict[str, MaskArray]:
    """Return the masks of a structure by the names of their sources, where these have it."""
    made = {
        name: _mask(source, asked) if isinstance(source, LabelsOf) else source()
        for name, source in sources.items()
    }
    return {name: mask for name, mask in made.items() if mask is not None}


def listed(found: LabelMap) -> str:
    """Return what a label map has, in words."""
    names: Sequence[str] = [title_of(found, v) for v in found.present()]
    return ", ".join(names) or "nothing"


def _mask(labels: LabelsOf, asked: Asked) -> MaskArray | None:
    found = labels.map
    true = asked.claims.label_in(
        found.labels, found.present(), asked.label, asked.name, labels.chosen
    )
    return None if true is None else found.mask(true)
