"""Cases as tasks of Dask: the same results wherever they are done, whatever dies meanwhile."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from napari_lungfm import LungFMError, io
from napari_lungfm._core.exceptions import InputFileError, OutputError, UsageError
from napari_lungfm.benchmark import case_work, units, workers
from napari_lungfm.benchmark.case_work import pending_tasks
from napari_lungfm.benchmark.events import Tally
from napari_lungfm.benchmark.plan import build_cohorts, make_plan
from napari_lungfm.benchmark.runner import Workplace, run_benchmark
from napari_lungfm.benchmark.store import RunFolder, results_frame

distributed = pytest.importorskip("distributed")
METHODS = [
    {"model": "prompt-ellipse", "protocols": ["box-every-slice", "box-one"]},
    {"model": "classical", "protocols": ["box-one+jitter-3", "point-one+corrections-2"]},
]


@pytest.fixture(scope="module")
def client():
    """Two workers that are threads of this process, so that fakes reach them."""
    with distributed.Client(
        processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None,
        set_as_default=False,
    ) as client:  # fmt: skip
        yield client


@pytest.fixture
def planned(make_config, tmp_path):
    """A plan written to its folder, and what is left to do of it."""
    config = make_config(methods=METHODS)
    folder = RunFolder.create(tmp_path / "run")
    plan = make_plan(config, config.look_up(tmp_path), build_cohorts(config, tmp_path))
    folder.write_plan(config.to_yaml(), [(u.key, u.fingerprint) for u in plan.units])
    return plan, folder


@pytest.fixture
def on_workers(planned, client):
    """Do what is left on the workers; the events."""
    plan, folder = planned

    def call():
        events = []
        tally = Tally(len(plan.units), events.append)
        tasks = []
        for _, finished, task in pending_tasks(plan, folder):
            tally.skip(finished)
            tasks += [task] if task is not None else []
        workers.do_on_workers(tasks, folder, "cpu", tally, client)
        return events

    return call


def kinds(events, kind):
    return [event for event in events if event.kind == kind]


def in_one_process(make_config, tmp_path):
    folder = run_benchmark(make_config(methods=METHODS), tmp_path / "alone", base=tmp_path)
    return results_frame(folder.load())


def test_workers_give_what_one_process_gives(on_workers, planned, make_config, tmp_path):
    events = on_workers()
    frame = results_frame(planned[1].load())
    assert frame.equals(in_one_process(make_config, tmp_path))
    assert len(frame) == len(kinds(events, "unit")) == 8
    assert [event.done for event in kinds(events, "unit")] == list(range(1, 9))
    assert {event.text for event in kinds(events, "case")} == {"c/small", "c/large"}
    assert events[-1].per_minute > 0
    assert events[-1].seconds_left == 0


def test_a_unit_that_fails_is_tried_once_more(on_workers, planned, monkeypatch):
    simulate, calls = units.simulate, []

    def fails_at_first(model, volume, *arguments, **options):
        calls.append(model.name)
        if calls.count("classical") == 1 and model.name == "classical":
            raise RuntimeError("no luck")
        return simulate(model, volume, *arguments, **options)

    monkeypatch.setattr(units, "simulate", fails_at_first)
    events = on_workers()
    records = planned[1].load()
    assert [r.status for r in records] == ["ok"] * 8
    assert sorted(r.tries for r in records) == [1] * 7 + [2]
    assert len(calls) == 9
    (again,) = kinds(events, "retry")
    assert "no luck; it is tried once more" in again.text
    assert kinds(events, "unit")[-1].failed == 0


def test_a_unit_that_fails_twice_carries_its_error(on_workers, planned, monkeypatch):
    simulate = units.simulate

    def fails(model, *arguments, **options):
        if model.name == "classical":
            raise RuntimeError("no luck")
        return simulate(model, *arguments, **options)

    monkeypatch.setattr(units, "simulate", fails)
    events = on_workers()
    failed = [r for r in planned[1].load() if r.status == "failed"]
    assert {(r.error, r.tries) for r in failed} == {("RuntimeError: no luck", 2)}
    assert len(failed) == 4
    assert (events[-1].done, events[-1].failed) == (8, 4)
    monkeypatch.setattr(units, "simulate", simulate)
    events = on_workers()
    assert (len(kinds(events, "unit")), events[-1].failed) == (4, 0)


def test_a_full_disk_on_a_worker_ends_the_run_and_loses_nothing(on_workers, planned, monkeypatch):
    write, calls = io.write_label_map, []

    def full(*arguments):
        calls.append(1)
        if len(calls) >= 3:
            raise OutputError("cannot write: the disk is full")
        return write(*arguments)

    monkeypatch.setattr(case_work.io, "write_label_map", full)
    with pytest.raises(OutputError, match="disk is full"):
        on_workers()
    finished = {r.fingerprint: r.finished for r in planned[1].load()}
    assert len(finished) == 2
    monkeypatch.setattr(case_work.io, "write_label_map", write)
    assert len(kinds(on_workers(), "unit")) == 6
    assert finished.items() <= {r.fingerprint: r.finished for r in planned[1].load()}.items()


def test_other_code_on_a_worker_is_refused(on_workers, planned, monkeypatch):
    hashes = iter(["this"])
    monkeypatch.setattr(workers, "source_hash", lambda: next(hashes, "that"))
    with pytest.raises(UsageError, match="another version of napari-lungfm's code"):
        on_workers()
    assert planned[1].load() == []


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    with pytest.raises(InputFileError, match=r"does not see '.*none'"):
        workers._shared_folder(str(tmp_path / "none"))


def test_a_scheduler_that_does_not_answer_is_one_line(make_config, tmp_path, monkeypatch):
    from napari_lungfm.benchmark import workplace

    monkeypatch.setattr(workplace, "_ANSWER_SECONDS", 0.5)
    with pytest.raises(LungFMError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9'"):
        run_benchmark(
            make_config(methods=METHODS),
            tmp_path / "run",
            base=tmp_path,
            workplace=Workplace(scheduler="tcp://127.0.0.1:9"),
        )


# ---------------------------------------------------------------------- real processes
@pytest.fixture
def many(make_config, cases):
    """A configuration of some seconds: three seeds on four cases."""
    listed = [
        {"name": f"{n}-{copy}", "image": f"{n}.nii.gz", "mask": f"{n}_m.nii.gz"}
        for n in ("small", "large")
        for copy in (1, 2)
    ]
    cohorts = [{"kind": "files", "name": "c", "root": str(cases), "cases": listed}]
    return make_config(methods=METHODS, cohorts=cohorts, seeds=[0, 1, 2])


def workers_of(pid):
    """Processes of the workers below a process."""
    psutil = pytest.importorskip("psutil")
    below = psutil.Process(pid).children(recursive=True)
    return [p for p in below if any("spawn_main" in part for part in p.cmdline())]


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(many, make_config, tmp_path):
    whole = run_benchmark(many, tmp_path / "whole", base=tmp_path)
    events, killed = [], []

    def listen(event):
        events.append(event)
        if event.kind == "unit" and len(killed) < 2:
            victims = [p for p in workers_of(os.getpid()) if p.pid not in killed]
            killed.append(victims[0].pid)
            os.kill(victims[0].pid, signal.SIGKILL)

    cut = run_benchmark(
        many, tmp_path / "cut", base=tmp_path, listener=listen, workplace=Workplace(workers=2)
    )
    assert len(killed) == 2
    assert results_frame(cut.load()).equals(results_frame(whole.load()))
    assert [r.tries for r in cut.load()] == [1] * 48
    assert len(kinds(events, "unit")) == 48
    assert events[-1].failed == 0


class Deadly:
    """A case that kills the process that reads it."""

    name = "deadly"

    def __init__(self, source, marks):
        self.source, self.marks = source, marks

    def load(self):
        marks = self.marks.stat().st_size if self.marks.exists() else 0
        self.marks.write_text("x" * (marks + 1))
        if marks < 1:
            time.sleep(0.5)  # let the worker tell that it has begun
            os.kill(os.getpid(), signal.SIGKILL)
        return self.source.load()


@pytest.mark.slow
def test_a_unit_that_kills_its_worker_counts_as_failed(planned, tmp_path):
    """Whatever cannot be caught must not keep the other units of its case from being done."""
    from dataclasses import replace

    import cloudpickle
    import dask

    from napari_lungfm.benchmark.workplace import connect

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    plan, folder = planned
    tasks = [task for _, _, task in pending_tasks(plan, folder)]
    tasks[0] = replace(tasks[0], source=Deadly(tasks[0].source, tmp_path / "marks"))
    events = []
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        connect(Workplace(), 1, on_gpus=False) as client,
    ):
        workers.do_on_workers(tasks, folder, "cpu", Tally(8, events.append), client)
    (bad,) = [r for r in folder.load() if r.status == "failed"]
    assert bad.error == "the worker died once on this case (out of memory?)"
    assert bad.structures[0].dice == 0.0
    assert (events[-1].done, events[-1].failed) == (8, 1)
    assert any("counts as failed" in event.text for event in kinds(events, "worker"))


COMMAND = [sys.executable, "-m", "napari_lungfm", "run"]


def start(config_file, out, *more):
    return subprocess.Popen(
        [*COMMAND, str(config_file), "--out", str(out), *more],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def read_units(process, n):
    """Read what a run tells until it has told of so many units."""
    for line in process.stderr:
        n -= line.startswith("[")
        if n <= 0:
            return


@pytest.mark.slow
def test_a_run_that_is_killed_three_times_ends_the_same(many, tmp_path):
    file = tmp_path / "many.yaml"
    file.write_text(many.to_yaml())
    whole = run_benchmark(many, tmp_path / "whole", base=tmp_path)
    finished = 0
    for moment in (3, 7, 11):
        process = start(file, tmp_path / "cut", "--workers", "2")
        read_units(process, moment)
        below = workers_of(process.pid)
        process.kill()
        process.wait()
        process.stderr.close()
        deadline = time.monotonic() + 30
        while any(p.is_running() and p.status() != "zombie" for p in below):
            assert time.monotonic() < deadline, "workers outlive the run"
            time.sleep(0.1)
        now = len(RunFolder.open(tmp_path / "cut").load())
        assert now > finished
        finished = now
    assert finished < 48
    last = start(file, tmp_path / "cut", "--workers", "2")
    last.communicate()
    assert last.returncode == 0
    cut = results_frame(RunFolder.open(tmp_path / "cut").load())
    cut.to_csv(tmp_path / "cut.csv", index=False)
    results_frame(whole.load()).to_csv(tmp_path / "whole.csv", index=False)
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.slow
def test_ctrl_c_is_one_line(many, tmp_path):
    file = tmp_path / "many.yaml"
    file.write_text(many.to_yaml())
    process = start(file, tmp_path / "run", "--workers", "2")
    read_units(process, 2)
    below = workers_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate()
    assert process.returncode == 1
    told = [line for line in rest.splitlines() if not line.startswith("[")]
    assert len(told) == 1, rest
    assert told[0].startswith("error: interrupted; ")
    assert told[0].endswith("of 48 units are finished, the same command goes on")
    assert not any(p.is_running() and p.status() != "zombie" for p in below)


@pytest.mark.slow
def test_a_scheduler_that_dies_is_one_line_and_loses_nothing(many, tmp_path):
    file = tmp_path / "many.yaml"
    file.write_text(many.to_yaml())
    address_file = tmp_path / "scheduler.json"
    dask_command = [str(Path(sys.executable).parent / "dask")]
    scheduler = subprocess.Popen(
        [*dask_command, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
         "--scheduler-file", str(address_file)],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    worker = subprocess.Popen(
        [*dask_command, "worker", "--scheduler-file", str(address_file), "--nthreads", "1",
         "--no-dashboard", "--local-directory", str(tmp_path)],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not address_file.exists():
            time.sleep(0.1)
        address = yaml.safe_load(address_file.read_text())["address"]
        run = start(file, tmp_path / "run", "--scheduler", address)
        read_units(run, 2)
        scheduler.kill()
        _, rest = run.communicate(timeout=120)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    assert run.returncode == 1
    assert rest.splitlines()[-1].startswith("error: the scheduler is gone; ")
    assert "Traceback" not in rest
    assert len(RunFolder.open(tmp_path / "run").load()) >= 2
