import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import napari_lungfm

ROOT = Path(napari_lungfm.__file__).parents[2]


def test_both_manifests_are_the_same_bytes():
    inside = Path(napari_lungfm.__file__).with_name("napari.yaml")
    assert (ROOT / "napari.yaml").read_bytes() == inside.read_bytes()
    assert yaml.safe_load(inside.read_text())["name"] == "napari-lungfm"


def test_napari_finds_the_plugin():
    npe2 = pytest.importorskip("npe2")
    assert npe2.PluginManifest.from_distribution("napari-lungfm").name == "napari-lungfm"


@pytest.mark.parametrize(
    "module", ["napari_lungfm", "napari_lungfm.cli", "napari_lungfm.models.registry"]
)
def test_imports_are_light(module):
    heavy = ("torch", "napari", "qtpy", "monai", "sam2", "nnunetv2")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_committed_file_is_large():
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    large = [f.name for f in files if f.is_file() and f.stat().st_size > 1_000_000]
    assert [name for name in large if not name.endswith(".safetensors")] == []
