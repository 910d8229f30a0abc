"""Settings of the widgets, kept by napari (Preferences → Plugins → LungFM)."""

from typing import Any

#: Key of the configuration in the manifest.
_KEY = "annotation"
_DEFAULTS: dict[str, Any] = {
    "model": "lungfm-s",
    "device": "auto",
    "autosave": True,
    "show_quality": True,
    "model_window": "as published",
}


def setting(name: str) -> Any:
    """Return a setting; its default where napari does not know it.

    Parameters
    ----------
    name
        One of ``model``, ``device``, ``autosave``, ``show_quality``, ``model_window``.
    """
    try:
        from napari.settings import get_plugin_settings  # noqa: PLC0415

        return getattr(getattr(get_plugin_settings("napari-lungfm"), _KEY), name)
    except Exception:  # noqa: BLE001 - a plugin that napari does not know, an older napari
        return _DEFAULTS[name]
