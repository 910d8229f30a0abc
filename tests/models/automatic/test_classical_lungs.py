import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm.datasets.phantoms import Imaging, PhantomSpec, TumourSpec, generate_phantom
from napari_lungfm.geometry import Structure, Volume, VolumeGeometry, match_geometry, reorient
from napari_lungfm.models.automatic.classical_lungs import ClassicalLungs
from napari_lungfm.models.automatic.protocol import AutomaticModel, SegmentationCancelledError


def _dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.fixture(scope="module")
def phantom():
    return generate_phantom(
        PhantomSpec(
            seed=5,
            shape=(40, 120, 120),
            spacing=(8.0, 3.0, 3.0),
            tumours=(TumourSpec(kind="solid-round", diameter_mm=25),),
            imaging=Imaging(noise_hu=15.0),
        )
    )


def test_it_is_an_automatic_model():
    model = ClassicalLungs()
    assert isinstance(model, AutomaticModel)
    assert dict(model.labels) == {1: "left lung", 2: "right lung"}


def test_left_and_right_lung_of_a_phantom(phantom):
    found = ClassicalLungs().segment(phantom.volume)
    assert found.geometry == phantom.volume.geometry
    for side in (Structure.LEFT_LUNG, Structure.RIGHT_LUNG):
        assert _dice(found.array == side, phantom.labels.array == side) > 0.96, side


def test_the_axes_of_the_file_do_not_matter(phantom):
    straight = ClassicalLungs().segment(phantom.volume)
    turned = ClassicalLungs().segment(reorient(phantom.volume, "RAI"))
    assert np.array_equal(reorient(turned, "SPL").array, straight.array)


def test_a_single_lung_is_named_by_its_side(phantom):
    array = phantom.volume.array.copy()
    array[..., array.shape[2] // 2 + 4 :][
        phantom.labels.array[..., array.shape[2] // 2 + 4 :] != 0
    ] = 40
    found = ClassicalLungs().segment(Volume(array, phantom.volume.geometry))
    assert Structure.RIGHT_LUNG in found.present()
    right = found.array == Structure.RIGHT_LUNG
    assert _dice(right, phantom.labels.array == Structure.RIGHT_LUNG) > 0.95


@pytest.mark.parametrize("hu", [-1000, 40])
def test_without_lungs_nothing_is_found(hu):
    geometry = VolumeGeometry((6, 40, 40), (5.0, 4.0, 4.0))
    found = ClassicalLungs().segment(Volume(np.full((6, 40, 40), hu, np.int16), geometry))
    assert found.present() == ()


def test_it_tells_and_can_be_stopped(phantom):
    told = []
    ClassicalLungs().segment(phantom.volume, progress=lambda done, total: told.append(done / total))
    assert told == sorted(told)
    assert told[-1] == 1.0
    with pytest.raises(SegmentationCancelledError):
        ClassicalLungs().segment(phantom.volume, cancelled=lambda: True)


@pytest.mark.real_data
def test_the_lungs_of_a_real_chest(real_data):
    volume = io.read_volume(real_data / "acil_thorax" / "ct-64.nrrd")
    truth = io.read_label_map(real_data / "acil_thorax" / "wholeLung-64.nrrd")
    found = ClassicalLungs().segment(volume)
    assert _dice(found.array != 0, match_geometry(truth, volume.geometry).array != 0) > 0.97
    left, right = (np.argwhere(found.array == side).mean(axis=0) for side in (1, 2))
    assert left[2] > right[2]  # columns run towards the patient's left
