import numpy as np
import pytest

from napari_lungfm.geometry import Structure
from napari_lungfm.gui.annotation.tools import Tool
from napari_lungfm.metrics import count_overlap, count_overlap_per_slice, surface_scores

TUMOUR = int(Structure.TUMOUR)


@pytest.fixture
def scored(bench, viewer, truth):
    bench.place.quality.set_reference(viewer.layers["reference"])
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    return bench


def assert_counts_are_right(bench, truth):
    live = bench.place.quality.live
    mask = bench.labels == TUMOUR
    assert live.counts == count_overlap(mask, truth)
    wanted = count_overlap_per_slice(mask, truth)
    np.testing.assert_array_equal(live.per_slice.tp, wanted.tp)
    np.testing.assert_array_equal(live.per_slice.fp, wanted.fp)


def test_live_dice_is_the_recomputed_one_after_anything(scored, truth):
    bench, rng = scored, np.random.default_rng(5)
    assert_counts_are_right(bench, truth)
    for step in range(24):
        z, y, x = int(rng.integers(3, 16)), int(rng.integers(0, 48)), int(rng.integers(0, 48))
        action = rng.integers(0, 6)
        if action == 0:
            bench.controller.propagate()
        elif action == 1:
            bench.controller.undo()
        elif action == 2:
            bench.controller.redo()
        elif action == 3:
            bench.box(z, max(y - 6, 0), max(x - 6, 0), y + 4, x + 4)
        else:
            bench.controller.go_to(z)
            bench.layers.masks.brush_size = int(rng.integers(1, 12))
            bench.layers.masks.paint((z, y, x), TUMOUR if action == 4 else 0)
        bench.settle()
        assert_counts_are_right(bench, truth), f"after step {step}"
        assert bench.same_as_session()


def test_history_has_an_entry_per_interaction(scored, truth):
    bench = scored
    bench.controller.propagate()
    bench.settle()
    history = bench.place.quality.live.history
    assert [entry.n_prompts for entry in history] == [1]  # the counters came with the first box
    assert history[-1].dice == pytest.approx(
        count_overlap(bench.labels == TUMOUR, truth).dice, abs=1e-12
    )
    assert history[-1].seconds > 0


def test_worst_slice_and_next_error_go_there(scored, truth):
    bench = scored
    bench.controller.propagate()
    bench.settle()
    wrong = ((bench.labels == TUMOUR) ^ truth).sum(axis=(1, 2))
    bench.place.quality.go_to_worst()
    assert bench.controller.annotation.view.z == int(wrong.argmax())
    bench.place.quality.go_to_next()
    assert wrong[bench.controller.annotation.view.z] > 0
    assert bench.controller.annotation.view.z != int(wrong.argmax())


def test_without_a_reference_there_are_areas_and_a_hint(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    live = bench.place.quality.live
    assert not live.has_reference
    assert live.areas[9] == np.count_nonzero(bench.labels[9])
    bench.place.quality.go_to_worst()
    assert "reference" in bench.notices[-1].text


def test_surfaces_are_measured_in_the_background_and_get_out_of_date(scored, truth, volume):
    bench = scored
    bench.controller.propagate()
    bench.settle()
    assert bench.place.quality.surface is None
    bench.place.quality.measure_surfaces()
    bench.settle()
    wanted = surface_scores(bench.labels == TUMOUR, truth, volume.spacing)
    assert bench.place.quality.surface.hd95_mm == pytest.approx(wanted.hd95_mm)
    bench.controller.undo()
    bench.settle()
    assert bench.place.quality.surface is None


def test_a_reference_of_another_grid_is_refused_and_work_goes_on(bench, viewer, truth):
    other = viewer.add_labels(
        np.zeros((20, 48, 48), np.uint8), name="other", scale=(2.0, 1.1, 1.1), units="mm"
    )
    bench.controller.use(Tool.BOX)
    bench.place.quality.set_reference(other)
    bench.settle()
    assert any("does not fit the image" in notice.text for notice in bench.notices)
    bench.box_around(truth, 9)
    assert bench.labels[9].any()
    assert not bench.place.quality.has_reference


def test_a_reference_with_one_other_label_is_compared_with_it(bench, viewer, truth):
    layer = viewer.add_labels(
        truth.astype(np.uint8) * 8,
        name="gtv",
        scale=viewer.layers["ct"].scale,
        translate=viewer.layers["ct"].translate,
        units="mm",
    )
    bench.place.quality.set_reference(layer)
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    assert bench.place.quality.has_reference
    assert_counts_are_right(bench, truth)


def test_an_edited_reference_is_counted_anew(scored, viewer, truth):
    bench, layer = scored, viewer.layers["reference"]
    layer.brush_size = 9
    layer.paint((9, 24, 24), 0)
    bench.settle()
    edited = layer.data == TUMOUR
    assert (edited != truth).any()
    assert_counts_are_right(bench, edited)
    layer.data = truth.astype(np.uint8) * TUMOUR
    bench.settle()
    assert_counts_are_right(bench, truth)
    bench.place.quality.set_reference(None)
    layer.paint((9, 24, 24), 0)
    bench.settle()
    assert not bench.place.quality.has_reference


def test_a_lone_reference_counts_for_one_object_only(bench, viewer, truth):
    quality, place = bench.place.quality, viewer.layers["ct"]
    layer = viewer.add_labels(
        truth.astype(np.uint8), name="GTV-1", scale=place.scale, translate=place.translate
    )
    layer.units = "mm"
    quality.set_reference(layer)
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    assert_counts_are_right(bench, truth)
    bench.controller.add_object()
    bench.settle()
    second = bench.controller.active
    bench.box(4, 2, 2, 9, 9)
    assert bench.controller.objects[second].name == "object 2"
    assert not quality.has_reference
    assert quality.reference_chosen
    quality.go_to_worst()
    assert "has no 'object 2'" in bench.notices[-1].text
    bench.controller.choose(TUMOUR)
    bench.settle()
    assert_counts_are_right(bench, truth)
    bench.controller.delete(TUMOUR)  # nobody else has a claim to it now
    bench.settle()
    assert bench.controller.active == second
    assert quality.has_reference


def test_a_renamed_object_is_compared_with_what_has_its_name(scored, truth):
    bench, quality = scored, scored.place.quality
    bench.controller.rename(TUMOUR, "left lung")
    bench.settle()
    assert quality.reference_label(TUMOUR) is None
    assert not quality.has_reference
    names = list(bench.place.comparing.structures().values())
    assert names.count("left lung") == 1
    bench.controller.rename(TUMOUR, "tumour")
    bench.settle()
    assert_counts_are_right(bench, truth)


def test_a_refused_reference_is_told_of_and_let_go(bench, viewer, truth):
    other, refused = viewer.add_labels(np.zeros((20, 48, 48), np.uint8), name="other"), []
    quality = bench.place.quality
    quality.refused.connect(refused.append)
    bench.controller.use(Tool.BOX)
    quality.set_reference(other)
    bench.settle()
    assert refused == [other]
    quality.set_reference(viewer.layers["reference"])
    bench.box_around(truth, 9)
    assert_counts_are_right(bench, truth)
