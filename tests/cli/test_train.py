import json
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

COHORT = {
    "kind": "phantom",
    "name": "coarse",
    "n_test": 1,
    "n_train": 3,
    "kinds": ["solid-round"],
    "shape": [20, 64, 80],
    "spacings": [[15.0, 5.5, 5.0]],
    "diameters_mm": [50, 60],
    "whole_chest": True,
}
CONFIG = {
    "name": "tiny",
    "small": True,
    "network": {"architecture": "unet", "channels": [2, 2, 2, 2, 2]},
    "inputs": {"spacing": [15.0, 5.5, 5.0], "size": [64, 80]},
    "validation": 0.3,
    "batch_size": 8,
    "workers": 0,
    "fit": {"epochs": 2},
}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))


@pytest.fixture
def files(tmp_path):
    config, cohort = tmp_path / "config.yaml", tmp_path / "cohort.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    cohort.write_text(yaml.safe_dump(COHORT))
    return config, cohort


def test_train_import_list_show_verify_and_segment(bench, files, tmp_path):
    from napari_lungfm import io
    from napari_lungfm.datasets.phantom_cohort import PhantomCohort

    config, cohort = files
    model = tmp_path / "model"
    done = bench("train", config, "--cohort", cohort, "--out", model, "--device", "cpu", "--json")
    assert done.code == 0, done.err
    assert done.json["epochs"] == 2
    told = [text for text in done.json["notes"] if f"note: {text}" in done.err]
    assert told == done.json["notes"]
    assert len(done.json["seen"]) == 3
    again = bench("train", config, "--cohort", cohort, "--out", model)
    assert again.code == 2
    assert "holds a trained model already" in again.err

    imported = bench("models", "import", model, "--as", "unet:mine")
    assert imported.code == 0
    assert "ready: 'unet:mine'" in imported.err
    assert "--model unet:mine" in imported.err
    assert all(f"note: {text}" in imported.err for text in done.json["notes"])
    assert not {"sha256", "learning_rate", done.json["code_hash"]} & {*imported.err.split()}
    assert imported.out == ""
    again = bench("models", "import", model, "--as", "unet:mine", "--json")
    assert again.json["name"] == "unet:mine"
    assert again.json["seen"] == done.json["seen"]
    rows = {row["name"]: row for row in bench("models", "list", "--json").json["models"]}
    assert rows["unet"]["weights"] == ["unet:mine"]
    assert rows["lungs-classical"]["needs_weights"] is False
    assert bench("models", "show", "unet:mine", "--json").json["cohort"] == "coarse"
    assert "coarse/train-000" in bench("models", "show", model).out
    assert bench("models", "verify", "--json").json["weights"]["unet:mine"]["good"] is True
    foreign = tmp_path / "weights" / "trained" / "unet" / "mine" / "model.json"
    known = foreign.read_text()
    # As models are kept that came as nnU-Net's own pickles.
    foreign.write_text(known.replace(done.json["cohort_hash"], "unknown"))
    assert "unknown origin, pickles converted" in bench("models", "verify", "unet:mine").out
    foreign.write_text(known)

    case = PhantomCohort.model_validate(COHORT).build(tmp_path).train[0].load()
    image, out = tmp_path / "ct.nii.gz", tmp_path / "out.nii.gz"
    io.write_image(case.volume, image)
    for name in ("unet:mine", model):
        result = bench("segment", "--image", image, "--model", name, "--out", out, "--json")
        assert result.code == 0, result.err
        assert result.json["ran"] == "tiny"
        assert set(result.json["structures"]) == {"left lung", "right lung", "tumour"}
        assert "has seen this very image" in result.err
        assert (result.json["small"], result.json["seen"]["cohort"]) == (True, "coarse")
    other = PhantomCohort.model_validate(COHORT).build(tmp_path).test[0].load()
    io.write_image(other.volume, image)
    result = bench("segment", "--image", image, "--model", model, "--out", out, "--json")
    assert result.json["seen"] is False
    assert "was trained with a preset for demonstrations" in result.err

    weights = tmp_path / "weights" / "trained" / "unet" / "mine" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")
    assert "was changed" in bench("models", "verify", "unet:mine").err


def test_what_cannot_be_trained_is_one_line(bench, files, tmp_path):
    config, cohort = files
    cohort.write_text(yaml.safe_dump({**COHORT, "n_train": 1}))
    one = bench("train", config, "--cohort", cohort, "--out", tmp_path / "m")
    assert one.code == 1
    assert "only case 'train-000-solid-round'" in one.err
    for arguments, message in (
        ([config, "--out", tmp_path / "m"], "has no cohort"),
        (["unet-papre", "--out", tmp_path / "m"], "unet-paper"),
        ([config], "--out"),
        ([config, "--out", tmp_path / "m", "--device", "abacus"], "abacus"),
    ):
        result = bench("train", *arguments)
        assert result.code in (1, 2)
        assert message in result.err
        assert result.err.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("name", "meant"),
    [("medsam-bax", "medsam-box"), ("unet-papre", "unet-paper"), ("lungfm", "lung")],
)
def test_a_misspelt_configuration_is_told_from_all_there_are(bench, tmp_path, name, meant):
    result = bench("train", name, "--out", tmp_path / "m")
    assert f"did you mean '{meant}" in result.err
    assert "nnunet-2d" in result.err
    assert "lungfm-s" in result.err


