"""What napari writes of a labels layer: NIfTI, NRRD, MetaImage, DICOM SEG, RTSTRUCT."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_lungfm import io
from napari_lungfm._core.exceptions import DataError, LungFMError, UsageError
from napari_lungfm.geometry import LabelMap
from napari_lungfm.plugin.derived import marked_name, note_of
from napari_lungfm.plugin.layer_geometry import LayerInfo, info_of_options


def write_labels(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Write a labels layer as NIfTI, NRRD or MetaImage, by the end of the file name.

    Parameters
    ----------
    path
        The file; its name ends in ``.nii.gz``, ``.nii``, ``.nrrd`` or ``.mha``.
    data
        Integer labels ``(z, y, x)``.
    options
        The layer's keyword arguments, as npe2 gives them; see `info_of_options`.

    Returns
    -------
    list of str
        The file that was written.

    Raises
    ------
    LungFMError
        One line: another ending, a layer without spacing, a file that cannot be written, or one
        that would overwrite the image.
    """
    label_map, info = _label_map(data, options)
    _refuse_overwriting(Path(path), info)
    io.write_label_map(label_map, path, note=note_of(info.derived))
    return [path]


def write_dicom_seg(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Write a labels layer as a DICOM SEG of the series that it belongs to.

    Parameters and errors are those of `write_labels`; the layer must belong to a DICOM series.
    """
    return _write_dicom(path, data, options, io.write_seg, "a DICOM SEG")


def write_rtstruct(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Write a labels layer as an RTSTRUCT of the series that it belongs to.

    Parameters and errors are those of `write_labels`; the layer must belong to a DICOM series.
    """
    return _write_dicom(path, data, options, io.write_rtstruct, "an RTSTRUCT")


def _write_dicom(
    path: str, data: Any, options: dict[str, Any], write: Callable[..., None], kind: str
) -> list[str]:
    label_map, info = _label_map(data, options)
    if info.source is None or info.series_uid is None:
        msg = (
            f"{kind} names the slices that it belongs to, but layer '{options.get('name')}' was "
            "not made on a DICOM series; write it as NIfTI (.nii.gz) or NRRD instead"
        )
        raise UsageError(msg)
    _refuse_overwriting(Path(path), info)
    names = {value: label_map.labels.get(value, f"label {value}") for value in label_map.present()}
    marked = {value: marked_name(name, info.derived) for value, name in names.items()}
    write(replace(label_map, labels=marked), info.source, path, series=info.series_uid)
    return [path]


def _label_map(data: Any, options: dict[str, Any]) -> tuple[LabelMap, LayerInfo]:
    info = info_of_options(np.shape(data), options)
    array = np.asarray(data)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer) or array.min() < 0:
        msg = f"layer '{options.get('name')}' is not a label map: labels are whole numbers from 0"
        raise DataError(msg)
    label_map = LabelMap(array, info.geometry, dict(info.labels))
    unnamed = [value for value in label_map.present() if value not in info.labels]
    if len(unnamed) == 1 and not info.labels:  # a layer of one structure is called after it
        names = {unnamed[0]: str(options.get("name") or f"label {unnamed[0]}")}
        label_map = LabelMap(array, info.geometry, names)
    return label_map, info


def _refuse_overwriting(path: Path, info: LayerInfo) -> None:
    """Refuse to write on the image that a layer was read from or belongs to."""
    if info.source is None or not path.exists():
        return
    source = Path(info.source)
    is_source = source.exists() and path.samefile(source)
    in_series = source.is_dir() and _is_slice(path, source)
    if is_source or in_series:
        msg = f"'{path}' would overwrite what the layer was read from; choose another name"
        raise UsageError(msg)


def _is_slice(path: Path, folder: Path) -> bool:
    try:
        return any(path.samefile(p) for series in io.find_series(folder) for p in series.paths)
    except LungFMError:
        return True  # the folder cannot be looked through: better another name
