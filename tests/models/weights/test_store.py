import json

import pytest
import torch

from napari_lungfm._core.exceptions import OutputError, UsageError
from napari_lungfm.models.cards import CheckValue
from napari_lungfm.models.foundation.sam2_build import build_sam2, published_config
from napari_lungfm.models.weights import (
    WeightsError,
    WeightsNotFoundError,
    WeightStore,
    weights_folder,
)
from napari_lungfm.models.weights import importing as importing_module
from napari_lungfm.models.weights.files import file_digests, write_fine_tuned
from napari_lungfm.models.weights.importing import import_file
from napari_lungfm.models.weights.loading import load_weights
from napari_lungfm.models.weights.verify import verify


@pytest.fixture(scope="module")
def tiny():
    """SAM 2.1 tiny with seeded random weights."""
    torch.manual_seed(3)
    return build_sam2(published_config("sam2.1_hiera_t")).state_dict()


def test_the_folder_is_chosen_by_argument_then_environment_then_platform(tmp_path, monkeypatch):
    assert weights_folder(tmp_path / "a") == tmp_path / "a"
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "b"))
    assert weights_folder() == tmp_path / "b"
    monkeypatch.delenv("NAPARI_LUNGFM_WEIGHTS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "c"))
    assert weights_folder().name == "weights"
    assert "napari-lungfm" in weights_folder().parts


def test_an_empty_store_says_how_to_get_weights():
    store = WeightStore()
    assert store.names() == ()
    with pytest.raises(WeightsNotFoundError, match=r"models fetch medsam, or: .* --as medsam"):
        store.find("medsam")
    with pytest.raises(WeightsNotFoundError, match=r"'lite_medsam\.pth' from https://drive.google"):
        store.find("litemedsam")
    with pytest.raises(WeightsNotFoundError, match=r"published are medsam; .* --as medsam:mine"):
        store.find("medsam:mine")


@pytest.mark.parametrize(("wrapper", "prefix"), [(None, ""), ("model", "module.")])
def test_every_published_layout_loads_into_the_stock_network(tiny, write, wrapper, prefix):
    named = {prefix + name: tensor for name, tensor in tiny.items()}
    path = write({wrapper: named, "epoch": 1} if wrapper else named, "mine.pt")
    stored = import_file(path, "sam2.1-tiny:mine")
    assert (stored.manifest.wrapper, stored.manifest.prefix) == (wrapper, prefix or None)
    loaded = load_weights("sam2.1-tiny:mine")
    network = build_sam2(published_config(loaded.layout.architecture))
    network.load_state_dict(loaded.tensors, strict=True)
    assert all(torch.equal(value, tiny[name]) for name, value in network.state_dict().items())
    assert loaded.sha256 == file_digests(path)["sha256"]


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("vit_b", "medsam:x"),
        ("vit_b", "sam-vit-b:x"),
        ("vit_b", "medicosam:x"),
        ("sam2_hiera_s", "medsam2-zhu:x"),
        ("sam2_hiera_t", "medsam2-zhu:x"),
        ("sam2.1_hiera_t", "medsam2-ma:x"),
        ("sam2.1_hiera_s", "sam2.1-small:x"),
        ("lungmask-6", "lungmask:x"),
        ("litemedsam", "litemedsam"),
    ],
)
def test_files_of_every_model_can_be_imported_found_verified_and_loaded(
    thin, write, architecture, name
):
    stored = import_file(write({"model": thin(architecture)}), name)
    assert stored.name == name
    assert stored.manifest.architecture == architecture
    assert verify(name).path == stored.path
    assert load_weights(name).layout.architecture == architecture
    assert WeightStore().names() == (name,)


def test_a_published_check_value_decides_what_a_file_is(thin, write, catalogue):
    path = write(thin("vit_b"))
    digests = file_digests(path)
    catalogue("medicosam", checks=(CheckValue("md5", digests["md5"]),))
    assert import_file(path).name == "medicosam"
    assert WeightStore().find("medicosam").manifest.checked == (f"md5 {digests['md5']}",)
    with pytest.raises(WeightsError, match=r"not the published file of 'medsam'.*'medicosam'"):
        import_file(path, "medsam")


