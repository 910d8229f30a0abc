"""The masks of a saved session, without its image and without its model."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from napari_lungfm._core.exceptions import LungFMError, UsageError
from napari_lungfm._core.types import PathInput
from napari_lungfm.geometry import LabelMap, VolumeGeometry
from napari_lungfm.inference.session.errors import SessionFileError
from napari_lungfm.inference.session.events import Redo, Undo, event_from_dict
from napari_lungfm.inference.session.recording import Recording, read_recording
from napari_lungfm.inference.session.state import SessionState
from napari_lungfm.inference.session.timeline import Timeline
from napari_lungfm.inference.session.transitions import after, check
from napari_lungfm.plugin.palette import default_colour

#: How the name of a saved session ends.
SESSION_SUFFIX = ".session"


class SessionMasks(NamedTuple):
    """The objects of a session, and the colour of each, ``#rrggbb`` by label."""

    label_map: LabelMap
    colours: Mapping[int, str]


def read_session_masks(path: PathInput) -> SessionMasks:
    """Return the objects of a saved session as they were last seen.

    The file holds what the model said, and the first line of its log the grid; nothing else is
    asked.

    Parameters
    ----------
    path
        What `AnnotationSession.save` wrote.

    Returns
    -------
    SessionMasks
        Labels in uint8 on the grid of the image; the colours that the widget showed.

    Raises
    ------
    UsageError
        If it is an event log, which has prompts but no masks.
    InputFileError
        If it cannot be read; `SessionFileError` if it is damaged.
    SessionMismatchError
        If a newer version wrote it.
    """
    recording = read_recording(path)
    geometry = _geometry(recording, Path(path))
    state = _last_state(recording, geometry, Path(path))
    depth, height, width = geometry.shape
    array = state.labels((slice(0, depth), slice(0, height), slice(0, width)))
    labels = LabelMap(array, geometry, {i: o.name for i, o in state.objects.items()})
    return SessionMasks(
        labels, {i: o.colour or default_colour(i) for i, o in state.objects.items()}
    )


def _geometry(recording: Recording, path: Path) -> VolumeGeometry:
    try:
        return VolumeGeometry.from_dict(recording.entries[0]["image"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        msg = f"'{path}' does not say on which grid its masks are ({error})"
        raise SessionFileError(msg) from error


def _last_state(recording: Recording, geometry: VolumeGeometry, path: Path) -> SessionState:
    if recording.findings is None:
        msg = (
            f"'{path}' is the log of a session: it has the prompts, but no masks; open its image "
            "and restore it in the LungFM widget, or use napari-lungfm-bench replay"
        )
        raise UsageError(msg)
    findings = iter(recording.findings)
    timeline, state = Timeline(geometry, kept=256), SessionState()
    for number, entry in enumerate(recording.entries[1:], start=2):
        try:
            event = event_from_dict(entry)
            if isinstance(event, Undo):
                state = timeline.before()
                timeline.undo()
            elif isinstance(event, Redo):
                state = timeline.beyond()
                timeline.redo()
            else:
                check(state, event, geometry)
                found = next(findings, ())
                state = after(state, event, found, geometry)
                timeline.add(event, found, state)
        except LungFMError as error:
            msg = f"line {number} of the log in '{path}' makes no sense there: {error}"
            raise SessionFileError(msg) from error
    return state
