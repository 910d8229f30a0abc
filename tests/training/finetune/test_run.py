import csv
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from napari_lungfm._core.exceptions import ConfigError, LungFMWarning, UsageError
from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.inference.segmentation import segment_object
from napari_lungfm.models.automatic.trained import SeenPatientError, hash_image
from napari_lungfm.models.foundation.finetuned import FineTunedSettings
from napari_lungfm.models.prompts import Box
from napari_lungfm.models.registry import create_model, trained_model
from napari_lungfm.training.automatic.cohort_check import CohortError
from napari_lungfm.training.finetune import medsam
from napari_lungfm.training.finetune.base import load_base
from napari_lungfm.training.finetune.config import load_fine_tuning, parse_fine_tuning
from napari_lungfm.training.finetune.finish import notes_on_validation
from napari_lungfm.training.finetune.run import fine_tune

COHORT = {"kind": "phantom", "name": "clinic", "n_test": 1, "n_train": 2}


class InterruptionError(Exception):
    pass


@pytest.fixture
def train(make_cohort, tiny_values, tmp_path, monkeypatch, base_folder):
    """Fine-tune on made-up cases, which stand in for the configuration's cohort."""

    def call(name="model", *, cohort=None, changes=None, **arguments):
        made = cohort if cohort is not None else make_cohort("a", "b", "c", test=("d",))
        monkeypatch.setattr(PhantomCohort, "build", lambda self, base: made)
        config = parse_fine_tuning({**tiny_values, "cohort": COHORT, **(changes or {})})
        return fine_tune(config, tmp_path / name, base=tmp_path, device="cpu", **arguments)

    return call


def one_box(name, volume, reference):
    mask = reference.mask(3)
    z = int(np.argmax(mask.sum(axis=(1, 2))))
    model = create_model(name, device="cpu") if isinstance(name, str) else name
    return segment_object(model, volume, [Box.around(mask[z], z)]).array


