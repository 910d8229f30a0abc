"""The one door into the store: every file is examined before it gets its name."""

import datetime
import warnings
from collections.abc import Mapping
from pathlib import Path

from napari_lungfm._core.exceptions import LungFMWarning
from napari_lungfm.models.catalogue import CheckpointCard, full_name
from napari_lungfm.models.weights.errors import WeightsError
from napari_lungfm.models.weights.store import Manifest
from napari_lungfm.models.weights.verify import (
    Examined,
    check_architecture,
    check_digests,
    check_not_another,
)


def admit(
    examined: Examined,
    digests: Mapping[str, str],
    card: CheckpointCard,
    variant: str,
    *,
    file: str,
    size: int,
    source: str,
    licence_accepted: bool,
    where: str,
) -> Manifest:
    """Make the record of a file, if it may be what it is to be.

    Parameters
    ----------
    examined
        What is in the file.
    digests
        Of the file, as `files.file_digests` returns them.
    card, variant
        What it is to be.
    file, size
        Its name in the store and bytes.
    source
        Where it came from.
    licence_accepted
        Whether the user said yes to the licence.
    where
        What to call the file in messages.

    Raises
    ------
    WeightsError
        If it is another model's, is not the published file, or was trained further but is to
        stand for the published one.
    """
    name = full_name(card.name, variant, card)
    check_architecture(examined.layout, card, variant, where=where)
    published = card.published(variant)
    checked: tuple[str, ...] = ()
    if published is None:
        check_not_another(digests, card, where=where)
    else:
        if examined.ours is not None:
            msg = (
                f"{where} was trained further with this package, it cannot stand for '{name}'; "
                f"import it under a name of its own: --as {card.name}:NAME"
            )
            raise WeightsError(msg)
        checked = check_digests(digests, published, name, where=where)
        if published.checks and not checked:
            _warn_unchecked(name, published.checks[0].algorithm)
    layout = examined.layout
    return Manifest(
        model=card.name,
        variant=variant,
        file=file,
        source=source,
        sha256=digests["sha256"],
        size=size,
        architecture=layout.architecture,
        wrapper=layout.wrapper,
        prefix=layout.prefix,
        checked=checked,
        imported=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        licence=card.licence,
        licence_accepted=licence_accepted,
        fine_tuned=dict(examined.ours) if examined.ours is not None else None,
    )


def _warn_unchecked(name: str, algorithm: str) -> None:
    warnings.warn(
        f"the published check value of '{name}' is an {algorithm}, which needs the package "
        "'xxhash' (pip install xxhash); the file was not compared with it",
        LungFMWarning,
        stacklevel=4,
    )


def stored_filename(card: CheckpointCard, variant: str, source: Path) -> str:
    """Return the name that a file gets in the store: the published one, or its own ending."""
    published = card.published(variant)
    if published is not None and Path(published.filename).suffix == source.suffix:
        return published.filename
    suffix = source.suffix if source.suffix in {".pt", ".pth", ".safetensors"} else ".pt"
    return f"{card.name}-{variant}{suffix}"
