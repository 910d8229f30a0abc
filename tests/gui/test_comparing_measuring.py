import csv
import io

import numpy as np
import pytest

from napari_lungfm.geometry import LabelMap, Structure
from napari_lungfm.gui.annotation.comparing import ANNOTATION, Computable, computable
from napari_lungfm.gui.annotation.tools import Tool
from napari_lungfm.metrics import count_overlap, volume_ml
from napari_lungfm.plugin.layer_geometry import labels_layer

TUMOUR = int(Structure.TUMOUR)


def add_mask(viewer, volume, mask, name):
    labels = LabelMap(mask.astype(np.uint8) * np.uint8(TUMOUR), volume.geometry, {3: "tumour"})
    data, options, _ = labels_layer(labels, name)
    return viewer.add_labels(data, **options)


@pytest.fixture
def masks(bench, viewer, volume, truth):
    larger = truth | np.roll(truth, 2, axis=2)
    smaller = truth & np.roll(truth, 3, axis=1)
    add_mask(viewer, volume, larger, "larger")
    add_mask(viewer, volume, smaller, "smaller")
    return bench, {"larger": larger, "smaller": smaller}


def test_masks_are_scored_against_the_reference_the_best_first(masks, viewer, truth, volume):
    bench, made = masks
    tables = []
    bench.place.comparing.compared.connect(lambda pairs, rows: tables.append((pairs, rows)))
    bench.place.comparing.reference = viewer.layers["reference"]
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.place.comparing.compare(TUMOUR)
    bench.settle()
    ((pairs, rows),) = tables
    assert not pairs
    assert {row.name for row in rows} == {ANNOTATION, "larger", "smaller"}
    assert [row.dice for row in rows] == sorted((row.dice for row in rows), reverse=True)
    for row in rows:
        if row.name in made:
            assert row.dice == count_overlap(made[row.name], truth).dice
            assert row.volume_ml == pytest.approx(volume_ml(made[row.name], volume.spacing))


def test_without_a_reference_masks_are_compared_in_pairs(masks, viewer):
    bench, made = masks
    viewer.layers.remove("reference")
    tables = []
    bench.place.comparing.compared.connect(lambda pairs, rows: tables.append((pairs, rows)))
    bench.place.comparing.compare(TUMOUR)
    bench.settle()
    ((pairs, rows),) = tables
    assert pairs
    (row,) = rows
    assert row.name == "larger / smaller"
    assert row.dice == count_overlap(made["larger"], made["smaller"]).dice


def test_consensus_and_disagreement_become_layers_under_the_masks(masks, viewer):
    bench, made = masks
    bench.place.comparing.reference = viewer.layers["reference"]
    bench.place.comparing.consensus(TUMOUR, "majority")
    bench.place.comparing.disagreement(TUMOUR)
    bench.settle()
    found = viewer.layers["majority"].data == TUMOUR
    np.testing.assert_array_equal(found, made["larger"] & made["smaller"])
    wrong = viewer.layers["disagreement"].data
    assert wrong.any()
    assert not wrong[made["larger"] & made["smaller"]].any()
    names = [layer.name for layer in viewer.layers]
    assert names.index("disagreement") < names.index("masks")


def test_an_automatic_model_adds_a_layer(bench, viewer):
    bench.place.comparing.run_automatic("lungs-classical")
    bench.settle(timeout=60)
    assert not bench.place.comparing.running
    added = "lungs-classical" in viewer.layers
    assert added or bench.notices[-1].level == "error"


def test_another_promptable_model_is_given_the_same_prompts(bench, viewer, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.propagate()
    bench.settle()
    before, log = bench.labels.copy(), len(bench.controller.session.entries)
    seen = []
    bench.place.comparing.progressed.connect(seen.append)
    bench.place.comparing.run(Computable("prompt-box", prompted=True))
    assert bench.place.comparing.running
    bench.settle()
    layer = viewer.layers["prompt-box (prompted)"]
    found = layer.data == TUMOUR
    assert found[9].sum() > (before[9] == TUMOUR).sum()  # a box is more than its ellipse
    assert found.any(axis=(1, 2)).sum() > 1
    assert seen[0] == 0.0
    assert seen[-1] is None
    assert layer.metadata["lungfm"]["labels"] == {TUMOUR: "tumour"}
    np.testing.assert_array_equal(bench.labels, before)
    assert len(bench.controller.session.entries) == log


def test_a_model_at_work_is_cancelled_and_leaves_no_layer(gated, viewer, truth, monkeypatch):
    bench, model = gated
    monkeypatch.setattr(
        "napari_lungfm.gui.annotation.repeating.create_model", lambda *_, **__: model
    )
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    model.gate.release()
    bench.controller.propagate("up", 10)
    bench.settle()
    layers = list(viewer.layers)
    bench.place.comparing.run(Computable("gated", prompted=True))
    bench.place.comparing.cancel()
    for _ in range(60):
        model.gate.release()
    bench.settle()
    assert not bench.place.comparing.running
    assert list(viewer.layers) == layers
    assert "cancelled" in bench.notices[-1].text
    assert bench.notices[-1].level == "warning"


def test_models_without_prompts_to_repeat_and_what_can_be_computed(bench):
    bench.place.comparing.run(Computable("prompt-box", prompted=True))
    assert "no prompts" in bench.notices[-1].text
    names = {(each.name, each.prompted) for each in computable()}
    assert {("lungs-classical", False), ("classical", True)} <= names
    assert not any(each.name == "medsam" and not each.prompted for each in computable())


def test_start_from_a_mask_makes_it_an_object(masks, viewer):
    bench, made = masks
    bench.place.comparing.start_from(viewer.layers["smaller"], TUMOUR)
    bench.settle()
    np.testing.assert_array_equal(bench.labels == TUMOUR, made["smaller"])
    assert not viewer.layers["smaller"].visible
    bench.place.comparing.start_from(viewer.layers["smaller"], 1)
    bench.settle()
    assert "does not have this structure" in bench.notices[-1].text
    np.testing.assert_array_equal(bench.labels == TUMOUR, made["smaller"])


def test_what_cannot_be_compared_is_said(bench, viewer):
    bench.place.comparing.consensus(TUMOUR, "staple")
    bench.settle()
    assert any("two masks" in notice.text for notice in bench.notices)
    bench.place.comparing.reference = viewer.layers["reference"]
    bench.place.comparing.compare(TUMOUR)
    bench.settle()
    assert "no mask of this structure" in bench.notices[-1].text


def test_measures_are_drawn_and_copied(bench, viewer, truth, volume):
    bench.controller.start_from(truth, "truth")
    bench.settle()
    bench.place.measuring.measure()
    bench.settle()
    (measures,) = bench.place.measuring.measures
    assert bench.place.measuring.up_to_date
    assert measures.volume_ml == pytest.approx(volume_ml(truth, volume.spacing))
    assert measures.diameters.long_mm == pytest.approx(25.0, abs=1.0)
    lines = viewer.layers["diameters"].data
    length = np.linalg.norm((lines[0][1] - lines[0][0]) * volume.spacing)
    assert length == pytest.approx(measures.diameters.long_mm)
    (row,) = csv.DictReader(io.StringIO(bench.place.measuring.csv()))
    assert float(row["volume_ml"]) == pytest.approx(measures.volume_ml, abs=1e-4)
    bench.controller.undo()
    bench.settle()
    assert not bench.place.measuring.up_to_date


def test_measuring_nothing_is_a_hint(bench):
    bench.place.measuring.measure()
    assert "nothing to measure" in bench.notices[-1].text
