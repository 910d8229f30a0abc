"""Which stored weights a published automatic model needs. Nothing heavy is imported."""

from napari_lungfm._core.exceptions import UsageError
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


def is_published(name: str) -> bool:
    """Tell whether others publish all weights that a model needs.

    Raises
    ------
    UsageError
        If there is no such model.
    """
    needed = (resolve(each) for each in needed_weights(name))
    return all(card.published(variant) is not None for card, variant in needed)


def refuse_several(name: str, command: str) -> None:
    """Refuse a name that is made of several stored files where one file is asked for.

    Parameters
    ----------
    name
        A name as `resolve` takes it.
    command
        What is to be done with each of the files, as on the command line: ``import FILE --as``.

    Raises
    ------
    UsageError
        If it is, naming them; or if there is no such model.
    """
    needed = needed_weights(name)
    if len(needed) > 1:
        calls = " and ".join(f"models {command} {each}" for each in needed)
        msg = f"'{name}' is no file of its own, it is made of {len(needed)}: {calls}"
        raise UsageError(msg)
