import shutil
import subprocess
import sys

import numpy as np
import pydicom
import pytest

from napari_lungfm import io
from napari_lungfm._core.exceptions import DicomError, InputFileError, LungFMWarning
from napari_lungfm.geometry import LabelMap, VolumeGeometry
from napari_lungfm.plugin import dicom_folder
from napari_lungfm.plugin.dicom_folder import MAX_STRUCTURES
from napari_lungfm.plugin.layer_geometry import METADATA_KEY, LayerInfo
from napari_lungfm.plugin.reader import get_reader, read_layers


def info(layer):
    return LayerInfo.from_metadata(layer[1]["metadata"])


def test_a_folder_with_several_series_opens_the_largest_and_its_structures(
    study, volume, label_map
):
    reader = get_reader(str(study))
    with pytest.warns(LungFMWarning, match="opened the largest series .*not: .*thick"):
        layers = reader(str(study))
    assert [(kind, options["name"]) for _, options, kind in layers] == [
        ("image", "CT thin"),
        ("labels", "GTV-1"),
        ("labels", "GTV-1"),
        ("labels", "left lung"),
        ("labels", "left lung"),
    ]
    image = layers[0][0]
    assert image.dtype == np.int16
    np.testing.assert_array_equal(image, volume.array)
    assert info(layers[0]).geometry.is_close(volume.geometry)
    for data, options, _ in layers[1:]:
        (value,) = set(np.unique(data)) - {0}
        true = label_map.mask(options["name"])
        np.testing.assert_array_equal(data == value, true)
        known = LayerInfo.from_metadata(options["metadata"])
        assert known.labels == {value: options["name"]}
        assert known.series_uid == info(layers[0]).series_uid
    assert len({int(data.max()) for data, _, _ in layers[1:]}) == 4  # colours of their own


def test_a_slice_stands_for_its_series(ct_only, volume):
    slices = sorted(str(path) for path in ct_only.glob("*.dcm"))
    (layer,) = read_layers(slices[2])
    np.testing.assert_array_equal(layer[0], volume.array)
    (stacked,) = get_reader(slices)(slices)
    np.testing.assert_array_equal(stacked[0], volume.array)


@pytest.mark.parametrize("file", ["rt/contours.dcm", "seg/segments.dcm"])
def test_a_file_of_structures_finds_its_image_in_the_folder_above(study, label_map, file):
    layers = read_layers(study / file)
    assert [options["name"] for _, options, _ in layers] == ["GTV-1", "left lung"]
    for data, options, _ in layers:
        np.testing.assert_array_equal(data > 0, label_map.mask(options["name"]))


def test_structures_are_found_by_a_relative_path(study, monkeypatch):
    monkeypatch.chdir(study / "seg")
    for path in ("../rt/contours.dcm", "segments.dcm"):
        assert len(read_layers(path)) == 2


def test_an_archive_is_not_looked_through_for_an_image(study, monkeypatch):
    monkeypatch.setattr(dicom_folder, "MAX_LOOKED_THROUGH", 5)
    with pytest.raises(DicomError, match="put them together"):
        read_layers(study / "rt" / "contours.dcm")


