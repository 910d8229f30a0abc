"""Case after case in one viewer, and what is saved of each."""

import gc
import weakref

import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm.geometry import LabelMap, Structure, Volume, VolumeGeometry
from napari_lungfm.gui.annotation.cases import same_case, show_case
from napari_lungfm.gui.annotation.references import lone_reference
from napari_lungfm.gui.annotation.saving import Saving
from napari_lungfm.gui.annotation.tools import Tool
from napari_lungfm.io import write_series
from napari_lungfm.plugin.layer_geometry import METADATA_KEY, image_layer, labels_layer
from napari_lungfm.plugin.reader import read_layers

TUMOUR = int(Structure.TUMOUR)


def add(viewer, name, *, origin, shape=(12, 30, 40), kind="image"):
    geometry = VolumeGeometry(shape, (3.0, 1.0, 1.0), origin)
    if kind == "image":
        data, options, _ = image_layer(Volume(np.zeros(shape, np.int16), geometry), name)
        return viewer.add_image(data, **options)
    data, options, _ = labels_layer(LabelMap(np.zeros(shape, np.uint8), geometry, {}), name)
    return viewer.add_labels(data, **options)


@pytest.fixture
def second(viewer):
    """A second case, far from the first one, and a mask of it."""
    origin = (300.0, -400.0, 900.0)
    image = add(viewer, "next", origin=origin)
    return image, add(viewer, "next mask", origin=origin, kind="labels")


def test_the_next_case_is_on_top_and_in_the_middle_of_the_view(viewer, second):
    image, mask = second
    show_case(viewer, image)
    z, *_ = image.world_to_data(viewer.dims.point)
    assert round(z) == 5
    low, high = image.extent.world
    centre = np.asarray(viewer.scene.camera.center)[-2:]
    assert (low[1:] < centre).all()
    assert (centre < high[1:]).all()
    mask.visible = False
    show_case(viewer, viewer.layers["ct"])
    assert [layer.name for layer in viewer.layers] == ["next", "next mask", "ct", "reference"]
    assert [layer.visible for layer in viewer.layers] == [True, False, True, True]
    show_case(viewer, image)
    assert [layer.name for layer in viewer.layers] == ["ct", "reference", "next", "next mask"]


def test_an_image_in_view_is_left_as_it_is_looked_at(viewer):
    viewer.dims.set_point(0, float(viewer.layers["ct"].data_to_world((4, 0, 0))[0]))
    viewer.scene.camera.zoom = 7.5
    before = tuple(viewer.scene.camera.center)
    show_case(viewer, viewer.layers["ct"])
    assert viewer.scene.camera.zoom == 7.5
    assert tuple(viewer.scene.camera.center) == before
    assert round(viewer.layers["ct"].world_to_data(viewer.dims.point)[0]) == 4


def test_images_of_one_study_stay_together(viewer):
    ct = viewer.layers["ct"]
    pet = add(viewer, "pet", origin=(-60.0, 0.0, -90.0), shape=(9, 20, 20))
    for layer in (ct, pet):
        layer.metadata[METADATA_KEY]["frame_of_reference"] = "1.2.3"
    assert same_case(ct, pet)
    show_case(viewer, ct)
    assert list(viewer.layers)[-1] is pet  # still above its CT


# ---------------------------------------------------------------- saving
@pytest.fixture
def saving(bench):
    saving = Saving(bench.controller, bench.place.background)
    saving.said = []
    saving.noticed.connect(saving.said.append)
    return saving


def test_masks_are_saved_on_the_grid_of_the_image_with_their_names(
    bench, saving, truth, volume, tmp_path
):
    bench.controller.use(Tool.BOX)
    bench.settle()
    assert not saving.possible
    bench.box_around(truth, 9)
    bench.controller.rename(bench.controller.active, "apex")
    bench.settle()
    assert saving.proposal().name == "ct masks.nii.gz"
    assert ".seg.dcm" not in saving.formats()
    saving.save(tmp_path / "mine")
    bench.settle()
    assert saving.said[-1].level == "done"
    found = io.read_label_map(tmp_path / "mine.nii.gz")
    np.testing.assert_array_equal(found.array, bench.labels)
    assert found.geometry.is_close(volume.geometry)
    saving.save(tmp_path / "mine")  # nobody was asked about mine.nii.gz
    assert "exists" in saving.said[-1].text
    saving.save(tmp_path / "none" / "x.seg.dcm")
    bench.settle()
    assert saving.said[-1].level == "error"
    assert "DICOM series" in saving.said[-1].text


