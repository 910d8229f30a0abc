import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

from napari_lungfm._core.exceptions import ConfigError, UsageError  # noqa: E402
from napari_lungfm.datasets.phantom_cohort import PhantomCohort  # noqa: E402
from napari_lungfm.models.automatic.trained import SeenPatientError, hash_image  # noqa: E402
from napari_lungfm.models.registry import create_automatic_model, trained_model  # noqa: E402
from napari_lungfm.training.automatic.config import parse_training  # noqa: E402
from napari_lungfm.training.automatic.run import train_automatic  # noqa: E402
from napari_lungfm.training.automatic.split import split_cases  # noqa: E402

COHORT = {"kind": "phantom", "name": "clinic", "n_test": 1, "n_train": 2}


class InterruptionError(Exception):
    pass


@pytest.fixture
def train(make_cohort, tiny_values, tmp_path, monkeypatch):
    """Train on made-up cases, which stand in for the configuration's cohort."""
    monkeypatch.setattr(PhantomCohort, "build", lambda self, base: make_cohort("a", "b", "c"))

    def call(name="model", *, changes=None, **arguments):
        config = parse_training({**tiny_values, "cohort": COHORT, **(changes or {})})
        return train_automatic(config, tmp_path / name, base=tmp_path, device="cpu", **arguments)

    return call


def test_a_training_leaves_a_model_that_knows_what_it_has_seen(train, tmp_path, make_cohort):
    stages = []
    description = train(
        changes={"keep": "best"}, stages=lambda stage, done, total: stages.append(stage)
    )
    folder = tmp_path / "model"
    assert trained_model(str(folder)) == description
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "log.csv", "model.json", "run", "weights.safetensors",
    }  # fmt: skip
    assert {p.case: p.part for p in description.seen}.keys() == {"a", "b", "c"}
    assert sorted(p.part for p in description.seen) == ["train", "train", "validation"]
    assert list(description.validation) == [
        p.case for p in description.seen if p.part == "validation"
    ]
    assert set(stages) == {"preparing", "validating"}
    case = make_cohort("a").train[0].load()
    with pytest.raises(SeenPatientError):
        description.refuse_seen("another name", image=hash_image(case.volume))
    found = create_automatic_model(str(folder), device="cpu").segment(case.volume)
    assert found.geometry == case.volume.geometry
    with pytest.raises(UsageError, match="holds a trained model already"):
        train(resume=True)


def test_a_training_that_was_interrupted_ends_the_same(train, tmp_path):
    whole = train("whole")

    def stop(progress):
        if progress.step == 5:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        train("parts", listener=stop)
    assert not (tmp_path / "parts" / "model.json").exists()
    with pytest.raises(UsageError, match="--resume"):
        train("parts")
    with pytest.raises(ConfigError, match="batch_size was 4, is 3"):
        train("parts", resume=True, changes={"batch_size": 3})
    resumed = train("parts", resume=True)
    assert resumed.files == whole.files  # sha256 of the weights
    assert resumed.notes == ()
    assert (resumed.cohort_hash, resumed.split_hash) == (whole.cohort_hash, whole.split_hash)


def test_another_seed_is_another_model(train):
    one = train("one", changes={"validation": 0.0})
    other = train("other", changes={"validation": 0.0, "fit": {"epochs": 3, "seed": 2}})
    assert one.files != other.files
    assert one.validation is None
    assert len(one.seen) == 3


def test_it_learns(train, tmp_path):
    """Bright lumps in dark lungs, the easiest there is: seconds must be enough."""
    description = train(
        changes={
            "network": {"architecture": "unet", "channels": [8, 8, 16, 16, 16], "norm": "instance"},
            "augmentation": "none",
            "inputs": {"spacing": [3.0, 1.0, 1.0], "size": [48, 48]},
            "sampling": {"kind": "foreground", "slices_per_epoch": 48},
            "fit": {"epochs": 8, "seed": 0},
        }
    )
    (scores,) = description.validation.values()
    assert scores["tumour"] > 0.8
    assert min(scores["left lung"], scores["right lung"]) > 0.9


def test_a_configuration_without_cohort_is_refused(train):
    with pytest.raises(ConfigError, match="--cohort"):
        train(changes={"cohort": None})


def test_too_few_slices_for_a_batch_are_refused(train):
    with pytest.raises(ConfigError, match="fewer than a batch of 40"):
        train(changes={"batch_size": 40})


def test_lungmask_labels_are_never_replaced_by_the_fallback(train, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "none"))
    from napari_lungfm.models.weights import WeightsNotFoundError

    with pytest.raises(WeightsNotFoundError, match="models fetch lungmask"):
        train(changes={"missing_lungs": "lungmask"})


def test_validation_patients_depend_on_seed_and_names_only(tmp_path):
    from napari_lungfm.training.automatic.prepared import PreparedCase

    cases = [PreparedCase(n, tmp_path / n, n, n) for n in "abcdefghij"]
    one = split_cases(cases, 0.3, seed=1)
    other = split_cases(cases[::-1], 0.3, seed=1)
    assert {c.name for c in one.validation} == {c.name for c in other.validation}
    assert len(one.validation) == 3
    assert len(one.train) == 7
