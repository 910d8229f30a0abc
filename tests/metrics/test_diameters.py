import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from napari_lungfm._core.exceptions import GeometryError
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry
from napari_lungfm.metrics import axial_diameters, mean_hu, volume_ml
from napari_lungfm.metrics.diameters import (
    diameter_ends_mm,
    measure_object,
    measure_objects,
    measures_csv,
    slice_diameters,
)

GEOMETRY = VolumeGeometry((8, 40, 50), (3.0, 0.8, 0.5), (-10.0, 20.0, -300.0))


@pytest.fixture
def case():
    """A block of 10 x 16 voxels on two slices, a smaller one on a third, and a single voxel."""
    array = np.zeros(GEOMETRY.shape, np.uint8)
    array[2:4, 5:15, 20:36] = 3
    array[4, 8:11, 22:26] = 3
    array[6, 30, 40] = 5
    voxels = np.arange(array.size).reshape(array.shape) % 977 - 900
    labels = LabelMap(array, GEOMETRY, {3: "tumour, left", 5: "node"})
    return labels, Volume(voxels.astype(np.int16), GEOMETRY)


def test_all_measures_of_an_object(case):
    labels, volume = case
    found = measure_object(labels, volume, 3)
    mask = labels.mask(3)
    assert (found.label, found.name) == (3, "tumour, left")
    assert (found.first_slice, found.last_slice) == (2, 4)
    assert found.volume_ml == pytest.approx(volume_ml(mask, GEOMETRY.spacing))
    assert found.mean_hu == pytest.approx(mean_hu(volume.array, mask))
    whole = axial_diameters(mask, GEOMETRY.spacing)
    assert found.diameters.z == whole.z == 2
    assert found.diameters.long_mm == pytest.approx(whole.long_mm)
    assert np.array(found.diameters.long_ends) == pytest.approx(np.array(whole.long_ends))
    assert np.array(found.diameters.short_ends) == pytest.approx(np.array(whole.short_ends))
    # Outlines run halfway between voxels: from one corner voxel's edge to that of the other.
    assert found.diameters.long_mm == pytest.approx(np.hypot(9 * 0.8, 16 * 0.5), abs=0.5)
    assert found.who_product_mm2 == pytest.approx(whole.long_mm * whole.short_mm)


@pytest.mark.parametrize("angles", [(0, 0, 0), (0.3, -0.2, 0.5)])
def test_ends_in_the_patient_are_as_far_apart_as_measured(case, angles):
    labels, volume = case
    direction = Rotation.from_euler("xyz", angles).as_matrix().tolist()
    turned = VolumeGeometry(GEOMETRY.shape, GEOMETRY.spacing, (1.0, 2.0, 3.0), direction)
    found = measure_object(
        LabelMap(labels.array, turned, labels.labels), Volume(volume.array, turned), 3
    )
    (a, b), (c, d) = np.array(found.long_ends_mm), np.array(found.short_ends_mm)
    assert np.linalg.norm(a - b) == pytest.approx(found.diameters.long_mm)
    assert np.linalg.norm(c - d) == pytest.approx(found.diameters.short_mm)
    assert (a - b) @ (c - d) == pytest.approx(0, abs=1e-9)
    assert turned.world_to_index(a) == pytest.approx([2, *found.diameters.long_ends[0]])


@given(
    hnp.arrays(bool, (3, 6, 7)).filter(np.any),
    st.tuples(*[st.sampled_from([0.5, 0.7, 2.5])] * 3),
)
@settings(max_examples=50, deadline=None)
def test_the_longest_slice_diameter_is_that_of_the_object(mask, spacing):
    slices = [slice_diameters(mask, z, spacing) for z in range(3)]
    whole = axial_diameters(mask, spacing)
    longest = max((d for d in slices if d is not None), key=lambda d: d.long_mm)
    assert longest.long_mm == pytest.approx(whole.long_mm)
    assert np.array(slices[whole.z].long_ends) == pytest.approx(np.array(whole.long_ends))
    for z, found in enumerate(slices):
        assert (found is None) == (not mask[z].any())
        assert found is None or found.z == z


def test_the_slice_must_exist(case):
    labels, _ = case
    for z in (-1, 8):
        with pytest.raises(GeometryError, match=f"no slice {z}"):
            slice_diameters(labels.mask(3), z, GEOMETRY.spacing)


def test_ends_on_a_chosen_slice(case):
    labels, _ = case
    found = slice_diameters(labels.mask(3), 4, GEOMETRY.spacing)
    (first, last), _ = diameter_ends_mm(found, GEOMETRY)
    assert first[2] == last[2] == pytest.approx(-300 + 4 * 3)
    assert found.long_mm == pytest.approx(np.linalg.norm(np.subtract(first, last)))


def test_all_objects_and_their_table(case):
    labels, volume = case
    measures = measure_objects(labels, volume)
    assert [each.label for each in measures] == [3, 5]
    rows = list(csv.DictReader(io.StringIO(measures_csv(measures))))
    assert [row["name"] for row in rows] == ["tumour, left", "node"]
    tumour, node = rows
    assert float(tumour["long_mm"]) == pytest.approx(measures[0].diameters.long_mm, abs=0.005)
    assert float(tumour["volume_ml"]) == pytest.approx(measures[0].volume_ml, abs=5e-5)
    ends = [float(tumour[f"long_end2_{axis}_mm"]) for axis in "xyz"]
    assert ends == pytest.approx(measures[0].long_ends_mm[1], abs=5e-4)
    assert (node["first_slice"], node["last_slice"], node["diameter_slice"]) == ("6", "6", "6")
    assert (node["long_mm"], node["short_mm"]) == ("0.80", "0.50")
    assert float(node["mean_hu"]) == volume.array[6, 30, 40]


def test_nothing_to_measure(case):
    labels, volume = case
    assert measure_object(labels, volume, 9) is None
    empty = LabelMap(np.zeros_like(labels.array), GEOMETRY)
    assert measure_objects(empty, volume) == []
    assert len(measures_csv([]).splitlines()) == 1


def test_labels_of_another_grid_are_refused(case):
    labels, volume = case
    other = VolumeGeometry(GEOMETRY.shape, GEOMETRY.spacing, (0.0, 0.0, 0.0))
    with pytest.raises(GeometryError, match="one grid"):
        measure_object(labels, Volume(volume.array, other), 3)
