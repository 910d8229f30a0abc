import csv
import json

import numpy as np
import pytest
import torch

from napari_lungfm._core.exceptions import ConfigError, LungFMWarning, UsageError
from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.inference.segmentation import segment_object
from napari_lungfm.models.automatic.trained import SeenPatientError, hash_image
from napari_lungfm.models.foundation.finetuned import FineTunedSettings
from napari_lungfm.models.prompts import Box
from napari_lungfm.models.registry import create_model, trained_model
from napari_lungfm.training.automatic.cohort_check import CohortError
from napari_lungfm.training.finetune.base import load_base
from napari_lungfm.training.finetune.config import parse_fine_tuning
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
    from napari_lungfm.training.fit import load_weights

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
    assert resumed.notes == ()


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
