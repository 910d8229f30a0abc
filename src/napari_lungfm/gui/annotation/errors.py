"""What a user of the widgets can do wrong."""

from napari_lungfm._core.exceptions import UsageError


class LayerError(UsageError):
    """A layer that cannot be used; the message says what to do."""
