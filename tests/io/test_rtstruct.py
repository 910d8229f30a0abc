import numpy as np
import pydicom
import pytest
from scipy.spatial.transform import Rotation
from skimage.draw import polygon2mask

from napari_lungfm._core.exceptions import (
    DicomError,
    InputFileError,
    LungFMWarning,
    UsageError,
)
from napari_lungfm.geometry import LabelMap, VolumeGeometry
from napari_lungfm.io import (
    RoiInfo,
    list_rois,
    read_label_map,
    read_rtstruct,
    read_series,
    write_rtstruct,
)


@pytest.fixture
def contours(series, geometry, tmp_path):
    """An RTSTRUCT with a box on slices 1 to 3 (ROI 1 'GTV-1') and a voxel (ROI 2 'Heart')."""
    array = np.zeros(geometry.shape, np.uint8)
    array[1:4, 4:9, 5:12] = 3
    array[4, 2, 2] = 7
    label_map = LabelMap(array, geometry)
    path = tmp_path / "rs.dcm"
    write_rtstruct(label_map, series, path, {3: "GTV-1", 7: "Heart"})
    return path


@pytest.fixture
def box(geometry):
    mask = np.zeros(geometry.shape, bool)
    mask[1:4, 4:9, 5:12] = True
    return mask


def change(path, edit):
    dataset = pydicom.dcmread(path)
    edit(dataset)
    dataset.save_as(path)


def each_contour(edit):
    def apply(dataset):
        for contour in dataset.ROIContourSequence[0].ContourSequence:
            edit(contour)

    return apply


def points(contour):
    return np.array(contour.ContourData, dtype=float).reshape(-1, 3)


