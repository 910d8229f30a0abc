from typing import Any

import numpy as np
import pytest

from napari_lungfm._core.exceptions import GeometryError, UsageError
from napari_lungfm.geometry import Volume, VolumeGeometry, reorient
from napari_lungfm.inference import segment_object, segment_objects
from napari_lungfm.models import create_model
from napari_lungfm.models.prompts import Box

GRID = VolumeGeometry((9, 20, 20), (3.0, 1.0, 1.0))
BOX = Box(4, 5, 5, 15, 15)


def _volume(geometry: VolumeGeometry = GRID) -> Volume:
    return Volume(np.zeros(geometry.shape, np.int16), geometry)


def test_the_mask_is_on_the_grid_of_the_volume(watched_model: Any) -> None:
    truth = np.random.default_rng(0).random(GRID.shape) > 0.5
    result = segment_object(watched_model(truth), _volume(), [BOX])
    assert result.geometry is not None
    assert result.array.dtype == np.uint8
    np.testing.assert_array_equal(result.array, 3 * truth)
    assert result.labels == {3: "tumour"}
    assert result.geometry.is_close(GRID)


def test_progress_never_falls_and_ends_at_the_whole(watched_model: Any) -> None:
    truth = np.zeros(GRID.shape, bool)
    truth[2:7, 5:15, 5:15] = True
    seen: list[tuple[int, int]] = []
    segment_objects(
        watched_model(truth), _volume(), {1: [BOX], 2: [BOX]}, progress=lambda *p: seen.append(p)
    )
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (18, 18)
    assert len(seen) == 2 * (5 + 1)


def test_finished_objects_are_not_overwritten() -> None:
    model = create_model("prompt-box")
    other = Box(4, 10, 10, 20, 20)
    result = segment_objects(model, _volume(), {7: [BOX], 3: [other]}, fill=False)
    assert (result.array == 7).sum() == 100
    assert (result.array == 3).sum() == 75
    assert (result.array[4, 5:15, 5:15] == 7).all()
    assert result.labels == {7: "object 7", 3: "tumour"}


@pytest.mark.parametrize("label", [0, 256, -1])
def test_labels_that_do_not_fit_are_refused(label: int) -> None:
    with pytest.raises(UsageError, match="between 1 and 255"):
        segment_object(create_model("prompt-box"), _volume(), [BOX], label=label)


def test_a_sagittal_volume_is_refused() -> None:
    sagittal = reorient(_volume(VolumeGeometry((20, 20, 20))), "LPS")
    with pytest.raises(GeometryError, match="write it with axial slices"):
        segment_object(create_model("prompt-box"), sagittal, [BOX])


@pytest.mark.parametrize("codes", ["IPL", "SLP", "ILP", "IRA"])
@pytest.mark.parametrize("name", ["prompt-ellipse", "classical"])
def test_the_place_in_the_patient_does_not_depend_on_the_storage(name: str, codes: str) -> None:
    z, y, x = np.ogrid[:9, :40, :40]
    ball = (3.0 * (z - 4)) ** 2 + (y - 18.0) ** 2 + (x - 20.0) ** 2 <= 81.0
    image = np.where(ball, 40, -850) + np.random.default_rng(0).normal(0, 20, ball.shape)
    volume = Volume(image.astype(np.int16), VolumeGeometry(ball.shape, (3.0, 1.0, 1.0)))
    straight = segment_object(create_model(name), volume, [Box.around(ball[4], 4)])
    turned = reorient(volume, codes)
    turned_ball = reorient(Volume(ball, volume.geometry), codes).array
    box = Box.around(turned_ball[4], 4)
    back = reorient(segment_object(create_model(name), turned, [box]), "SPL")
    differing = np.count_nonzero(back.array != straight.array)
    assert differing <= (0 if name == "prompt-ellipse" else 5)  # ties fall either way
