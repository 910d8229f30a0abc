"""All actions of a session, those that were undone included, and the states they led to."""

from collections import OrderedDict
from dataclasses import dataclass

from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.inference.session.errors import SessionError
from napari_lungfm.inference.session.events import Change
from napari_lungfm.inference.session.state import SessionState
from napari_lungfm.inference.session.transitions import Findings, after


@dataclass(frozen=True, eq=False)
class Record:
    """An action, what the model said then, and the number of the action before it."""

    event: Change
    findings: Findings
    parent: int | None


class Timeline:
    """A tree of actions with a place in it: undo goes towards the root, redo back.

    The states used last are kept; others are made again from their actions and the findings,
    without the model.

    Parameters
    ----------
    geometry
        The grid of the volume.
    kept
        How many states are kept.
    """

    def __init__(self, geometry: VolumeGeometry, kept: int) -> None:
        self._geometry, self._kept = geometry, kept
        self.records: list[Record] = []
        self._current: int | None = None
        self._undone: list[int] = []
        self._states: OrderedDict[int, SessionState] = OrderedDict()

    @property
    def can_undo(self) -> bool:
        """There is an action to undo."""
        return self._current is not None

    @property
    def can_redo(self) -> bool:
        """There is an undone action, and nothing else was done since."""
        return bool(self._undone)

    def add(self, event: Change, findings: Findings, state: SessionState) -> None:
        """Note an action and the state it led to; what was undone cannot come back."""
        self.records.append(Record(event, tuple(findings), self._current))
        self._current = len(self.records) - 1
        self._undone.clear()
        self._keep(self._current, state)

    def before(self) -> SessionState:
        """Return the state before the last action.

        Raises
        ------
        SessionError
            If there is nothing to undo.
        """
        if self._current is None:
            msg = "there is nothing to undo"
            raise SessionError(msg)
        return self._state(self.records[self._current].parent)

    def beyond(self) -> SessionState:
        """Return the state after the action that was undone last.

        Raises
        ------
        SessionError
            If there is nothing to redo.
        """
        if not self._undone:
            msg = "there is nothing to redo"
            raise SessionError(msg)
        return self._state(self._undone[-1])

    def undo(self) -> None:
        """Step back; `before` has said that it is possible."""
        if self._current is not None:
            self._undone.append(self._current)
            self._current = self.records[self._current].parent

    def redo(self) -> None:
        """Step forward; `beyond` has said that it is possible."""
        self._current = self._undone.pop()

    def _state(self, number: int | None) -> SessionState:
        path: list[int] = []
        while number is not None and number not in self._states:
            path.append(number)
            number = self.records[number].parent
        state = SessionState() if number is None else self._states[number]
        for missing in reversed(path):
            record = self.records[missing]
            state = after(state, record.event, record.findings, self._geometry)
            self._keep(missing, state)
        return state

    def _keep(self, number: int, state: SessionState) -> None:
        self._states[number] = state
        self._states.move_to_end(number)
        while len(self._states) > self._kept:
            self._states.popitem(last=False)
