from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry, axis_codes, reorient, to_axial

ALL_CODES = [
    "".join(letters) for axes in permutations(["LR", "PA", "SI"]) for letters in product(*axes)
]
SEED = st.integers(0, 2**32 - 1)
ONCE = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)


def volume_on(geometry):
    return Volume(
        np.arange(np.prod(geometry.shape), dtype=np.int32).reshape(geometry.shape), geometry
    )


def test_all_48_orientations_are_listed():
    assert len(set(ALL_CODES)) == 48


@given(SEED, st.sampled_from(ALL_CODES))
@ONCE
def test_no_voxel_changes_or_moves(random_geometry, seed, codes):
    image = volume_on(random_geometry(seed))
    result = reorient(image, codes)
    assert axis_codes(result.geometry) == codes
    assert np.shares_memory(result.array, image.array)
    index = np.argwhere(result.array >= 0)
    place = image.geometry.world_to_index(result.geometry.index_to_world(index))
    np.testing.assert_allclose(place, np.rint(place), atol=1e-5)
    values = image.array[tuple(np.rint(place).astype(int).T)]
    np.testing.assert_array_equal(result.array.ravel(), values)
    back = reorient(result, axis_codes(image.geometry))
    np.testing.assert_array_equal(back.array, image.array)
    assert back.geometry.is_close(image.geometry, 1e-6)


@given(SEED, st.sampled_from(ALL_CODES))
@ONCE
def test_agrees_with_simpleitk(random_geometry, to_sitk, seed, codes):
    """DICOMOrient names the axes x, y, z, so its codes are ours backwards."""
    image = volume_on(random_geometry(seed, oblique=False))
    expected = SimpleITK.DICOMOrient(to_sitk(image.geometry, image.array), codes[::-1])
    result = reorient(image, codes)
    np.testing.assert_array_equal(result.array, SimpleITK.GetArrayFromImage(expected))
    np.testing.assert_allclose(result.geometry.origin, expected.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(result.spacing[::-1], expected.GetSpacing(), atol=1e-9)
    np.testing.assert_allclose(
        np.ravel(result.geometry.direction), expected.GetDirection(), atol=1e-9
    )


@given(SEED)
@ONCE
def test_axis_codes_agree_with_simpleitk(random_geometry, seed):
    geometry = random_geometry(seed)
    codes = SimpleITK.DICOMOrientImageFilter().GetOrientationFromDirectionCosines(
        np.ravel(geometry.direction).tolist()
    )
    assert axis_codes(geometry) == codes[::-1]


def test_agrees_with_highdicom(random_geometry):
    highdicom = pytest.importorskip("highdicom")
    opposite = dict(zip("LRAPSI", "RLPAIS", strict=True))
    for seed in range(10):
        image = volume_on(random_geometry(seed))
        affine = image.geometry.affine
        theirs = highdicom.Volume(
            image.array, affine, coordinate_system=highdicom.CoordinateSystemNames.PATIENT
        )
        for codes in ("SPL", "LAS", "RIP"):
            expected = theirs.to_patient_orientation(codes.replace("S", "H").replace("I", "F"))
            result = reorient(image, codes)
            np.testing.assert_array_equal(result.array, expected.array)
            np.testing.assert_allclose(result.geometry.affine, expected.affine, atol=1e-9)
    assert set(opposite) == set("LRAPSI")


def test_to_axial_puts_the_head_up():
    sagittal = VolumeGeometry(
        (4, 5, 6), (1.0, 3.0, 0.8), (0, 0, 0), ((0, 0, 1), (1, 0, 0), (0, -1, 0))
    )
    assert axis_codes(sagittal) == "LIP"
    axial = to_axial(volume_on(sagittal))
    assert axis_codes(axial.geometry) == "SPL"
    assert axial.shape == (5, 6, 4)
    assert axial.spacing == pytest.approx((3.0, 0.8, 1.0))
    z = [axial.geometry.index_to_world((i, 0, 0))[2] for i in range(5)]
    assert (np.diff(z) > 0).all()


def test_a_label_map_keeps_its_names():
    label_map = LabelMap(np.zeros((2, 3, 4), np.uint8), VolumeGeometry((2, 3, 4)), {3: "tumour"})
    result = reorient(label_map, "ira")
    assert isinstance(result, LabelMap)
    assert result.labels == {3: "tumour"}
    assert axis_codes(result.geometry) == "IRA"


@pytest.mark.parametrize("codes", ["SP", "SPLL", "SPX", "SSL", "SIL", "", "zyx"])
def test_codes_that_make_no_sense_are_refused(codes):
    with pytest.raises(UsageError, match="each patient axis once"):
        reorient(volume_on(VolumeGeometry((2, 3, 4))), codes)