def test_slices_that_are_out_of_date_are_said(bench, saving, truth, tmp_path):
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.controller.propagate()
    bench.settle()
    bench.box_around(truth, 10)
    saving.save(tmp_path / "a.nrrd")
    bench.settle()
    assert saving.said[-1].level == "warning"
    assert "out of date" in saving.said[-1].text
    assert (tmp_path / "a.nrrd").is_file()


def test_a_case_from_dicom_can_be_saved_as_dicom(bench, saving, volume, truth, tmp_path):
    write_series(volume, tmp_path / "ct")
    ((data, options, _),) = read_layers(tmp_path / "ct")
    image = bench.viewer.add_image(data, **options)
    bench.controller.set_image(image)
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    assert list(saving.formats())[-2:] == [".seg.dcm", ".rtstruct.dcm"]
    assert saving.proposal().parent == tmp_path
    for end in (".seg.dcm", ".rtstruct.dcm"):
        saving.save(tmp_path / f"out{end}")
        bench.settle()
        assert saving.said[-1].level == "done", saving.said[-1].text
        layers = read_layers(tmp_path / f"out{end}") if end == ".seg.dcm" else []
        for found, _, kind in layers:
            assert kind == "labels"
            np.testing.assert_array_equal(found > 0, bench.labels > 0)


# ---------------------------------------------------------------- closing
def test_closing_a_case_takes_its_layers_and_its_memory_and_keeps_its_session(
    bench, viewer, second, truth
):
    """Nothing of the first case is left in memory; the other case is not touched."""
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    before, log = bench.labels.copy(), bench.controller.log
    viewer.add_image(viewer.layers["ct"].data.copy(), name="own", scale=(9, 9, 9))
    session = weakref.ref(bench.controller.engine.session)
    assert bench.place.closing.possible
    assert not bench.place.closing.would_lose
    bench.place.closing.close()
    bench.settle()
    assert {layer.name for layer in viewer.layers} == {"next", "next mask", "own"}
    assert "session is kept" in bench.notices[-1].text
    gc.collect()
    assert session() is None
    assert bench.controller.annotation is None
    assert not bench.place.closing.possible
    found = read_layers(log.with_suffix(".session"))[0][0]
    np.testing.assert_array_equal(found, before)


def test_closing_during_a_propagation_keeps_what_was_found(gated, viewer, truth):
    bench, model = gated
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    log = bench.controller.log
    bench.controller.propagate("up")
    model.gate.release()
    bench.mail.flush(until=bench.labels[10].any, timeout=10)
    bench.place.closing.close()
    model.gate.release()
    bench.settle()
    assert list(viewer.layers) == []
    assert read_layers(log.with_suffix(".session"))[0][0][10].any()


def test_a_session_that_is_kept_nowhere_would_be_lost(viewer, bench, truth):
    bench.controller._files = None
    bench.controller.use(Tool.BOX)
    assert not bench.place.closing.would_lose
    bench.box_around(truth, 9)
    assert bench.place.closing.would_lose
    bench.place.closing.close()
    bench.settle()
    assert list(viewer.layers) == []
    assert bench.notices[-1].text == "Closed 'ct'."


# ---------------------------------------------------------------- the reference
def test_a_lone_opened_label_layer_on_the_grid_is_the_reference(bench, viewer, second, truth):
    ct, reference = viewer.layers["ct"], viewer.layers["reference"]
    assert lone_reference(viewer.layers, ct) is reference
    assert lone_reference(viewer.layers, second[0]) is second[1]
    empty = viewer.add_labels(np.zeros_like(reference.data), scale=ct.scale, translate=ct.translate)
    assert lone_reference(viewer.layers, ct) is reference  # that one is to be painted on
    bench.controller.use(Tool.BOX)
    bench.box_around(truth, 9)
    bench.place.comparing.consensus(TUMOUR, "majority")
    bench.settle()
    bench.controller.end()
    assert {"masks", "majority"} <= {layer.name for layer in viewer.layers}
    assert lone_reference(viewer.layers, ct) is reference  # those were made here
    viewer.layers.remove(empty)
    other = labels_layer(
        LabelMap(truth.astype(np.uint8), VolumeGeometry(truth.shape, (3.0, 1.0, 1.0), (0, 0, 0))),
        "elsewhere",
    )
    viewer.add_labels(other[0], **other[1])
    assert lone_reference(viewer.layers, ct) is reference
    viewer.add_labels(reference.data, name="two", metadata=reference.metadata)
    assert lone_reference(viewer.layers, ct) is None
    assert lone_reference(viewer.layers, viewer.add_image(np.zeros((4, 4)))) is None
