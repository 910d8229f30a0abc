"""What can be read of a session, at any time."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.types import MaskArray, Region
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry
from napari_lungfm.inference.session.engine import SessionEngine
from napari_lungfm.inference.session.log import Entry
from napari_lungfm.inference.session.state import AnnotatedObject, SessionState
from napari_lungfm.inference.session.transitions import object_of
from napari_lungfm.models.protocols import PromptableModel


class SessionView:
    """The reading half of `AnnotationSession`.

    Parameters
    ----------
    engine
        The session.
    differing_lines
        Lines of an opened log whose masks came out otherwise than was recorded.
    """

    def __init__(self, engine: SessionEngine, differing_lines: tuple[int, ...] = ()) -> None:
        self._engine, self._differing = engine, differing_lines

    @property
    def volume(self) -> Volume:
        """The image."""
        return self._engine.volume

    @property
    def model(self) -> PromptableModel:
        """The model."""
        return self._engine.model

    @property
    def geometry(self) -> VolumeGeometry:
        """The grid of the image and of all masks."""
        return self._engine.geometry

    @property
    def state(self) -> SessionState:
        """All objects now; an immutable value."""
        return self._engine.state

    @property
    def objects(self) -> Mapping[int, AnnotatedObject]:
        """Label → object, in the order in which they were made."""
        return self._engine.state.objects

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The lines of the log."""
        return tuple(self._engine.log.entries)

    @property
    def log_path(self) -> Path | None:
        """The file of the log, ``None`` if it is in memory only."""
        return self._engine.log.path

    @property
    def differing_lines(self) -> tuple[int, ...]:
        """Lines of the opened log whose masks came out otherwise than was recorded."""
        return self._differing

    @property
    def can_undo(self) -> bool:
        """There is an action to undo."""
        return self._engine.timeline.can_undo

    @property
    def can_redo(self) -> bool:
        """There is an undone action, and nothing else was done since."""
        return self._engine.timeline.can_redo

    def get(self, label: int) -> AnnotatedObject:
        """Return an object: its prompts, its masks, where it is.

        Raises
        ------
        SessionError
            If there is none with this label.
        """
        return object_of(self.state, label)

    def mask(self, label: int) -> MaskArray:
        """Return all that an object claims: boolean ``(z, y, x)``."""
        return self.get(label).mask(self.geometry.shape)

    def labels(self, region: Region) -> npt.NDArray[np.uint8]:
        """Return the part ``label_map().array[region]`` without making the whole."""
        return self.state.labels(region)

    def label_map(self) -> LabelMap:
        """Return all objects on the grid of the volume, uint8.

        A voxel that several objects claim is that of the one that was finished first; of open
        ones, that of the one that was made first.
        """
        depth, height, width = self.geometry.shape
        array = self.labels((slice(0, depth), slice(0, height), slice(0, width)))
        return LabelMap(array, self.geometry, {i: o.name for i, o in self.objects.items()})
