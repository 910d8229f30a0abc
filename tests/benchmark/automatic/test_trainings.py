"""Models that are trained within a benchmark."""

import json
from types import SimpleNamespace

import pytest
import yaml

from napari_lungfm._core.exceptions import ConfigError, LungFMError, OutputError, UsageError
from napari_lungfm.benchmark import trainings
from napari_lungfm.benchmark.runner import run_benchmark
from napari_lungfm.cli import app
from napari_lungfm.models.automatic.trained import SeenPatientError, read_description

pytest.importorskip("torch")

from napari_lungfm.training.fit.settings import FitProgress


class Trainer:
    """Stands in for the training; remembers what it was asked for."""

    def __init__(self, write):
        self.write, self.asked = write, []
        self.on_the_way = lambda config: None

    def __call__(self, config, out, *, base, device, resume, listener, stages):
        self.asked.append((config.name, config.cohort.name, out, resume))
        (out / "run").mkdir(parents=True, exist_ok=True)
        stages("preparing", 1, 2)
        listener(
            SimpleNamespace(
                step=3, steps=9, epoch=1, epochs=3, seconds_left=2.0, metrics={}, epoch_ended=True
            )
        )
        self.on_the_way(config)
        return self.write(out, title=config.name, small=config.small, cohort=config.cohort.name)


@pytest.fixture
def trainer(monkeypatch, model, trained):
    stand_in = Trainer(trained)
    monkeypatch.setattr(trainings, "_trainer", lambda training: stand_in)
    return stand_in


UNET = {"train": "unet-small"}
BOX = {"model": "prompt-box", "protocols": ["box-one", "auto-box-one:unet-small"]}


def test_a_model_is_trained_before_the_units_and_once(run, trainer, cohort, tmp_path):
    found = run([BOX, UNET], cohorts=[cohort()])
    ((name, trained_on, out, resumed),) = trainer.asked
    assert (name, trained_on, resumed) == ("unet-small", "c", False)
    assert out.parent == found.trainings
    assert read_description(out).small
    records = found.load()
    assert {(r.key.method, r.key.state, r.key.protocol) for r in records} == {
        ("unet-small", "small", "none"),
        ("prompt-box", "zero-shot", "box-one"),
        ("prompt-box", "zero-shot", "auto-box-one:unet-small"),
    }
    assert all(r.status == "ok" and r.key.case == "c2" for r in records)
    stamps = {p: p.stat().st_mtime_ns for p in found.records.iterdir()}
    # A name in tables, other methods and the place of the cases do not change what is learnt.
    run([BOX, UNET, {"train": "unet-small", "label": "U-Net"}], cohorts=[cohort()])
    assert len(trainer.asked) == 1
    assert {p: found.records.joinpath(p.name).stat().st_mtime_ns for p in stamps} == stamps


def test_the_runner_tells_how_far_a_training_is(run, trainer, cohort, tmp_path, folder):
    from napari_lungfm.benchmark.config import parse_config

    events = []
    config = parse_config(
        {"name": "t", "structures": ["tumour"], "cohorts": [cohort()], "methods": [UNET]}
    )
    run_benchmark(config, tmp_path / "o", base=tmp_path, listener=events.append)
    told = [(e.kind, e.text) for e in events if e.kind in ("training", "step")]
    assert told == [
        ("training", "training unet-small on c: begins"),
        ("step", "training unet-small on c: preparing cases"),
        ("training", "training unet-small on c: epoch 1 of 3, step 3 of 9, 2 s left"),
        ("training", "training unet-small on c: done in 1 s"),
    ]
    assert [(e.done, e.total) for e in events[1:3]] == [(1, 2), (3, 9)]


def test_a_long_epoch_is_told_now_and_then():
    told, clock = [], iter([0.0, 10.0, 61.0, 62.0, 80.0, 130.0, 131.0])
    tell = trainings._told("t", lambda *news: told.append(news[1:]), lambda: next(clock))
    for step, left in ((1, None), (2, 90.0), (3, 600.0), (4, 9000.0)):
        tell(FitProgress(step, 900, 1, 3, left))
    assert told == [
        ("epoch 1 of 3, step 1 of 900", 1, 900, False),
        ("epoch 1 of 3, step 2 of 900, 90 s left", 2, 900, True),
        ("epoch 1 of 3, step 3 of 900, 10 min left", 3, 900, False),
        ("epoch 1 of 3, step 4 of 900, 2.5 h left", 4, 900, True),
    ]


