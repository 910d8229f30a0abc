import os

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

from napari_lungfm._core.exceptions import ConfigError, LungFMWarning, UsageError  # noqa: E402
from napari_lungfm.datasets.phantom_cohort import PhantomCohort  # noqa: E402
from napari_lungfm.models.automatic.trained import SeenPatientError, hash_image  # noqa: E402
from napari_lungfm.models.registry import create_automatic_model, trained_model  # noqa: E402
from napari_lungfm.training.automatic.cohort_check import CohortError  # noqa: E402
from napari_lungfm.training.automatic.config import parse_training  # noqa: E402
from napari_lungfm.training.automatic.finish import doubts  # noqa: E402
from napari_lungfm.training.automatic.run import _Portions, train_automatic  # noqa: E402
from napari_lungfm.training.automatic.split import Split, split_cases  # noqa: E402
from napari_lungfm.training.lock import LockedError, hold  # noqa: E402

COHORT = {"kind": "phantom", "name": "clinic", "n_test": 1, "n_train": 2}
OPTIMISER = {"learning_rate": 1e-2, "schedule": "cosine", "warm_up": 2}


class InterruptionError(Exception):
    pass


@pytest.fixture
def train(make_cohort, tiny_values, tmp_path, monkeypatch):
    """Train on made-up cases, which stand in for the configuration's cohort."""
    asked = {}
    monkeypatch.setattr(
        PhantomCohort, "build", lambda self, base: make_cohort(*asked["names"], **asked["wrong"])
    )

    def call(name="model", *, names="abc", wrong=None, changes=None, device="cpu", **arguments):
        asked.update(names=names, wrong=wrong or {})
        config = parse_training({**tiny_values, "cohort": COHORT, **(changes or {})})
        return train_automatic(config, tmp_path / name, base=tmp_path, device=device, **arguments)

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
    assert resumed.notes == whole.notes  # nothing that an interruption would add
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
    with pytest.raises(ConfigError, match="12 slices an epoch, fewer than a batch of 40"):
        train(changes={"batch_size": 40, "sampling": {"kind": "all"}})


@pytest.mark.parametrize("slices", [12, 10])
def test_every_slice_of_an_epoch_is_learnt_from(train, slices):
    """The last batch may be smaller; nothing is left out in silence."""
    steps = []
    description = train(
        changes={
            "sampling": {"kind": "foreground", "slices_per_epoch": slices},
            "fit": {"epochs": 2, "seed": 1},
        },
        listener=lambda progress: steps.append(progress.step),
    )
    assert max(steps) == 2 * 3  # batches of 4
    assert not any("left out" in text for text in description.notes)


def test_a_single_slice_is_no_batch_for_batch_normalisation(tiny_values, tmp_path):
    values = {**tiny_values, "sampling": {"kind": "foreground", "slices_per_epoch": 9}}
    split = Split((), ())
    plain = _Portions.of(parse_training(values), split, 1)
    assert (plain.batch, plain.drop_last, plain.notes) == (4, False, ())
    with_norm = {**values, "network": {**tiny_values["network"], "norm": "batch"}}
    portions = _Portions.of(parse_training(with_norm), split, 1)
    assert portions.drop_last
    assert "1 of the 9 slices" in portions.notes[0]
    shared = _Portions.of(
        parse_training({**with_norm, "fit": {"epochs": 1, "devices": 2}}), split, 2
    )
    assert (shared.batch, shared.drop_last) == (2, False)
    assert "1 of the 9 slices" in shared.notes[0]


def test_lungmask_labels_are_never_replaced_by_the_fallback(train, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "none"))
    from napari_lungfm.models.weights import WeightsNotFoundError

    changes = {"missing_lungs": "lungmask"}
    with pytest.raises(WeightsNotFoundError, match="models fetch lungmask") as caught:
        train(changes=changes, wrong={"b": {"without": (1, 2)}})
    assert "case 'b'" in str(caught.value)
    assert "missing_lungs: lungs-classical, or refuse" in str(caught.value)
    with pytest.raises(CohortError, match="case 'b': the reference has no left lung"):
        train(changes=changes, wrong={"b": {"without": (1,)}})  # one lung is not completed
    assert train(changes=changes).epochs == 3  # no weights are needed where all have lungs


