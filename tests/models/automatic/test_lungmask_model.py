import warnings

import numpy as np
import pytest

from napari_lungfm._core.exceptions import LungFMWarning, UsageError
from napari_lungfm.geometry import Structure, Volume, VolumeGeometry, reorient
from napari_lungfm.models.registry import (
    automatic_names,
    check_weights,
    create_automatic_model,
    create_model,
    is_automatic,
    model_card,
    model_names,
)
from napari_lungfm.models.weights import WeightsNotFoundError, WeightStore

torch = pytest.importorskip("torch")
GRID = VolumeGeometry((2, 40, 48), (3.0, 2.0, 2.0))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))


@pytest.fixture
def chest():
    """A body with two lungs, enough for the package to find the body by."""
    array = np.full(GRID.shape, -1000, np.int16)
    array[:, 4:36, 4:44] = 40
    array[:, 10:30, 8:22] = -850
    array[:, 10:30, 26:40] = -840
    return Volume(array, GRID)


def _import(tmp_path, state, name):
    from napari_lungfm.models.weights.importing import import_file

    path = tmp_path / "unet.pth"
    torch.save(state, path)
    import_file(path, name)


def _constant(number, classes):
    """Weights of lungmask's build that answer with one label everywhere."""
    from napari_lungfm.models.weights.reference import reference_shapes

    shapes = reference_shapes(f"lungmask-{classes}")
    state = {n: torch.zeros(1).expand(s) if s else torch.tensor(0) for n, s in shapes.items()}
    state["last.bias"] = torch.eye(classes)[number]
    return state


@pytest.mark.parametrize(
    ("number", "classes", "expected"),
    [
        (1, 3, Structure.RIGHT_LUNG),
        (2, 3, Structure.LEFT_LUNG),
        (2, 6, Structure.LEFT_LUNG),
        (4, 6, Structure.RIGHT_LUNG),
    ],
)
def test_labels_are_mapped_by_name(tmp_path, chest, number, classes, expected):
    _import(tmp_path, _constant(number, classes), "lungmask:constant")
    told = []
    model = create_automatic_model("lungmask:constant", device="cpu", volume_postprocessing=False)
    found = model.segment(chest, progress=lambda done, total: told.append((done, total)))
    assert found.present() == (expected,)
    assert found.geometry == chest.geometry
    assert told[-1] == (2, 2)


def test_lobes_keep_labels_of_their_own(tmp_path, chest):
    _import(tmp_path, _constant(5, 6), "lungmask:lobes")
    model = create_automatic_model(
        "lungmask:lobes", device="cpu", lobes=True, volume_postprocessing=False
    )
    found = model.segment(chest)
    assert found.present() == (5,)
    assert found.labels[5] == "right lower lobe"
    _import(tmp_path, _constant(1, 3), "lungmask:lungs")
    with pytest.raises(UsageError, match="no lobes"):
        create_automatic_model("lungmask:lungs", device="cpu", lobes=True)


@pytest.mark.slow
def test_it_says_what_the_package_says(tmp_path, chest):
    """With random weights, on an image whose axes are stored in another order."""
    import lungmask.mask

    from napari_lungfm.io import to_sitk

    torch.manual_seed(0)
    network = lungmask.mask.UNet(
        n_classes=3, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False
    )
    with torch.no_grad():  # so that no class wins everywhere
        image = torch.linspace(0, 1, 256).expand(1, 1, 256, 256)
        network.last.bias -= network.eval()(image).mean(dim=(0, 2, 3))
    _import(tmp_path, network.state_dict(), "lungmask:random")
    turned = reorient(chest, "ILA")
    # Postprocessing would clear away what random weights find.
    model = create_automatic_model("lungmask:random", device="cpu", volume_postprocessing=False)
    found = model.segment(turned)
    package = lungmask.mask.LMInferer(
        modelpath=str(tmp_path / "unet.pth"),
        force_cpu=True,
        tqdm_disable=True,
        volume_postprocessing=False,
    )
    expected = package.apply(to_sitk(turned))
    assert set(np.unique(expected)) > {0}
    assert np.array_equal(found.array == Structure.RIGHT_LUNG, expected == 1)
    assert np.array_equal(found.array == Structure.LEFT_LUNG, expected == 2)


def test_without_weights_the_fallback_says_that_it_is_one():
    with pytest.warns(LungFMWarning, match="models fetch lungmask.*FALLBACK"):
        model = create_automatic_model("lungmask")
    assert model.name == "lungs-classical"
    for name in ("lungmask", "lungmask:R231CovidWeb", "lungmask:LTRCLobes_R231"):
        with pytest.raises(WeightsNotFoundError, match="models fetch lungmask"):
            create_automatic_model(name, fallback=False)
        with pytest.raises(WeightsNotFoundError):  # a benchmark must not take one for the other
            check_weights(name, {})
    check_weights("lungmask", {"fallback": True})


def test_a_name_that_nobody_publishes_is_an_error_and_nothing_stands_in(tmp_path):
    _import(tmp_path, _constant(1, 3), "lungmask:mine")
    told = r"published are lungmask, lungmask:LTRCLobes, .*--as lungmask:bogus; there are .*:mine"
    with pytest.raises(WeightsNotFoundError, match=told):
        create_automatic_model("lungmask:bogus")
    with pytest.raises(WeightsNotFoundError, match=told):
        check_weights("lungmask:bogus", {"fallback": True})
    assert create_automatic_model("lungmask:mine", device="cpu").name == "lungmask:mine"


@pytest.mark.parametrize("name", ["lungmask:LTRCLobes_R231", "lungmask:ltrclobes_r231"])
def test_a_name_of_two_files_is_no_name_for_one(tmp_path, name):
    from napari_lungfm.models.weights.fetch import fetch

    both = "models {0} lungmask:LTRCLobes and models {0} lungmask$"
    with pytest.raises(UsageError, match=both.format("import FILE --as")):
        _import(tmp_path, _constant(1, 6), name)
    with pytest.raises(UsageError, match=both.format("fetch")):
        fetch(name, licence_accepted=True)
    with pytest.raises(
        WeightsNotFoundError, match="made of lungmask:LTRCLobes and lungmask: fetch"
    ):
        WeightStore().find(name)
    assert WeightStore().names() == ()


def test_names_and_kinds():
    assert {"lungmask", "lungs-classical", "unet", "deeplabv3"} <= set(automatic_names())
    assert not set(automatic_names()) & set(model_names())
    assert is_automatic("lungmask:LTRCLobes_R231")
    assert not is_automatic("medsam")
    assert model_card("lungmask").kind == model_card("lungs-classical").kind == "automatic"
    with pytest.raises(UsageError, match="takes no prompts"):
        create_model("lungmask")
    with pytest.raises(UsageError, match="needs boxes or clicks"):
        create_automatic_model("classical")
    with pytest.raises(UsageError, match="did you mean 'lungmask'"):
        create_automatic_model("lungmsk")
    with pytest.raises(UsageError, match="runs on the CPU only"):
        create_automatic_model("lungs-classical", device="cuda")
    with pytest.raises(UsageError, match="no option 'x'"), warnings.catch_warnings():
        create_automatic_model("lungmask", x=1)
