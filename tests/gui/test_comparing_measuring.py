import csv
import io

import numpy as np
import pytest

from napari_lungfm.geometry import LabelMap, Structure, Volume
from napari_lungfm.gui.annotation.comparing import (
    ANNOTATION,
    Computable,
    automatic_choices,
    computable,
)
from napari_lungfm.gui.annotation.matching import Claims, derivation_of, matching_label
from napari_lungfm.gui.annotation.stroke_remarks import remark_on_stroke
from napari_lungfm.gui.annotation.tools import Tool
from napari_lungfm.gui.annotation.work import ModelWish
from napari_lungfm.inference.session import SessionState
from napari_lungfm.metrics import count_overlap, volume_ml
from napari_lungfm.models.weights import WeightStore
from napari_lungfm.plugin.layer_geometry import image_layer, labels_layer
from napari_lungfm.plugin.reader import read_layers
from napari_lungfm.plugin.writer import write_labels

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


def test_lobes_in_whole_lungs_are_a_choice_once_and_where_both_files_are(monkeypatch):
    both, two = ("lungmask", "lungmask:LTRCLobes"), "lungmask:LTRCLobes_R231"

    def choices(*stored):
        monkeypatch.setattr(WeightStore, "names", lambda _: tuple(sorted(stored)))
        return automatic_choices()

    # Under that name a file could be stored once that nothing ever read.
    assert two not in choices(two)
    assert two not in choices(two, both[0])
    assert choices(*both, two).count(two) == choices(*both).count(two) == 1
    assert {*both} <= {*choices(*both)}


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


@pytest.mark.parametrize(
    ("names", "present", "label", "name", "wanted"),
    [
        ({1: "GTV-1"}, (1,), TUMOUR, "tumour", 1),  # an RTSTRUCT
        ({}, (1,), TUMOUR, "tumour", 1),  # a plain mask
        ({}, (8,), TUMOUR, "tumour", 8),
        ({1: "left lung"}, (1,), TUMOUR, "tumour", None),
        ({1: "GTV-1"}, (1,), 1, "left lung", None),
        ({1: "GTV-1", 2: "Heart"}, (1, 2), TUMOUR, "tumour", None),
        ({1: "GTV", 2: "Tumor"}, (1, 2), TUMOUR, "tumour", 2),
        ({3: "tumour"}, (3,), TUMOUR, "GTV", 3),  # an object that was renamed
        ({3: "tumour"}, (3,), 4, "hilar node", None),
        ({3: "tumour", 5: "hilar node"}, (3, 5), 4, "hilar node", 5),
        ({1: "left lung", 2: "right lung", 3: "tumour"}, (1, 2), 2, None, 2),
        ({}, (1, 2), 1, "left lung", 1),
        ({}, (), TUMOUR, "tumour", None),
    ],
)
def test_a_structure_is_found_by_name_by_value_or_alone(names, present, label, name, wanted):
    assert matching_label(names, present, label, name) == wanted


def add_roi(viewer, volume, mask, name, roi="GTV-1"):
    labels = LabelMap(mask.astype(np.uint8), volume.geometry, {1: roi})
    data, options, _ = labels_layer(labels, name)
    return viewer.add_labels(data, **options)


def test_a_lone_roi_of_any_name_is_reference_mask_vote_and_start(masks, viewer, truth, volume):
    bench, made = masks
    comparing, tables = bench.place.comparing, []
    roi = add_roi(viewer, volume, truth, "rtstruct")
    comparing.reference = roi
    comparing.compared.connect(lambda pairs, rows: tables.append({r.name: r for r in rows}))
    comparing.compare(TUMOUR)
    bench.settle()
    assert tables[0]["larger"].dice == count_overlap(made["larger"], truth).dice
    comparing.reference = viewer.layers["reference"]
    comparing.compare(TUMOUR)
    comparing.consensus(TUMOUR, "majority")
    comparing.start_from(roi, TUMOUR)
    bench.settle()
    assert tables[1]["rtstruct"].dice == 1.0
    np.testing.assert_array_equal(viewer.layers["majority"].data == TUMOUR, truth)
    np.testing.assert_array_equal(bench.labels == TUMOUR, truth)


def test_a_reference_without_the_structure_is_called_by_its_name(masks, viewer, truth, volume):
    bench, _ = masks
    bench.place.comparing.reference = add_roi(viewer, volume, truth, "lungs.nii", "left lung")
    bench.place.comparing.compare(TUMOUR)
    bench.settle()
    (text,) = (n.text for n in bench.notices if n.level in ("warning", "error"))
    assert "lungs.nii' does not have" in text
    assert "it has left lung" in text


