"""The log on disk: crashes, other images, other models, damage; saved sessions."""

import errno
import json
import os
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_lungfm._core.exceptions import InputFileError, LungFMWarning, OutputError
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference import AnnotationSession
from napari_lungfm.inference.session import (
    SessionError,
    SessionFileError,
    SessionMismatchError,
    read_recording,
)
from napari_lungfm.inference.session.log import parse_log
from napari_lungfm.models import create_model
from napari_lungfm.models.prompts import Box, Click, Stop

BOX = Box(4, 2, 2, 9, 10)


@pytest.fixture
def logged(opened: Any, tmp_path: Path, run_all: Any) -> AnnotationSession:
    """A session in which something of everything was done."""
    session: AnnotationSession = opened(log=tmp_path / "log.jsonl")
    session.add_object(7, "node 'è'")
    session.add_prompts(3, [BOX, Click(6, 5, 5)])
    session.add_prompt(7, Click(2, 4, 4))
    run_all(session)
    session.edit_slice(3, 5, np.eye(12, 14, dtype=bool))
    stream = session.propagate(3, "up", max_extent_mm=10.0)
    next(stream)
    stream.close()
    session.lock(7)
    session.undo()
    session.redo()
    session.remove_prompt(3, 2)
    session.replace_prompt(3, 1, Box(3, 1, 1, 8, 8))
    run_all(session, 3)
    session.undo()
    return session


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_line_says_what_when_and_with_what(logged: Any, tmp_path: Path) -> None:
    lines = _lines(tmp_path / "log.jsonl")
    assert lines == list(logged.entries)
    opening, *rest = lines
    assert opening["action"] == "open"
    assert opening["image"]["shape"] == [9, 12, 14]
    assert opening["image"]["spacing"] == [2.5, 1.0, 1.5]
    assert len(opening["image"]["hash"]) == 32
    assert opening["model"] == {
        "name": "fake",
        "weights": "w0",
        "window": [-600, 1500],
        "options": {},
        "settings": {},
        "precision": None,
        "features": None,
    }
    for number, line in enumerate(lines):
        assert line["schema_version"] == 1
        assert line["seq"] == number
        assert line["time"].endswith("+00:00")
    for line in rest:
        assert (line["model"], line["weights"], line["window"]) == ("fake", "w0", [-600, 1500])
    box = next(line for line in rest if line["action"] == "prompt")["prompts"][0]
    assert box == {"id": 1, "kind": "box", "z": 4, "box": [2, 2, 9, 10]}
    walk = [line for line in rest if line["action"] == "propagate"][1]
    assert (walk["direction"], walk["max_extent_mm"], walk["cancelled_after"]) == ("up", 10.0, 1)