def test_what_needs_no_data_is_refused_before_any_is_read(train, monkeypatch, tmp_path):
    monkeypatch.setattr(PhantomCohort, "build", lambda self, base: pytest.fail("was built"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match="torch sees 0 CUDA"):
        train(device="cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="bfloat16 is not for the device 'mps'"):
        train(device="mps", changes={"fit": {"epochs": 1, "precision": "bfloat16"}})
    assert not (tmp_path / "model").exists()


def test_a_refused_resumption_changes_nothing(train, tmp_path):
    def stop(progress):
        raise InterruptionError

    with pytest.raises(InterruptionError):
        train(listener=stop)
    kept = (tmp_path / "model" / "config.yaml").read_text()
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.01, is 0\.02"):
        train(resume=True, changes={"optimiser": {**OPTIMISER, "learning_rate": 0.02}})
    with pytest.raises(ConfigError, match="case 'd' is new; case 'b' is gone"):
        train(resume=True, names="acd")
    with pytest.raises(ConfigError, match="the image of case 'b' is another"):
        train(resume=True, wrong={"b": {"shift": 3}})
    assert (tmp_path / "model" / "config.yaml").read_text() == kept


def test_two_trainings_do_not_share_a_folder(train, tmp_path):
    with (
        hold(tmp_path / "model" / "run"),
        pytest.raises(LockedError, match=f"process {os.getpid()}"),
    ):
        train(resume=True)
    assert train(resume=True).epochs == 3


def test_the_same_ct_stays_on_one_side(train):
    """Its reference may differ; what counts is that the network has seen the image."""
    with pytest.warns(LungFMWarning, match="cases 'a', 'aa' are the same CT"):
        description = train(names=("a", "aa", "b"), wrong={"aa": {"noise": "a"}})
    parts = {patient.case: patient.part for patient in description.seen}
    assert parts["a"] == parts["aa"] != parts["b"]
    with pytest.raises(CohortError, match="all training cases are the same CT"):
        train("other", names=("a", "aa"), wrong={"aa": {"noise": "a"}})


def test_a_training_that_came_to_nothing_is_told(train):
    changes = {"optimiser": {"learning_rate": 1e-12}, "fit": {"epochs": 1, "seed": 1}}
    description = train(changes=changes)
    assert "it finds no tumour: Dice 0 in all 1 validation cases" in description.notes


def test_a_loss_that_does_not_fall_is_told(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("epoch,train/loss\n1,0.5\n2,0.7\n")
    (text,) = doubts(log, {"a": {"tumour": 0.5}, "b": {"tumour": None}})
    assert "0.7, is not below that of the first, 0.5" in text
    log.write_text("epoch,train/loss\n1,0.5\n2,0.4\n")
    assert doubts(log, {"a": {"tumour": 0.0}, "b": {"tumour": 0.1}}) == ()
    (text,) = doubts(tmp_path / "none.csv", None)
    assert text.startswith("nothing was measured: no validation case was set aside")


def test_one_epoch_is_said_to_be_one_epoch(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("epoch,step,train/loss\n1,7,0.5\n")
    (text,) = doubts(log, {"a": {"tumour": 0.5}})
    assert text.startswith("it was trained for one epoch (7 steps), which shows that")


def test_a_model_that_nobody_measured_says_so(train):
    description = train(changes={"validation": 0.0, "fit": {"epochs": 1, "seed": 1}})
    assert description.validation is None
    one, unmeasured = description.notes
    assert one.startswith("it was trained for one epoch (3 steps)")
    assert unmeasured.startswith("nothing was measured")


def test_cases_of_an_earlier_cohort_are_not_kept(train, tmp_path):
    prepared = tmp_path / "model" / "run" / "prepared"
    with pytest.raises(CohortError, match="'c'"):
        train(names="abc", wrong={"c": {"without": (3,)}})
    (prepared / "mine-image.npy").write_bytes(b"x")
    assert {path.name[0] for path in prepared.iterdir()} == {"a", "b", "m"}
    train(names="bd")
    assert sorted(path.name[:2] for path in prepared.iterdir()) == ["b-"] * 3 + ["d-"] * 3 + ["mi"]


def test_validation_patients_depend_on_seed_and_names_only(tmp_path):
    from napari_lungfm.training.automatic.prepared import PreparedCase

    cases = [PreparedCase(n, tmp_path / n, n, n) for n in "abcdefghij"]
    one = split_cases(cases, 0.3, seed=1)
    other = split_cases(cases[::-1], 0.3, seed=1)
    assert {c.name for c in one.validation} == {c.name for c in other.validation}
    assert len(one.validation) == 3
    assert len(one.train) == 7