def test_layers_made_of_masks_do_not_vote_and_a_disagreement_is_no_mask(masks, viewer):
    bench, made = masks
    comparing, tables = bench.place.comparing, []
    viewer.layers.remove("reference")
    comparing.compared.connect(lambda pairs, rows: tables.append({r.name for r in rows}))
    comparing.consensus(TUMOUR, "majority")
    comparing.disagreement(TUMOUR)
    bench.settle()
    wrong = viewer.layers["disagreement"].data.copy()
    # Were this a vote, it would outvote 'smaller' everywhere.
    viewer.layers["majority"].data = np.full_like(viewer.layers["majority"].data, TUMOUR)
    comparing.consensus(TUMOUR, "majority")
    comparing.disagreement(TUMOUR)
    comparing.compare(TUMOUR)
    bench.settle()
    again = viewer.layers["majority [1]"].data == TUMOUR
    np.testing.assert_array_equal(again, made["larger"] & made["smaller"])
    np.testing.assert_array_equal(viewer.layers["disagreement [1]"].data, wrong)
    compared = " ".join(tables[0])
    assert "majority" in compared
    assert "disagreement" not in compared
    comparing.start_from(viewer.layers["disagreement"], TUMOUR)
    assert "'disagreement'" in bench.notices[-1].text.lower()
    assert "no mask" in bench.notices[-1].text


def test_measuring_goes_to_the_longest_diameter_and_says_where(bench, truth):
    bench.controller.start_from(truth, "truth")
    bench.settle()
    bench.controller.go_to(0)
    bench.place.measuring.measure()
    bench.settle()
    (measures,) = bench.place.measuring.measures
    assert bench.controller.annotation.view.z == measures.diameters.z != 0
    text = bench.notices[-1].text
    assert f"{measures.diameters.long_mm:.1f} mm, on slice {measures.diameters.z}." in text


def test_volumes_are_not_cut_off_in_a_narrow_table(qtbot):
    panel_module = pytest.importorskip("napari_lungfm.gui.widgets.compare_panel")
    pairs = [panel_module.Row("a / b", 0.91, 0.83, 12.3, 0.7, -1248.6)]
    table = panel_module.QTableWidget(0, 5)
    qtbot.addWidget(table)
    panel = type("Panel", (), {"table": table, "message": panel_module.MessageBar()})()
    qtbot.addWidget(panel.message)
    prepare = panel_module.ComparePanel._prepare_table
    panel._prepare_table = lambda last: prepare(panel, last)
    table.resize(330, 120)
    panel_module.ComparePanel.show_rows(panel, True, pairs)
    table.show()
    assert table.item(0, 4).text() == "\N{MINUS SIGN}1248.6"
    assert table.item(0, 4).toolTip() == "a / b\nΔ mL \N{MINUS SIGN}1248.6"
    assert table.columnWidth(4) >= table.sizeHintForColumn(4)


@pytest.mark.parametrize(
    "name", ["a / b", "nnunet-3d-fullres:task06 / lungfm-s (prompted) [2]", "x" * 70, "", "a  b"]
)
def test_names_of_pairs_are_broken_into_lines_and_nothing_is_left_out(qtbot, name):
    panel_module = pytest.importorskip("napari_lungfm.gui.widgets.compare_panel")
    label = panel_module.QLabel()
    qtbot.addWidget(label)
    fit = panel_module.QFontMetrics(label.font())
    lines = panel_module.in_lines(name, fit, 110).split("\n")
    assert "".join("".join(lines).split()) == "".join(name.split())
    assert all(fit.horizontalAdvance(line) <= 110 for line in lines)


def test_a_consensus_that_was_saved_and_opened_again_has_no_vote(masks, viewer, tmp_path):
    bench, made = masks
    bench.place.comparing.reference = viewer.layers["reference"]
    bench.place.comparing.consensus(TUMOUR, "majority")
    bench.place.comparing.disagreement(TUMOUR)
    bench.settle()
    for name in ("majority", "disagreement"):
        layer = viewer.layers[name]
        data, options, _ = layer.as_layer_data_tuple()
        (path,) = write_labels(str(tmp_path / f"{name}.nii.gz"), data, options)
        viewer.layers.remove(layer)
        ((data, options, _),) = read_layers(path)
        viewer.add_labels(data, **options)
    assert derivation_of(viewer.layers["majority"]) == "consensus"
    assert derivation_of(viewer.layers["disagreement"]) == "disagreement"
    viewer.layers["majority"].data = np.full_like(viewer.layers["majority"].data, TUMOUR)
    bench.place.comparing.consensus(TUMOUR, "majority")
    bench.settle()
    again = viewer.layers["majority [1]"].data == TUMOUR
    np.testing.assert_array_equal(again, made["larger"] & made["smaller"])


