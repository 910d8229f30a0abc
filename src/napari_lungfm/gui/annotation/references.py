"""Which layer suggests itself as the reference of an image."""

from collections.abc import Iterable

from napari.layers import Image, Labels, Layer

from napari_lungfm._core.exceptions import GeometryError
from napari_lungfm.gui.annotation.layers import MADE, is_ours
from napari_lungfm.gui.annotation.matching import derivation_of
from napari_lungfm.plugin.layer_geometry import METADATA_KEY, LayerInfo, info_of_layer


def lone_reference(layers: Iterable[Layer], image: Image) -> Labels | None:
    """Return the only opened label layer on the grid of an image, ``None`` if there are several.

    Masks that were made here are none: those of models, of an annotation, of a saved session,
    what was made of several masks, and empty layers to paint on.
    """
    found = [layer for layer in layers if isinstance(layer, Labels) and _was_opened(layer)]
    try:
        grid = info_of_layer(image).geometry
        fitting = [layer for layer in found if info_of_layer(layer).geometry.is_close(grid)]
    except GeometryError:  # no volume, or one of the layers lies nowhere
        return None
    return fitting[0] if len(fitting) == 1 else None


def _was_opened(layer: Labels) -> bool:
    if is_ours(layer) or layer.metadata.get(MADE) or derivation_of(layer) is not None:
        return False
    facts = layer.metadata.get(METADATA_KEY)
    if isinstance(facts, dict):
        return LayerInfo.from_metadata(layer.metadata) is not None and not facts.get("session")
    return layer.source.path is not None
