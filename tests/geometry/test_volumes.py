import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_lungfm._core.exceptions import DataError, GeometryError, UsageError
from napari_lungfm.geometry import (
    LUNG_LABELS,
    LabelMap,
    Structure,
    Volume,
    VolumeGeometry,
    bounding_region,
)

GRID = VolumeGeometry((3, 4, 5), (3.0, 0.9, 0.8), (1.0, 2.0, 3.0))


def test_label_values_and_titles_are_fixed():
    assert dict(LUNG_LABELS) == {1: "left lung", 2: "right lung", 3: "tumour"}
    for structure in Structure:
        assert Structure.from_title(structure.title) is structure
        assert Structure.from_title(structure.name) is structure


@pytest.mark.parametrize("title", ["tumor", "Tumour", " TUMOR ", "left-lung", "Left_Lung"])
def test_titles_are_read_generously(title):
    expected = Structure.TUMOUR if "tum" in title.lower() else Structure.LEFT_LUNG
    assert Structure.from_title(title) is expected


@pytest.mark.parametrize("title", ["", "lung", "heart", "tumours"])
def test_unknown_titles_are_refused_with_the_choices(title):
    with pytest.raises(UsageError, match="'left lung', 'right lung', 'tumour'"):
        Structure.from_title(title)


def test_a_volume_knows_its_grid_and_is_cropped_with_it():
    array = np.arange(60, dtype=np.int16).reshape(GRID.shape)
    volume = Volume(array, GRID, {"series": "1.2.3"})
    assert (volume.shape, volume.spacing) == (GRID.shape, GRID.spacing)
    part = volume.crop((slice(1, 3), slice(2, 4), slice(0, 5)))
    np.testing.assert_array_equal(part.array, array[1:3, 2:4])
    assert np.shares_memory(part.array, array)
    assert part.geometry.origin == pytest.approx((1.0, 2.0 + 1.8, 3.0 + 3.0))
    assert part.metadata == {"series": "1.2.3"}


@pytest.mark.parametrize("kind", [Volume, LabelMap])
def test_another_shape_than_the_grid_s_is_refused(kind):
    with pytest.raises(GeometryError, match=r"\(4, 3, 5\), its grid \(3, 4, 5\)"):
        kind(np.zeros((4, 3, 5), np.uint8), GRID)


@pytest.mark.parametrize("dtype", [float, bool, "complex64"])
def test_labels_must_be_integers(dtype):
    with pytest.raises(DataError, match="must be integers"):
        LabelMap(np.zeros(GRID.shape, dtype), GRID)


def test_masks_by_value_and_by_name():
    array = np.zeros(GRID.shape, np.int16)
    array[1, 2, 3] = 3
    array[0, 0, 0] = 7
    label_map = LabelMap(array, GRID, {3: "tumour", 1: "left lung"})
    for label in (3, "tumour", Structure.TUMOUR):
        mask = label_map.mask(label)
        assert mask.dtype == np.bool_
        assert np.argwhere(mask).tolist() == [[1, 2, 3]]
    assert not label_map.mask("left lung").any()
    assert label_map.present() == (3, 7)
    with pytest.raises(UsageError, match=r"no label 'heart'.*'tumour', 'left lung'"):
        label_map.mask("heart")
    with pytest.raises(UsageError, match="named are: none"):
        LabelMap(array, GRID).value_of("tumour")


def test_from_mask():
    mask = np.zeros(GRID.shape)
    mask[1, 1, 1] = 0.3
    tumour = LabelMap.from_mask(mask, GRID)
    assert (tumour.array.dtype, tumour.array.max(), tumour.labels) == (np.uint8, 3, {3: "tumour"})
    assert LabelMap.from_mask(mask, GRID, label=1).labels == {1: "left lung"}
    assert LabelMap.from_mask(mask, GRID, label=9).labels == {9: "label 9"}
    assert LabelMap.from_mask(mask, GRID, label=9, name="node").labels == {9: "node"}
    part = tumour.crop((slice(1, 2), slice(1, 3), slice(0, 2)))
    assert part.mask("tumour").sum() == 1
    assert part.labels == tumour.labels


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)), st.integers(0, 3))
def test_bounding_region_agrees_with_argwhere(mask, margin):
    region = bounding_region(mask, margin)
    inside = np.argwhere(mask)
    if not len(inside):
        assert region is None
        return
    low = np.maximum(inside.min(axis=0) - margin, 0)
    high = np.minimum(inside.max(axis=0) + 1 + margin, mask.shape)
    assert region == tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
