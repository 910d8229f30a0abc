"""Write CT series, RTSTRUCT and DICOM SEG, whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, RTStructureSetStorage, generate_uid

from napari_lungfm import __version__
from napari_lungfm._core.exceptions import DataError
from napari_lungfm._core.files import atomic_path
from napari_lungfm._core.types import PathInput, VoxelArray
from napari_lungfm.geometry import LabelMap, Structure, Volume, match_geometry
from napari_lungfm.io.dicom_files import quiet_pydicom, read_dataset
from napari_lungfm.io.dicom_objects import (
    MAKER,
    atomic_folder,
    completed,
    copy_patient_study,
    decimals,
    digest,
    frame_of_reference,
    new_dataset,
    stamp,
)
from napari_lungfm.io.dicom_series import arrange_series
from napari_lungfm.io.itk import check_finite, is_whole
from napari_lungfm.io.outlines import trace_outlines
from napari_lungfm.io.slice_stack import SliceStack

_INT16 = np.iinfo(np.int16)
_STUDY_COMPONENT_CLASS = "1.2.840.10008.3.1.2.3.1"  # what RT Referenced Study points to
_COLOURS = {1: (86, 180, 233), 2: (0, 158, 115), 3: (213, 94, 0)}  # Okabe and Ito 2008
_OTHER_COLOUR = (204, 121, 167)
_ANATOMICAL = ("91723000", "SCT", "Anatomical Structure")
_ABNORMAL = ("49755003", "SCT", "Morphologically Abnormal Structure")
_CODES = {
    int(Structure.LEFT_LUNG): (_ANATOMICAL, ("44029006", "SCT", "Left lung")),
    int(Structure.RIGHT_LUNG): (_ANATOMICAL, ("3341006", "SCT", "Right lung")),
    int(Structure.TUMOUR): (_ABNORMAL, ("108369006", "SCT", "Neoplasm")),
}
_OTHER_CODES = (("85756007", "SCT", "Tissue"), ("85756007", "SCT", "Tissue"))


def write_series(
    volume: Volume,
    folder: PathInput,
    *,
    patient_id: str = "ANON",
    description: str = "",
    study_uid: str | None = None,
    series_uid: str | None = None,
    frame_of_reference_uid: str | None = None,
) -> list[Path]:
    """Write a volume as a CT Image Storage series, explicit VR little endian, one file a slice.

    Parameters
    ----------
    volume
        HU, whole numbers within int16, on any grid; slices run along the first array axis.
    folder
        Where to; it must not exist or be empty.
    patient_id, description
        PatientID (and PatientName) and SeriesDescription.
    study_uid, series_uid, frame_of_reference_uid
        UIDs; by default derived from the content, so that equal volumes get equal UIDs.

    Returns
    -------
    list of Path
        The files in slice order.

    Raises
    ------
    DataError
        If the voxels are not whole numbers within int16.
    OutputError
        If the folder holds something or cannot be written; nothing half-written is left.
    """
    array = _as_int16(volume.array)
    seed = [patient_id, description, repr(volume.geometry.to_dict()), digest(array)]
    study = study_uid or generate_uid(entropy_srcs=[*seed, "study"])
    uids = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series_uid or generate_uid(entropy_srcs=[*seed, "series", study]),
        "FrameOfReferenceUID": frame_of_reference_uid
        or generate_uid(entropy_srcs=[*seed, "frame of reference", study]),
    }
    target = Path(folder)
    names = [f"slice_{z + 1:04d}.dcm" for z in range(volume.shape[0])]
    with atomic_folder(target) as temporary:
        for z, name in enumerate(names):
            dataset = new_dataset(
                CTImageStorage,
                generate_uid(entropy_srcs=[*seed, uids["SeriesInstanceUID"], str(z)]),
            )
            dataset.update(uids)
            dataset.PatientID = dataset.PatientName = patient_id
            dataset.SeriesDescription = description
            _fill_slice(dataset, volume, array[z], z)
            dataset.save_as(temporary / name, enforce_file_format=True)
    return [target / name for name in names]


def write_rtstruct(
    label_map: LabelMap,
    source: PathInput,
    path: PathInput,
    roi_names: Mapping[int, str] | None = None,
    *,
    series: str | None = None,
) -> None:
    """Write the labels of a map as the regions of an RTSTRUCT.

    Contours run along pixel edges (see `trace_outlines`), holes are contours of their own, so
    that the exclusive-or of the filled contours, as `read_rtstruct` takes it, is the same mask.

    Parameters
    ----------
    label_map
        The labels; they may lie on a part of the image's grid, mirrored or permuted.
    source
        Folder of the DICOM series that the labels belong to.
    path
        The file to write.
    roi_names
        Label value → ROI name; by default all labels that occur, under their names.
    series
        Which series in ``source``; see `read_series`.

    Raises
    ------
    DataError
        If the label map is empty.
    GeometryError
        If it is not on the voxel grid of the series.
    DicomError, UsageError
        If the series cannot be used.
    OutputError
        If the file cannot be written.
    """
    stack = arrange_series(source, series=series)
    placed = match_geometry(label_map, stack.geometry)
    names = _names(placed, roi_names)
    first = read_dataset(stack.files[0].path, pixels=False)
    frame_uid = frame_of_reference(first)
    seed = [first.SeriesInstanceUID, digest(placed.array), repr(sorted(names.items()))]
    dataset = new_dataset(RTStructureSetStorage, generate_uid(entropy_srcs=[*seed, "rtstruct"]))
    copy_patient_study(first, dataset)
    stamp(dataset, "StructureSetDate", "StructureSetTime")
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[*seed, "rtstruct series"])
    dataset.SeriesDescription = "Contours"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.OperatorsName = ""
    dataset.StructureSetLabel = MAKER
    dataset.FrameOfReferenceUID = frame_uid
    dataset.PositionReferenceIndicator = ""
    dataset.ApprovalStatus = "UNAPPROVED"
    dataset.ReferencedFrameOfReferenceSequence = [_referenced_frame(stack, first, frame_uid)]
    rois = [_roi(n, title, frame_uid) for n, title in enumerate(names.values(), start=1)]
    dataset.StructureSetROISequence = [r[0] for r in rois]
    dataset.RTROIObservationsSequence = [r[1] for r in rois]
    dataset.ROIContourSequence = [
        _roi_contours(placed, value, number, stack) for number, value in enumerate(names, start=1)
    ]
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def write_seg(
    label_map: LabelMap,
    source: PathInput,
    path: PathInput,
    segment_names: Mapping[int, str] | None = None,
    *,
    series: str | None = None,
    algorithm: str | None = None,
) -> None:
    """Write the labels of a map as the binary segments of a DICOM SEG, with highdicom.

    Parameters
    ----------
    label_map, source, path, series
        As in `write_rtstruct`.
    segment_names
        Label value → segment label; by default all labels that occur, under their names.
        Segments are numbered from 1 in the order of the label values.
    algorithm
        Name of the model behind a semi-automatic segmentation; by default the segments are
        marked as drawn by hand.

    Raises
    ------
    DataError, GeometryError, DicomError, UsageError, OutputError
        As in `write_rtstruct`.
    """
    import highdicom  # noqa: PLC0415  (a fifth of a second)

    stack = arrange_series(source, series=series)
    placed = match_geometry(label_map, stack.geometry)
    names = _names(placed, segment_names)
    numbered = np.zeros(placed.shape, dtype=np.uint8 if len(names) < 256 else np.uint16)
    for number, value in enumerate(names, start=1):
        numbered[placed.array == value] = number
    images = [completed(read_dataset(f.path, pixels=False)) for f in stack.files]
    seed = [images[0].SeriesInstanceUID, digest(numbered), repr(sorted(names.items()))]
    with quiet_pydicom():
        segmentation = highdicom.seg.Segmentation(
            source_images=images,
            pixel_array=numbered,
            segmentation_type="BINARY",
            segment_descriptions=[
                _segment(number, value, names[value], algorithm)
                for number, value in enumerate(names, start=1)
            ],
            series_instance_uid=generate_uid(entropy_srcs=[*seed, "seg series"]),
            series_number=1,
            sop_instance_uid=generate_uid(entropy_srcs=[*seed, "seg"]),
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name=MAKER,
            software_versions=__version__,
            device_serial_number="0",
            series_description="Segmentation",
        )
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)


def _fill_slice(dataset: Any, volume: Volume, plane: VoxelArray, z: int) -> None:
    geometry = volume.geometry
    direction = np.asarray(geometry.direction)
    dataset.Modality = "CT"
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = z + 1
    dataset.KVP = dataset.AcquisitionNumber = dataset.PositionReferenceIndicator = ""
    dataset.ImagePositionPatient = decimals(geometry.index_to_world((z, 0, 0)))
    dataset.ImageOrientationPatient = decimals(np.concatenate([direction[:, 0], direction[:, 1]]))
    dataset.PixelSpacing = decimals(np.asarray(geometry.spacing[1:]))
    dataset.SliceThickness = decimals(np.asarray(geometry.spacing[:1]))[0]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.RescaleSlope = "1"
    dataset.RescaleIntercept = "0"
    dataset.RescaleType = "HU"
    dataset.PixelData = np.ascontiguousarray(plane, dtype="<i2").tobytes()


def _as_int16(array: VoxelArray) -> VoxelArray:
    check_finite(array, "the volume")
    low, high = float(array.min()), float(array.max())
    if low < _INT16.min or high > _INT16.max or not is_whole(array):
        msg = (
            f"a CT series stores whole HU within {_INT16.min} to {_INT16.max}, but the volume "
            f"holds {array.dtype} values from {low:g} to {high:g}; round them first"
        )
        raise DataError(msg)
    return array.astype(np.int16, copy=False)


def _names(label_map: LabelMap, chosen: Mapping[int, str] | None) -> dict[int, str]:
    """Label value → name of what is written, in ascending order of the values."""
    present = label_map.present()
    if chosen is None:
        chosen = {v: label_map.labels.get(v, f"label {v}") for v in present}
    missing = [f"{value} ('{name}')" for value, name in chosen.items() if value not in present]
    if missing or not chosen:
        what = f"no voxel with the label {', '.join(missing)}" if missing else "no labelled voxel"
        msg = f"the label map has {what}; there is nothing to write"
        raise DataError(msg)
    return {value: chosen[value] for value in sorted(chosen)}


def _referenced_frame(stack: SliceStack, first: Any, frame_uid: str) -> Any:
    series = Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    series.ContourImageSequence = [_image_reference(f.header) for f in stack.files]
    study = Dataset()
    study.ReferencedSOPClassUID = _STUDY_COMPONENT_CLASS
    study.ReferencedSOPInstanceUID = first.get("StudyInstanceUID") or first.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = frame_uid
    frame.RTReferencedStudySequence = [study]
    return frame


def _image_reference(header: Any) -> Any:
    reference = Dataset()
    reference.ReferencedSOPClassUID = header.SOPClassUID
    reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return reference


def _roi(number: int, name: str, frame_uid: str) -> tuple[Any, Any]:
    roi = Dataset()
    roi.ROINumber = number
    roi.ReferencedFrameOfReferenceUID = frame_uid
    roi.ROIName = name
    roi.ROIGenerationAlgorithm = "SEMIAUTOMATIC"
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.RTROIInterpretedType = observation.ROIInterpreter = ""
    return roi, observation


def _roi_contours(label_map: LabelMap, value: int, number: int, stack: SliceStack) -> Any:
    item = Dataset()
    item.ROIDisplayColor = list(_COLOURS.get(value, _OTHER_COLOUR))
    item.ReferencedROINumber = number
    contours = []
    for z in np.flatnonzero((label_map.array == value).any(axis=(1, 2))):
        for outline in trace_outlines(label_map.array[z] == value):
            indices = np.column_stack([np.full(len(outline), float(z)), outline])
            points = stack.geometry.index_to_world(indices)
            contour = Dataset()
            contour.ContourImageSequence = [_image_reference(stack.files[z].header)]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = decimals(points.ravel())
            contours.append(contour)
    item.ContourSequence = contours
    return item


def _segment(number: int, value: int, name: str, algorithm: str | None) -> Any:
    import highdicom  # noqa: PLC0415

    category, kind = (highdicom.sr.CodedConcept(*code) for code in _CODES.get(value, _OTHER_CODES))
    identification = None
    if algorithm is not None:
        identification = highdicom.AlgorithmIdentificationSequence(
            name=algorithm,
            family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
            version=__version__,
        )
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="MANUAL" if identification is None else "SEMIAUTOMATIC",
        algorithm_identification=identification,
    )
