"""Sample data for napari: synthetic chest CTs, made on the spot."""

from typing import Any, TypeAlias

from napari_lungfm.datasets.phantoms import Imaging, PhantomSpec, TumourSpec, generate_phantom
from napari_lungfm.geometry import VolumeGeometry

#: What napari makes a layer of: data, keyword arguments of the layer, its type.
LayerData: TypeAlias = tuple[Any, dict[str, Any], str]

#: The lung window, level −600 HU and width 1500 HU, as contrast limits.
LUNG_LIMITS = (-1350.0, 150.0)


def solid_tumour() -> list[LayerData]:
    """Return a chest CT with a spiculated tumour of 28 mm, and its reference labels."""
    return _layers("spiculated", 28.0, seed=3)


def ground_glass_tumour() -> list[LayerData]:
    """Return a chest CT with a part-solid tumour of 22 mm, and its reference labels."""
    return _layers("part-solid", 22.0, seed=8)


def tumour_at_the_pleura() -> list[LayerData]:
    """Return a chest CT with a tumour of 40 mm at the chest wall, without reference labels."""
    return _layers("juxta-pleural", 40.0, seed=5)[:1]


def _layers(kind: str, diameter_mm: float, *, seed: int) -> list[LayerData]:
    phantom = generate_phantom(
        PhantomSpec(
            seed=seed,
            shape=(80, 256, 256),
            spacing=(3.0, 1.4, 1.4),
            tumours=(TumourSpec(kind=kind, diameter_mm=diameter_mm),),
            imaging=Imaging(contrast="venous"),
        )
    )
    place = _placement(phantom.volume.geometry)
    return [
        (
            phantom.volume.array,
            {"name": f"CT, {kind} tumour", "contrast_limits": LUNG_LIMITS, **place},
            "image",
        ),
        (phantom.labels.array, {"name": "reference", "opacity": 0.4, **place}, "labels"),
    ]


def _placement(geometry: VolumeGeometry) -> dict[str, Any]:
    """Where a layer lies: millimetres, in the order of the array axes."""
    return {
        "scale": geometry.spacing,
        "translate": geometry.origin[::-1],
        "units": ("mm", "mm", "mm"),
        "axis_labels": ("z", "y", "x"),
        "metadata": {"geometry": geometry.to_dict()},
    }
