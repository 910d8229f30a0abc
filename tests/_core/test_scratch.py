import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_lungfm._core.scratch import is_running, scratch_folder

MAKE = """
from napari_lungfm._core.scratch import scratch_folder
folder = scratch_folder("features-")
(folder / "slice").write_text("kept")
print(folder, flush=True)
input()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def other(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has a folder and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary)},
    )
    yield process
    process.kill()
    process.communicate()


def test_a_folder_goes_once_its_process_was_killed_and_never_before(other) -> None:
    theirs = Path(other.stdout.readline().strip())
    assert (theirs / "slice").exists()
    assert is_running(other.pid)
    ours = scratch_folder("features-")
    assert (theirs / "slice").exists()
    other.kill()
    other.wait()
    assert not is_running(other.pid)
    again = scratch_folder("features-")
    assert not theirs.exists()
    assert ours.is_dir()
    assert again.is_dir()
    assert again != ours


def test_only_folders_of_dead_processes_of_this_machine_and_purpose_go(other, temporary) -> None:
    theirs = Path(other.stdout.readline().strip()).name
    other.kill()
    other.wait()
    kept = {
        theirs.replace("features-", "models-"),
        theirs.replace("features-", "features-another"),
        theirs.replace(f"-{other.pid}-", f"-{os.getpid()}-"),
        theirs.replace(f"-{other.pid}-", "-x-"),
        "features-abcdefgh",
    }
    for name in kept:
        (temporary / name).mkdir()
    new = scratch_folder("features-").name
    assert {path.name for path in temporary.iterdir()} == {*kept, new}


def test_a_number_that_no_process_has_is_not_running() -> None:
    assert is_running(os.getpid())
    assert not is_running(2**70)
