import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from napari_lungfm._core.exceptions import UsageError  # noqa: E402
from napari_lungfm._core.files import file_sha256  # noqa: E402
from napari_lungfm.geometry import Structure, Volume, VolumeGeometry, reorient  # noqa: E402
from napari_lungfm.models.automatic import store as store_module  # noqa: E402
from napari_lungfm.models.automatic.loading import (  # noqa: E402
    SLICE_NETWORK,
    SliceNetworkSettings,
    load_slice_network,
)
from napari_lungfm.models.automatic.networks import UNetSpec, build_network  # noqa: E402
from napari_lungfm.models.automatic.slice_network import InputSpec  # noqa: E402
from napari_lungfm.models.automatic.store import TrainedStore  # noqa: E402
from napari_lungfm.models.automatic.trained import (  # noqa: E402
    SeenPatient,
    SeenPatientError,
    TrainedModel,
    hash_image,
    hash_parts,
    read_description,
    write_description,
)
from napari_lungfm.models.registry import (  # noqa: E402
    check_options,
    check_weights,
    create_automatic_model,
    model_card,
    trained_model,
)
from napari_lungfm.models.weights import WeightsError, WeightsNotFoundError  # noqa: E402

SEEN = (
    SeenPatient(cohort="clinic", case="a", part="train", image="1" * 32),
    SeenPatient(cohort="clinic", case="b", part="validation", image="2" * 32),
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))


@pytest.fixture
def folder(tmp_path):
    """A trained model of a network that was never trained."""
    from safetensors.torch import save_file

    torch.manual_seed(1)
    spec, inputs = UNetSpec(channels=(2, 2, 2, 2, 2)), InputSpec(size=(32, 32))
    network = build_network(spec, in_channels=1, classes=4)
    place = tmp_path / "model"
    place.mkdir()
    save_file(network.state_dict(), place / "weights.safetensors")
    settings = SliceNetworkSettings(network=spec, inputs=inputs, postprocessing=("largest-lungs",))
    (place / "log.csv").write_text("epoch\n")
    write_description(
        place,
        TrainedModel(
            family=SLICE_NETWORK,
            architecture="unet",
            title="tiny",
            settings=settings.model_dump(mode="json"),
            structures=tuple(int(s) for s in Structure),
            files={"weights.safetensors": file_sha256(place / "weights.safetensors")},
            parameters=123,
            seen=SEEN,
            cohort="clinic",
            cohort_hash="c",
            split_hash="s",
            epochs=1,
            seconds=2.0,
            code_version="0",
            code_hash="h",
            finished="2026-01-01T00:00:00+00:00",
        ),
    )
    return place


def test_a_folder_is_a_model_with_all_that_was_configured(folder):
    model = create_automatic_model(str(folder), device="cpu")
    assert model.name == "tiny"
    assert model.postprocessing == ("largest-lungs",)
    plain = create_automatic_model(str(folder), device="cpu", postprocessing="none")
    assert plain.postprocessing == ()
    card = model_card(str(folder))
    assert (card.kind, card.name, card.parameters) == ("automatic", "tiny", 123)
    check_weights(str(folder), {})
    with pytest.raises(UsageError, match="no option 'colour'"):
        check_options(str(folder), {"colour": "red"})


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("overlap", 1.5, "a number of at least 0 and below 1"),
        ("overlap", -1, "a number of at least 0 and below 1"),
        ("overlap", float("nan"), "a number of at least 0 and below 1"),
        ("batch_size", 0, "a whole number of at least 1"),
        ("batch_size", True, "a whole number of at least 1"),
    ],
)
def test_options_have_bounds(folder, option, value, wanted):
    message = f"option '{option}' of model 'tiny' must be {wanted}, not"
    with pytest.raises(UsageError, match=message):
        create_automatic_model(str(folder), device="cpu", **{option: value})
    with pytest.raises(UsageError, match=message):
        check_options(str(folder), {option: value})
    create_automatic_model(str(folder), device="cpu", overlap=0, batch_size="1")


def test_patients_that_were_seen_are_refused(folder):
    description = trained_model(str(folder))
    description.refuse_seen("c", cohort="clinic", image="3" * 32)
    description.refuse_seen("a", cohort="elsewhere")  # names mean something within a cohort only
    with pytest.raises(SeenPatientError, match="'tiny' was trained on case 'a'"):
        description.refuse_seen("a", cohort="clinic")
    with pytest.raises(SeenPatientError, match="was chosen by case 'x' \\(there 'b'\\)"):
        description.refuse_seen("x", cohort="elsewhere", image="2" * 32)
    assert trained_model("classical") is None


def test_an_image_is_known_however_its_axes_are_stored():
    array = np.random.default_rng(0).integers(-1000, 1000, (3, 4, 5)).astype(np.int16)
    volume = Volume(array, VolumeGeometry((3, 4, 5), (3.0, 1.0, 2.0)))
    assert hash_image(reorient(volume, "RIA")) == hash_image(volume)
    changed = array.copy()
    changed[1, 2, 3] += 1
    assert hash_image(Volume(changed, volume.geometry)) != hash_image(volume)


def test_the_order_of_cases_does_not_change_a_hash():
    assert hash_parts({"train": ["b", "a"]}) == hash_parts({"train": ["a", "b"]})
    assert hash_parts({"train": ["a"], "validation": ["b"]}) != hash_parts({"train": ["a", "b"]})


def test_changed_weights_are_refused(folder):
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="was changed since training"):
        load_slice_network(folder)


