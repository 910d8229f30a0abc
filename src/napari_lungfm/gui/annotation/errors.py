"""What a user of the widgets can do wrong."""

from napari_lungfm._core.exceptions import LungFMError, UsageError


class LayerError(UsageError):
    """A layer that cannot be used; the message says what to do."""


class OpeningCancelledError(LungFMError):
    """The user has stopped the opening of a file or folder."""


class SessionModelError(LungFMError):
    """The model that a saved session was made with cannot be used here."""
