"""Which weights a model is made from: known by their hashes before any of them are loaded."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from napari_lungfm import models
from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.files import file_sha256
from napari_lungfm.models.automatic.published import needed_weights
from napari_lungfm.models.registry import brings_weights, trained_model
from napari_lungfm.models.weights.errors import WeightsNotFoundError
from napari_lungfm.models.weights.store import WeightStore

#: Weights that come with the package, by model. Whoever asks for them must not load torch.
_SHIPPED = {"lungfm-s": Path(models.__file__).parent / "lungfm" / "lungfm-s.safetensors"}


def weight_hashes(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return the sha256 of all files that a model is made from, by name.

    Those of the catalogue are as their record in the store says (`models verify` compares it with
    the file); a trained model's as its description says, configuration included. Weights that
    are not here have no entry, and models without weights have none at all.

    Parameters
    ----------
    name
        A name of the registry, or the folder of a trained model.
    options
        Options of the model; its ``weights`` may name a file of one's own.

    Raises
    ------
    LungFMError
        If weights that are here are damaged.
    """
    description = trained_model(name)
    if description is not None:
        return dict(description.files)
    return dict(_published(name, options.get("weights")))


def _published(name: str, file: Any) -> Iterator[tuple[str, str]]:
    own = _SHIPPED.get(name) if file is None else Path(str(file))
    if own is not None:
        if own.is_file():
            state = own.stat()
            yield own.name, _hash_of(own, state.st_size, state.st_mtime_ns)
        return
    if brings_weights(name):
        return
    try:
        needed = needed_weights(name)
    except UsageError:  # nothing of the catalogue, such as lungs-classical
        return
    for each in needed:
        try:
            yield each, WeightStore().find(each).manifest.sha256
        except WeightsNotFoundError:
            continue


@lru_cache(maxsize=64)
def _hash_of(file: Path, size: int, changed: int) -> str:
    """Return the hash of a file; read again only where its size or its time changed."""
    return file_sha256(file)