def test_a_published_file_cannot_pass_for_another_model(thin, write, catalogue):
    path = write(thin("vit_b"))
    catalogue("sam-vit-b", checks=(CheckValue("md5", file_digests(path)["md5"]),))
    message = "is the published file of 'sam-vit-b', not weights of 'medsam'"
    with pytest.raises(WeightsError, match=message):
        import_file(path, "medsam:mine")
    with pytest.raises(WeightsError, match=message):
        load_weights("medsam", path=path)
    assert load_weights("sam-vit-b", path=path).card.name == "sam-vit-b"


def test_the_start_of_a_check_value_is_enough(thin, write, catalogue):
    path = write(thin("lungmask-6"))
    start = file_digests(path)["sha256"][:8]
    catalogue("lungmask:LTRCLobes", checks=(CheckValue("sha256", start),))
    assert import_file(path).name == "lungmask:LTRCLobes"


def test_a_check_value_that_cannot_be_computed_is_said(thin, write, monkeypatch):
    from napari_lungfm import LungFMWarning
    from napari_lungfm.models.weights import files

    monkeypatch.setattr(files, "is_available", lambda _: False)
    path = write(thin("vit_b"))
    with pytest.warns(LungFMWarning, match="xxh128, which needs the package 'xxhash'"):
        stored = import_file(path, "medicosam")
    assert stored.manifest.checked == ()


def test_without_a_name_or_check_value_the_user_is_asked(thin, write):
    with pytest.raises(UsageError, match=r"--as NAME \(medsam, sam-vit-b, medicosam\)"):
        import_file(write(thin("vit_b")))
    with pytest.raises(UsageError, match=r"--as medsam2-ma:CTLesion \("):
        import_file(write(thin("sam2.1_hiera_t"), "MedSAM2_CTLesion.pt"))


def test_a_known_build_without_a_card_is_refused(thin, write):
    with pytest.raises(WeightsError, match="is vit_l, which no model of the catalogue is"):
        import_file(write(thin("vit_l")))


def test_fine_tuned_weights_come_in_under_their_own_name(thin, tmp_path):
    path = tmp_path / "out.safetensors"
    write_fine_tuned(path, thin("lungmask-3"), model="lungmask", label="ours-1")
    stored = import_file(path)
    assert stored.name == "lungmask:ours-1"
    assert stored.manifest.fine_tuned["model"] == "lungmask"
    assert load_weights("lungmask:ours-1").layout.architecture == "lungmask-3"
    with pytest.raises(WeightsError, match=r"trained further .* cannot stand for 'lungmask'"):
        import_file(path, "lungmask")


@pytest.mark.parametrize(
    ("architecture", "name", "message"),
    [
        ("sam2_hiera_s", "medsam2-ma", "is sam2_hiera_s, but 'medsam2-ma' is sam2.1_hiera_t; it"),
        ("sam2.1_hiera_t", "medsam2-zhu", "may be: medsam2-ma"),
        ("sam2.1_hiera_s", "sam2.1-tiny", "may be: sam2.1-small"),
        ("lungmask-3", "lungmask:LTRCLobes", "is lungmask-3"),
        ("vit_l", "medsam", "is vit_l, but 'medsam' is vit_b"),
    ],
)
def test_the_wrong_model_is_refused_and_nothing_is_stored(
    thin, write, own_folder, architecture, name, message
):
    with pytest.raises(WeightsError, match=message):
        import_file(write(thin(architecture)), name)
    assert not own_folder.exists()