def test_the_kind_in_a_file_decides_or_is_refused(bench, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("kind: magic\n")
    result = bench("train", config, "--out", tmp_path / "m")
    assert "no training 'magic'; choose from automatic, nnunet, finetune, lungfm-s" in result.err


@pytest.mark.parametrize("kind", ["unet-small", "lungfm-s"])
def test_nothing_is_not_resumed(bench, tmp_path, kind):
    result = bench("train", kind, "--out", tmp_path / "misspelt", "--resume")
    assert (result.code, "no training in" in result.err) == (2, True)
    assert not (tmp_path / "misspelt").exists()


def test_shipped_configurations_are_listed(bench):
    assert "unet-paper" in bench("train", "list").out
    assert set(bench("train", "list", "--json").json) >= {"unet-tuned", "deeplabv3-paper"}


def test_nobody_publishes_trained_models(bench):
    result = bench("models", "fetch", "unet")
    assert result.code == 1
    assert "nobody publishes one" in result.err


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from napari_lungfm.cli.app import run; run(['train', '--help']); "
        "print([m for m in ('torch', 'lightning', 'monai') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_an_interrupted_training_says_how_to_go_on(bench, files, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_lungfm.training.automatic.run.train_automatic", interrupted)
    config, cohort = files
    done = bench("train", config, "--cohort", cohort, "--out", tmp_path / "model")
    assert done.code == 1
    assert "the same call with --resume goes on with this training" in done.err


@pytest.mark.skipif(sys.platform == "win32", reason="other quotes")
def test_what_is_to_be_typed_next_can_be_typed(bench, files, tmp_path, monkeypatch):
    trained = SimpleNamespace(validation=None, seconds=1.0, title="t")
    monkeypatch.setattr(
        "napari_lungfm.training.automatic.run.train_automatic", lambda *_, **__: trained
    )
    config, cohort = files
    out = tmp_path / "my model"
    err = bench("train", config, "--cohort", cohort, "--out", out).err
    assert shlex.split(err.partition("napari-lungfm-bench ")[2])[:3] == [
        "segment", "--model", str(out),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights(files, tmp_path):
    """Killed by the system in the middle of an epoch, in a process of its own."""
    config, cohort = files
    config.write_text(yaml.safe_dump({**CONFIG, "fit": {"epochs": 3}, "validation": 0.0}))
    command = [sys.executable, "-m", "napari_lungfm", "train", config, "--cohort", cohort]
    killer = (
        "import os, sys; from napari_lungfm.training.automatic import run; fit = run.run_fit\n"
        "def stop(p):\n    if p.step == 12: os.kill(os.getpid(), 9)\n"
        "run.run_fit = lambda *a, **k: fit(*a, **{**k, 'listener': stop})\n"
        "from napari_lungfm.cli.app import run as main; main(sys.argv[1:])"
    )
    arguments = [str(a) for a in command[3:]]
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    killed = subprocess.run(
        [sys.executable, "-c", killer, *arguments, "--out", str(parts), "--device", "cpu"],
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -9
    assert (parts / "run" / "checkpoints" / "last.ckpt").is_file()
    assert not (parts / "model.json").exists()
    for out, extra in ((parts, ["--resume"]), (whole, [])):
        subprocess.run(
            [*map(str, command), "--out", str(out), "--device", "cpu", *extra],
            check=True,
            capture_output=True,
        )
    one, other = (json.loads((out / "model.json").read_text()) for out in (parts, whole))
    assert one["files"] == other["files"]
    assert one["notes"] == other["notes"]


def test_folders_of_nnunets_own_need_trust(bench, tmp_path):
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text("{}")
    (folder / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT"}, "labels": {"background": 0, "cancer": 1}})
    )
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"no pickle")
    for arguments, code, message in (
        ([], 2, "--trust"),
        (["--trust"], 2, "--label 1=tumour"),
        (["--trust", "--label", "tumour"], 2, "VALUE=STRUCTURE"),
        (["--trust", "--label", "1=tumour"], 1, "cannot be read"),
    ):
        result = bench("models", "import", folder, "--as", "nnunet-2d:x", *arguments)
        assert (result.code, message in result.err) == (code, True), result.err
        assert result.err.strip().count("\n") == 0
    result = bench("models", "export", folder, "--out", tmp_path / "out")
    assert (result.code, "is no trained model" in result.err) == (2, True)
    names = {row["name"] for row in bench("models", "list", "--json").json["models"]}
    assert names >= {"nnunet-2d", "nnunet-3d-lowres", "nnunet-3d-fullres"}
