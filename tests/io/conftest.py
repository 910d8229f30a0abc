"""Small synthetic scans and series for the tests of the io layer."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from napari_lungfm._core.seeding import generator
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.io import write_series


@pytest.fixture(autouse=True)
def _quiet_pydicom() -> Iterator[None]:
    """pydicom warns about the broken files that the tests make on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="pydicom.*")
        yield


@pytest.fixture(scope="session")
def geometry() -> VolumeGeometry:
    """A small grid whose sizes, spacings and origin all differ."""
    return VolumeGeometry((6, 17, 20), (2.5, 0.8, 0.7), (-101.25, 33.5, -700.75))


@pytest.fixture(scope="session")
def volume(geometry: VolumeGeometry) -> Volume:
    """HU noise, every slice different."""
    array = generator("io", "volume").integers(-1000, 1200, geometry.shape).astype(np.int16)
    return Volume(array, geometry)


@pytest.fixture
def series(volume: Volume, tmp_path: Path) -> Path:
    """Folder with the volume as a DICOM series."""
    write_series(volume, tmp_path / "ct", patient_id="P1", description="thin")
    return tmp_path / "ct"


@pytest.fixture
def edit() -> Callable[[Path, Callable[[int, Any], None]], None]:
    """Change every data set of a folder in place: ``edit(folder, change(index, dataset))``."""

    def apply(folder: Path, change: Callable[[int, Any], None]) -> None:
        for index, path in enumerate(sorted(folder.glob("*.dcm"))):
            dataset = pydicom.dcmread(path)
            change(index, dataset)
            dataset.save_as(path)

    return apply
