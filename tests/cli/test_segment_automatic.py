import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm.datasets.phantoms import PhantomSpec, generate_phantom
from napari_lungfm.geometry import Volume, VolumeGeometry, reorient


@pytest.fixture(scope="module")
def chest(tmp_path_factory):
    """A coarse phantom on disk, with its axes in another order."""
    phantom = generate_phantom(PhantomSpec(seed=5, shape=(30, 90, 90), spacing=(10.0, 4.0, 4.0)))
    path = tmp_path_factory.mktemp("chest") / "ct.nii.gz"
    io.write_image(reorient(phantom.volume, "LPS"), path)
    return path


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))


@pytest.mark.filterwarnings("always::napari_lungfm.LungFMWarning")
@pytest.mark.parametrize("model", ["lungs-classical", "lungmask"])
def test_lungs_without_prompts(bench, chest, tmp_path, model):
    if model == "lungmask":
        pytest.importorskip("torch")
    out = tmp_path / "lungs.nii.gz"
    result = bench("segment", "--image", chest, "--model", model, "--out", out, "--json")
    assert result.code == 0, result.err
    assert result.json["ran"] == "lungs-classical"
    assert ("FALLBACK" in result.err) == (model == "lungmask")
    written = io.read_label_map(out)
    assert written.geometry.is_close(io.read_volume(chest).geometry)
    for name, value in (("left lung", 1), ("right lung", 2)):
        facts = result.json["structures"][name]
        assert facts["label"] == value
        assert facts["voxels"] == np.count_nonzero(written.array == value) > 0
    assert "mL in" in result.err
    assert (result.json["small"], result.json["seen"]) == (False, None)  # trained elsewhere


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--box", "1,2,2,5,5"], "--box is"),
        (["--click", "1,2,2,+", "--stop", "3"], "--click, --stop are"),
        (["--mm"], "--mm"),
        (["--no-propagate"], "--no-propagate"),
        (["--label", "3"], "--label"),
        (["--log", "x.jsonl"], "--log"),
    ],
)
def test_options_of_prompts_are_refused(bench, chest, tmp_path, arguments, named):
    out = tmp_path / "lungs.nii.gz"
    result = bench("segment", "--image", chest, "--model", "lungmask", "--out", out, *arguments)
    assert result.code == 2
    assert named in result.err
    assert "automatic model" in result.err
    assert result.err.strip().count("\n") == 0
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "unet"], "there is no trained 'unet'"),
        (["--model", "lungs-classical", "--device", "cuda"], "runs on the CPU only"),
        (["--model", "lungs-classical", "--option", "x=1"], "no option 'x'"),
        (["--model", "."], "is no trained model"),
        (["--model", "lungmask:bogus"], "published are lungmask, lungmask:LTRCLobes"),
    ],
)
def test_wrong_calls_get_one_line(bench, chest, tmp_path, arguments, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = bench("segment", "--image", chest, "--out", tmp_path / "o.nii.gz", *arguments)
    assert result.code in (1, 2)
    assert message in result.err
    assert result.err.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("value", "spacing", "told"),
    [
        (40, (10.0, 4.0, 4.0), ["no lungs were found"]),
        (None, (50.0, 20.0, 20.0), ["the spacing of the image may be wrong"]),
        (None, (10.0, 4.0, 4.0), []),
    ],
)
def test_answers_that_cannot_be_are_told(bench, chest, tmp_path, value, spacing, told):
    volume = io.read_volume(chest)
    array = volume.array if value is None else np.full_like(volume.array, value)
    array[0, 0, 0] = -1000
    image = tmp_path / "ct.nii.gz"
    io.write_image(Volume(array, VolumeGeometry(array.shape, spacing[::-1])), image)
    out = tmp_path / "o.nii.gz"
    call = ("segment", "--image", image, "--model", "lungs-classical", "--out", out, "--json")
    result = bench(*call)
    assert result.code == 0, result.err
    assert len(result.json["notes"]) == len(told)
    for text, wanted in zip(result.json["notes"], told, strict=True):
        assert wanted in text
        assert f"note: {text}" in result.err


def test_no_input_is_ever_overwritten(bench, chest):
    before = chest.read_bytes()
    result = bench("segment", "--image", chest, "--model", "lungs-classical", "--out", chest)
    assert result.code == 2
    assert chest.read_bytes() == before
