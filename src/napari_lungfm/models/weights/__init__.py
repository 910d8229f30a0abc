"""Pretrained weights: fetched, imported, recognised, checked and found again.

Nothing heavy is imported here. `loading.load_weights` is what a model adapter calls.
"""

from napari_lungfm.models.weights.errors import (
    DownloadCancelledError,
    DownloadError,
    WeightsError,
    WeightsNotFoundError,
)
from napari_lungfm.models.weights.store import (
    ENVIRONMENT_VARIABLE,
    Manifest,
    StoredWeights,
    WeightStore,
    weights_folder,
)

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "DownloadCancelledError",
    "DownloadError",
    "Manifest",
    "StoredWeights",
    "WeightStore",
    "WeightsError",
    "WeightsNotFoundError",
    "weights_folder",
]