def test_what_is_to_be_known_of_model_and_image_is_told(bench, viewer, volume, monkeypatch):
    from napari_lungfm.gui.annotation import remarks

    class Trained:
        def told_if_small(self):
            return "it is small"

        def told_if_seen(self, image):
            return f"it has seen {image.shape}"

    monkeypatch.setattr(remarks, "trained_model", lambda name: Trained())
    told = []
    bench.controller.remarked.connect(told.append)
    bench.controller.use(Tool.BOX)
    bench.settle()
    assert told[-1] == f"Note: it is small. Note: it has seen {volume.shape}."
    bench.place.comparing.run_automatic("lungs-classical")
    bench.settle(timeout=60)
    assert bench.notices[-1].level in ("warning", "error")
    monkeypatch.setattr(remarks, "trained_model", lambda name: None)
    bench.controller.set_model(ModelWish("prompt-box"))
    bench.settle()
    assert told[-1] == ""
    grey = volume.array.astype(float)
    grey = ((grey - grey.min()) / np.ptp(grey) * 255).astype(np.uint8)
    data, options, _ = image_layer(Volume(grey, volume.geometry), "grey")
    bench.controller.set_image(viewer.add_image(data, **options))
    bench.controller.use(Tool.BOX)
    bench.settle()
    assert "does not look like HU" in told[-1]
    bench.controller.end()
    assert told[-1] == ""


@pytest.mark.parametrize(
    ("names", "present", "label", "wanted"),
    [
        ({1: "GTV-1"}, (1,), 4, None),  # named as another object
        ({1: "GTV-1"}, (1,), TUMOUR, 1),
        ({4: "gtv-1"}, (4,), 4, None),  # the value is the same, the name is not
        ({1: "GTV-7"}, (1,), 4, None),  # suits both: that of the first that has prompts
        ({}, (4,), 4, None),
        ({1: "object 2"}, (1,), 4, 1),
        ({1: "left lung"}, (1,), 1, 1),
    ],
)
def test_no_object_is_given_what_is_another_s(names, present, label, wanted):
    claims = Claims({TUMOUR: "GTV-1", 4: "object 2"}, {TUMOUR})
    name = claims.names.get(label, "left lung")
    assert claims.label_in(names, present, label, name) == wanted


def test_what_was_chosen_by_hand_goes_before_names():
    claims = Claims({TUMOUR: "tumour", 4: "object 2"}, {TUMOUR, 4})
    titles, present = {1: "Heart", 2: "GTV-1"}, (1, 2)
    assert claims.label_in(titles, present, 4, chosen={4: 2}) == 2
    assert claims.label_in(titles, (1,), 4, chosen={4: 2}) is None  # it was painted away
    assert claims.label_in({1: "tumour"}, (1,), TUMOUR, chosen={4: 1}) is None
    assert claims.label_in({1: "tumour"}, (1,), 4, chosen={4: 1}) == 1


def test_masks_of_another_object_do_not_vote_and_are_not_scored(masks, viewer, truth, volume):
    bench, _ = masks
    comparing, tables = bench.place.comparing, []
    viewer.layers.remove("larger")
    viewer.layers.remove("smaller")
    first, second = (add_roi(viewer, volume, truth, name) for name in ("one", "two"))
    comparing.compared.connect(lambda pairs, rows: tables.append({r.name for r in rows}))
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.rename(TUMOUR, "GTV-1")
    bench.controller.add_object()
    bench.settle()
    empty = bench.controller.active
    comparing.reference = first
    for ask in (
        lambda label: comparing.consensus(label, "majority"),
        comparing.disagreement,
        comparing.compare,
    ):
        bench.notices.clear()
        layers = list(viewer.layers)
        ask(empty)
        bench.settle()
        assert list(viewer.layers) == layers
        (notice,) = (n for n in bench.notices if n.level == "error")
        assert notice.about == "compare"
    assert "rename the object to 'GTV-1', or choose it" in bench.notices[-1].text
    assert not tables
    comparing.compare(TUMOUR)
    bench.settle()
    assert tables == [{ANNOTATION, second.name, "reference"}]
    comparing.start_from(second, empty)  # a copy is a beginning like any other
    bench.settle()
    assert np.count_nonzero(bench.labels == empty) > 0


