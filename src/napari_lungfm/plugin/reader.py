"""What napari opens: DICOM folders and files, NIfTI, NRRD, MetaImage, saved sessions."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from napari_lungfm import io
from napari_lungfm._core.exceptions import InputFileError
from napari_lungfm._core.types import PathInput, ProgressCallback
from napari_lungfm.geometry import LabelMap, Volume
from napari_lungfm.io.dicom_files import looks_like_dicom
from napari_lungfm.io.images import image_suffix
from napari_lungfm.plugin.derived import derivation_in, unmarked_name
from napari_lungfm.plugin.dicom_folder import read_folder, read_structure_file, structure_kind
from napari_lungfm.plugin.layer_geometry import (
    LayerData,
    LayerInfo,
    image_layer,
    labels_layer,
)
from napari_lungfm.plugin.palette import OTHER_COLOUR
from napari_lungfm.plugin.session_files import SESSION_SUFFIX, read_session_masks

ReaderFunction: TypeAlias = Callable[[str | list[str]], list[LayerData]]

#: Most different values that an image file may hold to be taken for labels.
MAX_LABELS = 32
#: A folder in which the first so many files are no DICOM is no DICOM folder.
_LOOKED_AT = 200


def get_reader(path: str | list[str]) -> ReaderFunction | None:
    """Return the reader of a path for npe2, or ``None`` for what is not ours.

    Parameters
    ----------
    path
        A file or folder; a list of them if napari is asked to stack them, which is refused but
        for the slices of one DICOM folder.
    """
    paths = [path] if isinstance(path, str) else list(path)
    if not paths:
        return None
    if len(paths) > 1 and not (_in_one_folder(paths) and all(map(_is_dicom, paths))):
        return None
    first = Path(paths[0])
    known = (
        _holds_dicom(first)
        if first.is_dir()
        else image_suffix(first) is not None or _is_session(first) or _is_dicom(first)
    )
    return read_layers if known else None


def read_layers(
    path: PathInput | Sequence[PathInput], *, progress: ProgressCallback | None = None
) -> list[LayerData]:
    """Read what is at a path as napari layers.

    Parameters
    ----------
    path
        A DICOM folder (the largest CT series and all structures drawn on it), a DICOM file (the
        series that it belongs to; the structures of an RTSTRUCT or SEG), a NIfTI, NRRD or
        MetaImage file (an image, or labels where it holds few different values from 0 up), or a
        saved session (its masks). Of a list, the first stands for all.
    progress
        Called with the slices read and their number while a DICOM series is read.

    Returns
    -------
    list of LayerData
        CT as int16; labels as unsigned integers; see `layer_geometry` for their options.

    Raises
    ------
    LungFMError
        One line that says what cannot be read and why.

    Warns
    -----
    LungFMWarning
        What was left out or put right.
    """
    single = path if isinstance(path, str | os.PathLike) else path[0]
    source = Path(single)
    if source.is_dir():
        return _folder_layers(source, progress)
    if not source.is_file():
        msg = f"cannot read '{source}': there is no such file or folder"
        raise InputFileError(msg)
    if _is_session(source):
        return [_session_layer(source)]
    if image_suffix(source) is not None:
        return [_file_layer(source)]
    if structure_kind(source) is not None:
        return [
            _structure_layer(name, label_map, info)
            for name, label_map, info in read_structure_file(source)
        ]
    volume = io.read_volume(source, progress=progress)
    return [image_layer(volume, _title(volume, source))]


def _folder_layers(folder: Path, progress: ProgressCallback | None) -> list[LayerData]:
    volume, structures = read_folder(folder, progress=progress)
    info = LayerInfo.of_volume(volume)
    layers = [image_layer(volume, _title(volume, folder))]
    layers += [_structure_layer(name, mask, info) for name, mask in structures]
    return layers


def _structure_layer(name: str, mask: LabelMap, image: LayerInfo) -> LayerData:
    name, derived = unmarked_name(name)
    names = {value: unmarked_name(each)[0] for value, each in mask.labels.items()}
    return labels_layer(replace(mask, labels=names), name, belongs_to=image, derived=derived)


def _file_layer(path: Path) -> LayerData:
    volume = io.read_image(path)
    name = path.name[: -len(image_suffix(path) or "")]
    if not _holds_labels(volume):
        return image_layer(volume, name)
    derived = derivation_in(io.read_note(path))
    return labels_layer(io.read_label_map(path), name, source=str(path), derived=derived)


def _session_layer(path: Path) -> LayerData:
    masks = read_session_masks(path)
    data, options, kind = labels_layer(masks.label_map, path.stem, session=str(path))
    # napari wants a colour for the background and one for all other labels as well.
    others: dict[int | None, str] = {None: OTHER_COLOUR, 0: "transparent"}
    return (data, {**options, "colormap": {**others, **masks.colours}}, kind)


def _holds_labels(volume: Volume) -> bool:
    """Whether an image file is a label map: it has few values, whole ones from 0 up."""
    array = volume.array
    if not np.issubdtype(array.dtype, np.integer) or array.min() != 0:
        return False
    values: set[int] = set()
    for plane in array:
        values.update(np.unique(plane).tolist())
        if len(values) > MAX_LABELS:
            return False
    return True


def _title(volume: Volume, source: Path) -> str:
    # Not the patient's name or ID: layer names end up in screenshots.
    described = str(volume.metadata.get("series_description") or "")
    folder = source if source.is_dir() else source.absolute().parent
    title = folder.name if described in ("", "None") else described
    return f"{volume.metadata.get('modality') or 'CT'} {title}"


def _is_session(path: Path) -> bool:
    return path.name.lower().endswith(SESSION_SUFFIX)


def _in_one_folder(paths: Sequence[str]) -> bool:
    return len({Path(path).parent for path in paths}) == 1


def _is_dicom(path: PathInput) -> bool:
    try:
        return Path(path).is_file() and looks_like_dicom(Path(path))
    except InputFileError:
        return False


def _holds_dicom(folder: Path) -> bool:
    looked_at = 0
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if _is_dicom(Path(place, name)):
                return True
            looked_at += 1
            if looked_at >= _LOOKED_AT:
                return False
    return False
