"""What can go wrong with weights."""

from napari_lungfm._core.download import DownloadCancelledError, DownloadError
from napari_lungfm._core.exceptions import LungFMError

__all__ = [
    "DownloadCancelledError",
    "DownloadError",
    "WeightsError",
    "WeightsNotFoundError",
]


class WeightsError(LungFMError, ValueError):
    """A file of weights is damaged, unsafe, or not what it should be."""


class WeightsNotFoundError(LungFMError, FileNotFoundError):
    """Weights are not in the store; the message says how to get them."""