@pytest.mark.real_data
def test_ibsi_contours_are_the_published_mask(real_data):
    path = real_data / "ibsi_lung" / "dicom" / "mask" / "DCM_RS_00060.dcm"
    assert list_rois(path) == [RoiInfo("GTV-1", 1, 26)]
    volume = read_series(real_data / "ibsi_lung" / "dicom" / "image")
    tumour = read_rtstruct(
        path,
        volume.geometry,
        "GTV-1",
        frame_of_reference_uid=volume.metadata["frame_of_reference_uid"],
    )
    truth = read_label_map(real_data / "ibsi_lung" / "nifti" / "mask" / "mask.nii.gz")
    assert np.count_nonzero(tumour.mask("tumour")) == 125_256
    np.testing.assert_array_equal(tumour.mask(3), truth.array == 1)
    flipped = VolumeGeometry.from_affine(  # the same grid with its slices upside down
        volume.shape,
        volume.geometry.affine
        @ np.array([[-1, 0, 0, 59], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    )
    upside_down = read_rtstruct(path, flipped, "GTV-1")
    np.testing.assert_array_equal(upside_down.mask(3)[::-1], truth.array == 1)


def test_rois_by_name_case_and_number(contours, geometry, box):
    assert list_rois(contours) == [RoiInfo("GTV-1", 1, 3), RoiInfo("Heart", 2, 1)]
    for roi in ("GTV-1", "gtv-1", " GTV-1 ", 1):
        label_map = read_rtstruct(contours, geometry, roi)
        np.testing.assert_array_equal(label_map.mask(3), box)
        assert label_map.labels == {3: "tumour"}
        assert label_map.array.dtype == np.uint8
    assert read_rtstruct(contours, geometry, "Heart", label=9).labels == {9: "Heart"}
    assert read_rtstruct(contours, geometry, "Heart", name="pump").labels == {3: "pump"}


def test_an_unknown_name_lists_those_present(contours, geometry):
    with pytest.raises(UsageError, match=r"no ROI 'GTV'.*'GTV-1' \(number 1\), 'Heart'"):
        read_rtstruct(contours, geometry, "GTV")
    with pytest.raises(UsageError, match="no ROI number 9 in"):
        read_rtstruct(contours, geometry, 9)


def test_ambiguous_names(contours, geometry, box):
    def rename(name):
        return lambda ds: setattr(ds.StructureSetROISequence[1], "ROIName", name)

    change(contours, rename("gtv-1"))
    np.testing.assert_array_equal(read_rtstruct(contours, geometry, "GTV-1").mask(3), box)
    with pytest.raises(UsageError, match="2 ROIs fit 'Gtv-1'"):
        read_rtstruct(contours, geometry, "Gtv-1")
    change(contours, rename("GTV-1"))
    with pytest.raises(UsageError, match="2 ROIs fit 'GTV-1'"):
        read_rtstruct(contours, geometry, "GTV-1")


def test_polygons_are_filled_at_pixel_centres_with_exclusive_or(contours, geometry):
    """Two overlapping triangles and a keyhole against skimage on indices."""
    a = np.array([[2.1, 2.2], [12.3, 4.1], [6.7, 15.2]])
    b = np.array([[4.2, 3.3], [14.1, 9.6], [3.4, 12.7]])

    def draw(dataset):
        sequence = dataset.ROIContourSequence[0].ContourSequence
        for contour, polygon in zip(sequence[:2], (a, b), strict=True):
            world = geometry.index_to_world(np.column_stack([np.full(3, 2.0), polygon]))
            contour.ContourData = [f"{v:.8g}" for v in world.ravel()]
        dataset.ROIContourSequence[0].ContourSequence = sequence[:2]

    change(contours, draw)
    mask = read_rtstruct(contours, geometry, "GTV-1").mask(3)
    expected = polygon2mask((17, 20), a) ^ polygon2mask((17, 20), b)
    np.testing.assert_array_equal(mask[2], expected)
    assert np.count_nonzero(mask) == np.count_nonzero(expected)


def test_oblique_grids(series, geometry, edit, tmp_path):
    turn = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    world = turn @ np.asarray(geometry.direction)
    grid = VolumeGeometry(geometry.shape, geometry.spacing, geometry.origin, world.tolist())

    def oblique(i, ds):
        ds.ImageOrientationPatient = [*np.round(world[:, 0], 12), *np.round(world[:, 1], 12)]
        ds.ImagePositionPatient = list(np.round(grid.index_to_world((i, 0, 0)), 9))

    edit(series, oblique)
    array = np.zeros(grid.shape, np.uint8)
    array[2:5, 3:9, 4:17] = 3
    write_rtstruct(LabelMap(array, grid, {3: "t"}), series, tmp_path / "rs.dcm")
    back = read_rtstruct(tmp_path / "rs.dcm", grid, "t")
    np.testing.assert_array_equal(back.array, array)
    straight = VolumeGeometry(geometry.shape, geometry.spacing, geometry.origin)
    with pytest.raises(DicomError, match="not planar in a slice"):
        read_rtstruct(tmp_path / "rs.dcm", straight, "t")


def test_another_frame_of_reference_is_refused(contours, geometry, series):
    uid = read_series(series).metadata["frame_of_reference_uid"]
    read_rtstruct(contours, geometry, "GTV-1", frame_of_reference_uid=uid)
    with pytest.raises(DicomError, match=rf"GTV-1.*\({uid}\).*\(1\.2\.3\)"):
        read_rtstruct(contours, geometry, "GTV-1", frame_of_reference_uid="1.2.3")


def test_an_empty_roi_is_refused(contours, geometry):
    change(contours, lambda ds: delattr(ds.ROIContourSequence[0], "ContourSequence"))
    assert list_rois(contours)[0].n_contours == 0
    with pytest.raises(DicomError, match=r"'GTV-1'.*is empty"):
        read_rtstruct(contours, geometry, "GTV-1")


@pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR", "OPEN_NONPLANAR"])
def test_other_contour_types_are_refused(contours, geometry, kind):
    change(contours, each_contour(lambda c: setattr(c, "ContourGeometricType", kind)))
    with pytest.raises(DicomError, match=rf"contour 1 of ROI 'GTV-1'.*{kind}"):
        read_rtstruct(contours, geometry, "GTV-1")


def test_degenerate_contours_are_left_out_with_a_warning(contours, geometry, box):
    def shorten(dataset):
        contour = dataset.ROIContourSequence[0].ContourSequence[0]
        contour.ContourData = contour.ContourData[:6]

    change(contours, shorten)
    with pytest.warns(LungFMWarning, match="1 contours with less than 3 points"):
        mask = read_rtstruct(contours, geometry, "GTV-1").mask(3)
    box[1] = False
    np.testing.assert_array_equal(mask, box)


def test_broken_coordinates_are_refused(contours, geometry):
    change(contours, each_contour(lambda c: setattr(c, "ContourData", c.ContourData[:-1])))
    with pytest.raises(DicomError, match=r"contour 1 of .*11 coordinates"):
        read_rtstruct(contours, geometry, "GTV-1")


def shift(offset):
    def apply(contour):
        contour.ContourData = [f"{v:.8g}" for v in (points(contour) + offset).ravel()]

    return each_contour(apply)


@pytest.mark.parametrize("offset", [(0, 0, 12.0), (0, 0, -6.0), (9.0, 0, 0), (0, -9.0, 0)])
def test_contours_outside_the_image_are_refused(contours, geometry, offset):
    change(contours, shift(offset))
    with pytest.raises(DicomError, match=r"of 3 contours of ROI 'GTV-1'.*outside.*\[-?\d+"):
        read_rtstruct(contours, geometry, "GTV-1")


def test_contours_a_little_beside_their_slice_are_noted(contours, geometry, box):
    change(contours, shift((0, 0, 0.8)))
    with pytest.warns(LungFMWarning, match=r"0\.80 mm beside their slice"):
        mask = read_rtstruct(contours, geometry, "GTV-1").mask(3)
    np.testing.assert_array_equal(mask, box)


def test_contours_midway_between_slices_are_refused(contours, geometry):
    change(contours, shift((0, 0, 1.25)))
    with pytest.raises(DicomError, match=r"not drawn on.*1\.25 mm beside"):
        read_rtstruct(contours, geometry, "GTV-1")


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.2, 1.3333])
def test_contours_of_another_slice_distance_are_refused(contours, geometry, factor):
    def squeeze(contour):
        world = points(contour)
        world[:, 2] = geometry.origin[2] + (world[:, 2] - geometry.origin[2]) * factor
        contour.ContourData = [f"{v:.8g}" for v in world.ravel()]

    change(contours, each_contour(squeeze))
    with pytest.raises(DicomError, match=r"not drawn on the slices of this image.*2\.5 mm apart"):
        read_rtstruct(contours, geometry, "GTV-1")


def test_skipped_slices_stay_empty_with_a_warning(contours, geometry, box):
    def drop(dataset):
        del dataset.ROIContourSequence[0].ContourSequence[1]

    change(contours, drop)
    with pytest.warns(LungFMWarning, match=r"1 slices .* first is slice 2\)"):
        mask = read_rtstruct(contours, geometry, "GTV-1").mask(3)
    box[2] = False
    np.testing.assert_array_equal(mask, box)


def test_not_an_rtstruct(series, tmp_path, geometry):
    with pytest.raises(InputFileError, match="no such file"):
        list_rois(tmp_path / "none.dcm")
    with pytest.raises(DicomError, match="not an RTSTRUCT but CT"):
        read_rtstruct(series / "slice_0001.dcm", geometry, "GTV-1")
    (tmp_path / "text.dcm").write_text("nothing of the kind, but long enough to be read")
    with pytest.raises(DicomError, match=r"text\.dcm"):
        list_rois(tmp_path / "text.dcm")
