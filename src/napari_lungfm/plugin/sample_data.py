"""Sample data for napari: synthetic chest CTs, made on the spot."""

from napari_lungfm.datasets.phantoms import Imaging, PhantomSpec, TumourSpec, generate_phantom
from napari_lungfm.plugin.layer_geometry import LayerData, image_layer, labels_layer


def solid_tumour() -> list[LayerData]:
    """Return a chest CT with a spiculated tumour of 28 mm, and its reference labels."""
    return _layers("spiculated", 28.0, seed=3)


def ground_glass_tumour() -> list[LayerData]:
    """Return a chest CT with a part-solid tumour of 22 mm, and its reference labels."""
    return _layers("part-solid", 22.0, seed=8)


def cavitating_tumour() -> list[LayerData]:
    """Return a chest CT with a cavitating tumour of 45 mm, and its reference labels."""
    return _layers("cavitating", 45.0, seed=11)


def tumour_at_atelectasis() -> list[LayerData]:
    """Return a chest CT with a tumour of 40 mm beside collapsed lung, and its reference labels."""
    return _layers("atelectasis", 40.0, seed=14)


def tumour_at_the_pleura() -> list[LayerData]:
    """Return a chest CT with a tumour of 40 mm at the chest wall, without reference labels."""
    return _layers("juxta-pleural", 40.0, seed=5)[:1]


def small_nodule() -> list[LayerData]:
    """Return a chest CT with a round nodule of 10 mm, without reference labels."""
    return _layers("solid-round", 10.0, seed=17)[:1]


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
    return [
        image_layer(phantom.volume, f"CT, {kind} tumour"),
        labels_layer(phantom.labels, "reference"),
    ]
