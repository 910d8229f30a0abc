"""LungFM-S with the weights that ship, on scenes whose answer is known."""

import numpy as np
import pytest

from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference import segment_object
from napari_lungfm.metrics import count_overlap
from napari_lungfm.models.lungfm.model import LungFMModel
from napari_lungfm.models.lungfm.predictor import CLICK_WINDOWS_MM, LungFMPredictor
from napari_lungfm.models.lungfm.window import Window
from napari_lungfm.models.prompts import Box, Click, MaskPrompt
from napari_lungfm.models.protocols import Prior, SlicePredictor

SHAPE = (24, 96, 110)
SPACING = (2.0, 0.8, 0.8)
CENTRE = (12, 50, 60)
RADIUS_MM = 14.0


def ball(radius_mm: float = RADIUS_MM, centre=CENTRE) -> np.ndarray:
    grids = np.ogrid[tuple(slice(n) for n in SHAPE)]
    square = sum(((g - c) * s) ** 2 for g, c, s in zip(grids, centre, SPACING, strict=True))
    return np.asarray(square < radius_mm**2)


@pytest.fixture(scope="module")
def model() -> LungFMModel:
    return LungFMModel(device="cpu")


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    rng = np.random.default_rng(0)
    hu = np.where(ball(), 40.0, -820.0) + rng.normal(0, 20, SHAPE)
    return hu.astype(np.int16)


@pytest.fixture(scope="module")
def volume(scene) -> Volume:
    return Volume(scene, VolumeGeometry(SHAPE, SPACING))


@pytest.fixture(scope="module")
def predictor(model, volume) -> LungFMPredictor:
    return model.open(volume)


def dice(found: np.ndarray, wanted: np.ndarray) -> float:
    return count_overlap(found, wanted).dice


def tight_box(z: int = CENTRE[0]) -> Box:
    return Box.around(ball()[z], z)


def test_a_box_gives_the_object_on_its_slice(predictor) -> None:
    assert isinstance(predictor, SlicePredictor)
    found = predictor.predict_slice(CENTRE[0], [tight_box()])
    assert found.mask.dtype == bool
    assert found.mask.shape == SHAPE[1:]
    assert dice(found.mask, ball()[CENTRE[0]]) > 0.95
    assert 0.7 < found.score <= 1.0


def test_a_click_gives_the_object_on_its_slice(predictor) -> None:
    found = predictor.predict_slice(CENTRE[0], [Click(*CENTRE)])
    assert dice(found.mask, ball()[CENTRE[0]]) > 0.9


@pytest.mark.parametrize("pixel", [0.27, 0.7, 3.0])
def test_a_click_is_tried_in_the_same_windows_at_every_clinical_spacing(model, scene, pixel):
    predictor = model.open(Volume(scene, VolumeGeometry(SHAPE, (2.0, pixel, pixel))))
    assert predictor._click_sides() == [side / pixel for side in CLICK_WINDOWS_MM]


def test_a_click_on_micro_ct_is_tried_in_windows_that_shrink_with_the_voxels(model, scene):
    spacing = tuple(s / 80 for s in SPACING)
    predictor = model.open(Volume(scene, VolumeGeometry(SHAPE, spacing)))
    sides = predictor._click_sides()
    assert max(sides) == pytest.approx(1024)
    ratios = [side / CLICK_WINDOWS_MM[0] for side in CLICK_WINDOWS_MM]
    assert [side / sides[0] for side in sides] == pytest.approx(ratios)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        look = Window.look
        patch.setattr(Window, "look", lambda w, *a: seen.append(w.side) or look(w, *a))
        found = predictor.predict_slice(CENTRE[0], [Click(*CENTRE)])
    assert max(seen) <= 1024
    assert dice(found.mask, ball()[CENTRE[0]]) > 0.85
    large = model.open(
        Volume(np.zeros((1, 2000, 300), np.int16), VolumeGeometry((1, 2000, 300), spacing))
    )
    assert max(large._click_sides()) == pytest.approx(4000)


def test_one_box_gives_the_whole_object_and_its_ends(model, volume) -> None:
    found = segment_object(model, volume, [tight_box()]).array > 0
    assert dice(found, ball()) > 0.9
    slices, wanted = (np.flatnonzero(m.any(axis=(1, 2))) for m in (found, ball()))
    assert abs(slices[0] - wanted[0]) <= 1
    assert abs(slices[-1] - wanted[-1]) <= 1


def test_nothing_is_remembered_between_two_calls(predictor) -> None:
    first = predictor.predict_slice(CENTRE[0], [tight_box()])
    predictor.predict_slice(CENTRE[0] + 2, [Click(CENTRE[0] + 2, 10, 10)])
    again = predictor.predict_slice(CENTRE[0], [tight_box()])
    np.testing.assert_array_equal(first.logits, again.logits)


