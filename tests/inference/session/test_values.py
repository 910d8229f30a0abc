"""What callers and logs may give as labels, names, limits, coordinates and masks."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_lungfm._core.exceptions import DataError, PromptError, UsageError
from napari_lungfm.geometry import Volume
from napari_lungfm.inference import AnnotationSession
from napari_lungfm.inference.session import SessionFileError
from napari_lungfm.inference.session.events import (
    AddObject,
    AddPrompts,
    EditSlices,
    Propagate,
    event_from_dict,
    event_to_dict,
    plain,
)
from napari_lungfm.models.prompts import Box, Click, MaskPrompt, Stop

BOX = Box(4, 2, 2, 9, 10)
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def logged(opened: Any, tmp_path: Path) -> AnnotationSession:
    session: AnnotationSession = opened(log=tmp_path / "log.jsonl")
    session.add_prompt(3, BOX)
    return session


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda s: s.add_object(4.5), "label of an object is 4.5, which is not a whole"),
        (lambda s: s.add_object(True), "label of an object is True"),
        (lambda s: s.add_object("4"), "label of an object is '4'"),
        (lambda s: s.add_object(4, "a\ud800"), "characters that cannot be written"),
        (lambda s: s.add_object(4, 7), "an object needs a name, not 7"),
        (lambda s: s.rename_object(3, "\udfff"), "cannot be written"),
        (lambda s: s.propagate(3, "sideways"), "no direction 'sideways'; choose from both, up"),
        (lambda s: s.propagate(3, ["up"]), "no direction"),
        (lambda s: s.propagate(3, max_extent_mm=INF), "positive number of mm, not inf"),
        (lambda s: s.propagate(3, max_extent_mm=NAN), "positive number of mm, not nan"),
        (lambda s: s.propagate(3, max_extent_mm="9"), "positive number of mm, not '9'"),
        (lambda s: s.propagate(3, "up", until=7.0), "the last slice is 7.0"),
        (lambda s: s.add_prompt(3, Box(5, INF, 3, 6, 6)), "y0 of a box is inf"),
        (lambda s: s.add_prompt(3, Box(5, NAN, 3, 6, 6)), "y0 of a box is nan"),
        (lambda s: s.add_prompt(3, Box(5.7, 1, 3, 6, 6)), "slice of a box is 5.7"),
        (lambda s: s.add_prompt(3, Click(5, 3.9, 3)), "row of a click is 3.9"),
        (lambda s: s.add_prompt(3, Click(5, 3, INF)), "column of a click is inf"),
        (lambda s: s.add_prompt(3, Click(5, 3, 3, "no")), "positive or not .* not 'no'"),
        (lambda s: s.add_prompt(3, Stop(True)), "slice of a stop is True"),
        (lambda s: s.add_prompt(3, "box"), "'box' is not a prompt"),
        (lambda s: s.replace_prompt(3, 1.0, BOX), "number of a prompt is 1.0"),
        (lambda s: s.edit_slice(3, 5.5, np.ones((12, 14))), "slice of a mask is 5.5"),
        (lambda s: s.edit_slice(3, 5, np.full((12, 14), NAN)), "slice 5 has NaN in it"),
        (lambda s: s.add_prompt(3, MaskPrompt(5, np.full((12, 14), NAN))), "has NaN in it"),
        (lambda s: s.edit_slice(3, 5, [[1], [1, 2]]), "no array of rows and columns"),
        (lambda s: s.edit_slice(3, 5, np.ones((1, 12, 14))), r"shape \(1, 12, 14\)"),
        (lambda s: s.edit_slice(3, 5, np.array([["a"]])), "must be truth values"),
    ],
)
def test_values_that_make_no_sense_get_one_line_and_leave_no_trace(
    logged: AnnotationSession, tmp_path: Path, act: Any, message: str
) -> None:
    state, text = logged.state, (tmp_path / "log.jsonl").read_text()
    calls = len(logged.model.predictor.calls)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=message) as raised:
        act(logged)
    assert "\n" not in str(raised.value)
    assert logged.state is state
    assert (tmp_path / "log.jsonl").read_text() == text
    assert len(logged.model.predictor.calls) == calls  # type: ignore[attr-defined]


def test_numpy_numbers_are_numbers(
    logged: AnnotationSession, tmp_path: Path, volume: Volume, fake_model: Any, masks_of: Any
) -> None:
    session, n = logged, np.int64
    assert session.add_object(n(4)).label == 4
    session.add_prompts(n(4), [Box(*np.array([3, 1, 1, 8, 8])), Click(n(5), n(4), n(4), np.True_)])
    list(session.propagate(n(4), "up", until=np.uint8(7), max_extent_mm=np.float32(9)))
    session.edit_slice(n(4), n(6), np.eye(12, 14, dtype=np.float32))
    session.remove_prompt(n(4), n(3))
    session.lock(n(4))
    session.save(tmp_path / "saved")
    for path in ("log.jsonl", "saved"):
        again = AnnotationSession.load(tmp_path / path, volume, fake_model(), read_only=True)
        assert masks_of(again) == masks_of(session)
    assert type(session.get(4).prompts[2].z) is int
    assert {type(label) for label in session.objects} == {int}


def test_a_plain_event_is_what_the_log_gives_back() -> None:
    masks = MaskPrompt(np.int8(2), np.eye(3))
    for event in (
        AddObject(np.uint8(3), np.str_("lung")),
        AddPrompts(3, ((np.int64(1), masks), (2, Stop(np.int64(5))))),
        EditSlices(np.uint8(3), ((np.int64(1), masks),)),
        Propagate(3, "up", np.int32(5), np.float64(3), np.int8(2)),
    ):
        own = plain(event)
        assert event_from_dict(json.loads(json.dumps(event_to_dict(own)))) == own


def _click(**facts: Any) -> dict[str, Any]:
    return {"id": 1, "kind": "click", "z": 5, "point": [1, 2], "positive": True, **facts}


def _mask(*runs: int) -> dict[str, Any]:
    return {"id": 1, "kind": "mask", "z": 5, "shape": [12, 14], "runs": list(runs)}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"object": 3.0}, "label of an object is 3.0"),
        ({"object": True}, "label of an object is True"),
        ({"prompts": [_click(id=1.5)]}, "number of a prompt is 1.5"),
        ({"prompts": [_click(point=[1.5, 2])]}, "row of a click is 1.5"),
        ({"prompts": [_click(positive=1)]}, "positive or not"),
        ({"prompts": [{"id": 1, "kind": "box", "z": 5, "box": [0, 0, INF, 3]}]}, "y1 of a box"),
        ({"prompts": [_mask(-5, 173)]}, "runs of a mask cover"),
        ({"prompts": [_mask(10**12)]}, "runs of a mask cover"),
        ({"prompts": 5}, "not a valid 'prompt' event"),
        ({"prompts": [5]}, "not a valid 'prompt' event"),
    ],
)
def test_logs_are_held_to_the_same(facts: dict[str, Any], message: str) -> None:
    values = {"action": "prompt", "object": 3, "prompts": [], **facts}
    with pytest.raises(UsageError, match=message) as raised:
        event_from_dict(values)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("number", "facts", "message"),
    [
        (0, {"model": {"name": "fake", "options": [1]}}, "does not name the options"),
        (0, {"model": {"name": "fake", "features": "float8"}}, "unknown precision"),
        (2, {"prompts": NAN}, "line 3 of the log.*damaged"),
    ],
)
def test_damaged_lines_are_refused_in_one_line(
    logged: AnnotationSession,
    tmp_path: Path,
    volume: Volume,
    fake_model: Any,
    number: int,
    facts: dict[str, Any],
    message: str,
) -> None:
    logged.add_prompt(3, Stop(8))
    path = tmp_path / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[number] |= facts
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SessionFileError, match=message):
        AnnotationSession.load(path, volume, fake_model())


def test_a_volume_with_gaps_is_refused_before_any_model_sees_it(
    volume: Volume, fake_model: Any
) -> None:
    array = volume.array.astype(np.float32)
    array[2, 3:5, 4] = np.nan
    with pytest.raises(DataError, match="2 voxels of the image are NaN"):
        AnnotationSession(replace(volume, array=array), fake_model())


def test_options_that_no_log_can_hold_are_refused(volume: Volume, fake_model: Any) -> None:
    for options in ({"path": Path()}, {"window": NAN}):
        with pytest.raises(UsageError, match="options of the model cannot be written"):
            AnnotationSession(volume, fake_model(), options=options)


def test_clicks_on_a_drawn_slice_are_refused(opened: Any, run_all: Any) -> None:
    session = opened()
    session.add_prompt(3, BOX)
    run_all(session)
    drawing = np.eye(12, 14, dtype=bool)
    number = session.edit_slice(3, 6, drawing).prompt_ids[0]
    for act in (
        lambda: session.add_prompt(3, Click(6, 4, 4)),
        lambda: session.add_prompt(3, Box(6, 1, 1, 4, 4)),
        lambda: session.replace_prompt(3, 1, Click(6, 4, 4)),
    ):
        with pytest.raises(PromptError, match="slice 6 of object 3 was drawn by hand and stays"):
            act()
    session.edit_slice(3, 6, ~drawing)  # drawn anew
    session.replace_prompt(3, number, Click(6, 4, 4))  # instead of the drawing
    session.edit_slice(3, 6, drawing)  # and over the click
    np.testing.assert_array_equal(session.mask(3)[6], drawing)
