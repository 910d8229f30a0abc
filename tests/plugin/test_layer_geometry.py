import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_lungfm._core.exceptions import GeometryError
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry, reorient
from napari_lungfm.plugin.layer_geometry import (
    LUNG_LIMITS,
    METADATA_KEY,
    LayerInfo,
    image_layer,
    info_of_layer,
    info_of_options,
    labels_layer,
    placement,
)

GEOMETRY = VolumeGeometry((4, 5, 6), (3.0, 0.8, 0.7), (-10.0, 20.0, -300.0))
numbers = st.floats(-500, 500)


@given(st.integers(0, 2**32 - 1), st.tuples(numbers, numbers, numbers))
def test_what_a_layer_knows_survives_its_metadata(seed, origin):
    direction = Rotation.random(random_state=seed).as_matrix().tolist()
    info = LayerInfo(
        VolumeGeometry((4, 5, 6), (3.0, 0.8, 0.7), origin, direction),
        source="/data/ct",
        series_uid="1.2.3",
        frame_of_reference="1.2.4",
        labels={3: "tumour"},
        session="a.session",
        notes=("something",),
    )
    again = LayerInfo.from_metadata(info.to_metadata())
    assert again.geometry.is_close(info.geometry, 1e-9)
    assert again.to_metadata() == info.to_metadata()
    json.dumps(info.to_metadata())  # plain values


def test_an_axial_grid_is_shown_at_its_place():
    place = placement(GEOMETRY)
    assert place["scale"] == (3.0, 0.8, 0.7)
    assert place["translate"] == (-300.0, 20.0, -10.0)
    assert place["units"] == ("mm", "mm", "mm")
    assert place["axis_labels"] == ("z", "y", "x")


@pytest.mark.parametrize("codes", ["SPL", "SAL", "SPR", "SAR"])
def test_flipped_rows_and_columns_lie_on_the_unflipped_image(codes):
    volume = Volume(np.arange(120).reshape(4, 5, 6), GEOMETRY)
    turned = reorient(volume, codes)
    upright, flipped = placement(GEOMETRY), placement(turned.geometry)
    for index in np.argwhere(turned.array >= 0):
        here = np.argwhere(volume.array == turned.array[tuple(index)])[0]
        assert np.array(flipped["scale"]) * index + flipped["translate"] == pytest.approx(
            np.array(upright["scale"]) * here + upright["translate"]
        )


@pytest.mark.parametrize(
    ("codes", "signs"),
    [("ASL", (1, -1, 1)), ("LSP", (1, -1, 1)), ("PIL", (1, 1, 1)), ("IPL", (1, 1, 1))],
)
def test_the_patient_stands_upright_and_slices_keep_their_order(codes, signs):
    """Coronal from the feet up, sagittal, coronal from the head down, axial from the head down."""
    turned = reorient(Volume(np.zeros((4, 5, 6)), GEOMETRY), codes)
    assert tuple(np.sign(placement(turned.geometry)["scale"])) == signs


def test_an_oblique_grid_keeps_distances():
    direction = Rotation.from_euler("xyz", [0.2, 0.1, 0.3]).as_matrix().tolist()
    oblique = VolumeGeometry((4, 5, 6), (3.0, 0.8, 0.7), (-10.0, 20.0, -300.0), direction)
    place = placement(oblique)
    indices = np.array([[0, 0, 0], [3, 4, 5], [1, 2, 0]])
    shown = indices * place["scale"] + place["translate"]
    true = oblique.index_to_world(indices)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(shown[i] - shown[j]) == pytest.approx(
            np.linalg.norm(true[i] - true[j])
        )


def test_a_ct_keeps_its_voxels_and_gets_the_lung_window():
    array = np.full(GEOMETRY.shape, -1000, np.int16)
    data, options, kind = image_layer(Volume(array, GEOMETRY, {"modality": "CT"}), "ct")
    assert data is array
    assert (kind, options["contrast_limits"]) == ("image", LUNG_LIMITS)
    assert "contrast_limits" not in image_layer(Volume(array + 1000, GEOMETRY), "mr")[1]
    assert "contrast_limits" not in image_layer(Volume(array, GEOMETRY, {"modality": "PT"}), "")[1]


