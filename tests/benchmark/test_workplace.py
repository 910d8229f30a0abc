import sys
from types import ModuleType

import pytest

from napari_lungfm._core.exceptions import (
    ConfigError,
    InputFileError,
    LungFMError,
    MissingDependencyError,
    UsageError,
)
from napari_lungfm.benchmark import workplace
from napari_lungfm.benchmark.workplace import (
    ClusterSpec,
    Workplace,
    check_workplace,
    connect,
    load_cluster,
)


@pytest.fixture
def machine(monkeypatch):
    """A machine of 8 cores."""

    def make(gib="64.0", gpus=(), dask=True):
        monkeypatch.setattr(workplace, "available_cores", lambda: 8)
        monkeypatch.setattr(workplace, "hardware", lambda: {"memory_gib": gib})
        monkeypatch.setattr(workplace, "visible_gpus", lambda: gpus)
        monkeypatch.setattr(workplace, "is_available", lambda module: dask)

    return make


@pytest.mark.parametrize(
    ("facts", "cases", "on_gpus", "expected"),
    [
        ({}, 100, False, 8),
        ({}, 3, False, 3),
        ({}, 0, False, 1),
        ({"gib": "9.0"}, 100, False, 2),
        ({"gib": "unknown"}, 100, False, 1),
        ({"gpus": ("0", "1")}, 100, True, 2),
        ({"gpus": ("0", "1")}, 100, False, 8),
        ({"dask": False}, 100, False, 1),
    ],
)
def test_as_many_workers_as_make_sense(machine, facts, cases, on_gpus, expected):
    machine(**facts)
    assert Workplace(workers=None).count(cases, on_gpus=on_gpus) == expected


def test_workers_that_were_asked_for(machine):
    machine(gib="1.0")
    assert Workplace(workers=5).count(100, on_gpus=False) == 5
    assert Workplace(workers=5).count(2, on_gpus=True) == 2


@pytest.mark.parametrize(
    "given", [{"workers": 0}, {"scheduler": "a", "cluster": ClusterSpec(kind="slurm")}]
)
def test_places_that_make_no_sense(given):
    with pytest.raises(UsageError):
        Workplace(**given)


def test_gpus_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert workplace.visible_gpus() == ("2", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert workplace.visible_gpus() == ()


def test_each_gpu_has_a_worker(monkeypatch):
    specs = {}

    class Cluster:
        def __init__(self, workers, **_):
            specs.update(workers)

        def close(self, **_):
            specs["closed"] = True

    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(distributed, "SpecCluster", Cluster)
    with workplace._local(2, ("3", "7")):
        seen = [specs[n]["options"]["env"]["CUDA_VISIBLE_DEVICES"] for n in (0, 1)]
    assert seen == ["3", "7"]
    assert specs["closed"]


def test_the_description_of_a_cluster(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("kind: slurm\njobs: 4\nqueue: gpu\ncores: 4\nmemory: 32GB\n")
    spec = load_cluster(file)
    assert spec.jobs == 4
    assert spec.options == {"queue": "gpu", "cores": 4, "memory": "32GB"}


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("kind: pbs\n", ConfigError, "kind"),
        ("kind: slurm\njobs: 0\n", ConfigError, "jobs"),
        ("- 1\n", ConfigError, "a mapping"),
        ("a: [1\n", ConfigError, "not valid YAML"),
        (None, InputFileError, "cannot be read"),
    ],
)
def test_a_wrong_description_is_one_line(tmp_path, text, kind, message):
    file = tmp_path / "c.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(kind, match=message) as caught:
        load_cluster(file)
    assert "\n" not in str(caught.value)


@pytest.fixture
def jobqueue(monkeypatch):
    """A dask-jobqueue whose cluster is what a test says."""

    def install(cluster):
        module = ModuleType("dask_jobqueue")
        module.SLURMCluster = cluster
        monkeypatch.setitem(sys.modules, "dask_jobqueue", module)

    return install


def test_slurm_gets_its_keywords_and_jobs(jobqueue):
    pytest.importorskip("distributed")
    told = {}

    class Cluster:
        def __init__(self, **options):
            told["options"] = options

        def scale(self, jobs):
            told["jobs"] = jobs

        def close(self, timeout):
            told["closed"] = True

    jobqueue(Cluster)
    with workplace._slurm(ClusterSpec(kind="slurm", jobs=3, queue="gpu", cores=4)):
        assert told == {"options": {"processes": 1, "queue": "gpu", "cores": 4}, "jobs": 3}
    assert told["closed"]


def test_slurm_that_cannot_be_started_is_one_line(jobqueue, monkeypatch):
    pytest.importorskip("distributed")

    def broken(**options):
        raise TypeError("unexpected keyword\nargument 'quue'")

    spec = ClusterSpec(kind="slurm", quue="gpu")
    place = Workplace(workers=None, cluster=spec)
    jobqueue(broken)
    with (
        pytest.raises(LungFMError, match="cannot be started: unexpected keyword argument 'quue'"),
        connect(place, 1, on_gpus=False),
    ):
        pass
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with (
        pytest.raises(MissingDependencyError, match="pip install dask-jobqueue"),
        connect(place, 1, on_gpus=False),
    ):
        pass


def test_a_cluster_is_tried_without_asking_for_jobs(jobqueue, monkeypatch):
    pytest.importorskip("distributed")
    told = []

    class Cluster:
        def __init__(self, **options):
            told.append(options)

        def job_script(self):
            told.append("script")

        def close(self, timeout):
            told.append("closed")

    jobqueue(Cluster)
    place = Workplace(workers=None, cluster=ClusterSpec(kind="slurm", jobs=3, queue="gpu"))
    monkeypatch.setattr(workplace.shutil, "which", lambda name: f"/bin/{name}")
    check_workplace(place)
    assert told == [{"processes": 1, "queue": "gpu"}, "script", "closed"]
    monkeypatch.setattr(workplace.shutil, "which", lambda name: None)
    with pytest.raises(LungFMError, match="no command sbatch here"):
        check_workplace(place)
    assert told[-1] == "closed"


def test_a_place_that_cannot_be_reached_is_told_before_anything_is_trained(
    make_config, tmp_path, monkeypatch
):
    pytest.importorskip("distributed")
    from napari_lungfm.benchmark import runner

    monkeypatch.setattr(workplace, "_ANSWER_SECONDS", 1)
    monkeypatch.setattr(runner, "do_trainings", lambda *a, **k: pytest.fail("trained"))
    place = Workplace(workers=None, scheduler="tcp://127.0.0.1:9")
    with pytest.raises(LungFMError, match="no Dask scheduler answers"):
        runner.run_benchmark(make_config(), tmp_path / "run", base=tmp_path, workplace=place)
    assert not (tmp_path / "run").exists()
    check_workplace(Workplace(workers=None))
