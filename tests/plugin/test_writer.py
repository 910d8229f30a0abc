from dataclasses import replace

import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm._core.exceptions import DataError, GeometryError, LungFMError, UsageError
from napari_lungfm.plugin.layer_geometry import LayerInfo, labels_layer
from napari_lungfm.plugin.reader import read_layers
from napari_lungfm.plugin.writer import write_dicom_seg, write_labels, write_rtstruct


@pytest.fixture
def layer(ct_only, label_map):
    """A labels layer on the CT."""
    (image,) = read_layers(ct_only)
    belongs_to = LayerInfo.from_metadata(image[1]["metadata"])
    return labels_layer(label_map, "mine", belongs_to=belongs_to)[:2]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_files_come_back_on_the_same_grid(layer, label_map, tmp_path, suffix):
    data, options = layer
    path = str(tmp_path / f"out{suffix}")
    assert write_labels(path, data.astype(np.int64), options) == [path]
    again = io.read_label_map(path)
    np.testing.assert_array_equal(again.array, label_map.array)
    assert again.geometry.is_close(label_map.geometry)
    assert again.array.dtype == np.uint8


@pytest.mark.parametrize(
    ("write", "read"), [(write_dicom_seg, io.read_seg), (write_rtstruct, io.read_rtstruct)]
)
def test_dicom_comes_back_identical(layer, label_map, tmp_path, write, read):
    path = str(tmp_path / "out.dcm")
    assert write(path, *layer) == [path]
    for value, name in label_map.labels.items():
        again = read(path, label_map.geometry, name, label=value)
        np.testing.assert_array_equal(again.mask(value), label_map.mask(value))


def test_a_layer_of_one_structure_is_called_after_it(layer, label_map, ct_only, tmp_path):
    _, options = layer
    info = LayerInfo.from_metadata(options["metadata"])
    bare = LayerInfo(info.geometry, info.source, info.series_uid).to_metadata()
    data = (label_map.array == 3).astype(np.uint8)
    write_rtstruct(str(tmp_path / "a.dcm"), data, {"name": "my tumour", "metadata": bare})
    assert [roi.name for roi in io.list_rois(tmp_path / "a.dcm")] == ["my tumour"]


def test_dicom_needs_a_dicom_series(label_map, tmp_path):
    data, options, _ = labels_layer(label_map, "mine")
    for write in (write_dicom_seg, write_rtstruct):
        with pytest.raises(UsageError, match="not made on a DICOM series"):
            write(str(tmp_path / "a.dcm"), data, options)
    assert not (tmp_path / "a.dcm").exists()


def test_the_image_is_never_overwritten(layer, label_map, ct_only, tmp_path):
    slice_file = ct_only / "slice_0002.dcm"
    before = slice_file.read_bytes()
    with pytest.raises(UsageError, match="would overwrite"):
        write_dicom_seg(str(slice_file), *layer)
    assert slice_file.read_bytes() == before
    mask = tmp_path / "mask.nii.gz"
    io.write_label_map(label_map, mask)
    ((data, options, _),) = read_layers(mask)
    with pytest.raises(UsageError, match="would overwrite"):
        write_labels(str(mask), data, options)
    # A mask that this plugin wrote may be replaced.
    write_labels(str(tmp_path / "b.nii.gz"), *layer)
    write_labels(str(tmp_path / "b.nii.gz"), *layer)


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        (np.zeros((5, 6), np.uint8), {"name": "flat"}, GeometryError),
        (np.zeros((4, 5, 6), np.uint8), {"name": "bare"}, GeometryError),
        (np.zeros((4, 5, 6)), {"scale": (3, 1, 1)}, DataError),
        (np.full((4, 5, 6), -1), {"scale": (3, 1, 1)}, DataError),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(data, options, error, tmp_path):
    with pytest.raises(error) as caught:
        write_labels(str(tmp_path / "a.nii.gz"), data, options)
    assert isinstance(caught.value, LungFMError)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_npe2_chooses_the_writer_by_the_ending(layer, label_map, tmp_path):
    npe2 = pytest.importorskip("npe2")
    manager = npe2.PluginManager.instance()
    manager.discover()
    chosen = {
        end: manager.get_writer(f"a{end}", ["labels"], "napari-lungfm")[0].command
        for end in (".nii.gz", ".nrrd", ".seg.dcm", ".dcm", ".rtstruct.dcm")
    }
    assert [command.partition(".")[2] for command in chosen.values()] == [
        "write_labels",
        "write_labels",
        "write_dicom_seg",
        "write_dicom_seg",
        "write_rtstruct",
    ]
    data, options = layer
    path = str(tmp_path / "saved.nii.gz")
    npe2.write(path, [(data, options, "labels")], plugin_name="napari-lungfm")
    np.testing.assert_array_equal(io.read_label_map(path).array, label_map.array)


def test_a_layer_painted_in_napari_is_written_where_it_lies(layer, tmp_path):
    components = pytest.importorskip("napari.components")
    pytest.importorskip("npe2").PluginManager.instance().discover()
    data, options = layer
    viewer = components.ViewerModel()
    labels = viewer.add_labels(data.copy(), **options)
    labels.data[0, 0, :3] = 7
    path = tmp_path / "painted.nrrd"
    assert labels.save(path, plugin="napari-lungfm") == [str(path)]
    again = io.read_label_map(path)
    np.testing.assert_array_equal(again.array, labels.data)
    assert again.geometry.is_close(LayerInfo.from_metadata(options["metadata"]).geometry)


def test_an_rgb_or_probability_layer_is_no_label_map(layer, tmp_path):
    _, options = layer
    with pytest.raises(DataError, match="whole numbers"):
        write_labels(str(tmp_path / "a.nii.gz"), np.ones((6, 17, 20), np.float32), options)


def test_a_label_map_without_a_voxel_is_written_as_a_file_but_not_as_dicom(layer, tmp_path):
    data, options = layer
    write_labels(str(tmp_path / "empty.nii.gz"), np.zeros_like(data), options)
    assert not io.read_label_map(tmp_path / "empty.nii.gz").array.any()
    with pytest.raises(DataError, match="nothing to write"):
        write_dicom_seg(str(tmp_path / "empty.dcm"), np.zeros_like(data), options)


@pytest.mark.parametrize("derived", ["consensus", "disagreement", None])
@pytest.mark.parametrize("end", [".nii.gz", ".nii", ".nrrd", ".mha", "seg.dcm", "rtstruct.dcm"])
def test_that_a_mask_was_made_of_others_survives_saving(layer, ct_only, derived, end):
    """A layer that was opened again knows it, and is called as before."""
    data, options = layer
    info = replace(LayerInfo.from_metadata(options["metadata"]), derived=derived)
    write = {"seg.dcm": write_dicom_seg, "rtstruct.dcm": write_rtstruct}.get(end, write_labels)
    path = ct_only.parent / f"out{end}"
    write(str(path), data, {"name": "mine", "metadata": info.to_metadata()})
    read = read_layers(path)
    assert {LayerInfo.from_metadata(o["metadata"]).derived for _, o, _ in read} == {derived}
    if end.endswith(".dcm"):
        assert {o["name"] for _, o, _ in read} == set(info.labels.values())
        names = [LayerInfo.from_metadata(o["metadata"]).labels for _, o, _ in read]
        assert all(set(each.values()) <= set(info.labels.values()) for each in names)