@pytest.mark.parametrize(
    ("train", "options", "said"),
    [
        ("unet-small", {"postprocessing": "nonsense"}, "there is no post-processing 'nonsense'"),
        ("unet-small", {"overlap": 5}, "'overlap' of model 'unet-small' must be a number"),
        ("unet-small", {"step": 0.5}, "'unet-small' has no option 'step'"),
        ("nnunet-2d-small", {"step": 0}, "'step' of model 'nnunet-2d-small' must be a number"),
        ("lungfm-s-finetune", {"overlap": 0.5}, "has no option 'overlap'"),
    ],
)
def test_options_are_checked_before_anything_is_trained(run, trainer, cohort, train, options, said):
    protocols = ["box-one"] if "finetune" in train else []
    method = {"train": train, "options": options, "protocols": protocols}
    with pytest.raises(UsageError, match=said):
        run([method], cohorts=[cohort()])
    assert trainer.asked == []


def test_an_interrupted_training_is_gone_on_with(run, trainer, cohort):
    def interrupt(config):
        raise KeyboardInterrupt

    trainer.on_the_way = interrupt
    with pytest.raises(KeyboardInterrupt):
        run([UNET], cohorts=[cohort()])
    trainer.on_the_way = lambda config: None
    run([UNET], cohorts=[cohort()])
    assert [asked[3] for asked in trainer.asked] == [False, True]
    assert trainer.asked[0][2] == trainer.asked[1][2]


def test_another_training_or_other_cases_are_trained_anew(run, trainer, cohort, tmp_path, folder):
    from napari_lungfm.training.automatic.config import shipped_configs

    values = yaml.safe_load(shipped_configs()["unet-small"])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values | {"name": "mine"}))
    run([{"train": "mine.yaml"}], cohorts=[cohort()])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values | {"name": "mine", "summary": "x"}))
    run([{"train": "mine.yaml"}], cohorts=[cohort()])
    assert len(trainer.asked) == 1
    fit = {**values["fit"], "epochs": 2}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values | {"name": "mine", "fit": fit}))
    changed = cohort()
    run([{"train": "mine.yaml"}], cohorts=[changed])
    assert len(trainer.asked) == 2
    changed["cases"][1]["part"] = "test"
    run([{"train": "mine.yaml"}], cohorts=[changed])
    assert len({asked[2] for asked in trainer.asked}) == 3


def test_every_cohort_has_a_model_of_its_own_unless_one_is_named(run, trainer, cohort):
    run([UNET], cohorts=[cohort("c"), cohort("d")])
    assert [asked[1] for asked in trainer.asked] == ["c", "d"]
    trainer.asked.clear()
    across = {"train": "unet-small", "trained_on": "c", "label": "from c"}
    records = run([across], out="across", cohorts=[cohort("c"), cohort("d")]).load()
    assert [asked[1] for asked in trainer.asked] == ["c"]
    assert {r.key.cohort for r in records} == {"c", "d"}
    trainer.asked.clear()
    records = run(
        [UNET | {"cohorts": ["d"]}, BOX], out="one", cohorts=[cohort("c"), cohort("d")]
    ).load()
    assert [asked[1] for asked in trainer.asked] == ["d"]
    rows = {(r.key.cohort, r.key.protocol) for r in records}
    assert ("c", "box-one") in rows
    assert ("c", "auto-box-one:unet-small") not in rows  # nothing to draw the prompts from


def test_what_cannot_be_trained_is_refused_before_anything(run, trainer, cohort, tmp_path):
    lone = cohort()
    lone["cases"] = lone["cases"][2:]
    with pytest.raises(ConfigError, match="trained on 'c', which has no case to train on; mark"):
        run([UNET], cohorts=[lone])
    own = {"name": "x", "network": {"architecture": "unet"}, "fit": {"epochs": 1}}
    (tmp_path / "own.yaml").write_text(json.dumps(own | {"cohort": cohort("d")}))
    with pytest.raises(ConfigError, match="names a cohort; a benchmark trains on its own"):
        run([{"train": "own.yaml"}], cohorts=[cohort()])
    assert trainer.asked == []
    assert not (tmp_path / "run").exists()


