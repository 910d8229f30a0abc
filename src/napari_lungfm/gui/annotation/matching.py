"""Which label of another mask is the structure that is asked for, and which layers are masks."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from napari.layers import Labels

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.geometry import LUNG_LABELS, Structure
from napari_lungfm.plugin.derived import Derivation
from napari_lungfm.plugin.layer_geometry import METADATA_KEY

_LUNGS = (Structure.LEFT_LUNG, Structure.RIGHT_LUNG)


def matching_label(
    names: Mapping[int, str],
    present: Sequence[int],
    label: int,
    name: str | None = None,
    others: Collection[str] = (),
) -> int | None:
    """Return the label of another mask that is a structure, ``None`` where it has none.

    The one of the same name; else the same value; else the only one that there is. A label that
    is named as another structure, or as another object, is never taken, and a lung only by its
    name, or by its value where that has no name: the 1 of a plain mask or of an RTSTRUCT is
    seldom the left lung.

    Parameters
    ----------
    names
        Label value → name, of the other mask.
    present
        Label values that occur in it.
    label, name
        What is asked for; by default, the name is that of the structure with this value.
    others
        Names of the other objects.
    """
    title = name or LUNG_LABELS.get(label, "")
    taken = {each.casefold() for each in others} - {title.casefold()}
    present = [v for v in present if names.get(v, "").casefold() not in taken]
    wanted = structure_named(title)
    if wanted is None and label == int(Structure.TUMOUR):  # a tumour by another name
        wanted = Structure.TUMOUR
    same = [v for v in present if v in names and names[v].casefold() == title.casefold()]
    if not same and wanted is not None:
        same = [v for v in present if structure_named(names.get(v, "")) is wanted]
    if same:
        return label if label in same else same[0]
    if wanted in _LUNGS:
        return label if label in present and label not in names else None
    unclaimed = [v for v in present if structure_named(names.get(v, "")) is None]
    if label in unclaimed:
        return label
    return unclaimed[0] if unclaimed and len(present) == 1 else None


@dataclass(frozen=True)
class Claims:
    """What belongs to whom, so that no object is given what is another's.

    Parameters
    ----------
    names
        Label → name of every object of the session.
    drawn
        Labels of those that have prompts.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    drawn: Collection[int] = ()

    def label_in(
        self,
        titles: Mapping[int, str],
        present: Sequence[int],
        label: int,
        name: str | None = None,
        chosen: Mapping[int, int] | None = None,
    ) -> int | None:
        """Return the label of another mask that a structure is compared with; see `matching_label`.

        One that suits several objects is that of the one which it was chosen for, else of the one
        with its name, else of the first that has prompts.

        Parameters
        ----------
        titles, present
            Label value → name, of the other mask, and the values that occur in it.
        label, name
            What is asked for.
        chosen
            Label of an object → label of the other mask, where one was chosen by hand.
        """
        chosen = {i: v for i, v in (chosen or {}).items() if v in present}
        if label in chosen:
            return chosen[label]
        true = self._suiting(titles, present, label, name)
        if true is None or label not in self.names:
            return true
        if true in chosen.values():
            return None
        title = titles.get(true, "")
        suited = [i for i in self.names if self._suiting(titles, present, i) == true]
        named = [i for i in suited if _same(self.names[i], title)]
        drawn = [i for i in suited if i in self.drawn]
        return true if (*named, *drawn, label)[0] == label else None

    def _suiting(
        self,
        titles: Mapping[int, str],
        present: Sequence[int],
        label: int,
        name: str | None = None,
    ) -> int | None:
        others = [each for i, each in self.names.items() if i != label]
        return matching_label(titles, present, label, name or self.names.get(label), others)


def _same(name: str, title: str) -> bool:
    """Tell whether two names are those of one structure."""
    structure = structure_named(name)
    return name.casefold() == title.casefold() or (
        structure is not None and structure is structure_named(title)
    )


def derivation_of(layer: Labels) -> Derivation | None:
    """Return how a layer was made of other masks, ``None`` for a mask of its own."""
    facts = layer.metadata.get(METADATA_KEY)
    found: Derivation | None = facts.get("derived") if isinstance(facts, Mapping) else None
    return found


def structure_named(title: str) -> Structure | None:
    """Return the structure that a title names, ``None`` for one of its own."""
    try:
        return Structure.from_title(title)
    except UsageError:
        return None