def test_a_fine_tuning_leaves_a_model_like_any_other(train, tmp_path, make_source, base_folder):
    stages = []
    description = train(
        changes={"validation_prompts": ["every-slice", "one-slice"]},
        stages=lambda stage, done, total: stages.append(stage),
    )
    folder = tmp_path / "model"
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "log.csv", "model.json", "run", "weights.safetensors",
    }  # fmt: skip
    assert trained_model(str(folder)) == description
    assert (description.family, description.architecture) == ("finetuned-sam", "finetuned")
    settings = FineTunedSettings.model_validate(description.settings)
    assert (settings.recipe, settings.prompts, settings.fraction) == ("medsam", "box", 100)
    # What it inherits from its base.
    assert settings.base.name == "small SAM"
    assert settings.base.sha256 == trained_model(str(base_folder)).files["weights.safetensors"]
    # What moved.
    moved = settings.moved
    assert moved["prompt_encoder"]["moved"] == 0
    assert moved["image_encoder"]["moved"] > 0.9
    # Whom it has seen, and how well it does on those that it was not trained on.
    assert sorted(p.part for p in description.seen) == ["train", "train", "validation"]
    aside = [p.case for p in description.seen if p.part == "validation"]
    assert list(description.validation) == aside
    assert set(description.validation[aside[0]]) == {
        "tumour, prompted on every slice",
        "tumour, prompted on one slice",
    }
    image = hash_image(make_source("a").load().volume)
    with pytest.raises(SeenPatientError, match="case 'x' \\(there 'a'\\)"):
        description.refuse_seen("x", image=image)
    assert {"preparing", "validating"} == set(stages)
    with (folder / "log.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2
    assert float(rows[0]["slices_per_second"]) > 0
    assert 0 <= float(rows[1]["validation/dice"]) <= 1
    with pytest.raises(UsageError, match="holds a trained model already"):
        train(resume=True)


def test_the_folder_gives_the_masks_of_the_trained_network(train, tmp_path, make_source):
    from napari_lungfm.models.foundation.finetuned import model_of, read_weights
    from napari_lungfm.models.foundation.sam_image import SamImageModel
    from napari_lungfm.preprocessing.windowing import Window
    from napari_lungfm.training.finetune.medsam import MedSAMTask
    from napari_lungfm.training.finetune.recipe import MedSAMRecipe
    from napari_lungfm.training.fit.checkpoints import load_weights

    description = train(changes={"epochs": 15, "validation": 0.0})
    folder = tmp_path / "model"
    case = make_source("d").load()
    settings = FineTunedSettings.model_validate(description.settings)
    task = MedSAMTask(load_base("base", "sam", place=tmp_path), MedSAMRecipe(), "box")
    load_weights(task, folder / "run" / "checkpoints" / "last.ckpt")
    own = SamImageModel(
        "own",
        task.network,
        weight_hash="",
        window=Window(-600, 1500),
        preprocessing="medsam",
        device="cpu",
    )
    expected = one_box(own, case.volume, case.reference)
    assert expected.any()
    assert np.array_equal(one_box(str(folder), case.volume, case.reference), expected)
    # The base gives others.
    before = one_box(str(tmp_path / "base"), case.volume, case.reference)
    assert not np.array_equal(before, expected)
    # What validates is what a user gets.
    weights = folder / "weights.safetensors"
    same = model_of(weights, settings, "tiny", description.files[weights.name], "cpu")
    assert np.array_equal(one_box(same, case.volume, case.reference), expected)
    network = read_weights(weights, settings)
    assert all(tensor.dtype == torch.float32 for tensor in network.state_dict().values())
    assert create_model(str(folder), device="cpu").name == str(folder.resolve())


def test_a_fine_tuning_that_was_interrupted_ends_the_same(train, tmp_path):
    changes = {"epochs": 3, "accumulate": 2, "prompts": "mixed", "validation_prompts": []}
    whole = train("whole", changes=changes)

    def stop(progress):
        if progress.epoch == 2 and progress.metrics == {}:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        train("parts", changes=changes, listener=stop)
    assert not (tmp_path / "parts" / "model.json").exists()
    with pytest.raises(UsageError, match="--resume"):
        train("parts", changes=changes)
    with pytest.raises(ConfigError, match="fraction was 100"):
        train("parts", changes={**changes, "fraction": 50}, resume=True)
    resumed = train("parts", changes=changes, resume=True)
    assert resumed.files == whole.files  # sha256 of the weights
    assert resumed.notes == whole.notes  # none about the interruption


@pytest.mark.timeout(300)
def test_a_training_that_was_killed_ends_the_same(tiny_values, base_folder, tmp_path):
    """SIGKILL in the middle of an epoch: nothing is tidied up."""
    cohort = {
        **COHORT,
        "shape": [6, 40, 44],
        "spacings": [[6.0, 2.0, 2.0]],
        "kinds": ["solid-round"],
        "diameters_mm": [24, 30],
    }
    recipe = {"name": "medsam", "least_pixels": 1, "train_encoder": False, "feature_mb": 0}
    values = {
        **tiny_values,
        "base": str(base_folder),
        "cohort": cohort,
        "recipe": recipe,
        "epochs": 3,
        "samples_per_epoch": 6,
        "validation": 0.0,
    }
    (tmp_path / "killed.yaml").write_text(yaml.safe_dump(values))
    config = load_fine_tuning(tmp_path / "killed.yaml")
    whole = fine_tune(config, tmp_path / "whole", base=tmp_path, device="cpu")
    script = f"""
import os, signal, sys
from pathlib import Path
import torch
from napari_lungfm.training.finetune.config import load_fine_tuning
from napari_lungfm.training.finetune.run import fine_tune
torch.set_num_threads({torch.get_num_threads()})
def listen(progress):
    if progress.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
folder = Path(sys.argv[1])
config = load_fine_tuning(folder / "killed.yaml")
fine_tune(config, folder / "killed", base=folder, device="cpu", listener=listen)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=False, timeout=280
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    rows = (tmp_path / "killed" / "run" / "log.csv").read_text().splitlines()
    assert len(rows) == 2  # one epoch was done
    resumed = fine_tune(config, tmp_path / "killed", base=tmp_path, device="cpu", resume=True)
    assert resumed.files == whole.files  # sha256 of the weights
    assert resumed.notes == whole.notes  # none about the interruption
    assert (resumed.epochs, resumed.seen) == (3, whole.seen)
    with (tmp_path / "killed" / "log.csv").open() as stream:
        second = list(csv.DictReader(stream))[1]
    # Features outlive the kill, which came after four slices of this epoch; in the end they go.
    assert float(second["features_reused"]) >= 4
    assert float(second["features_computed"]) + float(second["features_reused"]) == 6
    assert not (tmp_path / "killed" / "run" / "features").exists()


def test_the_steps_are_those_that_the_schedule_is_told(train, tmp_path, monkeypatch):
    told = []
    own = medsam.make_task
    monkeypatch.setattr(
        medsam,
        "make_task",
        lambda config, base, steps: told.append(steps) or own(config, base, steps),
    )
    train(changes={"accumulate": 2, "samples_per_epoch": 9, "validation": 0.0})
    with (tmp_path / "model" / "log.csv").open() as stream:
        assert told == [int(list(csv.DictReader(stream))[-1]["step"])] == [4]


def test_a_ct_under_two_names_is_refused_by_name(train, make_cohort, make_source):
    twin = make_source("twin", seed=sum(map(ord, "b")))
    with pytest.raises(CohortError, match="one CT under several names: 'b' and 'twin'; leave out"):
        train(cohort=make_cohort("a", "b", twin))


def test_mixed_prompts_are_validated_as_boxes_and_as_clicks(train, monkeypatch):
    prompted = []
    own = medsam.MedSAMTask.validation_step

    def look(task, batch, number):
        prompted.extend((each.key, each.box is not None) for each in batch)
        own(task, batch, number)

    monkeypatch.setattr(medsam.MedSAMTask, "validation_step", look)
    description = train(
        changes={
            "prompts": "mixed",
            "epochs": 1,
            "samples_per_epoch": 2,
            "validation_prompts": ["every-slice", "one-slice"],
        }
    )
    slices = {key for key, _ in prompted}
    assert len(slices) == 2
    assert sorted(prompted) == sorted((key, boxed) for key in slices for boxed in (False, True))
    (scores,) = description.validation.values()
    assert set(scores) == {
        "tumour, boxed on every slice",
        "tumour, clicked on every slice",
        "tumour, boxed on one slice",
        "tumour, clicked on one slice",
    }


def test_a_validation_that_decides_nothing_is_told(tmp_path):
    def notes(*values, best):
        rows = [f"{epoch},{value}" for epoch, value in enumerate(values, start=1)]
        (tmp_path / "log.csv").write_text("\n".join(["epoch,validation/dice", *rows]) + "\n")
        return notes_on_validation(tmp_path / "log.csv", "validation/dice", best=best)

    assert notes(0.1, 0.5, 0.2, best=True) == ()
    (tie,) = notes(0.1, 0.5, "", 0.5, best=True)
    assert tie.startswith("Dice of the validation samples was alike (0.5) after the epochs 2, 4;")
    assert tie.endswith("those of epoch 2")
    assert notes(0.1, 0.5, 0.5, best=False) == ()
    (none,) = notes(0, 0, best=True)
    assert none.startswith("Dice of the validation samples was 0 after every epoch; the best")
    assert len(notes(0, 0, best=False)) == 1
    assert notes("", "", best=True) == ()
    assert notes_on_validation(tmp_path / "none.csv", "validation/dice", best=True) == ()


def test_accumulated_batches_give_what_one_large_batch_gives(train, tmp_path):
    from safetensors.torch import load_file

    quick = {"epochs": 1, "validation": 0.0, "samples_per_epoch": 4}
    recipe = {"name": "medsam", "least_pixels": 1, "learning_rate": 1e-3}
    train("one", changes={**quick, "recipe": {**recipe, "batch_size": 2}})
    train("sum", changes={**quick, "recipe": {**recipe, "batch_size": 1}, "accumulate": 2})
    one, summed = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "sum"))
    before = load_file(tmp_path / "base" / "weights.safetensors")
    moved = [(one[name] - before[name]).abs().max() for name in one]
    assert float(max(moved)) > 1e-3
    # AdamW's first steps are of one size whatever the gradient, so signs of tiny ones count too.
    close = [torch.isclose(one[n], summed[n], atol=1e-4, rtol=1e-3).float().mean() for n in one]
    assert float(torch.stack(close).mean()) > 0.99


def test_mixed_precision_moves_weights_that_bfloat16_itself_would_freeze(train):
    description = train(
        changes={
            "epochs": 1,
            "samples_per_epoch": 2,
            "validation": 0.0,
            "recipe": {"name": "medsam", "least_pixels": 1, "learning_rate": 1e-6},
            "fit": {"precision": "bfloat16"},
        }
    )
    moved = description.settings["moved"]["image_encoder"]
    assert moved["moved"] > 0.7
    assert moved["moved_in_bfloat16"] < 0.1  # what began as zero is not lost


def test_parts_of_the_patients_are_nested_and_validate_alike(train, make_cohort):
    names = [f"p{n}" for n in range(6)]
    changes = {"epochs": 1, "validation": 0.2, "validation_prompts": [], "samples_per_epoch": 2}
    seen = {}
    for fraction in (25, 50, 100):
        description = train(
            f"at {fraction}",
            cohort=make_cohort(*names),
            changes={**changes, "fraction": fraction},
        )
        seen[fraction] = {
            part: {p.case for p in description.seen if p.part == part}
            for part in ("train", "validation")
        }
        assert description.settings["fraction"] == fraction
    assert seen[25]["train"] < seen[50]["train"] < seen[100]["train"]
    assert len(seen[100]["train"]) == 5
    assert seen[25]["validation"] == seen[50]["validation"] == seen[100]["validation"]


def test_a_test_patient_in_the_training_set_is_refused_by_name(train, make_cohort, make_source):
    with pytest.raises(CohortError, match="'a' \\(test case 'A'\\)"):
        train("name", cohort=make_cohort("a", "b", "c", test=("A",)))
    same = make_source("other name", seed=sum(map(ord, "b")))
    with pytest.raises(CohortError, match="'b' \\(the same CT as test case 'other name'\\)"):
        train("image", cohort=make_cohort("a", "b", "c", test=("d", same)))


def test_a_base_that_saw_a_test_patient_is_refused_and_what_it_saw_is_kept(
    train, make_cohort, tmp_path
):
    quick = {"epochs": 1, "validation_prompts": [], "validation": 0.0}
    first = train("first", cohort=make_cohort("a", "b"), changes=quick)
    again = {**quick, "base": "first"}
    with pytest.raises(SeenPatientError, match="'tiny' was trained on case 'a'"):
        train("bad", cohort=make_cohort("c", "d", test=("a",)), changes=again)
    second = train("second", cohort=make_cohort("c", "d"), changes=again)
    assert {p.case for p in second.seen} == {"a", "b", "c", "d"}
    base = second.settings["base"]
    assert base["name"] == "tiny"
    assert base["sha256"] == first.files["weights.safetensors"]
    assert (base["licence"], base["commercial"]) == ("CC-BY-NC-4.0", "no")
    assert trained_model(str(tmp_path / "second")) == second


def test_cases_that_cannot_be_learnt_from_are_refused_by_name(train, make_cohort):
    with pytest.raises(CohortError, match="case 'b': the reference has no tumour"):
        train(cohort=make_cohort("a", "b", b={"without": (3,)}))


def test_a_base_of_another_kind_is_refused(train, tmp_path):
    with pytest.raises(ConfigError, match="'sam', the recipe is for 'lungfm'"):
        train(changes={"recipe": {"name": "lungfm"}})
    with pytest.raises(ConfigError, match="'lungfm-s' is a network of the kind 'lungfm'"):
        train(changes={"base": "lungfm-s"})
    with pytest.raises(UsageError, match="no pretrained model 'nothing'"):
        train(changes={"base": "nothing"})


def test_small_structures_that_count_for_nothing_are_told(train, make_cohort):
    with pytest.warns(LungFMWarning, match="nothing was learnt from 'b', 'c'"):
        description = train(
            cohort=make_cohort("a", "b", "c", b={"radius": 3}, c={"radius": 3}),
            changes={
                "recipe": {"name": "medsam", "least_pixels": 60},
                "epochs": 1,
                "validation": 0.0,
            },
        )
    assert any("'b', 'c'" in note or "b, c" in note for note in description.notes)


def test_the_folder_is_imported_listed_and_verified(train, tmp_path, monkeypatch, capsys):
    from typer.testing import CliRunner

    from napari_lungfm.cli.models import app
    from napari_lungfm.models.registry import fine_tuned_names, is_automatic, model_card

    train(changes={"epochs": 1, "validation_prompts": []})
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))
    call = CliRunner().invoke
    made = call(app, ["import", str(tmp_path / "model"), "--as", "finetuned:mine"])
    assert made.exit_code == 0, made.output
    assert fine_tuned_names() == ("finetuned:mine",)
    assert not is_automatic("finetuned:mine")
    card = model_card("finetuned:mine")
    assert (card.kind, card.licence) == ("foundation", "CC-BY-NC-4.0")
    rows = json.loads(call(app, ["list", "--json"]).stdout)["models"]
    assert {row["name"]: row["weights"] for row in rows}["finetuned"] == ["finetuned:mine"]
    shown = json.loads(call(app, ["show", "finetuned:mine", "--json"]).stdout)
    assert shown["settings"]["base"]["commercial"] == "no"
    verified = call(app, ["verify", "finetuned:mine", "--json"])
    assert verified.exit_code == 0, verified.output
    assert create_model("finetuned:mine", device="cpu").name == "finetuned:mine"
