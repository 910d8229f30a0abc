import csv
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nnunetv2")
pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

from napari_lungfm._core.exceptions import ConfigError, LungFMWarning, UsageError  # noqa: E402
from napari_lungfm.datasets.phantom_cohort import PhantomCohort  # noqa: E402
from napari_lungfm.geometry import VolumeGeometry  # noqa: E402
from napari_lungfm.metrics import count_overlap  # noqa: E402
from napari_lungfm.models.automatic.nnunet_folders import write_weights  # noqa: E402
from napari_lungfm.models.automatic.trained import SeenPatientError, hash_image  # noqa: E402
from napari_lungfm.models.registry import create_automatic_model, trained_model  # noqa: E402
from napari_lungfm.training.automatic.cohort_check import CohortError  # noqa: E402
from napari_lungfm.training.automatic.config import parse_training  # noqa: E402
from napari_lungfm.training.automatic.nnunet import run as nnunet_run  # noqa: E402
from napari_lungfm.training.automatic.run import train_automatic  # noqa: E402

COHORT = {"kind": "phantom", "name": "clinic", "n_test": 1, "n_train": 2}
VALUES = {
    "kind": "nnunet",
    "name": "tiny",
    "configuration": "2d",
    "preset": "small",
    "small": True,
    "validation": 0.3,
    "epochs": 2,
    "iterations": 3,
    "validation_iterations": 1,
    "workers": 0,
    "cohort": COHORT,
}


class InterruptionError(Exception):
    pass


@pytest.fixture
def train(make_cohort, tmp_path, monkeypatch):
    """Train on made-up cases, which stand in for the configuration's cohort."""

    def call(name="model", *, names="abc", wrong=None, changes=None, **arguments):
        monkeypatch.setattr(
            PhantomCohort, "build", lambda self, base: make_cohort(*names, **(wrong or {}))
        )
        config = parse_training({**VALUES, **(changes or {})})
        return train_automatic(config, tmp_path / name, base=tmp_path, device="cpu", **arguments)

    return call


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """In place of nnU-Net: writes what it would leave, or stops before."""
    seen = []

    def run_worker(request, folder, device, listener):
        seen.append(request)
        result = folder / "nnUNet_results" / "d" / "t" / "fold_0"
        result.mkdir(parents=True, exist_ok=True)
        (result / "checkpoint_latest.pth").touch()
        listener({"event": "stage", "stage": "measuring", "done": 1, "total": 3})
        for step in (1, 2, 3):
            listener({"event": "step", "epoch": 1, "step": step})
        out = tmp_path / folder.parent.name
        write_weights(out / "weights.safetensors", {"w": torch.ones(2)})
        (out / "plans.json").write_text("{}")
        (out / "dataset.json").write_text("{}")
        return {
            "trainer": "nnUNetTrainer", "mirroring": [0, 1], "epochs": 2, "seconds": 1.5,
            "parameters": 2,
        }  # fmt: skip

    monkeypatch.setattr(nnunet_run, "run_worker", run_worker)
    return seen


def test_a_training_leaves_a_model_that_knows_what_it_has_seen(
    train, stand_in, tmp_path, make_cohort
):
    stages, steps = [], []
    description = train(
        changes={"validation": 0.0},
        stages=lambda stage, done, total: stages.append(stage),
        listener=lambda progress: steps.append((progress.step, progress.steps)),
    )
    assert trained_model(str(tmp_path / "model")) == description
    assert set(stages) == {"preparing", "measuring"}
    assert steps == [(1, 6), (2, 6), (3, 6)]
    assert (description.architecture, description.family) == ("nnunet-2d", "nnunet")
    assert (description.small, description.validation) == (True, None)
    assert {p.case for p in description.seen} == {"a", "b", "c"}
    assert set(description.files) == {"weights.safetensors", "plans.json", "dataset.json"}
    case = make_cohort("a").train[0].load()
    with pytest.raises(SeenPatientError):
        description.refuse_seen("other", image=hash_image(case.volume))
    (request,) = stand_in
    assert request["names"] == {"a": "a", "b": "b", "c": "c"}
    assert request["validate"] is False
    with pytest.raises(UsageError, match="holds a trained model already"):
        train(resume=True)


