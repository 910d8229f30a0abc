"""What is said to the user, in one line."""

import logging
from dataclasses import dataclass
from typing import Literal, TypeAlias

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm.gui.annotation.errors import OpeningCancelledError
from napari_lungfm.inference.session import InterruptedActionError
from napari_lungfm.models.automatic.protocol import SegmentationCancelledError

Level: TypeAlias = Literal["hint", "done", "warning", "error"]
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """One line for the user.

    Parameters
    ----------
    level
        How it is meant.
    text
        What it says.
    about
        The panel that it is about, ``""`` for that of the annotation.
    """

    level: Level
    text: str
    about: str = ""


def explain(error: BaseException) -> Notice:
    """Return what to tell of an error; what nobody has foreseen goes to the log as well."""
    if isinstance(error, InterruptedActionError):
        return Notice("warning", "Cancelled; nothing has changed.")
    if isinstance(error, SegmentationCancelledError | OpeningCancelledError):
        return Notice("warning", _sentence(str(error)))
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Notice(
            "error",
            "Not enough memory for this model: choose a smaller one (or the device cpu), or close "
            "other images; what you have done so far is kept.",
        )
    if isinstance(error, LungFMError):
        return Notice("error", _sentence(str(error)))
    _LOGGER.error("an unforeseen error", exc_info=error)
    what = " ".join(str(error).split())[:200]
    return Notice(
        "error",
        f"Unforeseen error ({type(error).__name__}: {what}). What you have done so far is kept; "
        "please report it.",
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
