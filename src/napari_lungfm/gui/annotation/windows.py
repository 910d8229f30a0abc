"""Window presets of an image layer."""

from collections.abc import Mapping
from types import MappingProxyType

from napari.layers import Image

from napari_lungfm.preprocessing.windowing import WINDOWS, Window

#: Key → name of the preset that it shows.
PRESET_KEYS: Mapping[str, str] = MappingProxyType(
    {"F5": "lung", "F6": "mediastinum", "F7": "soft tissue", "F8": "bone"}
)


def show_window(layer: Image, window: Window) -> None:
    """Show a layer in a window; values outside the layer's range are allowed."""
    low, high = layer.contrast_limits_range
    layer.contrast_limits_range = (min(low, window.low), max(high, window.high))
    layer.contrast_limits = (window.low, window.high)


def shown_window(layer: Image) -> Window | None:
    """Return the window in which a layer is shown."""
    low, high = (float(v) for v in layer.contrast_limits)
    return Window.between(low, high) if high > low else None


def preset_name(window: Window | None) -> str | None:
    """Return the name of a preset, ``None`` for any other window."""
    for name, preset in WINDOWS.items():
        if window is not None and abs(preset.low - window.low) + abs(preset.high - window.high) < 1:
            return name
    return None


def describe(window: Window | None) -> str:
    """Return a window as on a radiology workstation: ``"L −600  W 1500"``."""
    if window is None:
        return "–"
    level = f"{window.level:g}".replace("-", "\N{MINUS SIGN}")
    return f"L {level}  W {window.width:g}"