def test_a_slice_drawn_by_hand_is_what_the_hand_made_it(predictor) -> None:
    outline = ball()[CENTRE[0]].copy()
    outline[:50] = False
    found = predictor.predict_slice(CENTRE[0], [MaskPrompt(CENTRE[0], outline)])
    np.testing.assert_array_equal(found.mask, outline)


def test_clicks_win_over_the_network(predictor) -> None:
    z, y, x = CENTRE
    start = predictor.predict_slice(z, [tight_box()])
    prior = Prior(z, start.mask, start.memory)
    added = predictor.predict_slice(z, [tight_box(), Click(z, y, x - 22)], prior)
    assert added.mask[y, x - 22]
    removed = predictor.predict_slice(z, [tight_box(), Click(z, y, x + 10, False)], prior)
    assert not removed.mask[y, x + 10]


def test_a_negative_click_into_what_is_not_there_ends_a_walk(predictor) -> None:
    z, y, x = CENTRE
    start = predictor.predict_slice(z, [tight_box()])
    beyond = int(np.flatnonzero(ball().any(axis=(1, 2)))[-1]) + 2
    leak = np.zeros(SHAPE[1:], dtype=bool)
    leak[y - 5 : y + 5, x - 5 : x + 5] = True
    said = [Click(beyond, y, x, positive=False)]
    prior = Prior(beyond, leak, start.memory)
    assert not predictor.predict_slice(beyond, said, prior).mask.any()
    assert predictor.predict_slice(beyond, [*said, Click(beyond, y + 3, x)], prior).mask.any()
    carried = predictor.predict_slice(beyond, said, Prior(beyond - 1, leak, start.memory))
    assert not carried.mask.any()


def test_a_click_where_a_walk_found_nothing_is_told_how_large_the_object_is(predictor) -> None:
    z, y, x = CENTRE
    start = predictor.predict_slice(z, [tight_box()])
    here = z + 3
    found = predictor.predict_slice(here, [Click(here, y, x)], Prior(z, start.mask, start.memory))
    assert dice(found.mask, ball()[here]) > 0.93


def test_an_object_that_was_lost_stays_lost(predictor) -> None:
    empty = np.zeros(SHAPE[1:], dtype=bool)
    assert not predictor.predict_slice(3, [], Prior(4, empty)).mask.any()


def test_a_walk_ends_where_the_object_does(predictor) -> None:
    wanted = ball()
    last = int(np.flatnonzero(wanted.any(axis=(1, 2)))[-1])
    start = predictor.predict_slice(CENTRE[0], [tight_box()])
    prior = Prior(last, wanted[last], start.memory)
    beyond = predictor.predict_slice(last + 2, [], prior)
    assert not beyond.mask.any()


@pytest.mark.parametrize("z", [0, SHAPE[0] - 1])
def test_the_first_and_the_last_slice_can_be_prompted(model, z) -> None:
    hu = np.where(ball(RADIUS_MM, (z, 50, 60)), 40, -820).astype(np.int16)
    predictor = model.open(Volume(hu, VolumeGeometry(SHAPE, SPACING)))
    wanted = ball(RADIUS_MM, (z, 50, 60))[z]
    assert dice(predictor.predict_slice(z, [Box.around(wanted, z)]).mask, wanted) > 0.93


def test_an_object_at_the_border_of_the_image_is_found(model) -> None:
    wanted = ball(RADIUS_MM, (12, 5, 60))
    hu = np.where(wanted, 40, -820).astype(np.int16)
    predictor = model.open(Volume(hu, VolumeGeometry(SHAPE, SPACING)))
    found = predictor.predict_slice(12, [Box.around(wanted[12], 12)])
    assert dice(found.mask, wanted[12]) > 0.9


def test_mirrored_images_give_nearly_mirrored_masks(model, scene) -> None:
    mirrored = model.open(Volume(scene[:, :, ::-1], VolumeGeometry(SHAPE, SPACING)))
    wanted = ball()[CENTRE[0], :, ::-1]
    found = mirrored.predict_slice(CENTRE[0], [Box.around(wanted, CENTRE[0])])
    assert dice(found.mask, wanted) > 0.95


def test_two_boxes_on_a_slice_are_one_object(model) -> None:
    wanted = ball(8.0, (12, 30, 40)) | ball(8.0, (12, 30, 70))
    hu = np.where(wanted, 40, -820).astype(np.int16)
    predictor = model.open(Volume(hu, VolumeGeometry(SHAPE, SPACING)))
    boxes = [Box.around(ball(8.0, (12, 30, x))[12], 12) for x in (40, 70)]
    found = predictor.predict_slice(12, boxes)
    assert found.mask[30, 40]
    assert found.mask[30, 70]
