"""Where a napari layer lies in the patient: a `VolumeGeometry` into and out of a layer.

napari shows every volume in its own grid, slices along the first axis, and knows nothing of
directions in space. What it gets are millimetres along the grid's own axes; the true geometry
stays with the layer, in plain values under ``layer.metadata["lungfm"]`` (`METADATA_KEY`):

=======================  =========================================================================
``geometry``             shape and spacing ``(z, y, x)``, origin and direction in LPS, as
                         `VolumeGeometry.to_dict` writes them
``source``               the file or DICOM folder of the image, or ``None``
``series_uid``           SeriesInstanceUID of a DICOM image, or ``None``
``frame_of_reference``   FrameOfReferenceUID of a DICOM image, or ``None``
``labels``               of a labels layer: value → name
``session``              the saved session that a labels layer shows, or ``None``
``derived``              how a labels layer was made of other masks (`plugin.derived`), or ``None``
``notes``                what was put right or assumed when it was read
=======================  =========================================================================

Nothing here imports napari: layers are known by their attributes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeAlias

import numpy as np

from napari_lungfm._core.exceptions import GeometryError
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry, axis_codes
from napari_lungfm.plugin.derived import Derivation

#: What napari makes a layer of: data, keyword arguments of the layer, its type.
LayerData: TypeAlias = tuple[Any, dict[str, Any], str]

#: Where a layer's metadata keep what this package knows of it.
METADATA_KEY = "lungfm"

#: The lung window, level −600 HU and width 1500 HU, as contrast limits.
LUNG_LIMITS = (-1350.0, 150.0)

#: A CT has air outside the patient; values below this are not found in label maps or 8-bit images.
_AIR_HU = -500

#: Names of units of length as pint gives them → mm.
_MM_OF_UNIT = {
    "nanometer": 1e-6,
    "micrometer": 1e-3,
    "micron": 1e-3,
    "millimeter": 1.0,
    "centimeter": 10.0,
    "decimeter": 100.0,
    "meter": 1000.0,
    "inch": 25.4,
}

#: A screen shows rows downwards and columns rightwards: to the back or the feet, and to the
#: patient's left or the back, is how radiologists look at axial, coronal and sagittal slices.
_DOWNWARDS, _RIGHTWARDS = "PIL", "LPI"


class LayerLike(Protocol):
    """What is needed of a napari image or labels layer."""

    name: str
    data: Any
    metadata: dict[str, Any]
    scale: Any
    translate: Any
    units: Any


@dataclass(frozen=True)
class LayerInfo:
    """What a layer knows of its voxels; see the module for the keys of the metadata.

    Parameters
    ----------
    geometry
        The grid of the layer in the patient.
    source
        The file or DICOM folder of the image that it shows or belongs to.
    series_uid, frame_of_reference
        UIDs of that image, where it is DICOM.
    labels
        Label value → name.
    session
        The saved session that it shows.
    derived
        How it was made of other masks.
    notes
        What was put right or assumed.
    """

    geometry: VolumeGeometry
    source: str | None = None
    series_uid: str | None = None
    frame_of_reference: str | None = None
    labels: Mapping[int, str] = field(default_factory=dict)
    session: str | None = None
    derived: Derivation | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of_volume(cls, volume: Volume) -> Self:
        """Return what the metadata of a volume that `napari_lungfm.io` has read say."""
        facts = volume.metadata
        return cls(
            geometry=volume.geometry,
            source=facts.get("source"),
            series_uid=facts.get("series_uid") or None,
            frame_of_reference=facts.get("frame_of_reference_uid") or None,
            notes=tuple(facts.get("notes", ())),
        )

    def to_metadata(self) -> dict[str, Any]:
        """Return the metadata of a layer, in plain values; `from_metadata` reads them back."""
        return {
            METADATA_KEY: {
                "geometry": self.geometry.to_dict(),
                "source": self.source,
                "series_uid": self.series_uid,
                "frame_of_reference": self.frame_of_reference,
                "labels": {int(value): str(name) for value, name in self.labels.items()},
                "session": self.session,
                "derived": self.derived,
                "notes": list(self.notes),
            }
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Self | None:
        """Inverse of `to_metadata`; ``None`` for a layer that this package has not made."""
        facts = metadata.get(METADATA_KEY)
        if not isinstance(facts, Mapping) or "geometry" not in facts:
            return None
        return cls(
            geometry=VolumeGeometry.from_dict(facts["geometry"]),
            source=facts.get("source"),
            series_uid=facts.get("series_uid"),
            frame_of_reference=facts.get("frame_of_reference"),
            labels={int(value): str(name) for value, name in facts.get("labels", {}).items()},
            session=facts.get("session"),
            derived=facts.get("derived"),
            notes=tuple(facts.get("notes", ())),
        )


def placement(geometry: VolumeGeometry) -> dict[str, Any]:
    """Return ``scale``, ``translate``, ``units`` and ``axis_labels`` of a layer on a grid.

    The world of napari is then the grid's own axes, measured in mm from the origin of LPS.
    Rows and columns get a negative scale where the patient would lie upside down or mirrored on
    the screen otherwise, as in most NIfTI files; for axial grids, their coordinates are those of
    LPS, so that an image and a mask with flipped rows lie on each other. Slices keep the order
    of the file: the step of napari's slider is the index of the slice. No voxel is moved.
    """
    signs = _display_signs(geometry)
    along_axes = (np.asarray(geometry.direction).T @ np.asarray(geometry.origin))[::-1]
    return {
        "scale": tuple(sign * s for sign, s in zip(signs, geometry.spacing, strict=True)),
        "translate": tuple(sign * float(o) for sign, o in zip(signs, along_axes, strict=True)),
        "units": ("mm", "mm", "mm"),
        "axis_labels": ("z", "y", "x"),
    }


def image_layer(volume: Volume, name: str) -> LayerData:
    """Return an image layer: the voxels as they are, a CT in the lung window."""
    options: dict[str, Any] = {
        "name": name,
        "colormap": "gray",
        "metadata": LayerInfo.of_volume(volume).to_metadata(),
        **placement(volume.geometry),
    }
    if _is_ct(volume):
        options["contrast_limits"] = LUNG_LIMITS
    return (volume.array, options, "image")


def labels_layer(
    label_map: LabelMap, name: str, *, belongs_to: LayerInfo | None = None, **facts: Any
) -> LayerData:
    """Return a labels layer.

    Parameters
    ----------
    label_map
        The labels.
    name
        Name of the layer.
    belongs_to
        Of the image: its source and UIDs are needed to write the labels as DICOM.
    facts
        Further fields of `LayerInfo`: ``source``, ``session``, ``derived``, ``notes``.
    """
    if belongs_to is not None:
        facts = {
            "source": belongs_to.source,
            "series_uid": belongs_to.series_uid,
            "frame_of_reference": belongs_to.frame_of_reference,
            **facts,
        }
    info = LayerInfo(label_map.geometry, labels=dict(label_map.labels), **facts)
    options = {
        "name": name,
        "opacity": 0.4,
        "metadata": info.to_metadata(),
        **placement(label_map.geometry),
    }
    return (label_map.array, options, "labels")


def info_of_layer(layer: LayerLike) -> LayerInfo:
    """Return where an image or labels layer lies, whoever has made it.

    Raises
    ------
    GeometryError
        See `info_of_options`.
    """
    if getattr(layer, "multiscale", False) or getattr(layer, "rgb", False):
        kind = "an RGB image" if getattr(layer, "rgb", False) else "a multiscale image"
        msg = f"layer '{layer.name}' is {kind}; choose one of a single grey value per voxel"
        raise GeometryError(msg)
    names = ("name", "metadata", "scale", "translate", "units")
    options = {name: getattr(layer, name, None) for name in names}
    return info_of_options(np.shape(layer.data), options)


def info_of_options(shape: Sequence[int], options: Mapping[str, Any]) -> LayerInfo:
    """Return where a layer lies that is given by its shape and its options.

    The metadata count first. A layer of another plugin is placed by its scale, translation and
    units, as if its axes were those of LPS; a scale without units is taken as millimetres.

    Parameters
    ----------
    shape
        Shape of the data.
    options
        The keyword arguments of the layer, as a writer gets them.

    Raises
    ------
    GeometryError
        If the layer is not 3D, has no spacing, or was cut or padded since it was read.
    """
    name = options.get("name") or "image"
    if len(shape) != 3:
        msg = (
            f"layer '{name}' has {len(shape)} dimensions; a volume of slices (z, y, x) is needed: "
            "open the whole series instead of a single slice"
        )
        raise GeometryError(msg)
    info = LayerInfo.from_metadata(options.get("metadata") or {})
    if info is None:
        return _info_from_scale((shape[0], shape[1], shape[2]), name, options)
    if info.geometry.shape != tuple(shape):
        msg = (
            f"layer '{name}' has the shape {tuple(shape)}, but was read with "
            f"{info.geometry.shape} (z, y, x): its place in the patient is lost; open it again"
        )
        raise GeometryError(msg)
    return info


def _info_from_scale(
    shape: tuple[int, int, int], name: str, options: Mapping[str, Any]
) -> LayerInfo:
    scale = np.asarray(_or_default(options.get("scale"), np.ones(3)), dtype=np.float64)
    shift = np.asarray(_or_default(options.get("translate"), np.zeros(3)), dtype=np.float64)
    units = [str(unit) for unit in _or_default(options.get("units"), ("pixel",) * 3)]
    known = all(unit in _MM_OF_UNIT for unit in units)
    if not known and (set(units) != {"pixel"} or np.allclose(np.abs(scale), 1.0)):
        msg = (
            f"layer '{name}' has no spacing in mm (scale {scale.tolist()} {units[0]}); set it, "
            "for example layer.scale = (3, 0.7, 0.7) and layer.units = 'mm'"
        )
        raise GeometryError(msg)
    in_mm = np.array([_MM_OF_UNIT[unit] if known else 1.0 for unit in units])
    sz, sy, sx = (float(v) for v in np.abs(scale) * in_mm)
    ox, oy, oz = (float(v) for v in (shift * in_mm)[::-1])
    direction = np.diag(np.where(scale < 0, -1.0, 1.0)[::-1]).tolist()
    geometry = VolumeGeometry(shape, (sz, sy, sx), (ox, oy, oz), direction)
    spacing = f"{sz:g} × {sy:g} × {sx:g}"
    note = f"the image names no unit of length, and its spacing {spacing} (z, y, x) is taken as mm"
    notes = () if known else (note,)
    return LayerInfo(geometry, notes=notes)


def _or_default(value: Any, default: Any) -> Any:
    return default if value is None else value


def _display_signs(geometry: VolumeGeometry) -> tuple[int, int, int]:
    """1 or −1 for each array axis ``(z, y, x)``, −1 where the screen shows it reversed."""
    codes = axis_codes(geometry)
    return (1, 1 if codes[1] in _DOWNWARDS else -1, 1 if codes[2] in _RIGHTWARDS else -1)


def _is_ct(volume: Volume) -> bool:
    modality = volume.metadata.get("modality")
    return modality == "CT" or (not modality and bool(volume.array.min() < _AIR_HU))
