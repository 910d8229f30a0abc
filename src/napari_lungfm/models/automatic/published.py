"""Which stored weights a published automatic model needs. Nothing heavy is imported."""

from napari_lungfm.models.catalogue import resolve

#: lungmask's lobes where its model of whole lungs says that there is lung, as the package fuses
#: them: a name of ours for two of its files.
FUSED = "LTRCLobes_R231"


def needed_weights(name: str) -> tuple[str, ...]:
    """Return the names in the store of all weights that a model needs.

    Raises
    ------
    UsageError
        If there is no such model.
    """
    card, variant = resolve(name)
    if card.family == "lungmask" and variant.lower() == FUSED.lower():
        return (f"{card.name}:LTRCLobes", card.name)
    return (name,)
