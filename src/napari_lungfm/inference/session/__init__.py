"""The annotation session: one headless object for the widget, the command line, the benchmark."""

from napari_lungfm.inference.session.caching import CacheBudget
from napari_lungfm.inference.session.errors import (
    InterruptedActionError,
    SessionError,
    SessionFileError,
    SessionMismatchError,
)
from napari_lungfm.inference.session.recording import Recording, read_recording
from napari_lungfm.inference.session.results import PromptOutcome, SliceUpdate
from napari_lungfm.inference.session.session import AnnotationSession
from napari_lungfm.inference.session.state import AnnotatedObject, SessionState

__all__ = [
    "AnnotatedObject",
    "AnnotationSession",
    "CacheBudget",
    "InterruptedActionError",
    "PromptOutcome",
    "Recording",
    "SessionError",
    "SessionFileError",
    "SessionMismatchError",
    "SessionState",
    "SliceUpdate",
    "read_recording",
]
