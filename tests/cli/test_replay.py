"""What `segment` does, `replay` does again, to the voxel."""

import json

import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm.geometry import Volume
from napari_lungfm.inference import AnnotationSession
from napari_lungfm.models import create_model
from napari_lungfm.models.prompts import Box, Click

BOX = "8,18,18,43,43"


def _segment(bench, case, *arguments, model="classical", log="log.jsonl"):
    out, log = case.folder / "mask.nii.gz", case.folder / log
    call = ["segment", "--image", case.image, "--model", model, "--out", out, "--log", log]
    return bench(*call, *arguments), out, log


def _replay(bench, case, log, *arguments, out="again.nii.gz", image=None):
    out = case.folder / out
    return bench("replay", log, "--image", image or case.image, "--out", out, *arguments), out


@pytest.mark.parametrize("model", ["prompt-box", "prompt-ellipse", "classical"])
@pytest.mark.parametrize(
    "prompts",
    [
        ["--box", BOX],
        ["--box", BOX, "--click", "6,31,31,+", "--click", "6,12,12,-", "--stop", "11"],
        ["--box", BOX, "--no-propagate", "--label", "3"],
    ],
)
def test_the_log_gives_the_mask_again(bench, case, model, prompts):
    done, out, log = _segment(bench, case, *prompts, model=model)
    assert done.code == 0
    again, out_again = _replay(bench, case, log, "--json")
    assert again.code == 0
    assert again.json["identical"] is True
    assert again.json["model"] == model
    masks = [io.read_label_map(path) for path in (out, out_again)]
    assert masks[0].array.any()
    assert np.array_equal(masks[0].array, masks[1].array)
    assert masks[0].geometry.is_close(masks[1].geometry)
    (row,) = again.json["objects"]
    assert row["voxels"] == np.count_nonzero(masks[0].array)
    assert row["label"] == masks[0].array.max()


@pytest.mark.filterwarnings("always::napari_lungfm.LungFMWarning")
def test_options_of_the_model_are_in_the_log(bench, case):
    call = ["--click", "8,30,30,+", "--option", "point_radius_mm=9"]
    _, out, log = _segment(bench, case, *call, model="prompt-ellipse")
    _, again = _replay(bench, case, log)
    assert np.array_equal(io.read_label_map(out).array, io.read_label_map(again).array)
    differing, _ = _replay(bench, case, log, "--option", "point_radius_mm=6", "--json")
    assert differing.code == 0
    assert differing.json["identical"] is None  # it is like another model
    assert differing.json["objects"][0]["voxels"] < np.count_nonzero(io.read_label_map(out).array)


def test_a_log_of_much_work_and_its_saved_session(bench, case):
    volume = io.read_volume(case.image)
    log, saved = case.folder / "work.jsonl", case.folder / "work.session"
    session = AnnotationSession(volume, create_model("classical"), log=log)
    session.add_object(3)
    session.add_object(9, "other")
    session.add_prompt(3, Box(8, 18, 18, 43, 43))
    stream = session.propagate(3)
    for _ in range(3):
        next(stream)
    stream.close()
    session.add_prompt(9, Click(6, 28, 28))
    list(session.propagate(9, "down"))
    session.lock(9)
    session.add_prompt(3, Click(6, 22, 30, positive=False))
    list(session.propagate(3))
    session.remove_prompt(3, 3)
    session.undo()
    session.undo()
    session.redo()
    session.save(saved)
    for source in (log, saved):
        done, out = _replay(bench, case, source, "--json")
        assert done.code == 0
        assert done.json["identical"] is True
        assert np.array_equal(io.read_label_map(out).array, session.label_map().array)
        assert [row["name"] for row in done.json["objects"]] == ["tumour", "other"]


def test_another_model_only_by_name(bench, case):
    _, out, log = _segment(bench, case, "--box", BOX, model="prompt-box")
    done, again = _replay(bench, case, log, "--model", "prompt-ellipse", "--json")
    assert done.code == 0
    assert done.json["identical"] is None
    masks = [io.read_label_map(path).array for path in (out, again)]
    assert masks[1].sum() < masks[0].sum()


@pytest.mark.filterwarnings("always::napari_lungfm.LungFMWarning")
def test_a_crash_is_survived(bench, case):
    _, _, log = _segment(bench, case, "--box", BOX, model="prompt-box")
    log.write_bytes(log.read_bytes()[:-7])
    done, out = _replay(bench, case, log)
    assert done.code == 0
    assert "unfinished" in done.err
    array = io.read_label_map(out).array
    assert np.flatnonzero(array.any(axis=(1, 2))).tolist() == [8]  # the propagation was lost


def _newer(log):
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[0]["schema_version"] = 99
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("arguments", "spoil", "code", "message"),
    [
        (["--model", "prompt-elipse"], None, 2, "did you mean 'prompt-ellipse'"),
        (["--device", "cuda"], None, 2, "runs on the CPU"),
        (["--option", "nonsense=1"], None, 2, "no option 'nonsense'"),
        ([], _newer, 2, "schema version 99"),
        ([], lambda log: log.write_text("hello\nworld\n"), 1, "neither the log of a session"),
        ([], lambda log: log.unlink(), 1, "cannot read"),
    ],
)
def test_wrong_calls_get_one_line_and_leave_nothing(bench, case, arguments, spoil, code, message):
    _, _, log = _segment(bench, case, "--box", BOX, model="prompt-box")
    if spoil is not None:
        spoil(log)
    done, out = _replay(bench, case, log, *arguments)
    assert done.code == code
    assert message in done.err
    assert done.err.strip().count("\n") == 0
    assert not out.exists()


def test_another_image_is_refused(bench, case):
    _, _, log = _segment(bench, case, "--box", BOX, model="prompt-box")
    volume = io.read_volume(case.image)
    other = case.folder / "other.nii.gz"
    io.write_image(Volume(volume.array + np.int16(1), volume.geometry), other)
    done, out = _replay(bench, case, log, image=other)
    assert done.code == 2
    assert "another image" in done.err
    assert not out.exists()


def test_a_log_is_written_whole_or_not_at_all(bench, case):
    failed, out, log = _segment(bench, case, "--box", "8,18,18,43,99")
    assert failed.code == 2
    assert not out.exists()
    assert not log.exists()
    assert not list(case.folder.glob(".*"))
    blocked = case.folder / "file"
    blocked.write_text("x")
    nowhere, out, _ = _segment(bench, case, "--box", BOX, log="file/log.jsonl")
    assert nowhere.code == 1
    assert "cannot write" in nowhere.err
    assert not out.exists()


def test_there_is_help(bench):
    done = bench("replay", "--help")
    assert done.code == 0
    assert "--model" in done.out