def test_the_line_is_on_disk_before_the_action_counts(
    opened: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    session = opened(log=tmp_path / "log.jsonl")
    seen = []
    sync = os.fsync

    def watched(handle: int) -> None:
        sync(handle)
        seen.append((len(_lines(tmp_path / "log.jsonl")), len(session.get(3).prompts)))

    monkeypatch.setattr(os, "fsync", watched)
    session.add_prompt(3, BOX)
    assert seen == [(3, 0)]


def test_a_full_disk_leaves_everything_as_it_was(
    opened: Any, tmp_path: Path, monkeypatch: Any, run_all: Any
) -> None:
    path = tmp_path / "log.jsonl"
    session = opened(log=path)
    session.add_prompt(3, BOX)
    state, text = session.state, path.read_text()
    write = os.write

    def half(handle: int, data: Any) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(handle, bytes(data)[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    for act in (lambda: session.add_prompt(3, Click(5, 4, 4)), lambda: run_all(session)):
        with pytest.raises(OutputError, match="the disk is full"):
            act()
        assert session.state is state
        assert path.read_text() == text
    stream = session.propagate(3)
    next(stream)
    with pytest.raises(OutputError):
        stream.close()
    assert session.state is state
    with pytest.raises(OutputError):
        session.undo()
    assert session.state is state
    monkeypatch.undo()
    session.add_prompt(3, Click(5, 4, 4))
    session.undo()


def test_a_process_that_is_killed_loses_the_action_in_flight_only(tmp_path: Path) -> None:
    """The process dies between writing the line of an action and doing it, or before it."""
    code = """
import os, sys
import numpy as np
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference import AnnotationSession
from napari_lungfm.inference.session.timeline import Timeline
from napari_lungfm.models import create_model
from napari_lungfm.models import create_model
from napari_lungfm.models.prompts import Box
volume = Volume(np.zeros((9, 20, 20), np.int16), VolumeGeometry((9, 20, 20), (2.5, 1.0, 1.0)))
session = AnnotationSession(volume, create_model("prompt-ellipse"), log=sys.argv[1])
session.add_object(3)
session.add_prompt(3, Box(4, 4, 4, 15, 15))
if sys.argv[2] == "written":
    Timeline.add = lambda *rest: os._exit(9)
    session.add_prompt(3, Box(6, 4, 4, 12, 12))
for update in session.propagate(3):
    os._exit(9)
"""
    grid = VolumeGeometry((9, 20, 20), (2.5, 1.0, 1.0))
    volume = Volume(np.zeros(grid.shape, np.int16), grid)
    for moment, prompted in (("written", (4, 6)), ("before", (4,))):
        log = tmp_path / f"{moment}.jsonl"
        done = subprocess.run([sys.executable, "-c", code, str(log), moment], check=False)
        assert done.returncode == 9
        session = AnnotationSession.load(log, volume, create_model("prompt-ellipse"))
        assert session.get(3).prompted == prompted
        assert set(session.get(3).masks) == set(prompted)
        session.add_prompt(3, Stop(8))
        assert AnnotationSession.load(log, volume, session.model).get(3).prompts.keys() == (
            session.get(3).prompts.keys()
        )


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_an_unfinished_last_line_is_left_out(
    logged: Any, tmp_path: Path, volume: Volume, fake_model: Any, cut: int, masks_of: Any
) -> None:
    path = tmp_path / "log.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    with pytest.warns(LungFMWarning, match=r"last line of the log.*unfinished"):
        session = AnnotationSession.load(path, volume, fake_model(), read_only=True)
    assert path.read_bytes() == data[:-cut]
    assert len(session.entries) == len(logged.entries) - 1
    with pytest.warns(LungFMWarning, match="unfinished"):
        session = AnnotationSession.load(path, volume, fake_model())
    session.undo()
    assert masks_of(session) == masks_of(logged)
    again = AnnotationSession.load(path, volume, fake_model())  # no warning: it was cut off
    assert masks_of(again) == masks_of(logged)


def test_rubbish_at_the_end_is_an_unfinished_line(
    logged: Any, tmp_path: Path, volume: Volume, fake_model: Any, masks_of: Any
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(path.read_bytes() + b"\0" * 40 + b"\n")
    with pytest.warns(LungFMWarning, match="unfinished"):
        session = AnnotationSession.load(path, volume, fake_model())
    assert masks_of(session) == masks_of(logged)


def _changed(path: Path, number: int, **facts: Any) -> None:
    lines = _lines(path)
    lines[number] |= facts
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize(
    ("number", "facts", "error", "message"),
    [
        (3, {"schema_version": 2}, SessionMismatchError, "schema version 2.*up to 1.*update"),
        (0, {"schema_version": 9}, SessionMismatchError, "schema version 9"),
        (3, {"seq": 7}, SessionFileError, "line 4.*numbered 7, not 3"),
        (3, {"schema_version": None}, SessionFileError, "no schema_version"),
        (3, {"action": "dance"}, SessionFileError, "line 4.*no action 'dance'"),
        (3, {"object": 99}, SessionFileError, "line 4.*no object with label 99"),
        (3, {"prompts": [{"id": 1, "kind": "box"}]}, SessionFileError, "line 4.*not a prompt"),
        (3, {"prompts": [{"id": 1.5}]}, SessionFileError, "line 4.*not a whole number"),
        (0, {"action": "prompt"}, SessionFileError, "first line does not open"),
        (0, {"image": {"shape": [1]}}, SessionFileError, "does not describe an image"),
        (0, {"model": None}, SessionFileError, "names no image and no model"),
    ],
)
def test_logs_that_cannot_be_replayed_are_refused(
    logged: Any,
    tmp_path: Path,
    volume: Volume,
    fake_model: Any,
    number: int,
    facts: Any,
    error: type[Exception],
    message: str,
) -> None:
    path = tmp_path / "log.jsonl"
    _changed(path, number, **facts)
    with pytest.raises(error, match=message):
        AnnotationSession.load(path, volume, fake_model())


def test_a_damaged_line_in_the_middle_is_named(
    logged: Any, tmp_path: Path, volume: Volume, fake_model: Any
) -> None:
    path = tmp_path / "log.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4][:-20] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(SessionFileError, match=r"line 5 of the log.*damaged"):
        AnnotationSession.load(path, volume, fake_model())


def test_files_that_are_no_logs(tmp_path: Path, volume: Volume, fake_model: Any) -> None:
    with pytest.raises(InputFileError, match=r"cannot read.*No such file"):
        AnnotationSession.load(tmp_path / "no.jsonl", volume, fake_model())
    with pytest.raises(InputFileError, match="cannot read"):
        AnnotationSession.load(tmp_path, volume, fake_model())
    for content in (b"", b"hello\nworld\nagain\n", b"\x89PNG\r\n\x1a\n\0\0"):
        path = tmp_path / "x"
        path.write_bytes(content)
        with pytest.raises(SessionFileError):
            AnnotationSession.load(path, volume, fake_model())


def test_a_zip_file_with_a_password_is_no_saved_session(
    logged: Any, tmp_path: Path, volume: Volume, fake_model: Any
) -> None:
    path = tmp_path / "locked.session"
    logged.save(path)
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the bit for "encrypted"
        data[data.index(mark) + flags] |= 1
    path.write_bytes(data)
    with pytest.raises(SessionFileError, match="not a saved session"):
        AnnotationSession.load(path, volume, fake_model())


def test_a_drive_that_cannot_sync_folders_takes_a_log(
    volume: Volume, fake_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network drives refuse it; the lines themselves are synced all the same."""
    sync = os.fsync

    def of_files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", of_files_only)
    session = AnnotationSession(volume, fake_model(), log=tmp_path / "log.jsonl")
    session.add_object(3)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


# ---------------------------------------------------------------------- another image or model
def test_another_image_is_refused(
    logged: Any, tmp_path: Path, volume: Volume, fake_model: Any
) -> None:
    path = tmp_path / "log.jsonl"
    array = volume.array.copy()
    array[8, 11, 13] += 1
    other = replace(volume, array=array)
    with pytest.raises(SessionMismatchError, match=r"another image.*voxels are not"):
        AnnotationSession.load(path, other, fake_model())
    moved = replace(volume, geometry=replace(volume.geometry, origin=(-10.0, 5.0, 33.0)))
    with pytest.raises(SessionMismatchError, match="another image: origins"):
        AnnotationSession.load(path, moved, fake_model())
    with pytest.raises(SessionMismatchError, match="another image: shapes"):
        AnnotationSession.load(path, volume.crop(np.s_[:8, :, :]), fake_model())
    as_float = replace(volume, array=volume.array.astype(np.float64))
    AnnotationSession.load(path, as_float, fake_model())


def test_another_model_is_refused_and_both_are_named(
    logged: Any, tmp_path: Path, volume: Volume, fake_model: Any, masks_of: Any
) -> None:
    path = tmp_path / "log.jsonl"
    text = path.read_text()
    with pytest.raises(SessionMismatchError, match=r"'fake'.*'another'"):
        AnnotationSession.load(path, volume, fake_model(name="another"))
    with pytest.raises(SessionMismatchError, match=r"weights 'w0'.*'w1'"):
        AnnotationSession.load(path, volume, fake_model(weight_hash="w1"))
    other = AnnotationSession.load(
        path, volume, fake_model("volume", name="another"), other_model=True
    )
    assert masks_of(other).keys() == masks_of(logged).keys()
    assert other.get(3).prompts == logged.get(3).prompts
    assert other.entries[0]["model"]["name"] == "another"
    other.add_prompt(3, Stop(8))
    assert path.read_text() == text  # the log of another model is never gone on with


def test_where_weights_lie_makes_no_other_model(
    tmp_path: Path, volume: Volume, fake_model: Any
) -> None:
    path = tmp_path / "log.jsonl"
    options = {"weights": "here.pt", "carry": "box"}
    AnnotationSession(volume, fake_model(), log=path, options=options).add_object(3)
    recording = read_recording(path)
    moved, changed = {**options, "weights": "there.pt"}, {**options, "carry": "mask"}
    AnnotationSession.load(recording, volume, fake_model(), options=moved, read_only=True)
    assert not recording.is_other(fake_model(), moved, {"weights"})
    assert recording.is_other(fake_model(), changed, {"carry"})
    assert recording.is_other(fake_model(), {"carry": "box", "zoom": True}, {"zoom"})
    # Other weights are another model where somebody asked for them, and a mistake elsewhere.
    assert recording.is_other(fake_model(weight_hash="w1"), moved, {"weights"})
    assert not recording.is_other(fake_model(weight_hash="w1"), options, ())


def test_masks_that_come_out_otherwise_are_told(
    logged: Any, tmp_path: Path, volume: Volume, fake_model: Any
) -> None:
    with pytest.warns(LungFMWarning, match=r"masks differ.*from line 4"):
        again = AnnotationSession.load(
            tmp_path / "log.jsonl", volume, fake_model("volume"), read_only=True
        )
    assert again.differing_lines[0] == 4


# ---------------------------------------------------------------------- going on, saving
def test_a_log_is_gone_on_with(
    logged: Any, tmp_path: Path, volume: Volume, fake_model: Any, masks_of: Any, run_all: Any
) -> None:
    path = tmp_path / "log.jsonl"
    session = AnnotationSession.load(path, volume, fake_model())
    assert session.entries == logged.entries
    session.redo()
    session.add_prompt(3, Click(7, 4, 4))
    run_all(session)
    again = AnnotationSession.load(path, volume, fake_model(), read_only=True)
    assert masks_of(again) == masks_of(session)
    copy = AnnotationSession.load(path, volume, fake_model(), log=tmp_path / "copy.jsonl")
    copy.undo()
    assert len(_lines(tmp_path / "copy.jsonl")) == len(_lines(path)) + 1


def test_an_existing_log_is_not_overwritten(
    logged: Any, tmp_path: Path, volume: Volume, fake_model: Any
) -> None:
    text = (tmp_path / "log.jsonl").read_text()
    with pytest.raises(SessionError, match="exists; load it"):
        AnnotationSession(volume, fake_model(), log=tmp_path / "log.jsonl")
    assert (tmp_path / "log.jsonl").read_text() == text


def test_a_saved_session_opens_without_the_model(
    logged: Any, tmp_path: Path, volume: Volume, fake_model: Any, masks_of: Any, run_all: Any
) -> None:
    path = tmp_path / "case.session"
    logged.save(path)
    model = fake_model()
    session = AnnotationSession.load(path, volume, model)
    assert model.predictor.calls == []
    assert masks_of(session) == masks_of(logged)
    for step in ("redo", "undo", "undo", "undo", "redo"):
        getattr(session, step)()
        getattr(logged, step)()
        assert masks_of(session) == masks_of(logged)
    assert model.predictor.calls == []
    session.add_prompt(3, Click(7, 4, 4))
    logged.add_prompt(3, Click(7, 4, 4))
    run_all(session)
    run_all(logged)
    assert masks_of(session) == masks_of(logged)


def test_sessions_without_a_log_can_be_saved(
    opened: Any, tmp_path: Path, volume: Volume, fake_model: Any, masks_of: Any
) -> None:
    session = opened()
    session.add_prompt(3, BOX)
    session.save(tmp_path / "a")
    assert masks_of(AnnotationSession.load(tmp_path / "a", volume, fake_model())) == masks_of(
        session
    )
    other = replace(volume, array=volume.array + 1)
    with pytest.raises(SessionMismatchError, match="another image"):
        AnnotationSession.load(tmp_path / "a", other, fake_model())


@pytest.mark.parametrize("member", ["log.jsonl", "masks.npz"])
def test_a_tampered_saved_session_is_refused(
    logged: Any, tmp_path: Path, volume: Volume, fake_model: Any, member: str
) -> None:
    path = tmp_path / "a"
    logged.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[member] += b" "
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(SessionFileError, match=f"'{member}' in the saved session.*not what"):
        AnnotationSession.load(path, volume, fake_model())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SessionFileError):
        AnnotationSession.load(path, volume, fake_model())


# ---------------------------------------------------------------------- one writer
def test_a_second_writer_is_noticed_before_anything_is_computed(
    logged: Any, tmp_path: Path, volume: Volume, fake_model: Any, run_all: Any, masks_of: Any
) -> None:
    path = tmp_path / "log.jsonl"
    second = AnnotationSession.load(path, volume, fake_model())
    second.add_prompt(3, Click(7, 4, 4))
    text, state, calls = path.read_text(), logged.state, len(logged.model.predictor.calls)
    for act in (lambda: logged.add_prompt(3, Stop(8)), lambda: run_all(logged), logged.undo):
        with pytest.raises(OutputError, match=r"changed by another program.*save the session"):
            act()
    assert logged.state is state
    assert len(logged.model.predictor.calls) == calls
    assert path.read_text() == text
    logged.save(tmp_path / "rescued")  # nothing is lost
    again = AnnotationSession.load(tmp_path / "rescued", volume, fake_model())
    assert masks_of(again) == masks_of(logged)
    again.add_prompt(3, Stop(8))
    second.undo()  # whose log it is now
    AnnotationSession.load(path, volume, fake_model())


def test_a_log_that_grows_while_it_is_opened_is_not_cut(
    logged: Any, tmp_path: Path, volume: Volume, fake_model: Any
) -> None:
    path = tmp_path / "log.jsonl"
    recording = read_recording(path)
    logged.add_prompt(3, Stop(8))
    text = path.read_text()
    with pytest.raises(OutputError, match="changed by another program since it was opened"):
        AnnotationSession.load(recording, volume, fake_model())
    assert path.read_text() == text
    copy = AnnotationSession.load(recording, volume, fake_model(), log=tmp_path / "copy.jsonl")
    copy.add_prompt(3, Stop(8))


@pytest.mark.parametrize("instead", [None, "the same", "another"])
def test_a_log_that_is_gone_or_another_file_is_not_begun_anew(
    logged: Any, tmp_path: Path, instead: str | None
) -> None:
    path = tmp_path / "log.jsonl"
    data = path.read_bytes()
    path.rename(tmp_path / "moved.jsonl")
    if instead is not None:
        path.write_bytes(data if instead == "the same" else b"")
    with pytest.raises(OutputError, match=r"is gone|changed by another program") as raised:
        logged.add_prompt(3, Stop(8))
    assert "\n" not in str(raised.value)
    assert path.exists() == (instead is not None)
    if instead is None:
        logged.save(tmp_path / "rescued")
        (tmp_path / "moved.jsonl").rename(path)
        logged.add_prompt(3, Stop(8))  # back in its place


def test_a_walk_whose_log_goes_on_the_way_leaves_no_trace(logged: Any, tmp_path: Path) -> None:
    state = logged.state
    stream = logged.propagate(3)
    next(stream)
    (tmp_path / "log.jsonl").unlink()
    with pytest.raises(OutputError, match="is gone; this action was not done"):
        list(stream)
    assert logged.state is state


def test_a_session_is_not_saved_over_its_own_log(logged: Any, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    data = path.read_bytes()
    (tmp_path / "link").symlink_to(path)
    for name in ("log.jsonl", "link", f"../{tmp_path.name}/log.jsonl"):
        with pytest.raises(SessionError, match="is the log of this session"):
            logged.save(tmp_path / name)
    assert path.read_bytes() == data
    logged.save(tmp_path / "other")


def test_a_log_that_is_gone_is_written_anew_when_asked(logged: Any, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    text = log.read_text()
    assert logged.renew_log() is None
    log.unlink()
    assert logged.renew_log() == log
    assert log.read_text() == text
    logged.add_prompt(3, Stop(8))
    assert len(log.read_text().splitlines()) == len(logged.entries) > len(text.splitlines())


@pytest.mark.parametrize("by", ["another line", "an empty file", "a copy"])
def test_a_log_that_was_changed_stays_as_it_is_and_goes_on_beside_it(
    logged: Any, tmp_path: Path, by: str
) -> None:
    log, lines = tmp_path / "log.jsonl", len(logged.entries)
    text = log.read_text()
    log.with_name("log-2.jsonl").write_text("another one's")
    if by == "a copy":
        log.with_name("copy").write_text(text)
        log.with_name("copy").replace(log)
    else:
        log.write_text(text + "{}\n" if by == "another line" else "")
    theirs = log.read_bytes()
    with pytest.raises(OutputError, match="changed by another program"):
        logged.add_prompt(3, Stop(8))
    assert logged.renew_log() == logged.log_path == log.with_name("log-3.jsonl")
    assert logged.renew_log() is None
    logged.add_prompt(3, Stop(8))
    assert log.read_bytes() == theirs
    assert log.with_name("log-2.jsonl").read_text() == "another one's"
    found = parse_log(logged.log_path.read_bytes(), "the new log")[0]
    assert found == list(logged.entries)
    assert len(found) == lines + 1
