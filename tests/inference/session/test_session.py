"""What a session does, one action at a time."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_lungfm._core.exceptions import GeometryError, PromptError, UsageError
from napari_lungfm.geometry import Volume, reorient
from napari_lungfm.inference import AnnotationSession, segment_object
from napari_lungfm.inference.session import InterruptedActionError, SessionError
from napari_lungfm.inference.session.events import EditSlices
from napari_lungfm.models.prompts import Box, Click, MaskPrompt, Stop

BOX = Box(4, 2, 2, 9, 10)
KINDS = ["tracker", "slices", "volume"]


# ---------------------------------------------------------------------- objects
def test_objects_have_a_label_and_a_name(opened: Any) -> None:
    session = opened()
    assert session.get(3).name == "tumour"
    assert session.add_object().label == 4
    assert session.add_object(1, "upper node").name == "upper node"
    session.rename_object(1, "lower node")
    session.delete_object(4)
    assert {label: each.name for label, each in session.objects.items()} == {
        3: "tumour",
        1: "lower node",
    }
    assert session.label_map().labels == {3: "tumour", 1: "lower node"}


def test_a_new_object_gets_a_name_that_nobody_has(opened: Any) -> None:
    session = opened()
    session.rename_object(3, "Object 4")
    session.rename_object(3, "object 4")  # its own name is no other's
    assert session.add_object().name == "object 4 2"
    assert session.add_object(5, "x" * 64).name == "x" * 64


def test_a_colour_is_kept_by_locked_and_emptied_objects_and_undone(
    opened: Any, volume: Volume, tmp_path: Any
) -> None:
    session = opened()
    outcome = session.add_prompt(3, BOX)
    session.lock(3)
    session.colour_object(3, "#56B4E9")
    assert session.get(3).colour == "#56b4e9"
    session.save(tmp_path / "a.session")
    again = AnnotationSession.load(tmp_path / "a.session", volume, session.model)
    assert again.get(3).colour == "#56b4e9"
    session.unlock(3)
    session.remove_prompt(3, outcome.prompt_ids[0])
    assert session.get(3).colour == "#56b4e9"
    for _ in range(3):
        session.undo()
    assert session.get(3).colour is None
    with pytest.raises(UsageError, match="#rrggbb"):
        session.colour_object(3, "red")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda s: s.add_object(3), "label 3 is that of 'tumour'"),
        (lambda s: s.add_object(256), "between 1 and 255"),
        (lambda s: s.add_object(5, " "), "needs a name"),
        (lambda s: s.rename_object(3, ""), "needs a name"),
        (lambda s: s.rename_object(3, "x" * 65), "has 65 letters; a name has 64 at most"),
        (lambda s: s.rename_object(3, "a\nb"), "control characters"),
        (lambda s: s.add_object(5, "Tumour "), "object 3 is called 'tumour' already"),
        (lambda s: s.lock(7), "no object with label 7; there are: 3"),
        (lambda s: s.unlock(3), "already open"),
        (lambda s: s.remove_prompt(3, 1), "has no prompt 1; it has: none"),
        (lambda s: [s.undo(), s.undo()], "nothing to undo"),
        (lambda s: s.redo(), "nothing to redo"),
        (lambda s: s.propagate(3), "no box, positive click or mask"),
        (lambda s: s.add_prompt(3, Stop(2)), "no box, positive click or mask"),
        (lambda s: s.add_prompt(3, Box(9, 1, 1, 3, 3)), "slices 0 to 8"),
        (lambda s: s.add_prompt(3, Box(4, 1, 1, 1, 3)), "is empty"),
        (lambda s: s.edit_slice(3, 4, np.ones((3, 3), bool)), r"has shape \(3, 3\)"),
        (lambda s: s.edit_slice(3, 4, np.ones((0, 3), bool)), r"has shape \(0, 3\)"),
    ],
)
def test_what_makes_no_sense_is_refused(opened: Any, act: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        act(opened())


# ---------------------------------------------------------------------- prompts
@pytest.mark.parametrize("kind", KINDS)
def test_the_prompted_slice_comes_at_once(opened: Any, kind: str) -> None:
    session = opened(kind)
    outcome = session.add_prompt(3, BOX)
    (update,) = outcome.slices
    assert (outcome.prompt_ids, update.z) == ((1,), 4)
    assert update.mask.any()
    np.testing.assert_array_equal(session.mask(3)[4], update.mask)
    assert session.get(3).extent == (4, 4)
    assert session.get(3).prompted == (4,)
    painted = np.zeros(session.geometry.shape, bool)
    painted[outcome.changed] = True
    assert not (session.mask(3) & ~painted).any()


@pytest.mark.parametrize("kind", KINDS)
def test_errors_leave_the_session_as_it_was(opened: Any, kind: str, run_all: Any) -> None:
    session = opened(kind)
    session.add_prompts(3, [BOX, Click(6, 5, 5)])
    run_all(session)
    state, entries = session.state, session.entries
    for bad in (
        [Stop(5)],
        [Click(6, 5, 5, positive=False)],
        [Box(4, 3, 3, 3, 8)],
        [Click(4, 1, 99)],
        [MaskPrompt(4, np.zeros((12, 14), bool))],
        [],
    ):
        with pytest.raises(PromptError):
            session.add_prompts(3, bad)
    with pytest.raises(PromptError):
        session.replace_prompt(3, 1, Stop(6))
    for options in ({"until": 7}, {"direction": "up", "until": 5}, {"max_extent_mm": 0.0}):
        with pytest.raises(UsageError):
            session.propagate(3, **options)
    assert session.state is state
    assert session.entries == entries


def test_hand_edits_survive_everything(opened: Any, run_all: Any) -> None:
    drawn = np.zeros((12, 14), bool)
    drawn[3:5, 2:9] = True
    for kind in KINDS:
        session = opened(kind)
        session.add_prompt(3, BOX)
        run_all(session)
        (update,) = session.edit_slice(3, 6, drawn).slices
        np.testing.assert_array_equal(update.mask, drawn)
        run_all(session)
        session.add_prompt(3, Click(2, 3, 3))
        run_all(session)
        np.testing.assert_array_equal(session.mask(3)[6], drawn)
        assert len(session.get(3).prompts) == 3
        session.edit_slice(3, 6, np.zeros_like(drawn))  # in the place of the other edit
        assert len(session.get(3).prompts) == 3
        assert not session.mask(3)[6].any()
        session.undo()
        session.add_prompt(3, Click(8, 3, 3))
        session.edit_slice(3, 6, np.zeros_like(drawn))  # a hole now
        assert not session.mask(3)[6].any()
        run_all(session)
        assert not session.mask(3)[6].any()
        for _ in range(3):
            session.undo()
        session.edit_slice(3, 6, np.zeros_like(drawn))
        run_all(session)
        assert not session.mask(3)[6:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_slices_drawn_at_once_are_one_step_and_as_if_drawn_one_by_one(
    opened: Any, kind: str, run_all: Any
) -> None:
    one, other, nothing = (np.zeros((12, 14), bool) for _ in range(3))
    one[3:5, 2:9], other[4:8, 3:6] = True, True
    at_once, one_by_one = opened(kind), opened(kind)
    for session in (at_once, one_by_one):
        session.add_prompt(3, BOX)
        session.edit_slice(3, 6, one)
        session.edit_slice(3, 3, other)
        run_all(session)
        session.add_prompt(3, Click(2, 3, 3))  # a correction on a slice that was tracked
        run_all(session)
    before, lines = at_once.state, len(at_once.entries)
    outcome = at_once.edit_slices(3, {6: other, 7: one, 3: nothing, 1: other})
    for z, mask in {7: one, 1: other, 6: other, 3: nothing}.items():
        one_by_one.edit_slice(3, z, mask)
    assert len(at_once.entries) == lines + 1
    assert outcome.prompt_ids == (2, 5, 3, 6)
    assert {6, 7, 3, 1} <= {update.z for update in outcome.slices}
    for act in (lambda _: None, run_all, lambda s: s.remove_prompt(3, 5), run_all):
        for session in (at_once, one_by_one):
            act(session)
        assert dict(at_once.get(3).prompts).keys() == dict(one_by_one.get(3).prompts).keys()
        assert at_once.get(3).masks == one_by_one.get(3).masks
        assert at_once.get(3).stale == one_by_one.get(3).stale
    for _ in range(4):
        at_once.undo()
    assert at_once.state.objects == before.objects


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ((), "one mask is needed"),
        (((2, Click(6, 3, 3)),), "one mask is needed"),
        (((2, MaskPrompt(6, np.eye(12, 14))), (3, MaskPrompt(6, np.eye(12, 14)))), "one mask is"),
        (((1, MaskPrompt(6, np.eye(12, 14))),), "have other numbers"),
        (((1, MaskPrompt(5, np.eye(12, 14))),), "are numbered"),
        (((9, MaskPrompt(5, np.eye(12, 14))),), "are numbered"),
    ],
)
def test_a_line_of_drawn_slices_that_makes_no_sense_is_refused(
    opened: Any, prompts: Any, message: str
) -> None:
    session = opened()
    session.add_prompt(3, BOX)
    session.edit_slice(3, 6, np.eye(12, 14, dtype=bool))
    state = session.state
    with pytest.raises(UsageError, match=message):
        session._engine.do(EditSlices(3, prompts))
    assert session.state is state


def test_a_callers_array_is_not_the_sessions(opened: Any) -> None:
    session = opened()
    drawn = np.zeros((12, 14), bool)
    drawn[2:4, 2:4] = True
    session.edit_slice(3, 4, drawn)
    drawn[:] = True
    assert session.mask(3).sum() == 4
    (prompt,) = session.get(3).prompts.values()
    assert prompt.mask.sum() == 4


@pytest.mark.parametrize("kind", KINDS)
def test_changed_prompts_make_tracked_slices_stale(opened: Any, kind: str, run_all: Any) -> None:
    session = opened(kind)
    session.add_prompt(3, BOX)
    assert session.get(3).stale == frozenset()
    run_all(session)
    before = session.mask(3)
    assert session.get(3).stale == frozenset()
    tracked = set(session.get(3).masks) - {4}
    assert tracked
    session.add_prompt(3, Click(4, 5, 5))
    assert session.get(3).stale == tracked
    for z in tracked:
        np.testing.assert_array_equal(session.mask(3)[z], before[z])  # still to be seen
    region = session.clear_stale(3)
    assert set(session.get(3).masks) == {4}
    assert region is not None
    session.undo()
    run_all(session)
    assert session.get(3).stale == frozenset()


def test_nothing_is_left_beyond_a_stop(opened: Any, run_all: Any) -> None:
    session = opened("volume")
    session.add_prompt(3, BOX)
    run_all(session)
    assert max(session.get(3).masks) > 6
    session.add_prompt(3, Stop(6))
    assert max(session.get(3).masks) < 6
    run_all(session)
    assert max(session.get(3).masks) < 6


def test_removing_the_last_prompt_clears_the_object(opened: Any, run_all: Any) -> None:
    session = opened()
    session.add_prompts(3, [BOX, Click(5, 4, 4, positive=False), Stop(8)])
    run_all(session)
    session.remove_prompt(3, 1)
    each = session.get(3)
    assert (dict(each.masks), each.stale, sorted(each.prompts)) == ({}, frozenset(), [2, 3])
    with pytest.raises(PromptError):
        session.propagate(3)
    session.undo()
    assert session.get(3).masks


def test_a_slice_shows_what_was_under_a_removed_prompt(opened: Any, run_all: Any) -> None:
    session = opened("volume")
    session.add_prompt(3, BOX)
    run_all(session)
    z = max(session.get(3).masks)
    before = session.mask(3)[z]
    session.add_prompt(3, Click(z, 3, 3))
    assert not np.array_equal(session.mask(3)[z], before)
    session.remove_prompt(3, 2)
    np.testing.assert_array_equal(session.mask(3)[z], before)
    assert z in session.get(3).stale


@pytest.mark.parametrize("kind", KINDS)
def test_a_replaced_prompt_was_given_instead(opened: Any, kind: str, run_all: Any) -> None:
    one, two = opened(kind), opened(kind)
    other = Box(7, 2, 2, 9, 9)
    for session, box in ((one, Box(6, 1, 1, 8, 8)), (two, other)):
        session.add_prompt(3, BOX)
        run_all(session)
        session.add_prompt(3, box)
        run_all(session)
        session.add_prompt(3, Click(5, 5, 5))
    (update,) = [u for u in one.replace_prompt(3, 2, other).slices if u.z == 7]
    assert update.mask.any()
    run_all(one)
    run_all(two)
    assert one.get(3).masks == two.get(3).masks
    assert list(one.get(3).prompts) == [1, 2, 3]


def test_removal_walks_only_where_a_correction_needs_it(opened: Any, run_all: Any) -> None:
    session = opened()
    calls = session.model.predictor.calls
    session.add_prompt(3, BOX)
    run_all(session)
    session.add_prompt(3, Box(7, 1, 1, 8, 8))
    run_all(session)
    calls.clear()
    session.remove_prompt(3, 2)
    assert calls == []  # the state before the prompt was kept
    run_all(session)
    walked = [z for kind, z in calls if kind == "walk"]
    assert len(walked) == len(set(walked))  # each slice once
    # A correction right after a removal still corrects what the walk had found.
    again = opened()
    again.add_prompt(3, BOX)
    run_all(again)
    run_all(again)
    session.undo()
    z = next(z for z in session.get(3).masks if z not in (4, 7))
    outcomes = [s.add_prompt(3, Click(z, 5, 5)).slices[0].crop for s in (session, again)]
    assert outcomes[0] == outcomes[1]


# ---------------------------------------------------------------------- propagation
@pytest.mark.parametrize("kind", KINDS)
def test_the_stream_is_what_becomes_of_the_mask(opened: Any, kind: str, run_all: Any) -> None:
    session = opened(kind)
    session.add_prompts(3, [BOX, Click(6, 5, 5)])
    run_all(session)
    session.add_prompt(3, Click(7, 3, 3))
    shown = session.mask(3)
    for update in session.propagate(3):
        before = shown.copy()
        shown[update.z] = update.mask
        outside = np.ones_like(shown)
        if update.changed is not None:
            outside[update.changed] = False
        assert not ((before != shown) & outside).any()
    np.testing.assert_array_equal(shown, session.mask(3))


def test_directions_and_ends(opened: Any, run_all: Any) -> None:
    session = opened("volume")
    session.add_prompts(3, [Box(3, 1, 1, 8, 8), Box(5, 1, 1, 8, 8)])
    assert {u.z for u in run_all(session, direction="up")} <= set(range(3, 9))
    assert min(session.get(3).masks) == 3
    up = session.mask(3)[3:]
    assert {u.z for u in run_all(session, direction="down", until=1)} <= set(range(1, 6))
    np.testing.assert_array_equal(session.mask(3)[3:], up)
    assert min(session.get(3).masks) >= 1
    run_all(session, max_extent_mm=2.5)
    assert set(session.get(3).masks) <= {2, 3, 4, 5, 6}
    assert {u.z for u in run_all(session, direction="up", until=8)} & {7, 8}


def test_negative_clicks_do_not_hold_a_slice_that_the_object_left(
    opened: Any, run_all: Any
) -> None:
    session = opened("volume")
    session.add_prompts(3, [BOX, Click(7, 2, 2, positive=False)])
    present = {3, 5, 6, 7}
    propagate = session.model.predictor.propagate

    def seen(*args: Any, **options: Any) -> Any:
        stream = propagate(*args, **options)
        return ((z, found) for z, found in stream if z in present | {4})

    session.model.predictor.propagate = seen
    run_all(session)
    assert 7 in session.get(3).masks or 7 not in dict(seen([BOX], range(9), fill=True))
    present -= {6, 7}
    run_all(session)
    assert set(session.get(3).masks) <= {3, 4, 5}
    session.add_prompt(3, Click(5, 3, 3))
    assert 7 not in session.get(3).masks


@pytest.mark.parametrize("kind", KINDS)
def test_cancelling_keeps_what_was_done(opened: Any, kind: str, run_all: Any) -> None:
    whole = opened(kind)
    whole.add_prompt(3, BOX)
    masks = {update.z: update.crop for update in run_all(whole)}
    session = opened(kind)
    session.add_prompt(3, BOX)
    stream = session.propagate(3)
    seen = [next(stream).z, next(stream).z]
    with pytest.raises(SessionError, match="going on"):
        session.undo()
    stream.close()
    assert session.entries[-1]["cancelled_after"] >= 2
    assert set(session.get(3).masks) == {4, *seen}
    assert all(session.get(3).masks[z] == masks[z] for z in seen)
    run_all(session)
    assert session.get(3).masks == whole.get(3).masks
    session.undo()
    session.undo()
    assert set(session.get(3).masks) == {4}


def test_a_stream_that_never_began_is_no_action(opened: Any) -> None:
    session = opened()
    session.add_prompt(3, BOX)
    entries = session.entries
    session.propagate(3).close()
    assert session.entries == entries
    session.undo()


def test_another_thread_can_interrupt(opened: Any, volume: Volume, fake_model: Any) -> None:
    session = opened()
    session.add_prompts(3, [Box(0, 1, 1, 8, 8), Box(8, 1, 1, 8, 8)])
    seen = []
    for update in session.propagate(3):
        seen.append(update.z)
        if len(seen) == 3:
            thread = threading.Thread(target=session.interrupt)
            thread.start()
            thread.join()
    assert len(seen) == 3
    assert session.entries[-1]["cancelled_after"] >= 3  # and slices without anything


def test_a_removal_can_be_interrupted(opened: Any, run_all: Any, monkeypatch: Any) -> None:
    session = opened()
    session.add_prompts(3, [Box(0, 1, 1, 8, 8)])
    session.add_prompts(3, [Box(8, 1, 1, 8, 8)])
    run_all(session)
    session.add_prompt(3, Click(4, 4, 4))  # a correction: without the box it is another one
    state, entries = session.state, session.entries
    tracker = session._engine.runner._tracker
    walk = tracker.walk

    def interrupted(*args: Any) -> Any:
        session.interrupt()
        return walk(*args)

    monkeypatch.setattr(tracker, "walk", interrupted)
    with pytest.raises(InterruptedActionError):
        session.remove_prompt(3, 1)
    assert session.state is state
    assert session.entries == entries
    monkeypatch.undo()
    session.remove_prompt(3, 1)


@pytest.mark.parametrize("after", range(4))
def test_doing_a_session_again_can_be_cancelled(
    opened: Any, volume: Volume, fake_model: Any, run_all: Any, tmp_path: Path, after: int
) -> None:
    """Between actions, and between the slices of one; no file is left."""
    session = opened(log=tmp_path / "log.jsonl")
    session.add_prompts(3, [Box(0, 1, 1, 8, 8), Box(8, 1, 1, 8, 8)])
    run_all(session)
    asked: list[bool] = []
    seen: list[tuple[int, int]] = []

    def cancelled() -> bool:
        asked.append(len(asked) >= after * 2)
        return asked[-1]

    model = fake_model()
    with pytest.raises(InterruptedActionError):
        AnnotationSession.load(
            tmp_path / "log.jsonl",
            volume,
            model,
            other_model=True,
            log=tmp_path / "again.jsonl",
            progress=lambda *done: seen.append(done),
            cancelled=cancelled,
        )
    assert len(asked) == after * 2 + 1
    assert len(model.predictor.calls) <= after * 2
    assert all(total == 3 for _, total in seen)
    assert not (tmp_path / "again.jsonl").exists()


def test_several_prompts_at_once_can_be_interrupted(opened: Any, monkeypatch: Any) -> None:
    session = opened()
    state, entries = session.state, session.entries
    tracker = session._engine.runner._tracker
    prompt = tracker.prompt

    def interrupted(*args: Any) -> Any:
        session.interrupt()
        return prompt(*args)

    monkeypatch.setattr(tracker, "prompt", interrupted)
    with pytest.raises(InterruptedActionError):
        session.add_prompts(3, [Box(0, 1, 1, 8, 8), Box(8, 1, 1, 8, 8)])
    assert session.state is state
    assert session.entries == entries
    session.add_prompt(3, Box(0, 1, 1, 8, 8))  # one slice is answered


@pytest.mark.parametrize("kind", ["log", "session"])
def test_a_walk_that_breaks_keeps_the_slices_that_it_found(
    opened: Any, volume: Volume, run_all: Any, masks_of: Any, tmp_path: Path, kind: str
) -> None:
    session = opened(log=tmp_path / "a.jsonl")
    session.add_prompts(3, [Box(0, 1, 1, 8, 8), Box(8, 1, 1, 8, 8)])
    before = masks_of(session)
    session.model.predictor.fail_at = 5
    with pytest.raises(RuntimeError, match="broke"):
        run_all(session)
    assert set(session.get(3).masks) - {0, 8} <= {1, 2, 3, 4}
    assert session.entries[-1]["cancelled_after"] == 4
    found = masks_of(session)
    assert found != before
    session.save(tmp_path / "a.session")
    path = tmp_path / ("a.jsonl" if kind == "log" else "a.session")
    again = AnnotationSession.load(path, volume, session.model, read_only=True)
    assert not again.differing_lines
    assert masks_of(again) == found
    session.undo()
    assert masks_of(session) == before
    session.model.predictor.fail_at = None
    assert run_all(session)


def test_a_walk_that_breaks_at_once_leaves_nothing(opened: Any, run_all: Any) -> None:
    session = opened()
    session.add_prompts(3, [Box(0, 1, 1, 8, 8), Box(8, 1, 1, 8, 8)])
    session.model.predictor.fail_at = 1
    state, entries = session.state, session.entries
    with pytest.raises(RuntimeError, match="broke"):
        run_all(session)
    assert session.state is state
    assert session.entries == entries


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_saved_during_a_walk_has_what_was_found_so_far(
    opened: Any, volume: Volume, run_all: Any, masks_of: Any, tmp_path: Path, kind: str
) -> None:
    """As if the walk had been cancelled there; the session itself goes on as if nothing was."""
    session, other = opened(kind), opened(kind)
    for each in (session, other):
        each.add_prompt(3, BOX)
    stream = session.propagate(3)
    next(stream)
    next(stream)
    session.save(tmp_path / "on the way.session")
    lines = len(session.entries)
    list(stream)
    assert len(session.entries) == lines + 1
    assert session.entries[-1]["cancelled_after"] is None
    run_all(other)
    assert masks_of(session) == masks_of(other)
    session.save(tmp_path / "after.session")

    cancelled = opened(kind)
    cancelled.add_prompt(3, BOX)
    stream = cancelled.propagate(3)
    next(stream)
    next(stream)
    stream.close()
    found = AnnotationSession.load(tmp_path / "on the way.session", volume, session.model)
    assert not found.differing_lines
    assert masks_of(found) == masks_of(cancelled)
    assert found.entries[-1]["cancelled_after"] == cancelled.entries[-1]["cancelled_after"]
    run_all(found)
    found.undo()
    found.undo()
    assert not set(found.get(3).masks) - {BOX.z}
    last = AnnotationSession.load(tmp_path / "after.session", volume, session.model)
    assert masks_of(last) == masks_of(session)


# ---------------------------------------------------------------------- several objects
def test_locked_objects_keep_their_voxels_and_refuse_changes(opened: Any, run_all: Any) -> None:
    session = opened("volume")
    session.add_object(5, "second")
    everywhere = np.ones((12, 14), bool)
    session.edit_slice(3, 4, everywhere)
    half = np.zeros((12, 14), bool)
    half[:6] = True
    session.edit_slice(5, 4, half)
    assert (session.label_map().array[4] == 3).all()  # of open ones the older
    region = session.lock(5)
    assert region is not None
    assert (session.label_map().array[4][:6] == 5).all()  # finished ones first
    run_all(session, 3)
    session.edit_slice(3, 4, everywhere)
    assert (session.label_map().array[4][:6] == 5).all()
    state, entries = session.state, session.entries
    for act in (
        lambda: session.add_prompt(5, BOX),
        lambda: session.remove_prompt(5, 2),
        lambda: session.replace_prompt(5, 2, BOX),
        lambda: session.edit_slice(5, 4, everywhere),
        lambda: session.propagate(5),
        lambda: session.clear_stale(5),
        lambda: session.delete_object(5),
        lambda: session.rename_object(5, "x"),
        lambda: session.lock(5),
    ):
        with pytest.raises(SessionError, match="locked"):
            act()
    assert session.state is state
    assert session.entries == entries
    session.lock(3)
    session.unlock(5)
    assert (session.label_map().array[4] == 3).all()


def test_of_finished_objects_the_one_finished_first_keeps_a_voxel(opened: Any) -> None:
    session = opened()
    session.add_object(5)
    everywhere = np.ones((12, 14), bool)
    for label in (3, 5):
        session.edit_slice(label, 4, everywhere)
    session.lock(5)
    session.lock(3)
    assert (session.label_map().array[4] == 5).all()


def test_what_was_undone_cannot_come_back_after_something_else(opened: Any) -> None:
    session = opened()
    session.add_prompt(3, BOX)
    session.undo()
    assert session.can_redo
    session.add_prompt(3, Click(2, 3, 3))
    assert not session.can_redo
    with pytest.raises(SessionError, match="nothing to redo"):
        session.redo()
    assert session.get(3).prompted == (2,)


def test_labels_of_a_region_are_those_of_the_label_map(opened: Any, run_all: Any) -> None:
    session = opened("volume")
    session.add_object(5)
    for label, box in ((3, BOX), (5, Box(5, 1, 1, 9, 9))):
        session.add_prompt(label, box)
        run_all(session, label)
    whole = session.label_map().array
    assert set(np.unique(whole)) == {0, 3, 5}
    for region in (np.s_[0:9, 0:12, 0:14], np.s_[3:6, 2:7, 5:6], np.s_[8:9, 11:12, 0:3]):
        np.testing.assert_array_equal(session.labels(region), whole[region])


@pytest.mark.parametrize("kind", KINDS)
def test_changed_regions_hold_all_that_changed(opened: Any, kind: str, run_all: Any) -> None:
    session = opened(kind)
    session.add_object(5)
    session.add_prompt(3, BOX)
    session.add_prompt(5, Click(5, 4, 4))
    run_all(session, 3)
    run_all(session, 5)
    for act in (
        lambda: session.lock(5),
        lambda: session.add_prompt(3, Click(6, 4, 4)).changed,
        lambda: session.remove_prompt(3, 1).changed,
        session.undo,
        session.undo,
        session.redo,
        lambda: session.unlock(5),
        lambda: session.delete_object(5),
        session.undo,
        lambda: session.rename_object(3, "x"),
    ):
        before = session.label_map().array
        region = act()
        differing = before != session.label_map().array
        if region is not None:
            differing[region] = False
        assert not differing.any()


# ---------------------------------------------------------------------- the engine
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_engine_of_segment_object(
    opened: Any, kind: str, volume: Volume, fake_model: Any, run_all: Any
) -> None:
    prompts = [BOX, Click(6, 5, 5), Click(7, 2, 2, positive=False), Stop(1)]
    session = opened(kind)
    session.add_prompts(3, prompts)
    run_all(session)
    expected = segment_object(fake_model(kind), volume, prompts)
    np.testing.assert_array_equal(session.label_map().array, expected.array)


def test_states_are_made_again_when_they_were_dropped(opened: Any, run_all: Any) -> None:
    one, many = opened(kept_states=1, kept_snapshots=1), opened()
    for session in (one, many):
        session.add_object(5)
        for label in (3, 5, 3, 5):
            session.add_prompt(label, Click(label, 2 + len(session.entries), 5))
            run_all(session, label)
        for _ in range(5):
            session.undo()
        session.redo()
        session.add_prompt(3, Click(7, 3, 3))
        run_all(session, 3)
    assert one.get(3).masks == many.get(3).masks
    assert one.get(5).masks == many.get(5).masks
    assert len(one._engine.runner.states) == 1
    calls = len(many.model.predictor.calls)
    while many.can_undo:
        many.undo()
    while many.can_redo:
        many.redo()
    assert len(many.model.predictor.calls) == calls  # undo and redo ask no model


def test_a_zoomed_model_starts_anew_where_a_prompt_does_not_fit(
    opened: Any, run_all: Any, monkeypatch: Any
) -> None:
    session = opened()
    tracker = session.model.predictor
    prompt = tracker.prompt

    def narrow(state: Any, z: int, prompts: Any) -> Any:
        if any("'z': 7" not in state.start and p.z == 7 for p in prompts):
            raise PromptError("outside the zoomed crop")
        return prompt(state, z, prompts)

    monkeypatch.setattr(tracker, "prompt", narrow)
    session.add_prompt(3, BOX)
    run_all(session)
    outcome = session.add_prompt(3, Box(7, 1, 1, 9, 9))
    assert [update.z for update in outcome.slices] == [4, 7]  # the first is seen anew too
    run_all(session)
    session.remove_prompt(3, 2)
    run_all(session)
    fresh = opened()
    fresh.add_prompt(3, BOX)
    run_all(fresh)
    run_all(fresh)
    assert session.get(3).masks == fresh.get(3).masks


def test_a_negative_click_beside_the_crop_may_come_before_the_first_walk(
    opened: Any, run_all: Any, monkeypatch: Any
) -> None:
    """As one that comes after it: the object begins anew with a larger crop."""
    click = Click(7, 1, 1, positive=False)
    masks = []
    for walk_first in (False, True):
        session = opened()
        tracker = session.model.predictor
        prompt = tracker.prompt

        def narrow(state: Any, z: int, prompts: Any, prompt: Any = prompt) -> Any:
            if any("'z': 7" not in state.start and p.z == 7 for p in prompts):
                raise PromptError("outside the zoomed crop")
            return prompt(state, z, prompts)

        monkeypatch.setattr(tracker, "prompt", narrow)
        session.add_prompt(3, BOX)
        if walk_first:
            run_all(session)
        session.add_prompt(3, click)
        run_all(session)
        assert "'z': 7" in session._engine.runner.run(session.get(3).history).state.inner.start
        masks.append(session.get(3).masks)
        session.undo()
        session.undo()
        session.redo()
        run_all(session)
        assert session.get(3).masks == masks[-1]
    assert masks[0].keys() == masks[1].keys()


def test_a_sagittal_volume_is_refused(volume: Volume, fake_model: Any) -> None:
    with pytest.raises(GeometryError, match="write it with axial slices"):
        AnnotationSession(reorient(volume, "LPS"), fake_model())


def test_sessions_need_room(volume: Volume, fake_model: Any) -> None:
    with pytest.raises(UsageError, match="at least one kept"):
        AnnotationSession(volume, fake_model(), kept_states=0)
