"""Promptable models that are fine-tuned within a benchmark."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from napari_lungfm._core.exceptions import ConfigError, LungFMError
from napari_lungfm.benchmark import loaded, to_train, trainings
from napari_lungfm.benchmark.config import load_config
from napari_lungfm.benchmark.states import fine_tuned_state, training_percent
from napari_lungfm.models.automatic.trained import SeenPatient, SeenPatientError, read_description
from napari_lungfm.models.registry import create_model
from napari_lungfm.models.weights import WeightsNotFoundError

pytest.importorskip("torch")

BOTH = ["box-one", "point-one"]
CURVE = {"train": "lungfm-s-finetune", "fraction": [0.5, 1], "seeds": [3, 4], "protocols": BOTH}
BASE = {"model": "prompt-box", "protocols": BOTH}


def test_states_say_the_part_of_the_patients():
    assert [training_percent(fine_tuned_state(p)) for p in (25, 50.0, 12.5)] == [25, 50, 12.5]
    assert training_percent("zero-shot") == 0
    assert training_percent("trained") is training_percent("small") is None


@pytest.fixture
def tuner(monkeypatch, trained):
    """Stands in for the fine-tuning, and for the models that come of it; keeps what was asked."""
    asked = []

    def train(config, out, *, base, device, resume, listener, stages):
        asked.append((config, out))
        (out / "run").mkdir(parents=True, exist_ok=True)
        train.on_the_way(config)
        facts = {
            "network": "lungfm",
            "base": {"name": "lungfm-s", "sha256": "0", "licence": "BSD-3-Clause"},
            "recipe": "lungfm",
            "fraction": config.fraction,
            "seed": config.seed,
        }
        return trained(
            out,
            title=f"{config.name}-{config.fraction:g}-{config.seed}",
            family="finetuned-lungfm",
            architecture="finetuned",
            structures=(),
            settings=facts,
            cohort=config.cohort.name,
        )

    def create(name, **options):
        return create_model(name if name.startswith("prompt-") else "prompt-ellipse")

    train.on_the_way = lambda config: None
    monkeypatch.setattr(trainings, "_trainer", lambda training: train)
    monkeypatch.setattr(loaded, "create_model", create)
    return SimpleNamespace(asked=asked, train=train)


def test_every_part_and_seed_is_a_fit_of_one_method(run, tuner, cohort):
    found = run([BASE, CURVE], cohorts=[cohort()], seeds=[3, 4])
    fits = {(c.fraction, c.seed): out for c, out in tuner.asked}
    assert set(fits) == {(50, 3), (50, 4), (100, 3), (100, 4)}
    assert len(set(fits.values())) == len(tuner.asked) == 4
    assert all(c.cohort.name == "c" and c.prompts == "mixed" for c, _ in tuner.asked)
    records = found.load()
    assert all(r.status == "ok" for r in records)
    mine = [r for r in records if r.key.model == "lungfm-s"]
    assert {(r.key.state, r.key.seed, r.key.protocol) for r in mine} == {
        (fine_tuned_state(percent), seed, protocol)
        for percent in (50, 100)
        for seed in (3, 4)
        for protocol in BOTH
    }
    assert {r.key.method for r in mine} == {
        "lungfm-s (fine-tuned 50 %)",
        "lungfm-s (fine-tuned 100 %)",
    }
    # One seed, one user: the fit with seed 3 is prompted as the others with seed 3 are.
    clicks = {
        (r.key.model, r.key.seed): r.structures[-1].prompts
        for r in records
        if r.key.protocol == "point-one"
    }
    assert clicks["prompt-box", 3] == clicks["lungfm-s", 3]
    stamps = {p: p.stat().st_mtime_ns for p in found.records.iterdir()}
    run([BASE, CURVE], cohorts=[cohort()], seeds=[3, 4])
    assert len(tuner.asked) == 4
    assert {p: p.stat().st_mtime_ns for p in found.records.iterdir()} == stamps


def test_a_fit_that_is_a_folder_stands_beside_its_base_too(run, tuner, cohort, tmp_path):
    run([{**CURVE, "fraction": 0.5, "seeds": [3]}], cohorts=[cohort()])
    (_, folder) = tuner.asked[0]
    method = {"model": str(folder), "protocols": BOTH}
    (record,) = {r.key.method for r in run([method], out="o", cohorts=[cohort()]).load()}
    assert record == "lungfm-s (fine-tuned 50 %)"


def test_the_method_changes_its_training(run, tuner, cohort, tmp_path):
    settings = {"epochs": 3, "structures": ["tumour", "left lung"], "recipe": {"walk": 2}}
    method = {**CURVE, "seeds": [3], "fraction": 1, "prompts": "point", "settings": settings}
    run([method], cohorts=[cohort()])
    (config, _) = tuner.asked[0]
    assert (config.prompts, config.epochs, config.recipe.walk) == ("point", 3, 2)
    assert config.structures == ("tumour", "left lung")
    with pytest.raises(ConfigError, match=r"with settings: there is no key .epoch.; did you mean"):
        run([{**method, "settings": {"epoch": 3}}], cohorts=[cohort()])
    # Another recipe does not inherit the options of the one before.
    values = {"name": "m", "kind": "finetune", "base": "b", "recipe": {"name": "ma", "clip": 4}}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(values))
    spec = SimpleNamespace(
        train="m.yaml", settings={"recipe": {"name": "zhu"}}, prompts=None, fractions=(), seeds=None
    )
    (fit,) = to_train.fits_of(spec, str(tmp_path / "m.yaml"), tmp_path)
    assert (fit.training.recipe.name, fit.training.recipe.clip, fit.model) == ("zhu", 2, "b")


def test_another_base_is_trained_anew(run, tuner, cohort, monkeypatch):
    one = {**CURVE, "seeds": [3], "fraction": 1}
    run([one], cohorts=[cohort()])
    monkeypatch.setattr(trainings, "_base_hash", lambda name: "another")
    run([one], cohorts=[cohort()])
    assert len({out for _, out in tuner.asked}) == 2


def test_a_fit_that_fails_fails_its_own_units(run, tuner, cohort):
    def fail(config):
        if config.seed == 3:
            raise LungFMError("the loss is NaN")

    tuner.train.on_the_way = fail
    records = run([{**CURVE, "fraction": 1}], cohorts=[cohort()]).load()
    outcome = {(r.key.seed, r.key.protocol): r.error for r in records}
    assert outcome[4, "box-one"] is None
    assert outcome[3, "box-one"] == "the training failed: the loss is NaN"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fraction": 0}, "fraction"),
        ({"fraction": [0.5, 1.5]}, "fraction"),
        ({"fraction": [0.5, 0.5]}, "0.5, 0.5 has one of them twice"),
        ({"seeds": [1, 1]}, "seeds: 1, 1 has one of them twice"),
        ({"train": "unet-small", "protocols": []}, "fraction: 'unet-small' trains an automatic"),
        ({"train": None, "model": "lungfm-s"}, "fraction: 'lungfm-s' is not trained here"),
        ({"protocols": []}, "is a promptable model: list the prompt protocols"),
    ],
)
def test_what_makes_no_sense_is_refused(run, cohort, change, message):
    with pytest.raises(ConfigError, match=message):
        run([{**CURVE, "seeds": None, **change}], cohorts=[cohort()])


def test_two_recipes_on_one_base_need_labels(run, tuner, cohort):
    other = {**CURVE, "settings": {"epochs": 2}, "seeds": [5]}
    with pytest.raises(ConfigError, match=r"lungfm-s \(fine-tuned 100 %\) under box-one.*label"):
        run([CURVE, other], cohorts=[cohort()])
    run([CURVE, {**other, "label": "short"}], cohorts=[cohort()])


def test_a_base_without_weights_is_refused_before_any_training(
    run, tuner, cohort, tmp_path, monkeypatch
):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "none"))
    lost = {"train": "medsam-box", "protocols": ["box-one"]}
    with pytest.raises(WeightsNotFoundError, match="medsam"):
        run([{**CURVE, "seeds": None}, lost], cohorts=[cohort()])
    assert tuner.asked == []


def test_a_base_that_saw_a_test_patient_is_refused(run, tuner, cohort, tmp_path):
    run([{**CURVE, "seeds": [3], "fraction": 1}], cohorts=[cohort()])
    (_, folder) = tuner.asked[0]
    description = read_description(folder)
    seen = SeenPatient(cohort="c", case="c2", part="train", image="")
    text = description.model_copy(update={"seen": (seen,)}).model_dump_json()
    (folder / "model.json").write_text(text)
    values = {"name": "further", "kind": "finetune", "recipe": {"name": "lungfm"}}
    (tmp_path / "f.yaml").write_text(yaml.safe_dump({**values, "base": str(folder)}))
    tuner.asked.clear()
    with pytest.raises(SeenPatientError, match=r"is to be trained on patients .*'c2' of 'c'"):
        run([{"train": "f.yaml", "protocols": ["box-one"]}], out="o", cohorts=[cohort()])
    assert tuner.asked == []


def test_the_study_is_a_curve_of_fits_beside_its_base():
    file = Path(__file__).parents[3] / "benchmarks" / "finetuning_study.yaml"
    config = load_config(file)
    methods = config.look_up(file.parent)
    fits = {(training_percent(m.state), m.seeds) for m in methods if m.model == "lungfm-s"}
    seeds = [(seed,) for seed in config.seeds]
    assert fits == {(0, ()), *((p, seed) for p in (25, 50, 75, 100) for seed in seeds)}
    # Their cost is the same, whatever the number of patients.
    costs = {m.training.samples_per_epoch for m in methods if m.training}
    assert len(costs) == 1
    assert costs != {None}