def test_labels_know_the_image_that_they_belong_to():
    image = LayerInfo(GEOMETRY, "/data/ct", "1.2.3", "1.2.4", notes=("of the image",))
    mask = LabelMap.from_mask(np.ones(GEOMETRY.shape), GEOMETRY, label=3)
    _, options, kind = labels_layer(mask, "tumour", belongs_to=image)
    facts = options["metadata"][METADATA_KEY]
    assert kind == "labels"
    assert (facts["source"], facts["series_uid"]) == ("/data/ct", "1.2.3")
    assert (facts["labels"], facts["notes"]) == ({3: "tumour"}, [])


def layer(shape=(4, 5, 6), **options):
    given = {"name": "x", "metadata": {}, "scale": (1, 1, 1), "translate": (0, 0, 0)}
    return SimpleNamespace(**{**given, "units": ("pixel",) * 3, **options}, data=np.zeros(shape))


def test_layers_of_other_plugins_are_placed_by_scale_and_units():
    info = info_of_layer(
        layer(scale=(3, -0.8, 0.7), translate=(5, 6, 7), units=("millimeter",) * 3)
    )
    assert info.geometry.spacing == (3, 0.8, 0.7)
    assert info.geometry.origin == (7, 6, 5)
    assert np.diag(info.geometry.direction).tolist() == [1, -1, 1]
    assert info_of_layer(layer(scale=(0.3, 0.1, 0.1), units=("centimeter",) * 3)).geometry.spacing[
        0
    ] == pytest.approx(3)
    unitless = info_of_layer(layer(scale=(3, 0.7, 0.7)))
    assert unitless.geometry.spacing == (3, 0.7, 0.7)
    assert "3 × 0.7 × 0.7" in unitless.notes[0]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (layer(), "no spacing"),
        (layer(scale=(2, 2, 2), units=("second",) * 3), "no spacing"),
        (layer((5, 6)), "2 dimensions"),
        (layer((4, 5, 6, 3), rgb=True), "RGB"),
        (layer(multiscale=True), "multiscale"),
        (layer((3, 5, 6), metadata=LayerInfo(GEOMETRY).to_metadata()), "open it again"),
    ],
)
def test_layers_that_are_no_volume_are_refused_in_one_line(bad, says):
    with pytest.raises(GeometryError, match=says) as caught:
        info_of_layer(bad)
    assert "\n" not in str(caught.value)


def test_the_options_that_a_writer_gets_are_enough():
    _, options, _ = image_layer(Volume(np.zeros(GEOMETRY.shape), GEOMETRY), "ct")
    assert info_of_options(GEOMETRY.shape, options).geometry.is_close(GEOMETRY)


def test_a_real_layer_is_understood():
    layers = pytest.importorskip("napari.layers")
    info = info_of_layer(layers.Image(np.zeros((4, 5, 6)), scale=(3, 1, 1), units="mm"))
    assert (info.geometry.spacing, info.notes) == ((3, 1, 1), ())
    for unit, share in (("um", 1e3), ("cm", 0.1), ("m", 1e-3), ("inch", 1 / 25.4), ("nm", 1e6)):
        other = layers.Image(np.zeros((4, 5, 6)), scale=np.array([3, 1, 1]) * share, units=unit)
        found = info_of_layer(other)
        assert found.geometry.spacing == pytest.approx((3, 1, 1))
        assert found.notes == ()
    _, options, _ = image_layer(Volume(np.zeros(GEOMETRY.shape), GEOMETRY), "ct")
    shown = layers.Image(np.zeros(GEOMETRY.shape), **options)
    assert info_of_layer(shown).geometry.is_close(GEOMETRY)
    with pytest.raises(GeometryError, match="no spacing"):
        info_of_layer(layers.Image(np.zeros((4, 5, 6))))