def test_nan_missing_and_unexpected_tensors_are_refused(thin, write):
    state = thin("lungmask-3")
    with pytest.raises(WeightsError, match=r"NaN or infinite values in 1 of 227 tensors \(last"):
        import_file(write({**state, "last.bias": torch.full((3,), torch.nan)}), "lungmask:x")
    with pytest.raises(WeightsError, match="1 are unexpected"):
        import_file(write({**state, "more": torch.zeros(1)}), "lungmask:x")
    with pytest.raises(WeightsError, match="no file of weights known here"):
        import_file(write({"fc": torch.zeros(1)}), "lungmask:x")


def test_a_changed_a_shortened_and_a_lost_file_are_found(thin, write):
    stored = import_file(write(thin("lungmask-3")), "lungmask:x")
    content = bytearray(stored.path.read_bytes())
    content[len(content) // 2] ^= 1
    stored.path.write_bytes(content)
    WeightStore().find("lungmask:x")  # a look at the size cannot see it
    with pytest.raises(WeightsError, match="has changed since it was stored"):
        verify("lungmask:x")
    stored.path.write_bytes(content[:-10])
    with pytest.raises(WeightsError, match="bytes instead of"):
        WeightStore().find("lungmask:x")
    stored.path.unlink()
    with pytest.raises(WeightsError, match="is gone"):
        load_weights("lungmask:x")


def test_weights_are_replaced_as_a_whole(thin, write):
    first = import_file(write(thin("lungmask-3"), "a.pth"), "lungmask:x")
    second = import_file(write(thin("lungmask-3", seed=1), "b.pt"), "lungmask:x")
    assert first.manifest.sha256 != second.manifest.sha256
    names = sorted(path.name for path in second.path.parent.iterdir())
    assert names == ["lungmask-x.pt", "manifest.json"]
    again = import_file(second.path, "lungmask:x")  # onto itself
    assert verify("lungmask:x").manifest.sha256 == again.manifest.sha256


def test_a_crash_between_file_and_record_leaves_no_wrong_record(thin, write, monkeypatch):
    import_file(write(thin("lungmask-3")), "lungmask:x")

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(WeightStore, "finish", crash)
    with pytest.raises(KeyboardInterrupt):
        import_file(write(thin("lungmask-3", seed=1), "b.pth"), "lungmask:x")
    with pytest.raises(WeightsNotFoundError):
        WeightStore().find("lungmask:x")


def test_a_failed_copy_leaves_what_was_there(thin, write, monkeypatch):
    import_file(write(thin("lungmask-3")), "lungmask:x")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(importing_module.shutil, "copyfile", full)
    with pytest.raises(OutputError, match="disk is full"):
        import_file(write(thin("lungmask-3", seed=1), "b.pth"), "lungmask:x")
    stored = verify("lungmask:x")
    assert len(list(stored.path.parent.iterdir())) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "{", "cannot be read"),
        (lambda text: json.dumps({**json.loads(text), "schema_version": 9}), "schema version 9"),
        (lambda text: json.dumps({"schema_version": 1}), "incomplete"),
        (lambda text: json.dumps({**json.loads(text), "file": "../x"}), "outside its folder"),
    ],
)
def test_a_spoilt_record_is_named(thin, write, change, message):
    stored = import_file(write(thin("lungmask-3")), "lungmask:x")
    record = stored.path.with_name("manifest.json")
    record.write_text(change(record.read_text()))
    with pytest.raises(WeightsError, match=message):
        WeightStore().find("lungmask:x")


def test_a_file_can_be_loaded_from_where_it_is(thin, write):
    path = write({"model": thin("sam2_hiera_t")})
    loaded = load_weights("medsam2-zhu", path=path)
    assert loaded.layout.architecture == "sam2_hiera_t"
    assert loaded.sha256 == file_digests(path)["sha256"]
    assert WeightStore().names() == ()
    with pytest.raises(WeightsError, match="but 'medsam' is vit_b"):
        load_weights("medsam", path=path)


def test_foreign_folders_in_the_store_are_passed_over(own_folder):
    for place in ("medsam2/x", "nonsense/y"):
        (own_folder / place).mkdir(parents=True)
        (own_folder / place / "manifest.json").write_text("{}")
    assert WeightStore().names() == ()
