"""Whatever is done in whatever order: undo, replay, removal and locks keep their word."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm.inference import AnnotationSession
from napari_lungfm.inference.session.events import Propagate
from napari_lungfm.models import create_model
from napari_lungfm.models.prompts import (
    Box,
    Click,
    MaskPrompt,
    Prompt,
    Stop,
    is_conditioning,
    says_absent,
    slice_range,
)

DEPTH = 9
slices = st.integers(0, DEPTH - 1)
labels = st.sampled_from([3, 3, 3, 5, 5, 7])
drawings = st.sampled_from([(0, 0), (3, 8), (5, 6)])


def drawing(rows: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((12, 14), bool)
    mask[slice(*rows), 2:9] = True
    return mask


boxes = st.builds(
    lambda z, y, x: Box(z, y, x, y + 5, x + 6), slices, st.integers(0, 6), st.integers(0, 7)
)
prompts = st.one_of(
    boxes,
    st.builds(Click, slices, st.integers(3, 8), st.integers(3, 9), st.booleans()),
    st.builds(Stop, slices),
    st.builds(lambda z, rows: MaskPrompt(z, drawing(rows)), slices, drawings),
)


class AnySession(RuleBasedStateMachine):
    """Random actions; those that are refused must leave no trace."""

    kind: str
    setup: tuple[Any, Callable[[], Any]]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.volume, make_model = self.setup
        self.make_model = make_model
        self.log = self.folder / "log.jsonl"
        self.session = AnnotationSession(
            self.volume, make_model(), log=self.log, kept_states=3, kept_snapshots=4
        )
        self.locked: dict[int, Any] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    # ------------------------------------------------------------------ helpers
    def look(self, session: AnnotationSession | None = None) -> dict[int, Any]:
        objects = (session or self.session).objects
        return {
            label: (o.name, o.locked, dict(o.prompts), dict(o.masks), o.stale)
            for label, o in objects.items()
        }

    def attempt(self, act: Callable[[], Any]) -> bool:
        state, lines = self.session.state, self.session.entries
        try:
            act()
        except LungFMError:
            assert self.session.state is state
            assert self.session.entries == lines
            return False
        assert len(self.session.entries) == len(lines) + 1
        return True

    def some_prompt(self, label: int, pick: int) -> int:
        numbers = list(self.session.get(label).prompts)
        return numbers[pick % len(numbers)] if numbers else 999

    # ------------------------------------------------------------------ actions
    @initialize(first=boxes, second=boxes)
    def begin(self, first: Box, second: Box) -> None:
        for label, box in ((3, first), (5, second)):
            self.session.add_object(label)
            self.session.add_prompt(label, box)

    @rule(label=labels)
    def add_object(self, label: int) -> None:
        self.attempt(lambda: self.session.add_object(label))

    @rule(label=labels)
    def delete_object(self, label: int) -> None:
        self.attempt(lambda: self.session.delete_object(label))

    @rule(label=labels, given=st.lists(prompts, min_size=1, max_size=3))
    def add_prompts(self, label: int, given: list[Prompt]) -> None:
        self.attempt(lambda: self.session.add_prompts(label, given))

    @rule(label=labels, prompt=prompts)
    def add_prompt(self, label: int, prompt: Prompt) -> None:
        self.attempt(lambda: self.session.add_prompt(label, prompt))

    @rule(label=labels, z=slices, rows=drawings)
    def edit_slice(self, label: int, z: int, rows: tuple[int, int]) -> None:
        self.attempt(lambda: self.session.edit_slice(label, z, drawing(rows)))

    @rule(label=labels, stroke=st.dictionaries(slices, drawings, min_size=1, max_size=4))
    def edit_slices(self, label: int, stroke: dict[int, tuple[int, int]]) -> None:
        masks = {z: drawing(rows) for z, rows in stroke.items()}
        before, undoable = self.look(), self.session.can_undo
        if self.attempt(lambda: self.session.edit_slices(label, masks)):
            for z, mask in masks.items():
                np.testing.assert_array_equal(self.session.mask(label)[z], mask)
            self.session.undo()
            assert (self.look(), self.session.can_undo) == (before, undoable)
            self.session.redo()

    @rule(label=labels, pick=st.integers(0, 9))
    def remove_prompt(self, label: int, pick: int) -> None:
        self.attempt(lambda: self.session.remove_prompt(label, self.some_prompt(label, pick)))

    @rule(label=labels, pick=st.integers(0, 9), prompt=prompts)
    def replace_prompt(self, label: int, pick: int, prompt: Prompt) -> None:
        self.attempt(
            lambda: self.session.replace_prompt(label, self.some_prompt(label, pick), prompt)
        )

    @rule(
        label=labels,
        way=st.sampled_from(["both", "both", "up", "down"]),
        until=st.none() | slices,
        limit=st.none() | st.sampled_from([2.5, 6.0]),
        count=st.none() | st.integers(1, 5),
    )
    def propagate(
        self, label: int, way: Any, until: int | None, limit: float | None, count: int | None
    ) -> None:
        def go() -> None:
            stream = self.session.propagate(label, way, until=until, max_extent_mm=limit)
            for done, _ in enumerate(stream, start=1):
                if done == count:
                    stream.close()

        self.attempt(go)

    @rule(label=labels)
    def lock(self, label: int) -> None:
        self.attempt(lambda: self.session.lock(label))

    @rule(label=labels)
    def unlock(self, label: int) -> None:
        self.attempt(lambda: self.session.unlock(label))

    @rule(label=labels)
    def clear_stale(self, label: int) -> None:
        self.attempt(lambda: self.session.clear_stale(label))

    @rule()
    def undo(self) -> None:
        self.attempt(self.session.undo)

    @rule()
    def redo(self) -> None:
        self.attempt(self.session.redo)

    # ------------------------------------------------------------------ what must hold
    @precondition(lambda self: self.session.can_undo)
    @rule(times=st.integers(1, 4))
    def undo_and_redo(self, times: int) -> None:
        before, done = self.look(), 0
        while self.session.can_undo and done < times:
            self.session.undo()
            done += 1
        for _ in range(done):
            self.session.redo()
        assert self.look() == before

    @rule()
    def replay(self) -> None:
        again = AnnotationSession.load(self.log, self.volume, self.make_model(), read_only=True)
        assert not again.differing_lines
        assert self.look(again) == self.look()
        assert again.can_undo == self.session.can_undo
        np.testing.assert_array_equal(again.label_map().array, self.session.label_map().array)

    @rule()
    def save_and_go_on_with_the_saved(self) -> None:
        saved = self.folder / "saved.zip"
        self.session.save(saved)
        self.log = self.folder / f"{len(list(self.folder.iterdir()))}.jsonl"
        before = self.look()
        self.session = AnnotationSession.load(saved, self.volume, self.make_model(), log=self.log)
        assert self.look() == before

    @rule()
    def go_on_with_the_log(self) -> None:
        before = self.look()
        self.session = AnnotationSession.load(self.log, self.volume, self.make_model())
        assert self.look() == before

    @invariant()
    def nothing_beyond_stops_and_nothing_without_a_place(self) -> None:
        for each in self.session.objects.values():
            given = tuple(each.prompts.values())
            if not any(is_conditioning(prompt) for prompt in given):
                assert not each.masks
                continue
            assert set(each.masks) <= set(slice_range(given, DEPTH))
            assert each.stale <= set(each.masks)
            assert not {p.z for p in given if says_absent(p)} & set(each.masks)
            for prompt in given:
                if isinstance(prompt, MaskPrompt) and prompt.mask.any():
                    np.testing.assert_array_equal(each.masks[prompt.z].mask((12, 14)), prompt.mask)

    @invariant()
    def locked_objects_stay(self) -> None:
        now = {o.label: o for o in self.session.objects.values() if o.locked is not None}
        array = self.session.label_map().array
        first = self.session.state.in_precedence()[:1]
        for label, each in now.items():
            lock, masks = self.locked.get(label, (None, None))
            if lock == each.locked:
                assert dict(each.masks) == masks
            if first == [each]:
                np.testing.assert_array_equal(array == label, self.session.mask(label))
        self.locked = {label: (o.locked, dict(o.masks)) for label, o in now.items()}


@pytest.mark.parametrize("kind", ["tracker", "slices", "volume", "prompt-ellipse"])
def test_any_actions_in_any_order(kind: str, volume: Any, fake_model: Any) -> None:
    def make_model() -> Any:
        return create_model(kind) if kind == "prompt-ellipse" else fake_model(kind)

    machine = type("Machine", (AnySession,), {"setup": (volume, make_model)})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=checks
        ),
    )


@pytest.mark.slow
def test_any_actions_with_the_classical_method(volume: Any) -> None:
    machine = type("Machine", (AnySession,), {"setup": (volume, lambda: create_model("classical"))})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=10, stateful_step_count=15, deadline=None)
    )


walks = st.builds(
    Propagate,
    st.just(3),
    st.sampled_from(["both", "up", "down"]),
    steps=st.none() | st.integers(1, 4),
)


@pytest.mark.parametrize("kind", ["tracker", "slices", "volume", "classical"])
@given(data=st.data())
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_removed_prompt_was_never_given(
    kind: str, data: Any, volume: Any, fake_model: Any
) -> None:
    make = (lambda: create_model(kind)) if kind == "classical" else (lambda: fake_model(kind))
    first = [data.draw(boxes), data.draw(boxes)]
    rest = data.draw(st.lists(st.one_of(prompts, walks), max_size=6))
    session = AnnotationSession(volume, make())
    session.add_object(3)
    numbers: dict[int, int] = {}
    taken: list[int] = []
    for i, act in enumerate([*first, *rest]):
        try:
            if isinstance(act, Propagate):
                session._engine.do(act)
            else:
                (numbers[i],) = session.add_prompt(3, act).prompt_ids
            taken.append(i)
        except LungFMError:
            continue
    removed = data.draw(st.sampled_from(sorted(numbers)))
    session.remove_prompt(3, numbers[removed])
    list(session.propagate(3))

    other = AnnotationSession(volume, make())
    other.add_object(3)
    for i in taken:
        act = [*first, *rest][i]
        if i == removed:
            continue
        if isinstance(act, Propagate):
            other._engine.do(act)
        else:
            other.add_prompt(3, act)
    list(other.propagate(3))
    assert session.get(3).masks == other.get(3).masks
    assert session.get(3).stale == other.get(3).stale
    # And from there on the two stay the same.
    click = Click(max(session.get(3).masks), 5, 5)
    try:
        other.add_prompt(3, click)
    except LungFMError:
        return
    session.add_prompt(3, click)
    list(session.propagate(3))
    list(other.propagate(3))
    assert session.get(3).masks == other.get(3).masks