def test_structures_without_their_image_say_so(study, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    lonely = shutil.copy(study / "rt" / "contours.dcm", tmp_path / "deep" / "er")
    with pytest.raises(DicomError, match="put them together"):
        read_layers(lonely)


def test_structures_of_another_image_are_left_out_with_a_reason(study, tmp_path):
    for path in (study / "rt" / "contours.dcm", study / "seg" / "segments.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.FrameOfReferenceUID = "1.2.3"
        for item in dataset.get("ReferencedFrameOfReferenceSequence") or ():
            item.FrameOfReferenceUID = "1.2.3"
        dataset.save_as(path)
    with pytest.warns(LungFMWarning) as caught:
        layers = read_layers(study)
    assert [kind for _, _, kind in layers] == ["image"]
    assert sum("frame of reference of another image" in str(w.message) for w in caught) == 2


def test_an_empty_structure_does_not_hinder_the_others(ct_only, label_map):
    path = ct_only.parent / "contours.dcm"
    io.write_rtstruct(label_map, ct_only, path)
    dataset = pydicom.dcmread(path)
    dataset.ROIContourSequence[0].ContourSequence = []
    dataset.save_as(path)
    with pytest.warns(LungFMWarning, match="left out 'left lung': .*is empty"):
        layers = read_layers(ct_only.parent)
    assert [options["name"] for _, options, _ in layers] == ["CT thin", "GTV-1"]


def test_of_many_structures_tumours_are_opened_and_the_rest_named(ct_only, geometry):
    array = np.zeros(geometry.shape, np.uint8)
    array[2, 2, :] = np.arange(1, 21)
    names = {value: f"organ {value}" for value in range(1, 20)} | {20: "GTVp"}
    path = ct_only.parent / "contours.dcm"
    io.write_rtstruct(LabelMap(array, geometry, names), ct_only, path)
    with pytest.warns(LungFMWarning, match="'organ 19'"):
        layers = read_layers(ct_only.parent)
    assert len(layers) == 1 + MAX_STRUCTURES
    assert layers[1][1]["name"] == "GTVp"


def test_localizers_do_not_count_as_slices(study):
    """Three localizers and one slice are a smaller series than three slices."""
    shutil.rmtree(study / "rt")
    shutil.rmtree(study / "seg")
    for path in sorted((study / "ct").glob("*.dcm"))[1:]:
        path.unlink()
    for number in range(3):
        dataset = pydicom.dcmread(next((study / "ct").glob("slice_0001.dcm")))
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        dataset.SOPInstanceUID = f"1.2.{number}"
        dataset.save_as(study / "ct" / f"scout_{number}.dcm")
    with pytest.warns(LungFMWarning, match="largest"):
        (layer,) = read_layers(study)
    assert layer[0].shape[0] == 3


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_images_and_label_maps_are_told_apart(volume, label_map, tmp_path, suffix):
    io.write_image(volume, tmp_path / f"ct{suffix}")
    io.write_label_map(label_map, tmp_path / f"mask.a{suffix}")
    ((image, options, kind),) = read_layers(tmp_path / f"ct{suffix}")
    assert (kind, options["name"], image.dtype) == ("image", "ct", np.int16)
    np.testing.assert_array_equal(image, volume.array)
    ((mask, options, kind),) = get_reader(str(tmp_path / f"mask.a{suffix}"))(
        str(tmp_path / f"mask.a{suffix}")
    )
    assert (kind, options["name"], mask.dtype) == ("labels", "mask.a", np.uint8)
    np.testing.assert_array_equal(mask, label_map.array)
    assert options["metadata"][METADATA_KEY]["labels"] == {1: "left lung", 3: "tumour"}


def test_an_oblique_volume_keeps_its_grid(volume, tmp_path):
    turn = np.deg2rad(12)
    c, s = np.cos(turn), np.sin(turn)
    oblique = VolumeGeometry(
        volume.shape, volume.spacing, (1.0, 2.0, 3.0), ((1, 0, 0), (0, c, -s), (0, s, c))
    )
    io.write_series(type(volume)(volume.array, oblique), tmp_path / "tilted")
    (layer,) = read_layers(tmp_path / "tilted")
    np.testing.assert_array_equal(layer[0], volume.array)
    assert info(layer).geometry.is_close(oblique)
    assert layer[1]["scale"] == pytest.approx(oblique.spacing)


def test_other_files_and_folders_are_left_to_others(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("hello")
    assert get_reader(str(tmp_path / "notes.txt")) is None
    assert get_reader(str(tmp_path / "folder")) is None
    assert get_reader([]) is None
    assert get_reader([str(tmp_path / "a.nii"), str(tmp_path / "b.nii")]) is None


def test_errors_are_one_line(tmp_path, ct_only):
    (tmp_path / "bad.nii").write_bytes(b"not an image")
    next(ct_only.glob("slice_0003.dcm")).write_bytes(b"")
    for path in (tmp_path / "bad.nii", tmp_path / "missing.nii", ct_only, tmp_path / "no"):
        with pytest.raises(InputFileError) as caught:
            read_layers(path)
        assert "\n" not in str(caught.value)


def test_progress_is_told(ct_only):
    seen = []
    read_layers(ct_only, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(1, 7)]


def test_npe2_finds_the_reader(ct_only, label_map, tmp_path):
    npe2 = pytest.importorskip("npe2")
    manager = npe2.PluginManager.instance()
    manager.discover()
    io.write_label_map(label_map, tmp_path / "mask.nii.gz")
    for path in (ct_only, tmp_path / "mask.nii.gz"):
        layers = npe2.read([str(path)], stack=False, plugin_name="napari-lungfm")
        assert layers[0][0].shape == label_map.shape


@pytest.mark.real_data
def test_napari_opens_a_real_dicom_folder(real_data):
    """Through napari's own `open` on a model of a viewer, without Qt."""
    components = pytest.importorskip("napari.components")
    pytest.importorskip("npe2").PluginManager.instance().discover()
    viewer = components.ViewerModel()
    image, tumour = viewer.open(real_data / "ibsi_lung" / "dicom", plugin="napari-lungfm")
    assert (image.data.dtype, image.data.shape) == (np.int16, (60, 201, 204))
    assert image.scale == pytest.approx([3, 0.977, 0.977], abs=1e-6)
    assert [str(unit) for unit in image.units] == ["millimeter"] * 3
    assert image.axis_labels == ("z", "y", "x")
    published = io.read_label_map(real_data / "ibsi_lung" / "nifti" / "mask" / "mask.nii.gz")
    assert tumour.name == "GTV-1"
    assert np.count_nonzero(tumour.data) == np.count_nonzero(published.array) == 125256
    np.testing.assert_allclose(image.extent.world, tumour.extent.world)


def test_reading_needs_neither_torch_nor_napari(label_map, tmp_path):
    io.write_label_map(label_map, tmp_path / "mask.nii.gz")
    code = (
        "import sys; from napari_lungfm.plugin.reader import get_reader; "
        f"path = {str(tmp_path / 'mask.nii.gz')!r}; get_reader(path)(path); "
        "print([m for m in ('torch', 'napari', 'qtpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
