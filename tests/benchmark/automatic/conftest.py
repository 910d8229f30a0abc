import time

import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm.benchmark import loaded
from napari_lungfm.benchmark.config import parse_config
from napari_lungfm.benchmark.runner import run_benchmark
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Volume, VolumeGeometry
from napari_lungfm.models.automatic.trained import (
    WEIGHTS,
    TrainedModel,
    file_sha256,
    write_description,
)

GRID = VolumeGeometry((8, 30, 40), (4.0, 2.0, 2.0), (-40.0, -30.0, 0.0))
HU = {0: 200, 1: -850, 2: -750, 3: 40}
TITLES = {1: "left lung", 2: "right lung", 3: "tumour"}


def chest_labels(size):
    """Labels of two lungs and a tumour of so many rows in one of them."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[1:7, 4:26, 22:38] = 1
    labels[1:7, 4:26, 3:18] = 2
    labels[2:5, 8 : 8 + size, 6:14] = 3
    return labels


def image(labels):
    hu = np.zeros(labels.shape, np.int16)
    for value, number in HU.items():
        hu[labels == value] = number
    return Volume(hu, GRID)


def write(place, name, labels):
    io.write_image(image(labels), place / f"{name}.nii.gz")
    io.write_label_map(LabelMap(labels, GRID, LUNG_LABELS), place / f"{name}_m.nii.gz")


@pytest.fixture
def folder(tmp_path):
    """Cases ``a`` and ``b`` with lungs and tumour."""
    place = tmp_path / "data"
    place.mkdir()
    for name, size in (("a", 6), ("b", 9)):
        write(place, name, chest_labels(size))
    return place


def case_values(name, **more):
    return {"name": name, "image": f"{name}.nii.gz", "mask": f"{name}_m.nii.gz",
            "values": TITLES, **more}  # fmt: skip


def write_trained(place, *, title="my-unet", structures=(1, 2, 3), **more):
    """Write the folder of a trained model that nobody will load."""
    place.mkdir(parents=True, exist_ok=True)
    (place / WEIGHTS).write_bytes(title.encode())
    values = {
        "family": "slice-network",
        "architecture": "unet",
        "title": title,
        "settings": {},
        "structures": structures,
        "files": {WEIGHTS: file_sha256(place / WEIGHTS)},
        "parameters": 7,
        "seen": (),
        "cohort": "elsewhere",
        "cohort_hash": "c",
        "split_hash": "s",
        "epochs": 1,
        "seconds": 1.0,
        "code_version": "0",
        "code_hash": "0",
        "finished": "2026-01-01T00:00:00+00:00",
    }
    description = TrainedModel(**(values | more))
    write_description(place, description)
    return description


class Reader:
    """An automatic model that reads its answer from the HU of these images."""

    name, parameters = "my-unet", 7

    def __init__(self, labels=TITLES, change=lambda array: array):
        self.labels, self.change = labels, change
        self.seen = []

    def segment(self, volume, *, progress=None, cancelled=None):
        self.seen.append(volume)
        time.sleep(0.01)
        array = np.zeros(volume.shape, np.uint8)
        for value in self.labels:
            array[volume.array == HU[value]] = value
        return LabelMap(self.change(array), volume.geometry, dict(self.labels))


@pytest.fixture
def model(monkeypatch):
    """The model behind every automatic name."""
    reader = Reader()
    monkeypatch.setattr(loaded, "create_automatic_model", lambda name, **options: reader)
    return reader


@pytest.fixture
def run(folder, tmp_path):
    def call(methods, out="run", base=None, do=run_benchmark, **changes):
        values = {
            "name": "test",
            "structures": ["left lung", "right lung", "tumour"],
            "cohorts": [
                {"kind": "files", "name": "c", "root": str(folder),
                 "cases": [case_values("a"), case_values("b")]}
            ],
            "methods": methods,
            "count_macs": False,  # which does the first case twice
        }  # fmt: skip
        config = parse_config(values | changes, base=base or tmp_path)
        return do(config, tmp_path / out, base=base or tmp_path)

    return call


@pytest.fixture
def chest():
    return chest_labels


@pytest.fixture
def case():
    return case_values


@pytest.fixture
def trained():
    return write_trained


@pytest.fixture
def titles():
    return TITLES


@pytest.fixture
def grid():
    return GRID


@pytest.fixture
def cohort(folder):
    """Makes a cohort of two training cases and a test case, all of other images."""

    def make(name="c", **changes):
        cases = []
        for number, part in enumerate(("train", "train", "test")):
            stem = f"{name}{number}"
            if not (folder / f"{stem}.nii.gz").exists():  # its time tells one file from another
                write(folder, stem, chest_labels(3 + number + 3 * (name == "d")))
            cases.append(case_values(stem, part=part))
        values = {"kind": "files", "name": name, "root": str(folder), "cases": cases}
        return values | changes

    return make
