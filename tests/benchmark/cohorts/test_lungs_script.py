"""``benchmarks/lungs.py`` on patients written like those of Lung1."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from napari_lungfm.benchmark.cohorts.lung1 import lung1_cases
from napari_lungfm.benchmark.cohorts.lungs import lung_source
from napari_lungfm.benchmark.cohorts.prepare import CohortPlan, prepare_cohort
from napari_lungfm.datasets.sources.phantom_downloads import write_lung1
from napari_lungfm.geometry import LabelMap

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "lungs.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("lungs_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def download(tmp_path_factory, make_chest):
    """Two patients whose lungs are contoured, and one whose are not."""
    root = tmp_path_factory.mktemp("lung1")
    write_lung1([make_chest("LUNG1-001"), make_chest("LUNG1-002", 12.0)], root, seg=False)
    return write_lung1([make_chest("LUNG1-003")], root, lungs=False, seg=False)


@pytest.fixture
def call(script, tmp_path, monkeypatch, capsys):
    """Run it without phantoms and without any weights in the store."""
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))

    def run(folder):
        out = tmp_path / "lungs.json"
        words = ["--phantoms", "0", "--real-data", tmp_path, "--lung1", folder, "--json", out]
        script.main([str(word) for word in words])
        return json.loads(out.read_text())["results"], capsys.readouterr()

    return run


def test_models_are_compared_with_contoured_lungs(call, download):
    results, shown = call(download)
    assert list(results) == ["lungs-classical"]
    found = results["lungs-classical"]["lung1"]
    assert sorted(found["cases"]) == ["LUNG1-001", "LUNG1-002"]
    assert all(value > 0.95 for value in found["means"].values()), found
    assert set(found["means"]) == {"left lung", "right lung"}
    assert "left out: LUNG1-003: no contours of both lungs" in shown.err
    assert "lungmask" in shown.err  # its weights are not here, and it says so
    assert shown.out.startswith("lungs-classical lung1: left lung ")
    assert shown.out.endswith(", n 2\n")


def test_lungs_of_the_wrong_side_score_nothing(script, download):
    chests = list(script.contoured(download))

    def swapped(volume):
        (chest,) = (each for each in chests if each.volume is volume)
        return LabelMap(np.array([0, 2, 1], np.uint8)[chest.lungs], volume.geometry)

    found = script.score(SimpleNamespace(name="swapped", segment=swapped), chests)
    assert found["means"] == {"left lung": 0.0, "right lung": 0.0}


def test_a_prepared_cohort_is_taken_with_its_own_lungs_alone(call, download, tmp_path):
    plan = CohortPlan("lung1", "phantoms", 58, 246)
    cases, own, others = lung1_cases(download), tmp_path / "own", tmp_path / "others"
    prepare_cohort(cases, own, plan, lung_source("own"))
    results, _ = call(own)
    assert sorted(results["lungs-classical"]["lung1"]["cases"]) == ["LUNG1-001", "LUNG1-002"]
    prepare_cohort(cases, others, plan, lung_source("lungs-classical"))
    with pytest.raises(SystemExit, match="not known to be contoured by people"):
        call(others)


def test_a_folder_without_contours_is_refused(call, tmp_path, make_chest):
    place = write_lung1([make_chest("LUNG1-003")], tmp_path / "raw", lungs=False, seg=False)
    with pytest.raises(SystemExit, match="error: there is no patient with contours"):
        call(place)
