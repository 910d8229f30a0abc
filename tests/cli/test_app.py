import subprocess
import sys

import pytest

COMMANDS = ["doctor", "demo", "convert", "models", "segment", "replay", "evaluate", "train"]
COMMANDS += ["run", "report", "trace", "audit", "datasets"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(bench, command):
    result = bench(command, "--help")
    assert result.code == 0
    assert command in result.out


def test_the_version(bench):
    import napari_lungfm

    assert bench("--version").out.strip() == f"napari-lungfm {napari_lungfm.__version__}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment", "--imag", "x"], "No such option"),
        (["nonsense"], "No such command 'nonsense'"),
        (["evaluate"], "Missing option '--pred'"),
        (["report"], "Missing argument"),
    ],
)
def test_wrong_calls_exit_with_2_and_one_line(bench, arguments, message):
    result = bench(*arguments)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_bare_call_prints_the_help_and_no_error(bench):
    result = bench()
    assert result.code == 2
    assert "segment" in result.out + result.err
    assert "error" not in result.err


def test_help_loads_nothing_heavy():
    heavy = ("torch", "napari", "qtpy", "SimpleITK", "pydicom", "pandas", "skimage", "matplotlib")
    code = (
        "import sys; from napari_lungfm.cli.app import run; run(['segment', '--help']); "
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_the_installed_command_and_the_module_are_one():
    done = subprocess.run(
        [sys.executable, "-m", "napari_lungfm", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("napari-lungfm ")


def test_doctor_reports_what_there_is(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path))
    facts = bench("doctor", "--json").json
    assert facts["versions"]["python"].startswith("3.")
    assert "numpy" in facts["versions"]
    assert facts["devices"]["cpu"]
    assert facts["models"]["classical"]["ready"] is True
    assert facts["models"]["medsam2-ma"]["ready"] is False
    assert all(size > 0 for size in facts["disk_free_gb"].values())
    assert isinstance(facts["opengl"]["works"], bool)
    assert "hardware" in facts
    assert "OpenGL" in bench("doctor").out


def test_an_interruption_is_one_line(bench, monkeypatch, tmp_path):
    from napari_lungfm.benchmark import runner

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_benchmark", interrupt)
    result = bench("demo", "--out", tmp_path / "d")
    assert result.code == 1
    assert "interrupted" in result.err


def test_a_scheduler_that_ends_the_process_gets_one_line_and_no_half_written_file(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from napari_lungfm import cli\n"
        "from napari_lungfm._core.files import atomic_path\n"
        "from napari_lungfm.cli import app\n"
        "def work(arguments):\n"
        "    with atomic_path(sys.argv[1]) as temporary:\n"
        "        temporary.write_text('half')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        temporary.write_text('whole')\n"
        "app.app = lambda *a, **k: work(a)\n"
        "cli.main(['doctor'])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "f")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert "interrupted; finished results are kept" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []
