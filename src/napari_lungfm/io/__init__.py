"""Files in and out: NIfTI, NRRD, MetaImage, DICOM series, RTSTRUCT and DICOM SEG.

The names load when first used, because SimpleITK and pydicom take a quarter of a second that a
command's ``--help`` does not have.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_lungfm.io.dicom_seg import SegmentInfo, list_segments, read_seg
    from napari_lungfm.io.dicom_series import (
        SeriesInfo,
        find_segmentations,
        find_series,
        read_series,
    )
    from napari_lungfm.io.dicom_writers import write_rtstruct, write_seg, write_series
    from napari_lungfm.io.images import (
        check_output,
        from_sitk,
        read_image,
        read_label_map,
        read_note,
        to_sitk,
        write_image,
        write_label_map,
    )
    from napari_lungfm.io.reading import read_volume
    from napari_lungfm.io.rtstruct import RoiInfo, list_rois, read_rtstruct

_MODULE_OF = {
    "RoiInfo": "rtstruct",
    "SegmentInfo": "dicom_seg",
    "check_output": "images",
    "SeriesInfo": "dicom_series",
    "find_segmentations": "dicom_series",
    "find_series": "dicom_series",
    "from_sitk": "images",
    "list_rois": "rtstruct",
    "list_segments": "dicom_seg",
    "read_image": "images",
    "read_label_map": "images",
    "read_note": "images",
    "read_rtstruct": "rtstruct",
    "read_seg": "dicom_seg",
    "read_series": "dicom_series",
    "read_volume": "reading",
    "to_sitk": "images",
    "write_image": "images",
    "write_label_map": "images",
    "write_rtstruct": "dicom_writers",
    "write_seg": "dicom_writers",
    "write_series": "dicom_writers",
}

__all__ = [
    "RoiInfo",
    "SegmentInfo",
    "SeriesInfo",
    "check_output",
    "find_segmentations",
    "find_series",
    "from_sitk",
    "list_rois",
    "list_segments",
    "read_image",
    "read_label_map",
    "read_note",
    "read_rtstruct",
    "read_seg",
    "read_series",
    "read_volume",
    "to_sitk",
    "write_image",
    "write_label_map",
    "write_rtstruct",
    "write_seg",
    "write_series",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        msg = f"module '{__name__}' has no attribute '{name}'"
        raise AttributeError(msg)
    module = importlib.import_module(f"{__name__}.{_MODULE_OF[name]}")
    return getattr(module, name)