def test_a_structure_that_is_chosen_counts_everywhere_while_the_case_is_open(
    bench, viewer, truth, volume
):
    heart = np.roll(truth, 6, axis=1)
    labels = LabelMap(
        np.where(truth, 5, np.where(heart, 2, 0)).astype(np.uint8),
        volume.geometry,
        {5: "GTV-1", 2: "Heart"},
    )
    data, options, _ = labels_layer(labels, "multi")
    layer, quality, tables = viewer.add_labels(data, **options), bench.place.quality, []
    bench.place.comparing.compared.connect(lambda pairs, rows: tables.append(rows))
    bench.place.comparing.reference = layer
    quality.set_reference(layer)
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    assert not quality.has_reference
    assert quality.structures == {2: "Heart", 5: "GTV-1"}
    assert quality.way_out.startswith("rename the object to one of: Heart, GTV-1; or choose it")
    quality.go_to_worst()
    assert "Heart, GTV-1" in bench.notices[-1].text
    quality.choose_structure(TUMOUR, 5)
    bench.settle()
    assert quality.live.counts == count_overlap(bench.labels == TUMOUR, truth)
    assert not quality.way_out
    bench.place.comparing.compare(TUMOUR)
    bench.settle()
    assert next(r for r in tables[-1] if r.name == ANNOTATION).dice == quality.live.counts.dice
    bench.controller.add_object()
    bench.settle()
    assert quality.chosen_structure(bench.controller.active) is None
    bench.controller.choose(TUMOUR)
    bench.settle()
    assert quality.chosen_structure(TUMOUR) == 5
    quality.set_reference(viewer.layers["reference"])
    bench.settle()
    assert quality.live.counts == count_overlap(bench.labels == TUMOUR, truth)  # by its name
    quality.set_reference(layer)
    bench.controller.rename(TUMOUR, "nodule")
    bench.settle()
    assert quality.reference_label(TUMOUR) == 5
    bench.controller.rename(TUMOUR, "Heart")
    bench.settle()
    assert quality.reference_label(TUMOUR) == 2
    bench.controller.rename(TUMOUR, "tumour")
    bench.settle()
    assert quality.reference_label(TUMOUR) == 5
    quality.choose_structure(TUMOUR, None)
    bench.settle()
    assert not quality.has_reference
    quality.choose_structure(TUMOUR, 2)
    data, options, _ = image_layer(volume, "next")
    bench.controller.set_image(viewer.add_image(data, **options))
    bench.controller.use(Tool.BOX)
    bench.settle()
    bench.box_around(truth, 9)
    assert quality.chosen_structure(TUMOUR) is None


def test_measures_follow_the_names_and_say_of_which_image_they_are(bench, viewer, truth):
    told = []
    bench.controller.start_from(truth, "truth")
    bench.settle()
    bench.place.measuring.measure()
    bench.settle()
    assert bench.notices[-1].about == "measure"
    bench.place.measuring.measured.connect(told.append)
    bench.controller.rename(TUMOUR, "nodule")
    bench.settle()
    assert [[each.name for each in measures] for measures in told] == [["nodule"]]
    assert bench.place.measuring.up_to_date
    viewer.layers["ct"].name = "case, 7"
    (row,) = csv.DictReader(io.StringIO(bench.place.measuring.csv()))
    assert list(row)[:3] == ["image", "label", "name"]
    assert (row["image"], row["name"]) == ("case, 7", "nodule")


def test_a_brush_with_a_new_number_and_a_bucket_that_runs_over_are_said(bench, truth):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.go_to(3)
    masks = bench.layers.masks
    masks.selected_label = 77
    masks.paint((3, 20, 20), 77)
    bench.settle()
    assert "a new one, 'object 77', was made of it" in bench.notices[-1].text
    assert bench.controller.objects[77].name == "object 77"
    masks.paint((3, 30, 30), 77)
    bench.settle()
    assert sum("a new one" in notice.text for notice in bench.notices) == 1
    bench.controller.go_to(15)
    masks.mode = "fill"
    masks.fill((15, 2, 2), 77)
    bench.settle()
    assert "Ctrl+Z takes it back" in bench.notices[-1].text
    bench.controller.undo()
    bench.settle()
    assert not bench.labels[15].any()


def test_an_ordinary_stroke_is_not_remarked_on():
    changed = np.zeros((1, 10, 10), bool)
    changed[0, :6, :] = True
    first = SessionState()
    options = {"slice_area": 100}
    assert remark_on_stroke(changed, TUMOUR, first, filled=False, **options) == ""
    assert "60%" in remark_on_stroke(changed, TUMOUR, first, filled=True, **options)
    assert "'object 8'" in remark_on_stroke(changed, 8, first, filled=False, **options)