def _edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 9}, "schema version 9"),
        ({"epochs": "many"}, "epochs"),
        ({"files": {"../x": "0"}}, "outside its folder"),
        ({"settings": {"network": {"architecture": "vnet"}}}, "settings of"),
        ({"structures": [1, 3]}, "does not fit the network"),
    ],
)
def test_damaged_descriptions_are_refused_with_one_line(folder, changes, message):
    _edit(folder, **changes)
    with pytest.raises(WeightsError, match=message) as caught:
        load_slice_network(folder)
    assert "\n" not in str(caught.value)


def test_an_unfinished_training_is_no_model(folder):
    (folder / "model.json").unlink()
    with pytest.raises(UsageError, match="--resume"):
        read_description(folder)
    with pytest.raises(UsageError, match="is no trained model"):
        create_automatic_model(str(folder))


def test_an_unknown_family_is_refused(folder):
    _edit(folder, family="crystal-ball")
    with pytest.raises(UsageError, match="crystal-ball"):
        create_automatic_model(str(folder))


def test_models_can_be_kept_by_name(folder):
    store = TrainedStore()
    with pytest.raises(WeightsNotFoundError, match="napari-lungfm-bench train"):
        create_automatic_model("unet")
    kept = store.add(folder, "unet:lab")
    assert store.names() == ("unet:lab",)
    assert (kept / "log.csv").is_file()
    with pytest.raises(WeightsNotFoundError, match="there are unet:lab"):
        store.find("unet")
    store.add(folder)
    assert store.names("unet") == ("unet", "unet:lab")
    assert create_automatic_model("unet", device="cpu").name == "tiny"
    assert trained_model("unet:lab").seen == SEEN
    assert store.add(kept, "unet:lab") == kept  # onto itself
    assert Path(kept / "weights.safetensors").is_file()


def test_another_model_of_that_name_is_not_lost(folder, tmp_path):
    store = TrainedStore()
    store.add(folder, "unet:lab")
    store.add(folder, "unet:lab")  # the same once more
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    _edit(other, title="new", files={})
    with pytest.raises(UsageError, match=r"'unet:lab' is another model already \('tiny', trained"):
        store.add(other, "unet:lab")
    assert trained_model("unet:lab").title == "tiny"
    assert trained_model(str(store.add(other, "unet:new"))).title == "new"


class _Killed(BaseException):
    """As if the process had ended."""


@pytest.mark.parametrize("which", range(3))
def test_an_import_that_is_killed_leaves_the_model_of_that_name(folder, monkeypatch, which):
    store = TrainedStore()
    kept = store.add(folder, "unet:lab")
    (kept / "weights.safetensors").write_bytes(b"spoilt")  # what a second import mends
    _edit(folder, title="told anew")
    (folder / "log.csv").write_text("epoch\n1\n")
    copied, real = [], shutil.copyfile

    def copy(source, target):
        if len(copied) == which:
            raise _Killed
        copied.append(real(source, target))

    with monkeypatch.context() as patch:
        patch.setattr(store_module.shutil, "copyfile", copy)
        with pytest.raises(_Killed):
            store.add(folder, "unet:lab")
    assert store.names() == ("unet:lab",)
    assert trained_model("unet:lab").files == read_description(folder).files
    store.add(folder, "unet:lab")
    assert create_automatic_model("unet:lab", device="cpu").name == "told anew"
    assert (kept / "log.csv").read_text() == "epoch\n1\n"


@pytest.mark.parametrize("same", [True, False])
def test_of_two_imports_of_a_name_one_wins_and_another_is_told(folder, tmp_path, monkeypatch, same):
    store, real = TrainedStore(), shutil.copyfile
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    if not same:
        _edit(other, title="new", files={})

    def meanwhile(source, target):
        monkeypatch.setattr(store_module.shutil, "copyfile", real)
        store.add(folder, "unet:lab")
        return real(source, target)

    monkeypatch.setattr(store_module.shutil, "copyfile", meanwhile)
    if same:
        assert store.add(other, "unet:lab") == store.find("unet:lab")
    else:
        with pytest.raises(UsageError, match="'unet:lab' is another model already"):
            store.add(other, "unet:lab")
    assert create_automatic_model("unet:lab", device="cpu").name == "tiny"
    assert [path.name for path in store.find("unet:lab").parent.iterdir()] == ["lab"]


def test_what_killed_imports_have_left_is_no_model_and_goes(folder):
    store = TrainedStore()
    old, recent = (store.folder / "unet" / name for name in (".lab.a.tmp", ".lab.b.tmp"))
    for left in (old, recent):
        shutil.copytree(folder, left)
    os.utime(old, (0, 0))
    assert store.names() == ()
    store.add(folder, "unet:lab")
    assert (old.exists(), recent.exists()) == (False, True)  # another import may be at work there
    assert store.names() == ("unet:lab",)


def test_remains_make_way_for_a_model(folder):
    store = TrainedStore()
    kept = store.add(folder, "unet:lab")
    (kept / "model.json").write_text("{")
    (kept / "more").mkdir()
    store.add(folder, "unet:lab")
    assert not (kept / "more").exists()
    assert create_automatic_model("unet:lab", device="cpu").name == "tiny"


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3:x", "unet:..", "unet:a/b"])
def test_names_that_do_not_fit_are_refused(folder, name):
    with pytest.raises(UsageError):
        TrainedStore().add(folder, name)
    assert TrainedStore().names() == ()
