"""What can be read of the workbench at any time, and what it tells of."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from psygnal import Signal

from napari_lungfm.gui.annotation.facts import Annotation
from napari_lungfm.gui.annotation.notices import Level, Notice
from napari_lungfm.gui.annotation.work import Engine
from napari_lungfm.inference.session import AnnotatedObject, AnnotationSession, SessionState
from napari_lungfm.plugin.palette import default_colour


@dataclass(eq=False)
class Shown:
    """What was last heard of the session, for the widgets to show."""

    state: SessionState = field(default_factory=SessionState)
    can_undo: bool = False
    can_redo: bool = False


class BenchView:
    """The reading half of `Workbench`."""

    #: Something that a widget shows may have changed.
    changed = Signal()
    #: Something is to be said to the user.
    noticed = Signal(Notice)
    #: A `Walking` while a propagation is under way, then ``None``.
    walking = Signal(object)
    #: A `Repeating` while a session is done again, then ``None``.
    repeating = Signal(object)
    #: The label map on screen has changed: region, labels before, labels after.
    labels_changed = Signal(object, object, object)
    #: Another session is open, or none any more; the label map on screen is another one.
    opened = Signal()
    #: An `Interaction` is done.
    interacted = Signal(object)
    #: What to know of model and image, one line; empty where there is nothing.
    remarked = Signal(str)
    #: Sessions of this image that can be gone on with (a list of `SavedSession`).
    restorable = Signal(object)

    def __init__(self) -> None:
        self.engine = Engine()
        self.annotation: Annotation | None = None
        self._shown = Shown()
        #: Colours that were chosen and that the session does not have yet.
        self._colours: dict[int, str] = {}
        #: What to know of model and image now; see `remarked`.
        self.remark = ""
        self._active = 0
        self._began = time.monotonic()

    @property
    def state(self) -> SessionState:
        """All objects, as last heard."""
        return self._shown.state

    @property
    def objects(self) -> Mapping[int, AnnotatedObject]:
        """Label → object."""
        return self._shown.state.objects

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return self._shown.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is something to do again."""
        return self._shown.can_redo

    @property
    def active(self) -> int:
        """Label of the object that prompts go to; 0 while there is none."""
        return self._active if self._active in self.objects else 0

    @property
    def active_object(self) -> AnnotatedObject | None:
        """The object that prompts go to."""
        return self.objects.get(self._active)

    @property
    def session(self) -> AnnotationSession | None:
        """The session, for reading; what changes it goes through the engine's thread."""
        here = self.annotation
        return self.engine.session if here is not None and here.ready else None

    @property
    def log(self) -> Path | None:
        """Where the session is kept."""
        return self.annotation.log if self.annotation else None

    def colour_of(self, label: int) -> str:
        """Return the colour of an object, ``#rrggbb``."""
        obj = self.objects.get(label)
        chosen = self._colours.get(label) or (obj.colour if obj is not None else None)
        return chosen or default_colour(label)

    def voxel_volume_ml(self) -> float:
        """Return the volume of a voxel; NaN without an image."""
        here = self.annotation
        return float("nan") if here is None else here.volume.geometry.voxel_volume_ml

    def tell_remark(self, text: str) -> None:
        """Tell what there is to know of model and image."""
        self.remark = text
        self.remarked.emit(text)

    def say(self, level: Level, text: str) -> None:
        """Tell the user something."""
        self.noticed.emit(Notice(level, text))


def counted(number: int, what: str) -> str:
    """Return a number with its noun: ``"1 slice"``, ``"3 slices"``."""
    return f"{number} {what}{'' if number == 1 else 's'}"
