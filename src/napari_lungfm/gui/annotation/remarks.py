"""What there is to know of a model on an image before its masks are believed."""

import contextlib
from collections.abc import Iterable

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm.geometry import Volume
from napari_lungfm.models.registry import trained_model
from napari_lungfm.preprocessing.windowing import told_if_no_hu


def remark_on(name: str, volume: Volume) -> str:
    """Return one line, empty where there is nothing to say.

    Parameters
    ----------
    name
        Of the model; see `create_model` and `create_automatic_model`.
    volume
        The image.
    """
    notes = [volume.metadata.get("assumed"), told_if_no_hu(volume)]
    with contextlib.suppress(LungFMError):  # a model that is not one of ours
        description = trained_model(name)
        if description is not None:
            notes += [description.told_if_small(), description.told_if_seen(volume)]
    return in_one_line(notes)


def in_one_line(notes: Iterable[str | None]) -> str:
    """Return notes as sentences; those that are empty left out."""
    return " ".join(f"Note: {note}." for note in notes if note)
