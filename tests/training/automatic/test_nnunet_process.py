import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

from napari_lungfm._core.exceptions import ConfigError, OutputError  # noqa: E402
from napari_lungfm.training.automatic.cohort_check import CohortError  # noqa: E402
from napari_lungfm.training.automatic.nnunet import process, worker  # noqa: E402
from napari_lungfm.training.fit.settings import FitError  # noqa: E402

CPU = torch.device("cpu")
START = """
    import json, os, sys, time
    def tell(event, **values):
        print(json.dumps({"event": event, **values}), flush=True)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a worker whose code is given."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(process, "WORKER", "stand_in")

    def call(code, listener=lambda event: None, device=CPU):
        text = textwrap.dedent(START) + textwrap.dedent(code)
        (tmp_path / "stand_in.py").write_text(text)
        return process.run_worker({"processes": 3}, tmp_path, device, listener)

    return call


def test_events_reach_the_listener_and_the_last_one_the_caller(run):
    seen = []
    done = run("tell('step', step=1)\nprint('chatter')\ntell('done', epochs=4)", seen.append)
    assert [event["event"] for event in seen] == ["step", "done"]
    assert done["epochs"] == 4


@pytest.mark.parametrize(
    ("kind", "error"), [("config", ConfigError), ("cohort", CohortError), ("fit", FitError)]
)
def test_errors_are_raised_as_what_they_are(run, kind, error, tmp_path):
    with pytest.raises(error, match="no such plan") as caught:
        run(f"tell('error', kind='{kind}', message='no such plan'); sys.exit(1)")
    assert str(tmp_path / "nnunet.log") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", ["os.kill(os.getpid(), 9)", "sys.exit(0)", "1 / 0"])
def test_a_worker_that_ends_without_a_word_is_an_error(run, code, tmp_path):
    with pytest.raises(FitError, match="ended before its time"):
        run(code)
    log = (tmp_path / "nnunet.log").read_text()
    assert ("ZeroDivisionError" in log) == (code == "1 / 0")


def test_only_what_the_system_killed_may_have_been_too_large(run):
    for code, guess in (("os.kill(os.getpid(), 9)", True), ("sys.exit(3)", False)):
        with pytest.raises(FitError, match="ended before its time") as caught:
            run(code)
        assert ("out of memory?" in str(caught.value)) == guess


@pytest.mark.parametrize("code", ["tell('error', kind='fit', message='blosc2')", "sys.exit(1)"])
def test_a_full_disk_is_told_from_other_failures(run, code, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4096))
    with pytest.raises(OutputError, match="the disk is full; free it, then go on with --resume"):
        run(code)
    with pytest.raises(ConfigError, match="no such plan; its log"):
        run("tell('error', kind='config', message='no such plan')")


def test_the_worker_ends_when_the_listener_raises(run, tmp_path):
    def stop(event):
        raise KeyboardInterrupt

    code = f"""
    open(r'{tmp_path / "pid"}', 'w').write(str(os.getpid()))
    tell('step')
    time.sleep(60)
    """
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(code, stop)
    assert time.monotonic() - began < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_the_worker_ends_with_whoever_started_it(tmp_path):
    """Even when that one is killed: its standard input closes."""
    code = (
        "import os, time\n"
        "from napari_lungfm.training.automatic.nnunet.worker import _end_with_parent\n"
        "_end_with_parent(); print(os.getpid(), flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    child.stdout.readline()
    child.stdin.close()
    assert child.wait(timeout=30) != 0
    child.stdout.close()


def test_the_callers_settings_of_nnunet_are_not_the_workers(run, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "/somewhere")
    monkeypatch.setenv("nnUNet_compile", "true")
    before = dict(os.environ)
    done = run("tell('done', env={k: v for k, v in os.environ.items() if k.startswith('nnUNet')})")
    assert done["env"]["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
    assert "nnUNet_compile" not in done["env"]
    assert (done["env"]["nnUNet_def_n_proc"], done["env"]["nnUNet_n_proc_DA"]) == ("3", "1")
    assert (tmp_path / "nnUNet_raw").parent == tmp_path
    assert dict(os.environ) == before


def test_one_gpu_is_the_only_one_that_the_worker_sees(tmp_path, monkeypatch):
    request = {"processes": 1}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    one = process.environment(tmp_path, torch.device("cuda:1"), request)
    assert one["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    one = process.environment(tmp_path, torch.device("cuda:1"), request)
    assert one["CUDA_VISIBLE_DEVICES"] == "6"


def _work(tmp_path, configuration="3d_lowres"):
    request = worker.Request(
        dataset="Dataset501_x", dataset_id=501, prepared=str(tmp_path), names={"a": "case a"},
        configuration=configuration, preset="small", epochs=1, iterations=1,
        validation_iterations=1, gpu_memory_gb=8.0, seed=0, workers=0, processes=1, device="cpu",
        validate=False, out=str(tmp_path),
    )  # fmt: skip
    return worker.Work(request, lambda event, **values: None)


def test_it_is_said_why_there_is_no_lowres(tmp_path):
    full = {"patch_size": [48, 80, 80], "median_image_size_in_voxels": [48.0, 144.0, 144.0]}
    with pytest.raises(ConfigError, match=r"48 x 80 x 80 voxels, covers 31 % of .* 48 x 144 x 144"):
        _work(tmp_path)._refuse_missing({"2d": {}, "3d_fullres": full})
    _work(tmp_path)._refuse_missing({"3d_lowres": {}})


def test_structures_that_vanish_when_resampled_are_named(tmp_path):
    import pickle

    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "tumour": 1}}))
    (tmp_path / "plans_x").mkdir()
    found = {"class_locations": {1: []}}
    (tmp_path / "plans_x" / "a.pkl").write_bytes(pickle.dumps(found))
    with pytest.raises(CohortError, match="case 'case a': tumour"):
        _work(tmp_path)._refuse_lost("plans_x")


@pytest.mark.parametrize(("text", "whole"), [('{"a": 1}', True), ('{"a": ', False), ("", False)])
def test_half_a_file_of_nnunets_is_made_again(tmp_path, text, whole):
    path = tmp_path / "dataset_fingerprint.json"
    assert not worker.is_whole(path)
    path.write_text(text)
    assert worker.is_whole(path) == path.is_file() == whole


def test_pools_of_one_process_are_threads(monkeypatch):
    import multiprocessing

    monkeypatch.setattr(multiprocessing, "get_context", multiprocessing.get_context)
    worker.use_threads()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert all(w.is_alive() for w in pool._pool)
        assert pool.starmap_async(lambda a, b: (a + b, os.getpid()), [(1, 2)]).get() == [
            (3, os.getpid())
        ]


def test_seeds_depend_on_purpose_only():
    import random

    import numpy as np

    def draw(*parts):
        worker.seed_everything(*parts)
        return random.random(), np.random.rand(), float(torch.rand(1))  # noqa: NPY002

    assert draw(0, "epoch", 1) == draw(0, "epoch", 1)
    assert draw(0, "epoch", 1) != draw(0, "epoch", 2)
    assert draw(1, "epoch", 1) != draw(0, "epoch", 1)


def test_nothing_is_chosen_by_the_clock():
    blur = SimpleNamespace(benchmark=True)
    made = SimpleNamespace(transforms=[SimpleNamespace(transform=blur), SimpleNamespace()])
    worker._choose_without_clock(made)
    assert blur.benchmark is False
