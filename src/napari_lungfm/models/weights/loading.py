"""What a model adapter calls: the tensors of a model by name, or of a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lungfm._core.types import PathInput
from napari_lungfm.models.catalogue import CheckpointCard, resolve
from napari_lungfm.models.weights.detect import Layout
from napari_lungfm.models.weights.files import file_digests
from napari_lungfm.models.weights.store import WeightStore
from napari_lungfm.models.weights.verify import check_architecture, check_not_another, examine

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class LoadedWeights:
    """Checked weights, ready for ``load_state_dict(..., strict=True)``.

    Parameters
    ----------
    card
        Card of the model.
    variant
        Which of its weights.
    tensors
        State dict of the stock network that `layout` names, on the CPU. Tensors may be mapped
        from the file: copy them, do not write into them.
    layout
        What the file is; ``layout.architecture`` decides where a card has two configurations.
    sha256
        Of the file, for cache keys and records.
    path
        The file.
    """

    card: CheckpointCard
    variant: str
    tensors: "Mapping[str, torch.Tensor]"
    layout: Layout
    sha256: str
    path: Path


def load_weights(
    name: str, *, path: PathInput | None = None, store: WeightStore | None = None
) -> LoadedWeights:
    """Load the weights of a model.

    Parameters
    ----------
    name
        Name in the catalogue, with a variant after a colon.
    path
        A file to take instead of the stored one; it must fit the model's build.
    store
        Where to look; the default store if ``None``.

    Raises
    ------
    UsageError
        If there is no such model.
    WeightsNotFoundError
        If the weights are not here; the message says how to get them.
    WeightsError
        If the file is damaged, unsafe, incomplete, has NaN in it, or is another model's.
    """
    card, variant = resolve(name)
    if path is None:
        stored = (store or WeightStore()).find(name)
        file, sha256 = stored.path, stored.manifest.sha256
        known_whole = bool(stored.manifest.checked)
    else:
        file, known_whole = Path(path), False
        digests = file_digests(file)
        check_not_another(digests, card, where=f"'{file}'")
        sha256 = digests["sha256"]
    examined = examine(file, known_whole=known_whole)
    check_architecture(examined.layout, card, variant, where=f"'{file}'")
    return LoadedWeights(card, variant, examined.state.tensors, examined.layout, sha256, file)
