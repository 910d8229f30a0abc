"""Which label of another mask is the structure that is asked for, and which layers are masks."""

from collections.abc import Mapping, Sequence

from napari.layers import Labels

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.geometry import LUNG_LABELS, Structure
from napari_lungfm.plugin.derived import Derivation
from napari_lungfm.plugin.layer_geometry import METADATA_KEY

_LUNGS = (Structure.LEFT_LUNG, Structure.RIGHT_LUNG)


def matching_label(
    names: Mapping[int, str], present: Sequence[int], label: int, name: str | None = None
) -> int | None:
    """Return the label of another mask that is a structure, ``None`` where it has none.

    The one of the same name; else the same value; else the only one that there is. A label that
    is named as another structure is never taken, and a lung only by its name, or by its value
    where that has no name: the 1 of a plain mask or of an RTSTRUCT is seldom the left lung.

    Parameters
    ----------
    names
        Label value → name, of the other mask.
    present
        Label values that occur in it.
    label, name
        What is asked for; by default, the name is that of the structure with this value.
    """
    title = name or LUNG_LABELS.get(label, "")
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
