import pytest

from napari_lungfm.cli.run_progress import Finished, duration, pace


@pytest.fixture
def config(case):
    file = case.folder / "c.yaml"
    file.write_text(
        f"""
name: small
cohorts:
  - kind: files
    name: c
    root: {case.folder}
    cases: [{{name: a, image: {case.image.name}, mask: {case.mask.name}}}]
methods:
  - {{model: prompt-box, protocols: [box-one]}}
  - {{model: prompt-ellipse, protocols: [box-one, box-every-slice]}}
"""
    )
    return file


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(bench, config, tmp_path):
    result = bench("run", config, "--out", tmp_path / "out", "--dry-run")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0] == "3 units, 0 finished, 3 to do"
    assert lines[2].split() == ["c", "prompt-box", "box-one", "1", "1", "unknown"]
    assert "as of usual chest CTs" in lines[-2]
    assert lines[-1] == "time: unknown, there are no records of these methods and protocols yet"
    assert not (tmp_path / "out").exists()


def test_a_dry_run_after_a_run_knows_the_time(bench, config, tmp_path):
    assert bench("run", config, "--out", tmp_path / "out").code == 0
    done = bench("run", config, "--out", tmp_path / "out", "--dry-run")
    assert done.out.startswith("3 units, 3 finished, 0 to do")
    assert done.out.splitlines()[-1] == "time: no unit is left"
    more = bench(
        "run", config, "--out", tmp_path / "out", "--dry-run", "--json", "--set", "seeds=[0,1]"
    ).json
    assert more["units"] == {"planned": 6, "finished": 3, "to_do": 3}
    assert more["units_of_unknown_time"] == 0
    assert more["seconds_on_one_worker"] > 0
    assert [unit["finished"] for unit in more["list"]].count(True) == 3
    assert {unit["seed"] for unit in more["list"]} == {0, 1}


def test_set_changes_what_is_run(bench, config, tmp_path):
    change = "methods=[{model: prompt-box, protocols: [box-every-slice]}]"
    result = bench("run", config, "--out", tmp_path / "out", "--set", change, "--json")
    assert result.code == 0
    assert [row["protocol"] for row in result.json["summary"]] == ["box-every-slice"]
    assert result.json["units"] == {"planned": 1, "finished": 1, "failed": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "methods.9.model=x"], "--set methods.9.model: methods has 2 entries"),
        (["--set", "seds=[1]"], "no key 'seds'; did you mean 'seeds'?"),
        (["--workers", "2", "--scheduler", "tcp://x:1"], "--workers starts processes here"),
        (["--cluster", "none.yaml"], "'none.yaml' cannot be read"),
        (["--scheduler", "tcp://127.0.0.1:9", "--dry-run"], "no Dask scheduler answers at"),
        (["--data", "elsewhere", "--set", "cohorts.0.root=x"], "there is no file or folder"),
    ],
)
def test_wrong_calls_are_one_line(bench, config, tmp_path, arguments, message, monkeypatch):
    monkeypatch.setattr("napari_lungfm.benchmark.workplace._ANSWER_SECONDS", 1)
    result = bench("run", config, "--out", tmp_path / "out", *arguments)
    assert result.code in (1, 2)
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_shipped_configurations_are_listed_and_found(bench, tmp_path):
    assert {"demo", "paper"} <= set(bench("run", "--list", "--json").json)
    assert "demo  " in bench("run", "--list").out
    assert "(see --list)" in bench("run").err
    assert "run needs --out FOLDER" in bench("run", "demo").err
    unknown = bench("run", "nope", "--out", tmp_path / "o")
    assert (unknown.code, "no file 'nope'" in unknown.err) == (1, True)


def test_an_interruption_says_what_is_finished(bench, config, tmp_path, monkeypatch):
    from napari_lungfm.benchmark import case_work

    do_unit, calls = case_work.do_unit, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return do_unit(*arguments)

    monkeypatch.setattr(case_work, "do_unit", interrupted)
    result = bench("run", config, "--out", tmp_path / "out", "--workers", "1")
    assert result.code == 1
    told = "error: interrupted; 2 of 3 units are finished, the same command goes on"
    assert result.err.splitlines()[-1] == told


def test_the_pace_in_words():
    from napari_lungfm.benchmark.events import RunEvent

    assert pace(RunEvent("start", 0, 4, 0, "")) == ""
    event = RunEvent("unit", 2, 4, 1, "", per_minute=12.34, seconds_left=600.0)
    assert pace(event) == "12.3/min, 10 min left, 1 failed"
    assert [duration(s) for s in (3.2, 100, 7200)] == ["3 s", "2 min", "2.0 h"]
    finished = Finished()
    finished.heard(RunEvent("step", 5, 10, 0, "training"))
    assert finished.text.startswith("no unit was begun")
