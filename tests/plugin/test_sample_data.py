import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from napari_lungfm.geometry import LabelMap, Structure, Volume, VolumeGeometry
from napari_lungfm.plugin import sample_data
from napari_lungfm.plugin.layer_geometry import LayerInfo, info_of_options

SAMPLES = [
    "solid_tumour",
    "ground_glass_tumour",
    "cavitating_tumour",
    "tumour_at_atelectasis",
    "tumour_at_the_pleura",
    "small_nodule",
]


@pytest.fixture(scope="module")
def solid():
    return sample_data.solid_tumour()


def test_image_and_reference_lie_on_each_other(solid):
    (image, image_options, image_kind), (labels, label_options, label_kind) = solid
    assert (image_kind, label_kind) == ("image", "labels")
    assert image.dtype == np.int16
    assert image.shape == labels.shape
    for key in ("scale", "translate", "units"):
        assert image_options[key] == label_options[key]
    assert set(np.unique(labels)) == {0, *Structure}


def test_the_grid_is_in_millimetres_and_kept_in_the_metadata(solid):
    data, options, _ = solid[0]
    info = info_of_options(data.shape, options)
    assert options["scale"] == info.geometry.spacing
    assert options["translate"] == pytest.approx(info.geometry.origin[::-1])
    assert options["units"] == ("mm", "mm", "mm")


def test_the_labels_are_named(solid):
    info = LayerInfo.from_metadata(solid[1][1]["metadata"])
    assert info.labels == {int(s): s.title for s in Structure}


def test_some_samples_have_a_reference_and_some_have_none(monkeypatch):
    made = []

    def fake(spec):
        """A phantom without a patient: making six real ones takes half a minute."""
        made.append(str(spec.tumours[0].kind))
        grid = VolumeGeometry((2, 2, 2))
        empty = np.zeros(grid.shape, np.int16)
        return SimpleNamespace(volume=Volume(empty, grid), labels=LabelMap(empty, grid))

    monkeypatch.setattr(sample_data, "generate_phantom", fake)
    kinds = {key: [kind for _, _, kind in getattr(sample_data, key)()] for key in SAMPLES}
    assert kinds == {
        "solid_tumour": ["image", "labels"],
        "ground_glass_tumour": ["image", "labels"],
        "cavitating_tumour": ["image", "labels"],
        "tumour_at_atelectasis": ["image", "labels"],
        "tumour_at_the_pleura": ["image"],
        "small_nodule": ["image"],
    }
    assert len(set(made)) == len(SAMPLES)


def test_the_manifest_offers_every_sample():
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_distribution("napari-lungfm")
    samples = manifest.contributions.sample_data
    assert [s.key for s in samples] == SAMPLES
    commands = {c.id: c.python_name for c in manifest.contributions.commands}
    for sample in samples:
        module, _, function = commands[sample.command].partition(":")
        assert module == sample_data.__name__
        assert callable(getattr(sample_data, function))


@pytest.mark.gui
def test_a_viewer_opens_a_sample():
    """In a process of its own: a missing display ends the process, not the test run."""
    pytest.importorskip("napari")
    code = (
        "import napari; viewer = napari.Viewer(show=False); "
        "layers = viewer.open_sample('napari-lungfm', 'solid_tumour'); "
        "print([type(layer).__name__ for layer in layers], viewer.layers[0].scale)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
    )
    if done.returncode and "display" in done.stderr:
        pytest.skip("there is no display; run under xvfb-run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "['Image', 'Labels'] [3.  1.4 1.4]" in done.stdout
