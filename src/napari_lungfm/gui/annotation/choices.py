"""Which structure of another mask an object is compared with, where its name does not say so."""

from collections.abc import Mapping
from weakref import WeakKeyDictionary, ref

from napari.layers import Image, Labels
from psygnal import Signal

from napari_lungfm.geometry import LabelMap
from napari_lungfm.gui.annotation.controller import Controller
from napari_lungfm.gui.annotation.matching import Claims


class Choices:
    """Structures that were chosen by hand, for every object; kept while the case is open.

    Parameters
    ----------
    controller
        What is annotated.
    """

    #: Another structure was chosen.
    changed = Signal()

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._image: ref[Image] | None = None  # a case that is closed is to be freed
        #: Layer → object → its name then, and the label that was chosen.
        self._chosen: WeakKeyDictionary[Labels, dict[int, tuple[str, int]]] = WeakKeyDictionary()
        controller.opened.connect(self._on_opened)

    def choose(self, layer: Labels, label: int, value: int | None) -> None:
        """Compare an object with a structure of a layer; ``None`` goes by its name again."""
        chosen = self._chosen.setdefault(layer, {})
        chosen.pop(label, None)
        obj = self._controller.objects.get(label)
        if value is not None and obj is not None:
            chosen[label] = (obj.name, value)
        self.changed.emit()

    def of(self, layer: Labels | None, titles: Mapping[int, str]) -> dict[int, int]:
        """Return the label of a layer that was chosen, by the label of the object.

        An object that was since given the name of a structure of the layer goes by that.

        Parameters
        ----------
        layer
            The other mask.
        titles
            Label value → name, of it.
        """
        objects = self._controller.objects
        known = {title.casefold() for title in titles.values()}
        chosen = self._chosen.get(layer, {}) if layer is not None else {}
        return {
            label: value
            for label, (name, value) in chosen.items()
            if label in objects
            and (objects[label].name == name or objects[label].name.casefold() not in known)
        }

    def claims(self) -> Claims:
        """Return which objects there are now; may be asked by another thread."""
        objects = self._controller.objects
        names = {label: each.name for label, each in objects.items()}
        return Claims(names, frozenset(i for i, each in objects.items() if each.prompts))

    def _on_opened(self) -> None:
        image = self._controller.image
        if self._image is None or self._image() is not image:
            self._image = ref(image) if image is not None else None
            self._chosen.clear()


def what_to_do(found: LabelMap, present: tuple[int, ...]) -> str:
    """Return how an object gets a structure of a mask that has none of its name."""
    if not present:
        return "it is empty: choose another one"
    names = ", ".join(title_of(found, v) for v in present)
    name = f"one of: {names};" if len(present) > 1 else f"'{names}',"
    return f"rename the object to {name} or choose it under 'In reference'"


def title_of(found: LabelMap, value: int) -> str:
    """Return what a label of a mask is called."""
    return found.labels.get(value) or f"label {value}"