@pytest.mark.parametrize(
    ("names", "wrong", "message"),
    [
        ("a", {}, "only case 'a'"),
        ("abc", {"b": {"without": (3,)}}, "case 'b': the reference has no tumour"),
        ("abc", {"c": {"without": (1,)}}, "case 'c': the reference has no left lung"),
        ("abc", {"c": {"grid": VolumeGeometry((2, 40, 44), (3.0, 1.0, 1.0))}}, "only 2 slices"),
    ],
)
def test_a_bad_cohort_is_refused_before_nnunet_is_started(train, stand_in, names, wrong, message):
    with pytest.raises(CohortError, match=message):
        train(names=names, wrong=wrong)
    assert not stand_in


def test_another_training_is_not_resumed(train, stand_in, tmp_path):
    def stop(progress):
        raise InterruptionError

    with pytest.raises(InterruptionError):
        train(listener=stop, changes={"validation": 0.0})
    with pytest.raises(UsageError, match="--resume"):
        train()
    with pytest.raises(ConfigError, match=r"epochs was 2, is 5"):
        train(resume=True, changes={"validation": 0.0, "epochs": 5})
    with pytest.raises(ConfigError, match="case 'd' is new; case 'c' is gone"):
        train(resume=True, names="abd", changes={"validation": 0.0})
    (note,) = train(resume=True, changes={"validation": 0.0}).notes
    assert note.startswith("nothing was measured")


def test_it_is_said_why_a_resumed_training_is_not_the_same(train, stand_in):
    def stop(progress):
        raise InterruptionError

    changes = {"validation": 0.0, "workers": 2}
    with pytest.raises(InterruptionError):
        train(listener=stop, changes=changes)
    with pytest.warns(LungFMWarning, match="batches at random"):
        description = train(resume=True, changes=changes)
    resumed, unmeasured = description.notes
    assert "batches at random" in resumed
    assert unmeasured.startswith("nothing was measured")


def _evaluated(folder, case):
    """Dice and IoU of nnU-Net's own evaluation, by structure."""
    (summary,) = folder.glob("run/nnUNet_results/*/*/fold_0/validation/summary.json")
    cases = json.loads(summary.read_text())["metric_per_case"]
    (found,) = [c for c in cases if c["prediction_file"].endswith(f"/{case}.nii.gz")]
    return found["metrics"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("configuration", ["2d", "3d_lowres", "3d_fullres"])
def test_nnunet_itself(train, make_cohort, tmp_path, configuration):
    """Trained in its own process, applied in ours, scored by both."""
    from napari_lungfm import io

    grid = VolumeGeometry((24, 40, 44), (3.0, 1.0, 1.0))
    wrong = {name: {"grid": grid} for name in "abc"}
    told = []
    changes = {"configuration": configuration}
    description = train(changes=changes, wrong=wrong, listener=told.append)
    folder = tmp_path / "model"
    assert description.architecture == f"nnunet-{configuration}".replace("_", "-")
    assert [p.epoch for p in told if p.epoch_ended] == [1, 2]
    assert told[-1].step == told[-1].steps == 6
    with (folder / "log.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert "case" not in (folder / "dataset.json").read_text()
    (name,) = description.validation
    case = make_cohort(name, **wrong).train[0].load()
    found = create_automatic_model(str(folder), device="cpu").segment(case.volume)
    (own,) = folder.glob(f"run/nnUNet_results/*/*/fold_0/validation/{name}.nii.gz")
    assert np.array_equal(io.read_label_map(own).array, found.array)
    assert len(found.present()) > 1
    by_nnunet = _evaluated(folder, name)
    for value, title in found.labels.items():
        ours = count_overlap(found.mask(value), case.reference.mask(value))
        theirs = by_nnunet[str(value)]
        assert ours.dice == pytest.approx(theirs["Dice"], abs=1e-12)
        assert ours.iou == pytest.approx(theirs["IoU"], abs=1e-12)
        assert description.validation[name][title] == pytest.approx(ours.dice, abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_training_of_nnunet_that_was_interrupted_ends_the_same(train, tmp_path):
    changes = {"validation": 0.0}
    whole = train("whole", changes=changes)

    def stop(progress):
        if progress.step == 5:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        train("parts", changes=changes, listener=stop)
    steps = []
    resumed = train("parts", changes=changes, resume=True, listener=lambda p: steps.append(p.step))
    assert min(steps) == 4  # the second epoch only
    assert resumed.files == whole.files  # sha256 of the weights
    assert resumed.notes == whole.notes
    assert resumed.epochs == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_there_is_no_lowres_of_small_volumes(train):
    with pytest.raises(ConfigError, match="planned no 3d_lowres"):
        train(changes={"configuration": "3d_lowres", "preset": "default"})
