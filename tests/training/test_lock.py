import os
import signal
import subprocess
import sys

import pytest

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.training.lock import LockedError, hold

HOLDER = """
import sys, time
from pathlib import Path
from napari_lungfm.training.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""

FORKING_HOLDER = """
import os, sys, time
from pathlib import Path
from napari_lungfm.training.lock import hold
with hold(Path(sys.argv[1])):
    if not os.fork():
        print(os.getpid(), flush=True)
    time.sleep(600)
"""


def test_only_one_holds_a_folder(tmp_path):
    with hold(tmp_path / "run"):
        with pytest.raises(LockedError, match=f"by process {os.getpid()} on ") as caught:
            hold(tmp_path / "run").__enter__()
        with hold(tmp_path / "other"):
            pass
    assert isinstance(caught.value, UsageError)
    assert "\n" not in str(caught.value)
    with hold(tmp_path / "run"):
        pass


def test_what_a_killed_process_held_is_free(tmp_path):
    """Nothing stale is left, though the file is."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"process {process.pid} on"), hold(tmp_path):
            pass
        process.kill()
    assert (tmp_path / "lock").is_file()
    with hold(tmp_path):
        assert f'"pid": {os.getpid()}' in (tmp_path / "lock").read_text()


def test_an_error_frees_the_folder(tmp_path):
    with pytest.raises(ValueError, match="oops"), hold(tmp_path):
        raise ValueError("oops")
    with hold(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_forked_processes_do_not_go_on_holding(tmp_path):
    """Processes that prepare batches live on for seconds where the training is killed."""
    command = [sys.executable, "-c", FORKING_HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        try:
            with pytest.raises(LockedError), hold(tmp_path):
                pass
            process.kill()
            process.wait()
            with hold(tmp_path):
                os.kill(child, 0)  # it is still there
        finally:
            os.kill(child, signal.SIGKILL)