def test_one_patient_in_both_parts_is_refused_before_the_training(run, trainer, cohort, folder):
    twice = cohort()
    (folder / "c2.nii.gz").write_bytes((folder / "c0.nii.gz").read_bytes())
    with pytest.raises(SeenPatientError, match=r"is to be trained on .*'c2' of 'c' \('c0' of 'c'"):
        run([UNET], cohorts=[twice])
    assert trainer.asked == []


def test_a_training_that_fails_fails_its_units_and_is_tried_again(run, trainer, cohort):
    def fail(config):
        raise LungFMError("the loss is NaN")

    trainer.on_the_way = fail
    records = run([UNET, BOX], cohorts=[cohort()]).load()
    by_row = {(r.key.model, r.key.protocol): r for r in records}
    assert by_row["unet-small", "none"].error == "the training failed: the loss is NaN"
    assert by_row["unet-small", "none"].key.method == "unet-small"
    assert [s.dice for s in by_row["unet-small", "none"].structures] == [0.0] * 3
    assert "the loss is NaN" in by_row["prompt-box", "auto-box-one:unet-small"].error
    assert by_row["prompt-box", "box-one"].status == "ok"
    trainer.on_the_way = lambda config: None
    assert all(r.status == "ok" for r in run([UNET, BOX], cohorts=[cohort()]).load())


def test_a_full_disk_ends_the_run(run, trainer, cohort):
    def full(config):
        raise OutputError("cannot write: the disk is full")

    trainer.on_the_way = full
    with pytest.raises(OutputError, match="disk is full"):
        run([UNET], cohorts=[cohort()])


def test_wrong_options_of_what_was_trained_lose_nothing(run, trainer, cohort):
    with pytest.raises(LungFMError, match="no option 'x'"):
        run([UNET | {"options": {"x": 1}}], cohorts=[cohort()])
    run([UNET | {"options": {"postprocessing": "none"}}], cohorts=[cohort()])
    assert len(trainer.asked) == 1


@pytest.mark.slow
def test_a_real_training_in_a_configuration(tmp_path, capfd):
    pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)
    training = {
        "name": "tiny-small",
        "small": True,
        "network": {"architecture": "unet", "channels": [4, 6, 8, 8, 8], "norm": "instance"},
        "inputs": {"spacing": [15.0, 5.5, 5.0], "size": [64, 80]},
        "sampling": {"kind": "foreground", "slices_per_epoch": 64},
        "loss": "dice-cross-entropy",
        "optimiser": {"name": "adamw", "learning_rate": 1e-2},
        "workers": 0,
        "fit": {"epochs": 8},
    }
    cohort = {
        "kind": "phantom",
        "name": "coarse",
        "n_test": 2,
        "n_train": 3,
        "kinds": ["solid-round"],
        "shape": [20, 64, 80],
        "spacings": [[15.0, 5.5, 5.0]],
        "diameters_mm": [50, 60],
        "whole_chest": True,
    }
    config = {
        "name": "real",
        "structures": ["left lung", "right lung", "tumour"],
        "cohorts": [cohort],
        "methods": [
            {"train": "tiny.yaml", "label": "U-Net"},
            {"model": "prompt-box", "protocols": ["box-one", "auto-box-one:U-Net"]},
        ],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(training))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "out"
    arguments = ["run", str(tmp_path / "config.yaml"), "--out", str(out), "--json"]
    code = app.run([*arguments, "--device", "cpu"])
    shown, told = capfd.readouterr()
    assert code == 0, told
    assert "training U-Net (small) on coarse: epoch 8 of 8" in told
    summary = json.loads(shown)["summary"]
    rows = {(r["method"], r["protocol"], r["structure"]): r for r in summary}
    # Processors round differently, and so few steps do not even that out: 0.46 to 0.7 were seen.
    # The mask that is nowhere has 0, the one that is everywhere about 0.2.
    assert rows["U-Net (small)", "none", "lungs"]["dice"] > 0.35
    assert ("prompt-box", "auto-box-one:U-Net (small)", "avg") in rows
    assert app.run(["report", str(out)]) == 0
    assert (
        "U-Net (small): trained with a small preset" in (out / "report" / "report.html").read_text()
    )
