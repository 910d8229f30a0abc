"""A model that can be watched, and real cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.models.prompts import Prompt
from napari_lungfm.models.protocols import Prior, SlicePrediction


@dataclass
class WatchedPredictor:
    """Answers with the true mask of a slice and keeps what it was asked."""

    truth: np.ndarray
    asked: list[tuple[int, tuple[Prompt, ...], Prior | None]] = field(default_factory=list)

    def predict_slice(
        self, z: int, prompts: Sequence[Prompt], prior: Prior | None = None
    ) -> SlicePrediction:
        self.asked.append((z, tuple(prompts), prior))
        return SlicePrediction(self.truth[z].copy(), score=0.5, memory=("slice", z))

    @property
    def order(self) -> list[int]:
        return [z for z, _, _ in self.asked]


@dataclass
class WatchedModel:
    """Opens volumes with one `WatchedPredictor`."""

    predictor: WatchedPredictor
    name: str = "watched"

    def open(self, volume: Volume) -> WatchedPredictor:
        return self.predictor


@pytest.fixture
def watched() -> Callable[[np.ndarray], WatchedPredictor]:
    return WatchedPredictor


@pytest.fixture
def watched_model() -> Callable[[np.ndarray], WatchedModel]:
    return lambda truth: WatchedModel(WatchedPredictor(truth))


def _read(path: Path) -> Volume:
    image = sitk.ReadImage(str(path))
    direction = np.reshape(image.GetDirection(), (3, 3)).tolist()
    geometry = VolumeGeometry(
        image.GetSize()[::-1], image.GetSpacing()[::-1], image.GetOrigin(), direction
    )
    return Volume(np.rint(sitk.GetArrayFromImage(image)).astype(np.int16), geometry)


@pytest.fixture(scope="session")
def real_case(real_data: Path) -> Callable[[str], tuple[Volume, np.ndarray]]:
    """Factory: a real CT and its reference mask."""
    files = {
        "ibsi": ("ibsi_lung/nifti/image/phantom.nii.gz", "ibsi_lung/nifti/mask/mask.nii.gz"),
        "000001": ("deeplesion/000001_ct.nii.gz", "deeplesion/000001_lesion.nii.gz"),
        "000009": ("deeplesion/000009_ct.nii.gz", "deeplesion/000009_lesion.nii.gz"),
    }

    def read(name: str) -> tuple[Volume, np.ndarray]:
        image, mask = files[name]
        return _read(real_data / image), _read(real_data / mask).array > 0

    return read
