import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from napari_lungfm._core import imports
from napari_lungfm._core.exceptions import MissingDependencyError
from napari_lungfm._core.imports import EXTRA_OF_MODULE, is_available, require


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_what_is_there_is_imported():
    assert require("json", purpose="A test").loads("1") == 1
    assert require("os.path", purpose="A test").sep
    assert is_available("json")
    assert is_available("os.path")
    assert not is_available("no_such_module_anywhere")


def test_what_is_missing_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(imports.EXTRA_OF_MODULE, "no_such_module", "sam")
    with pytest.raises(MissingDependencyError) as caught:
        require("no_such_module.part", purpose="Segmenting with SAM 2")
    message = str(caught.value)
    assert message.startswith("Segmenting with SAM 2 needs the module 'no_such_module.part'")
    assert message.endswith("pip install 'napari-lungfm[sam]'")
    assert "\n" not in message
    assert isinstance(caught.value, ImportError)
    with pytest.raises(MissingDependencyError, match=r"napari-lungfm\[all\]"):
        require("another_missing_module", purpose="A test")


def test_extras_exist():
    project = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    for module, extra in EXTRA_OF_MODULE.items():
        wanted = module.replace("_", "-").lower()
        assert any(r.lower().startswith(wanted) for r in extras[extra]), module


def test_looking_does_not_import():
    code = (
        "import sys; from napari_lungfm._core.imports import is_available; "
        "is_available('torch.nn'); print('torch' in sys.modules)"
    )
    assert run(code) == "False"


def test_torchvision_imports_and_transforms_work():
    pytest.importorskip("torch")
    if not is_available("torchvision"):
        pytest.skip("torchvision is not installed")
    code = """
from napari_lungfm._core.imports import require
from napari_lungfm._core.torchvision_ops import ensure_torchvision_ops
v2 = require("torchvision.transforms.v2", purpose="A test")
import torch
assert v2.functional.resize(torch.zeros(1, 8, 8), [4, 4]).shape == (1, 4, 4)
assert ensure_torchvision_ops() == ()
import torchvision.models
print("done")
"""
    assert run(code) == "done"


def test_nothing_is_declared_without_torch():
    code = """
import sys
sys.modules["torch"] = None
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name.startswith("torch") else real(name, *a)
from napari_lungfm._core.torchvision_ops import ensure_torchvision_ops
print(ensure_torchvision_ops())
"""
    assert run(code) == "()"
