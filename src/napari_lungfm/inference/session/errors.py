"""What can go wrong with a session and its log."""

from napari_lungfm._core.exceptions import InputFileError, LungFMError, UsageError


class SessionError(UsageError):
    """The session does not allow this action now: a locked object, an unknown prompt."""


class SessionMismatchError(UsageError):
    """A log belongs to another image or another model, or a newer version wrote it."""


class SessionFileError(InputFileError, ValueError):
    """A log or a saved session that is damaged; the message names the line."""


class InterruptedActionError(LungFMError, RuntimeError):
    """The action was interrupted from another thread; the session is as it was before."""
