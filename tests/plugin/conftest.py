"""A small DICOM case: CT, contours, segments."""

from pathlib import Path

import numpy as np
import pytest

from napari_lungfm._core.seeding import generator
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry
from napari_lungfm.io import write_rtstruct, write_seg, write_series


@pytest.fixture(scope="session")
def geometry() -> VolumeGeometry:
    return VolumeGeometry((6, 17, 20), (2.5, 0.8, 0.7), (-101.25, 33.5, -700.75))


@pytest.fixture(scope="session")
def volume(geometry: VolumeGeometry) -> Volume:
    array = generator("plugin", "volume").integers(-1000, 1200, geometry.shape).astype(np.int16)
    return Volume(array, geometry)


@pytest.fixture(scope="session")
def label_map(geometry: VolumeGeometry) -> LabelMap:
    array = np.zeros(geometry.shape, np.uint8)
    array[1:4, 3:9, 4:10] = 1
    array[2:5, 10:14, 12:18] = 3
    return LabelMap(array, geometry, {1: "left lung", 3: "GTV-1"})


@pytest.fixture
def study(volume: Volume, label_map: LabelMap, tmp_path: Path) -> Path:
    """A folder with a CT of 6 slices, a smaller one, an RTSTRUCT and a SEG."""
    folder = tmp_path / "study"
    write_series(volume, folder / "ct", patient_id="P1", description="thin")
    small = volume.crop((slice(0, 3), slice(None), slice(None)))
    write_series(small, folder / "scout", patient_id="P1", description="thick")
    write_rtstruct(label_map, folder / "ct", folder / "rt" / "contours.dcm")
    write_seg(label_map, folder / "ct", folder / "seg" / "segments.dcm")
    return folder


@pytest.fixture
def ct_only(volume: Volume, tmp_path: Path) -> Path:
    """A folder with the CT alone."""
    write_series(volume, tmp_path / "alone" / "ct", patient_id="P1", description="thin")
    return tmp_path / "alone" / "ct"
