"""What can go wrong with weights."""

from napari_lungfm._core.exceptions import LungFMError


class WeightsError(LungFMError, ValueError):
    """A file of weights is damaged, unsafe, or not what it should be."""


class WeightsNotFoundError(LungFMError, FileNotFoundError):
    """Weights are not in the store; the message says how to get them."""


class DownloadError(LungFMError, OSError):
    """A download failed; what is there already is kept where it can be used."""


class DownloadCancelledError(DownloadError):
    """A download was cancelled; the next one goes on from where it stopped."""
