import subprocess
import sys

import numpy as np
import pytest

from napari_lungfm.geometry import Structure, VolumeGeometry
from napari_lungfm.plugin import sample_data


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
    _, options, _ = solid[0]
    geometry = VolumeGeometry.from_dict(options["metadata"]["geometry"])
    assert options["scale"] == geometry.spacing
    assert options["translate"] == geometry.origin[::-1]
    assert options["units"] == ("mm", "mm", "mm")


def test_one_sample_has_no_reference():
    assert [kind for _, _, kind in sample_data.tumour_at_the_pleura()] == ["image"]


def test_the_manifest_offers_every_sample():
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_distribution("napari-lungfm")
    samples = manifest.contributions.sample_data
    assert [s.key for s in samples] == [
        "solid_tumour",
        "ground_glass_tumour",
        "tumour_at_the_pleura",
    ]
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
